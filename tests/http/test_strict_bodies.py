"""Bodies that are not what they should be, over real sockets: always a clear 4xx problem or the right verdict."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsvc import strict_json
from rewardsvc.errors import NotJson, Problem, TooLarge
from tests.http.raw_http import Reply, ask, encoded, head, post

if TYPE_CHECKING:
    from tests.conftest import Service

MIB = 1 << 20


def within(value: bytes) -> bytes:
    """A request that is right but for this JSON in its metadata."""
    return b'{"task": {"reference": "1", "metadata": {"x": ' + value + b'}}, "rollouts": [{"completion": "1"}]}'


NOT_JSON = {
    "invalid UTF-8": within(b'"\xff"'),
    "truncated UTF-8": within(b'"\xf0\x9f\x98"'),
    "overlong UTF-8": within(b'"\xc0\xaf"'),
    "UTF-8 of a surrogate": within(b'"\xed\xa0\x80"'),
    "invalid UTF-8 in a key": within(b'{"\xff": 1}'),
    "invalid UTF-8 between values": within(b"\xff1"),
    "high surrogate alone": within(rb'"\ud800"'),
    "low surrogate alone": within(rb'"\udc00"'),
    "surrogates the wrong way round": within(rb'"\udc00\ud800"'),
    "high surrogate before a letter": within(rb'"\ud800A"'),
    "surrogate in a key": within(rb'{"\ud800": 1}'),
    "raw NUL in a string": within(b'"\0"'),
    "raw newline in a string": within(b'"\n"'),
    "NUL after the end": encoded({"rollouts": []}) + b"\0",
    "byte order mark": b"\xef\xbb\xbf" + encoded({"rollouts": []}),
    "UTF-16": '{"rollouts": []}'.encode("utf-16"),
    "UTF-16 without a mark": '{"rollouts": []}'.encode("utf-16-le"),
    "UTF-32": '{"rollouts": []}'.encode("utf-32"),
    "NaN": within(b"NaN"),
    "Infinity": within(b"Infinity"),
    "-Infinity": within(b"-Infinity"),
    "1e400": within(b"1e400"),
    "integer of 10,000 digits": within(b"1" * 10_000),
    "leading zero": within(b"01"),
    "hexadecimal": within(b"0x1"),
    "trailing comma": within(b"[1,]"),
    "comment": within(b"1 /* one */"),
    "single quotes": within(b"'a'"),
    "cut off": within(b"1")[:-1],
    "cut off in a string": within(b'"abc')[:-60],
    "a second document": encoded({"rollouts": []}) * 2,
    "letters after the end": encoded({"rollouts": []}) + b"x",
    "empty": b"",
    "white space": b" \r\n\t",
    "key twice at the top": b'{"rollouts": [], "rollouts": []}',
    "key twice in the task": b'{"task": {"reference": "1", "reference": "2"}, "rollouts": []}',
    "key twice in a rollout": b'{"rollouts": [{"completion": "1", "completion": "2"}]}',
    "key twice in a message": b'{"rollouts": [{"completion": [{"role": "user", "role": "user", "content": ""}]}]}',
    "key twice in params": b'{"rollouts": [], "params": {"numeric": true, "numeric": false}}',
    "key twice deep in metadata": within(b'[{"a": [{"b": 1, "c": 2, "b": 3}]}]'),
    "key twice, spelt differently": within(rb'{"a": 1, "\u0061": 2}'),
    "key twice, hidden by an escaped quote": within(rb'{"a": 1, "a": "\u0022\u0022"}'),
    "key twice, a quote escaped in two ways": within(rb'{"\"": 1, "\u0022": 2}'),
}
TOO_LARGE = {
    "nesting 65": within(b"[" * 62 + b"]" * 62),
    "nesting 100": within(b"[" * 100 + b"]" * 100),
    "nesting 1,000": within(b'{"a":' * 1_000 + b"1" + b"}" * 1_000),
    "nesting 100,000": within(b"[" * 100_000 + b"]" * 100_000),
    "nesting 100,000, never closed": b"[" * 100_000,
    "integer of 1,001 digits": within(b"1" * 1_001),
    "negative integer of 1,001 digits": within(b"-" + b"1" * 1_001),
    "a million empty objects": within(b"[" + b"{}," * 1_000_000 + b"1]"),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_strict_json_is_400(service_with_plugins: Service, body: bytes) -> None:
    reply = ask(service_with_plugins.port, post(body))
    assert (reply.status, reply.slug) == (400, "not-json")
    assert reply.problem()["detail"]


@pytest.mark.parametrize("body", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_json_over_a_limit_is_413(service_with_plugins: Service, body: bytes) -> None:
    reply = ask(service_with_plugins.port, post(body))
    assert (reply.status, reply.slug) == (413, "too-large")


def test_an_integer_that_is_too_long_is_pointed_at(service_with_plugins: Service) -> None:
    reply = ask(service_with_plugins.port, post(within(b'{"a/b": [0, 1%b]}' % (b"0" * 1_000))))
    assert reply.problem()["errors"][0]["pointer"] == "/task/metadata/x/a~1b/1"


def test_the_byte_that_is_not_utf8_is_named(service_with_plugins: Service) -> None:
    body = within(b'"\xff"')
    assert f"byte {body.index(0xFF)} " in ask(service_with_plugins.port, post(body)).problem()["detail"]


def test_nesting_to_the_limit_and_integers_of_a_thousand_digits_are_taken(service_with_plugins: Service) -> None:
    deepest = b"[" * 61 + b"18446744073709551616, -9223372036854775809, 1" + b"0" * 999 + b"]" * 61
    assert ask(service_with_plugins.port, post(within(deepest))).status == 200


SHAPES: dict[str, tuple[Any, str]] = {
    "a list": ([], ""),
    "a string": ("rollouts", ""),
    "null": (None, ""),
    "no rollouts": ({}, ""),
    "null rollouts": ({"rollouts": None}, "/rollouts"),
    "rollouts as an object": ({"rollouts": {"0": "a"}}, "/rollouts"),
    "a rollout as a string": ({"rollouts": ["a"]}, "/rollouts/0"),
    "no completion": ({"rollouts": [{"completion": "a"}, {}]}, "/rollouts/1"),
    "a null completion": ({"rollouts": [{"completion": None}]}, "/rollouts/0/completion"),
    "a number for a completion": ({"rollouts": [{"completion": 1}]}, "/rollouts/0/completion"),
    "a message without content": ({"rollouts": [{"completion": [{"role": "user"}]}]}, "/rollouts/0/completion/0"),
    "content that is no string": (
        {"rollouts": [{"completion": [{"role": "user", "content": [{"type": "text"}]}]}]},
        "/rollouts/0/completion/0/content",
    ),
    "an id that is a number": ({"rollouts": [{"id": 1, "completion": "a"}]}, "/rollouts/0/id"),
    "an id of 257 letters": ({"rollouts": [{"id": "a" * 257, "completion": "a"}]}, "/rollouts/0/id"),
    "rollout metadata as a list": ({"rollouts": [{"completion": "a", "metadata": []}]}, "/rollouts/0/metadata"),
    "task as a string": ({"task": "1", "rollouts": []}, "/task"),
    "task metadata as null": ({"task": {"metadata": None}, "rollouts": []}, "/task/metadata"),
    "a number for a prompt": ({"task": {"prompt": 1}, "rollouts": []}, "/task/prompt"),
    "params as a list": ({"params": [], "rollouts": []}, "/params"),
    "a param of the wrong type": ({"params": {"numeric": "yes"}, "rollouts": []}, "/params/numeric"),
    "deadline 0": ({"deadline_ms": 0, "rollouts": []}, "/deadline_ms"),
    "deadline as a string": ({"deadline_ms": "50", "rollouts": []}, "/deadline_ms"),
    "deadline as a fraction": ({"deadline_ms": 1.5, "rollouts": []}, "/deadline_ms"),
    "deadline as a truth value": ({"deadline_ms": True, "rollouts": []}, "/deadline_ms"),
    "deadline over an hour": ({"deadline_ms": 3_600_001, "rollouts": []}, "/deadline_ms"),
    "an unknown field at the top": ({"rollouts": [], "reward": "exact"}, "/reward"),
    "an unknown field in the task": ({"task": {"answer": "1"}, "rollouts": []}, "/task/answer"),
    "an unknown field in a rollout": ({"rollouts": [{"completion": "a", "reward": 1}]}, "/rollouts/0/reward"),
    "an unknown field in a message": (
        {"rollouts": [{"completion": [{"role": "user", "content": "", "name": "x"}]}]},
        "/rollouts/0/completion/0/name",
    ),
    "an unknown field with signs of JSON pointers": ({"rollouts": [], "a/b~c": 1}, "/a~1b~0c"),
    "an unknown param": ({"params": {"no_such": 1}, "rollouts": []}, "/params/no_such"),
    "an unknown param where nothing can be judged": (
        {"params": {"no_such": 1}, "rollouts": [{"completion": []}, {"completion": "a" * (MIB + 1)}]},
        "/params/no_such",
    ),
    "4,097 rollouts": ({"rollouts": [{"completion": "a"}] * 4_097}, "/rollouts"),
    "a repeated id": ({"rollouts": [{"id": "a", "completion": "1"}, {"id": "a", "completion": "2"}]}, "/rollouts/1/id"),
    "an id like another's index": (
        {"rollouts": [{"completion": "1"}, {"id": "0", "completion": "2"}]},
        "/rollouts/1/id",
    ),
}


@pytest.mark.parametrize(("document", "pointer"), SHAPES.values(), ids=SHAPES.keys())
def test_a_wrong_shape_is_422_and_says_where(service_with_plugins: Service, document: Any, pointer: str) -> None:
    reply = ask(service_with_plugins.port, post(document))
    assert (reply.status, reply.slug) == (422, "wrong-shape")
    assert [place["pointer"] for place in reply.problem()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ({"rollout": []}, "Unknown field `rollout`; did you mean `rollouts`?"),
        ({"rollouts": [], "reward": 1}, "Unknown field `reward`; there are deadline_ms, params, rollouts, task"),
        ({"rollouts": [{"completion": "", "refernce": 1}]}, "Unknown field `refernce`; did you mean `reference`?"),
        (
            {"rollouts": [{"completion": [{"role": "user", "content": "", "zzz": 1}]}]},
            "Unknown field `zzz`; there are content, role",
        ),
    ],
)
def test_an_unknown_field_is_told_the_known_ones(service_with_plugins: Service, document: Any, detail: str) -> None:
    reply = ask(service_with_plugins.port, post(document))
    assert [place["detail"] for place in reply.problem()["errors"]] == [detail]


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/jsonl", "application/x-www-form-urlencoded", "application/json; charset=utf-16",
     "application/json, text/plain", "multipart/form-data; boundary=x"],
)  # fmt: skip
def test_a_body_that_is_not_announced_as_json_is_415(service_with_plugins: Service, content_type: str) -> None:
    request = head("POST /v1/rewards/exact", f"Content-Type: {content_type}", "Content-Length: 2") + b"{}"
    reply = ask(service_with_plugins.port, request)
    assert (reply.status, reply.slug) == (415, "unsupported-media-type")


def test_a_body_without_a_content_type_is_415(service_with_plugins: Service) -> None:
    assert ask(service_with_plugins.port, head("POST /v1/rewards/exact", "Content-Length: 2") + b"{}").status == 415


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;Charset="UTF-8"', "application/x.y+json"],
)
def test_the_ways_to_announce_json_are_taken(service_with_plugins: Service, content_type: str) -> None:
    request = head("POST /v1/rewards/exact", f"Content-Type: {content_type}", "Content-Length: 15")
    assert ask(service_with_plugins.port, request + b'{"rollouts":[]}').status == 200


def verdicts(reply: Reply) -> list[tuple[str, str, float | None]]:
    assert reply.status == 200, reply.body[:300]
    return [(item["status"], item["reason"], item["reward"]) for item in reply.document["verdicts"]]


def test_a_text_over_1_mib_is_a_bad_item_and_its_neighbour_is_scored(service_with_plugins: Service) -> None:
    for text in ("a" * (MIB + 1), "é" * (MIB // 2) + "a", [{"role": "assistant", "content": "a" * (MIB + 1)}]):
        document = {"task": {"reference": "1"}, "rollouts": [{"completion": text}, {"completion": "1"}]}
        got = verdicts(ask(service_with_plugins.port, post(document)))
        assert got == [("bad_item", "too_long", None), ("scored", "equal", 1.0)]


def test_a_text_of_just_1_mib_is_scored(service_with_plugins: Service) -> None:
    for text in ("a" * MIB, "é" * (MIB // 2)):
        document = {"task": {"reference": text}, "rollouts": [{"completion": text}]}
        got = verdicts(ask(service_with_plugins.port, post(document, reward="trouble")))
        assert got == [("scored", "equal", 1.0)]


def test_a_prompt_over_1_mib_is_413_and_says_where(service_with_plugins: Service) -> None:
    reply = ask(service_with_plugins.port, post({"task": {"prompt": "a" * (MIB + 1)}, "rollouts": []}))
    assert (reply.status, reply.slug) == (413, "too-large")
    assert reply.problem()["errors"][0]["pointer"] == "/task/prompt"


@pytest.mark.parametrize("chat", [[], [{"role": "user", "content": "1"}], [{"role": "Assistant", "content": "1"}]])
def test_a_chat_without_an_assistant_turn_is_a_bad_item(service_with_plugins: Service, chat: Any) -> None:
    document = {"task": {"reference": "1"}, "rollouts": [{"completion": chat}, {"completion": "1"}]}
    got = verdicts(ask(service_with_plugins.port, post(document)))
    assert got == [("bad_item", "no_assistant_turn", None), ("scored", "equal", 1.0)]


def test_the_last_assistant_turn_is_judged(service_with_plugins: Service) -> None:
    chat = [
        {"role": "assistant", "content": "2"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "3"},
    ]
    document = {"task": {"reference": "1"}, "rollouts": [{"completion": chat}]}
    assert verdicts(ask(service_with_plugins.port, post(document))) == [("scored", "equal", 1.0)]


def test_an_empty_group_is_a_valid_request(service_with_plugins: Service) -> None:
    reply = ask(service_with_plugins.port, post({"rollouts": []}))
    assert verdicts(reply) == []
    assert reply.document["group"] == {"size": 0, "scored": 0, "mean": None, "std": None, "all_equal": False}


def test_4096_rollouts_come_back_in_order(service_with_plugins: Service) -> None:
    rollouts = [{"id": f"r{number}", "completion": str(number % 3)} for number in range(4_096)]
    reply = ask(service_with_plugins.port, post({"task": {"reference": "1"}, "rollouts": rollouts}))
    assert [verdict["id"] for verdict in reply.document["verdicts"]] == [rollout["id"] for rollout in rollouts]
    assert [verdict["reward"] for verdict in reply.document["verdicts"][:4]] == [0.0, 1.0, 0.0, 0.0]


EXOTIC = {
    "NUL": "a\0b",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f",
    "quotes and backslashes": '"\\"\\\\u0022\\',
    "beyond the first plane": "😀 𝔘 \U0010ffff",
    "non-characters": "\ufffe\uffff\ufdd0",
    "line separators": "\u2028\u2029\x85",
    "combining": "e\u0301 \u0301e",
    "right to left": "\u202eabc\u202c \u2067x\u2069",
    "zero width": "\u200b\u200d\ufeff",
    "replacement character": "\ufffd",
    "a whole alphabet": "".join(map(chr, range(0x0400, 0x0450))),
}


@pytest.mark.parametrize("text", EXOTIC.values(), ids=EXOTIC.keys())
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "plain"])
def test_exotic_text_is_judged_and_echoed_exactly(service_with_plugins: Service, text: str, ascii_only: bool) -> None:
    document = {"task": {"reference": text}, "rollouts": [{"id": text, "completion": text}]}
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    reply = ask(service_with_plugins.port, post(body, reward="trouble"))
    (verdict,) = json.loads(reply.body.decode("utf-8"))["verdicts"]
    assert (verdict["id"], verdict["answer"], verdict["reward"]) == (text, text, 1.0)


# Strict JSON against the parser of the standard library, on documents that look for its blind spots.

CHARACTERS = st.sampled_from('aub0\\"2/é😀\n\x7f')
SPACE = st.sampled_from(["", "", "", " ", "\n\t", "\r"])
SPELLINGS = {'"': ['\\"', "\\u0022"], "\\": ["\\\\", "\\u005c", "\\u005C"], "\n": ["\\n", "\\u000a"], "/": ["/", "\\/"]}


@st.composite
def json_string(draw: st.DrawFn) -> str:
    """A string whose characters are spelt in any of the ways that JSON has."""
    pieces = []
    for character in draw(st.text(CHARACTERS, max_size=4)):
        escaped = json.dumps(character)[1:-1]
        plain = [] if character in '"\\\n' else [character]
        pieces.append(draw(st.sampled_from([*SPELLINGS.get(character, []), *plain, escaped])))
    return '"' + "".join(pieces) + '"'


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1).map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
LEAVES = st.one_of(json_string(), json_string(), NUMBERS, st.sampled_from(["true", "false", "null", "0", "-0", "1E+2"]))


@st.composite
def padded(draw: st.DrawFn, tokens: st.SearchStrategy[list[str]], brackets: str) -> str:
    """Tokens between brackets with white space where it may stand."""
    spaced = [draw(SPACE) + token + draw(SPACE) for token in draw(tokens)]
    return brackets[0] + draw(SPACE) + ",".join(spaced) + draw(SPACE) + brackets[1]


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.builds("{}{}:{}{}".format, json_string(), SPACE, SPACE, values)
    return padded(st.lists(values, max_size=4), "[]") | padded(st.lists(pair, max_size=4), "{}")


DOCUMENTS = st.recursive(LEAVES, containers, max_leaves=12).map(str.encode)


def judged_by_stdlib(body: bytes) -> Any:
    """The document, or NotJson: what the module promises, written as plainly as can be."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise NotJson("twice")
        return dict(pairs)

    def refused(constant: str) -> None:
        raise NotJson(constant)

    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=unique, parse_constant=refused)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, UnicodeEncodeError):
        raise NotJson("no JSON") from None
    return document


