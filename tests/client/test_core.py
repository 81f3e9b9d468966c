"""The decisions of the client, without sockets: what is sent, what is understood, and when to try again."""

from __future__ import annotations

import errno
import json
import ssl

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.client.core import (
    LONGEST_WAIT_S,
    Answer,
    Service,
    refusal,
    told_deadline_ms,
    wait_before_retry,
)
from rewardsvc.contract import Message, Rollout, ScoreRequest, Task
from rewardsvc.errors import DeadlineExceeded, ServiceRefused, ServiceUnreachable

SERVICE = Service("http://127.0.0.1:8000", None, 60.0)
BUSY = Answer(503, b"", None)


def sent(*rollouts: object, **about: object) -> ScoreRequest:
    body = SERVICE.score("exact", list(rollouts), **about).body(60.0)  # type: ignore[arg-type]
    assert body is not None
    return msgspec.json.decode(body, type=ScoreRequest)


def test_the_three_forms_of_a_rollout_are_sent_as_the_contract_says() -> None:
    chat = [{"role": "user", "content": "6 times 7?"}, {"role": "assistant", "content": "42"}]
    request = sent("42", chat, Rollout(id="mine", completion="41", reference="41"), reference="42", params={"a": 1})
    assert [rollout.text for rollout in request.rollouts] == ["42", "42", "41"]
    assert request.rollouts[2] == Rollout(id="mine", completion="41", reference="41")
    assert (request.task, request.params) == (Task(reference="42"), {"a": 1})


def test_a_chat_may_consist_of_message_objects() -> None:
    chat = [Message(role="assistant", content="42")]
    assert sent(chat, prompt=chat).rollouts[0].completion == sent(chat, prompt=chat).task.prompt == chat


def test_a_task_stands_in_for_prompt_and_reference() -> None:
    task = Task(prompt="6 times 7?", reference="42", metadata={"split": "train"})
    assert sent("42", task=task).task == task
    with pytest.raises(TypeError, match="either `task`"):
        sent("42", task=task, reference="41")


def test_each_rollout_may_have_its_own_reference() -> None:
    request = sent("42", "43", "44", reference="44", references=["42", 43, None])
    assert [rollout.reference for rollout in request.rollouts] == ["42", 43, None]
    assert request.task.reference == "44"


@pytest.mark.parametrize("references", [[], ["42"], ["1", "2", "3"], "42"])
def test_references_must_be_as_many_as_rollouts(references: object) -> None:
    with pytest.raises(ValueError, match="one for each of the 2 rollouts"):
        sent("42", "43", references=references)


def test_references_do_not_overwrite_a_rollouts_own() -> None:
    mine = Rollout(completion="42", reference="42")
    with pytest.raises(ValueError, match="either `references`"):
        sent(mine, references=["43"])
    assert mine.reference == "42"


def waits(absent: float, *outcomes: Exception | Answer) -> list[float | None]:
    """What a call answers to these outcomes, each met half a second after the one before."""
    call = Service("http://host", None, 60.0, absent).score("exact", [])
    return [call.wait(outcome, 60.0 - number / 2) for number, outcome in enumerate(outcomes)]


def test_patience_with_an_absent_service_ends_and_begins_anew_once_it_was_there() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert [wait is None for wait in waits(1.5, *[refused] * 4)] == [False, False, False, True]
    assert None not in waits(2.2, refused, refused, BUSY, refused, refused)
    assert None not in waits(1.5, *[ConnectionResetError(errno.ECONNRESET, "reset")] * 6)
    assert waits(0.0, refused, refused)[1] is None


def test_one_string_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(TypeError, match="list of completions"):
        SERVICE.score("exact", "42")


def test_an_empty_group_can_be_sent() -> None:
    assert sent().rollouts == []


def test_half_a_surrogate_pair_is_left_to_the_service() -> None:
    body = SERVICE.score("exact", ["4\ud8002"], reference="42").body(60.0)
    assert body is not None
    assert json.loads(body)["rollouts"][0]["completion"] == "4\ud8002"


def test_the_reward_name_cannot_leave_its_place_in_the_path() -> None:
    assert SERVICE.score("../../livez?", []).target == "/v1/rewards/..%2F..%2Flivez%3F"


@pytest.mark.parametrize(
    ("base_url", "host", "port", "target"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000, "/readyz"),
        ("https://rewards.example/team a/", "rewards.example", 443, "/team%20a/readyz"),
        ("http://[::1]:81/", "::1", 81, "/readyz"),
    ],
)
def test_an_address_is_taken_apart(base_url: str, host: str, port: int, target: str) -> None:
    service = Service(base_url, None, 1.0)
    assert (service.host, service.port, service.ready().target) == (host, port, target)


