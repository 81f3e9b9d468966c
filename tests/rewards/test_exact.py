"""What `exact` promises beyond its cases: it is total, symmetric, exact about numbers, and quick on hostile text."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.contract import Message, Rollout, Task, Verdict
from rewardsvc.errors import BadReference
from rewardsvc.reward import Case
from rewardsvc.rewards.exact import Exact, Number, plain_number

REWARD = Exact
TEXT = st.text() | st.text(alphabet="\\boxed{}<answer>/think 0123456789.,e-+nN*#:\n\u200b\u0301")
MEBIBYTE = 1 << 20


def score(completion: str, reference: Any, **params: Any) -> Verdict:
    return Exact().score(Rollout(id="0", completion=completion), Task(reference=reference), Exact.Params(**params))


def test_every_case_gets_the_reward_and_the_reason_it_promises(judge: Callable[..., Any], case: Case) -> None:
    judged = judge(Exact, case)
    assert judged.reward == case.rewards[0]
    assert case.status in (None, judged.status)
    assert case.reason in (None, judged.reason)


def test_the_cases_reach_every_reason(judge: Callable[..., Any]) -> None:
    assert {judge(Exact, case).reason for case in Exact.cases} >= set(Exact.reasons)


def test_the_last_assistant_turn_is_judged() -> None:
    chat = [
        Message(role="assistant", content="41"),
        Message(role="user", content="Sure?"),
        Message(role="assistant", content="42"),
    ]
    rollout = Rollout(id="0", completion=chat)
    assert Exact().score(rollout, Task(reference=42), Exact.Params()).reward == 1.0


def test_the_verdict_says_what_was_extracted_and_where() -> None:
    completion = r"<think>hm</think> So it is \boxed{ 42 }."
    verdict = score(completion, "42")
    evidence = verdict.evidence
    assert verdict.answer == "42"
    assert evidence["method"] == "boxed"
    assert completion[evidence["start"] : evidence["end"]] == "42"


def test_without_an_answer_there_is_no_answer_but_advice() -> None:
    verdict = score("", "42", extract="boxed")
    assert verdict.answer is None
    assert verdict.feedback is not None and r"\boxed" in verdict.feedback


def test_a_long_answer_is_cut_in_the_verdict_but_compared_whole() -> None:
    assert score("x" * 5_000, "x" * 5_000).reward == 1.0
    verdict = score("x" * 5_000, "x" * 4_999)
    assert verdict.reward == 0.0
    assert verdict.answer == "x" * 1_000


def test_the_feedback_never_tells_the_reference() -> None:
    for completion in ("", "41", r"\boxed{}"):
        assert "4711" not in str(score(completion, "4711").feedback)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [(None, "no_reference"), ("", "empty_reference"), ([" ", ""], "empty_reference"), ("nan", "nan_reference")],
)
def test_a_useless_reference_gets_no_number_whatever_the_completion(reference: Any, reason: str) -> None:
    for completion in ("", "42", "nan", "<think>"):
        with pytest.raises(BadReference) as caught:
            score(completion, reference)
        assert caught.value.reason == reason


@given(TEXT, TEXT.filter(str.strip))
def test_any_text_gets_zero_or_one_or_a_reference_is_refused(completion: str, reference: str) -> None:
    try:
        verdict = score(completion, reference)
    except BadReference:
        return
    assert verdict.reward == (1.0 if verdict.reason == "equal" else 0.0)


FLAGS = ("ignore_case", "ignore_whitespace", "ignore_punctuation", "numeric")


@given(TEXT, st.fixed_dictionaries({flag: st.booleans() for flag in FLAGS}))
def test_a_text_equals_itself_however_it_is_compared(text: str, params: dict[str, bool]) -> None:
    try:
        verdict = score(text, text, extract="whole", **params)
    except BadReference:
        return
    assert verdict.reason in (("no_answer", "not_equal", "equal") if "think>" in text else ("equal",))


@given(TEXT.filter(lambda text: "think>" not in text))
def test_a_completion_that_is_the_reference_is_right_whatever_marks_it_holds(text: str) -> None:
    try:
        verdict = score(text, text)
    except BadReference:
        return
    assert verdict.reward == 1.0


@given(TEXT, TEXT, st.booleans())
def test_answer_and_reference_may_change_places(one: str, other: str, punctuation: bool) -> None:
    try:
        there = score(one, other, extract="whole", ignore_punctuation=punctuation)
        back = score(other, one, extract="whole", ignore_punctuation=punctuation)
    except BadReference:
        return
    assert "no_answer" in (there.reason, back.reason) or there.reward == back.reward


@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False), st.data())
def test_a_number_is_its_value_however_it_is_written(number: Any, data: st.DataObject) -> None:
    exact = Decimal(number)
    spellings = [str(exact), f"{exact:e}", f"{exact:E}", str(exact).replace("-", "\u2212")]
    if -(10**30) < exact < 10**30 and exact.as_tuple().exponent > -100:  # type: ignore[operator]
        spellings += [f"{exact:f}", f"{exact:,f}"]
    assert {spelling: plain_number(spelling) for spelling in spellings} == dict.fromkeys(
        spellings, plain_number(str(exact))
    )
    assert score(data.draw(st.sampled_from(spellings)), str(exact)).reward == 1.0


@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9),
)
def test_two_numbers_are_equal_when_their_values_are(one: Decimal, other: Decimal) -> None:
    assert (plain_number(str(one)) == plain_number(str(other))) == (one == other)


@pytest.mark.parametrize(
    "text", ["", ".", "-", "e5", "1e", "1,2", "01,000", "1,000,00", "٤٢", "１", "1 ", "1e1.5", "inf"]
)
def test_what_is_not_written_as_a_plain_number_is_none(text: str) -> None:
    assert plain_number(text) is None


def test_zero_has_one_form() -> None:
    assert {plain_number(zero) for zero in ("0", "-0", "0.00", "0e9", ".0")} == {Number(False, "", 0)}


HOSTILE = [
    "\\boxed{",
    "\\boxed{}",
    "<answer>",
    "<think>",
    "{",
    "{}",
    "`",
    "####",
    "#### \n",
    "Answer: ",
    "1",
    "0",
    "1,000",
]
HOSTILE += ["e", "\n", " ", "a\u0301\u0316", "\u0301\u0316", "!", "\u200b", "**", "\\", "\\{", "\x00", "(["]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_mebibyte_is_judged_in_time(piece: str) -> None:
    text = (piece * (MEBIBYTE // len(piece) + 1))[:MEBIBYTE]
    started = time.process_time()
    assert score(text, "42", ignore_punctuation=True).reward == 0.0
    assert time.process_time() - started < 1.0
