"""Comparison modes: what each lets pass, that case and integers always count, and that size costs in proportion."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.rewards.code.comparing import _RULES, Comparison, impossible, same
from rewardsvc.rewards.code.values import same_json, same_python

outputs = st.binary(max_size=60) | st.text("01aA.,e-+ \t\r\n", max_size=60).map(str.encode)
MODES = sorted(_RULES)


@pytest.mark.parametrize(
    ("mode", "expected", "output", "is_same"),
    [
        ("exact", b"a\n", b"a\n", True),
        ("exact", b"a\n", b"a", False),
        ("exact", b"\x00\xff", b"\x00\xff", True),
        ("trailing_space", b"a\nb\n", b"a  \r\nb\n\n\n", True),
        ("trailing_space", b"a\nb", b"a\n\nb", False),
        ("trailing_space", b"a", b" a", False),
        ("trailing_space", b"a b", b"a  b", False),
        ("trailing_space", b"", b" \n \n", True),
        ("tokens", b"1 2\n3", b" 1\n2   3 ", True),
        ("tokens", b"1 2", b"12", False),
        ("tokens", b"1 2", b"1 2 3", False),
        ("tokens", b"1 2 3", b"1 2", False),
        ("tokens", b"YES", b"yes", False),
        ("tokens", b"10", b"1_0", False),
        ("tokens", b"7", b"007", False),
        ("tokens", b"7", b"7.0", False),
        ("floats", b"1.0", b"1.0000000001", True),
        ("floats", b"1.0 2.0", b"1.0000000001 2.0", True),
        ("floats", b"1.0", b"1", True),
        ("floats", b"1.0", b"1.1", False),
        ("floats", b"1e3", b"1000", True),
        ("floats", b"1000000", b"1000001", False),
        ("floats", b"1000000000000000000", b"1000000000000000001", False),
        ("floats", b"1000000", b"1000000.0000001", False),
        ("floats", b"1.5", b"1_0", False),
        ("floats", b"nan", b"nan", False),
        ("floats", b"x NaN", b"x NaN", False),
        ("floats", b"1.0", b"nan", False),
        ("floats", b"1.0", b"inf", False),
        ("floats", b"1e300", b"1e999", False),
        ("floats", b"inf", b"inf", True),
        ("floats", b"abc 1.0", b"ABC 1.0", False),
        ("floats", b"0.5", b"0x1p-1", False),
        ("unordered_lines", b"a\nb\nb\n", b"b\na\nb", True),
        ("unordered_lines", b"a\nb\nb", b"b\na\na", False),
        ("unordered_lines", b"a\nb", b"a\nb\nb", False),
        ("unordered_lines", b"a\nb\nb", b"a\nb", False),
        ("json", b'{"a": [1, 2.0], "b": null}', b'{"b":null,"a":[1,2.0000000001]}', True),
        ("json", b"1", b"true", False),
        ("json", b"1", b"1.0000000001", False),
        ("json", b'"a"', b'"A"', False),
        ("json", b"[1,2]", b"[2,1]", False),
        ("json", b"[1,2]", b"[1,2", False),
        ("json", b'{"a":1}', b'{"a":1,"b":2}', False),
    ],
)
def test_a_mode_lets_pass_what_it_says(mode: Any, expected: bytes, output: bytes, is_same: bool) -> None:
    assert same(expected, output, Comparison(mode=mode)) is is_same


@pytest.mark.parametrize("mode", MODES)
def test_case_counts_unless_the_caller_says_otherwise(mode: Any) -> None:
    assert not same(b'"yes"', b'"YES"', Comparison(mode=mode))
    assert same(b'"yes"', b'"YES"', Comparison(mode=mode, ignore_case=True))


@given(outputs, outputs, st.sampled_from(MODES), st.booleans())
def test_it_is_total_and_what_is_the_same_stays_so_under_wider_rules(
    expected: bytes, output: bytes, mode: Any, ignore_case: bool
) -> None:
    if same(expected, output, Comparison(mode=mode)) and mode != "json":
        assert same(expected, output, Comparison(mode=mode, ignore_case=True))
    if same(expected, output, Comparison(mode="exact", ignore_case=ignore_case)):
        for wider in ("trailing_space", "tokens", "unordered_lines"):
            assert same(expected, output, Comparison(mode=wider, ignore_case=ignore_case))
    if same(expected, output, Comparison(mode="trailing_space")):
        assert same(expected, output, Comparison(mode="tokens"))


@given(outputs)
def test_an_output_is_itself_unless_that_is_impossible(output: bytes) -> None:
    for mode in MODES:
        by = Comparison(mode=mode)
        assert same(output, output, by) or impossible(output, by)


@given(st.lists(st.text("ab1 \t", max_size=6)), st.randoms())
def test_the_rules_agree_with_their_plain_definitions(lines: list[str], random: Any) -> None:
    text = "\n".join(lines).encode()
    other = b"\n".join(line.rstrip() for line in text.split(b"\n")).rstrip()
    assert same(text, other, Comparison(mode="trailing_space"))
    assert same(text, b"\n".join(text.split()), Comparison(mode="tokens"))
    kept = other.split(b"\n")
    random.shuffle(kept)
    shuffled = b"\n".join(kept)
    assert same(text, shuffled, Comparison(mode="unordered_lines")) == (
        sorted(shuffled.rstrip().split(b"\n")) == sorted(other.split(b"\n"))
    )


@given(st.integers(), st.floats(0, 1), st.floats(0, 1))
def test_no_tolerance_is_wide_enough_for_an_integer(number: int, absolute: float, relative: float) -> None:
    by = Comparison(mode="floats", absolute=absolute + 10, relative=relative)
    assert not same(b"%d" % number, b"%d" % (number + 1), by)
    assert not same_json(number, number + 1, absolute + 10, relative)


HUGE = 5_000_000
BULKS = {
    "short tokens": b"12 34\n" * (HUGE // 6),
    "one token": b"a" * HUGE,
    "blanks within a line": b"a" + b" " * HUGE + b"b",
    "empty lines": b"a" + b"\n" * HUGE + b"b",
    "binary": bytes(range(256)) * (HUGE // 256),
    "digits": b"1" * HUGE + b".5",
    "decimals": b"1.25 " * (HUGE // 5),
}


@pytest.mark.parametrize("bulk", BULKS)
@pytest.mark.parametrize("mode", MODES)
def test_megabytes_get_an_exact_verdict_in_proportion(mode: Any, bulk: str) -> None:
    expected, by = BULKS[bulk], Comparison(mode=mode)
    began = time.process_time()
    for output in (expected + b"x", b"x" + expected, expected[:-2], expected[:-1] + b"\x01 q"):
        assert not same(expected, output, by)
    if mode not in ("json", "exact"):
        assert same(expected, expected + b" \n", by)
    assert time.process_time() - began < 12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bomb", [b"[" * 300_000, b'{"a":' * 60_000, b"9" * 300_000, b"-" * 300_000])
def test_a_bomb_is_only_another_output(mode: Any, bomb: bytes) -> None:
    assert not same(b"[1]", bomb, Comparison(mode=mode))


@pytest.mark.parametrize(
    ("expected", "value", "is_same"),
    [
        ([1, 2], (1, 2), True),
        ([1, 2], {1, 2}, False),
        (1, True, False),
        (True, 1, False),
        (2, 2.0, True),
        (2.0, 2, True),
        (0.3, 0.1 + 0.2, True),
        (float("nan"), float("nan"), False),
        (float("inf"), 1e308, False),
        (1.5, 10**400, False),
        ({"1": "a"}, {1: "a"}, True),
        ({"1": "a"}, {1: "a", "1": "a"}, False),
        ({"a": {"b": [None]}}, {"a": {"b": [None]}}, True),
        (None, False, False),
        ("", None, False),
        ("ab", b"ab", False),
    ],
)
def test_values_are_compared_by_structure(expected: Any, value: Any, is_same: bool) -> None:
    assert same_json(expected, value, 1e-6, 1e-6) is is_same


def test_an_assertion_is_compared_as_python_does() -> None:
    assert same_python(1, True) and same_python([1], [1.0]) and not same_python([1], (1,))
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert not same_python(deep, [deep]) and not same_json(deep, deep, 0, 0)