@pytest.mark.parametrize(
    "base_url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host?x=1", "http://me:secret@host", "http://host:x"]
)
def test_an_address_that_cannot_work_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"address|[Pp]ort") as refused:
        Service(base_url, None, 1.0)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_must_be_finite_and_positive(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Service("http://host", None, timeout)


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_fits_no_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as refused:
        Service("http://host", key, 1.0)
    assert not key or key not in str(refused.value)


def test_a_request_id_cannot_smuggle_in_a_header() -> None:
    with pytest.raises(ValueError, match="request id"):
        SERVICE.score("exact", [], request_id="a\r\nX-Evil: 1")


@given(left=st.floats(0.03, 1e5))
def test_the_service_is_told_to_answer_before_the_client_gives_up(left: float) -> None:
    assert 1 <= told_deadline_ms(left, None) < left * 1000


@given(left=st.floats(-10, 1e5), asked=st.integers(1, 3_600_000))
def test_a_deadline_of_the_caller_is_only_ever_shortened(left: float, asked: int) -> None:
    assert 1 <= told_deadline_ms(left, asked) <= asked


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 502, 504, 200, 302])
def test_only_429_and_503_are_answers_worth_another_try(status: int) -> None:
    assert wait_before_retry(1, Answer(status, b"", "1"), 60.0, "seed") is None
    for busy in (429, 503):
        assert wait_before_retry(1, Answer(busy, b"", None), 60.0, "seed") is not None


@given(tries=st.integers(1, 2000), seed=st.text())
def test_waits_grow_but_stay_within_their_bounds(tries: int, seed: str) -> None:
    wait = wait_before_retry(tries, BUSY, 60.0, seed)
    assert wait is not None
    assert 0.05 <= wait <= LONGEST_WAIT_S
    assert wait == wait_before_retry(tries, BUSY, 60.0, seed)


def test_clients_sent_away_together_do_not_come_back_together() -> None:
    waits = {wait_before_retry(3, Answer(503, b"", "2"), 60.0, f"request {i}") for i in range(100)}
    assert len(waits) == 100
    assert all(wait is not None and 2.0 < wait <= 2.4 for wait in waits)


def test_the_first_broken_connection_is_replaced_at_once_and_the_second_waited_for() -> None:
    broken = ConnectionResetError()
    assert wait_before_retry(1, broken, 60.0, "seed") == 0.0
    assert 0.1 <= (wait_before_retry(2, broken, 60.0, "seed") or 0.0) <= 0.2


@pytest.mark.parametrize("outcome", [BUSY, Answer(503, b"", "61"), ConnectionResetError(), TimeoutError()])
def test_no_wait_outlasts_the_deadline(outcome: Answer | Exception) -> None:
    assert wait_before_retry(1, outcome, 0.0, "seed") is None
    assert wait_before_retry(1, Answer(503, b"", "61"), 60.0, "seed") is None


def test_a_certificate_does_not_get_better_by_asking_again() -> None:
    assert wait_before_retry(1, ssl.SSLCertVerificationError(), 60.0, "seed") is None


@pytest.mark.parametrize(
    ("body", "header", "seconds"),
    [
        (b'{"retry_after_ms": 250}', "1", 0.25),
        (b'{"retry_after_ms": null}', "7", 7.0),
        (b'{"retry_after_ms": -5}', None, 0.0),
        (b"<html>", " 3 ", 3.0),
        (b"", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (b"", "9" * 5000, float("inf")),
        (b"", None, None),
    ],
)
def test_what_the_service_asks_to_wait_is_read_from_body_or_header(
    body: bytes, header: str | None, seconds: float | None
) -> None:
    assert refusal(Answer(503, body, header)).retry_after == seconds


def test_a_problem_document_becomes_the_fields_of_the_error() -> None:
    problem = {
        "type": "/problems/wrong-shape",
        "title": "The request does not have the right shape",
        "status": 422,
        "detail": "The body is not a score request.",
        "instance": "abc",
        "errors": [{"pointer": "/params/ignore_case", "detail": "Expected `bool`"}],
        "retryable": False,
        "retry_after_ms": None,
    }
    error = refusal(Answer(422, msgspec.json.encode(problem), None))
    assert (error.status, error.slug, error.detail) == (422, "wrong-shape", "The body is not a score request.")
    assert error.errors == (("/params/ignore_case", "Expected `bool`"),)
    assert (error.retryable, error.retry_after) == (False, None)
    assert "/params/ignore_case" in str(error)


@pytest.mark.parametrize("body", [b"<h1>Bad Gateway</h1>", b"\xff\xfe", b"[]", b'{"type": 3}', b'{"errors": ["x"]}'])
def test_an_error_page_of_somebody_else_is_still_a_refusal(body: bytes) -> None:
    error = refusal(Answer(502, body, None))
    assert (error.status, error.slug) == (502, "about:blank")
    assert error.detail


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[1]", b"\xff"])
def test_a_200_that_is_no_score_reply_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceRefused, match="unreadable-reply"):
        SERVICE.score("exact", ["42"]).read(Answer(200, body, None))


def test_silence_and_a_broken_connection_are_told_apart() -> None:
    call = SERVICE.score("exact", ["42"], request_id="abc")
    with pytest.raises(DeadlineExceeded, match="abc"):
        call.read(TimeoutError())
    with pytest.raises(ServiceUnreachable, match="refused"):
        call.read(ConnectionRefusedError("refused"))