def outcome(parse: Any, body: bytes) -> str:
    """The document in a form that tells 1 from 1.0 and True, or the kind of refusal."""
    try:
        return repr(parse(body))
    except NotJson:
        return "not JSON"


@settings(max_examples=800, deadline=None, derandomize=True)
@given(DOCUMENTS)
def test_strict_json_agrees_with_the_standard_library(body: bytes) -> None:
    assert outcome(strict_json.decode, body) == outcome(judged_by_stdlib, body)


@settings(max_examples=800, deadline=None, derandomize=True)
@given(DOCUMENTS, st.data())
def test_strict_json_finds_every_injected_duplicate(body: bytes, data: st.DataObject) -> None:
    places = [match.end() for match in re.finditer(rb"[\[,:]|^", body)]
    place = data.draw(st.sampled_from(places))
    key, value, again = data.draw(json_string()), data.draw(LEAVES), data.draw(LEAVES)
    twice = f"{{{key}: {value}, {key}: {again}}}".encode()
    wrapped = b"[" + body + b", " + twice + b"]" if place == 0 else body[:place] + twice + b"," + body[place:]
    assert outcome(strict_json.decode, wrapped) == "not JSON"


@settings(max_examples=800, deadline=None, derandomize=True)
@given(DOCUMENTS, st.data())
def test_strict_json_agrees_on_damaged_documents(body: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 3)))
    noise = data.draw(
        st.sampled_from([b"", b'"', b"\\", b"\\ud800", b"\xff", b"\0", b"NaN", b"1e999", b",", b"{", b"]", b"0"])
    )
    damaged = body[:start] + noise + body[end:]
    try:
        assert outcome(strict_json.decode, damaged) == outcome(judged_by_stdlib, damaged)
    except TooLarge:
        assert re.search(rb"\d{1000}", damaged)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_strict_json_refuses_noise_with_a_problem(body: bytes) -> None:
    try:
        strict_json.decode(body)
    except Problem as problem:
        assert 400 <= problem.status < 500


def test_text_full_of_brackets_and_commas_is_not_taken_for_structure() -> None:
    text = '[{"a": 1}, ' * 500_000
    assert strict_json.decode(json.dumps([text]).encode()) == [text]


def test_a_string_that_never_ends_is_refused_in_linear_time() -> None:
    with pytest.raises((NotJson, TooLarge)):
        strict_json.decode(b'["' + b'\\"' * 4_000_000)
