"""What `format` promises beyond its cases: constant parts, no reward for nothing, refused nonsense, and speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.contract import Rollout, Task, Verdict
from rewardsvc.reward import Case, InvalidTask
from rewardsvc.rewards.format import Format

REWARD = Format
PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "a",
    " ",
    "\n",
    "# Plan\n",
    "\n# Answer\n",
    "```\n",
    r"\boxed{",
    "}",
]
TEXT = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)
MEBIBYTE = 1 << 20

PARAMS = st.builds(
    Format.Params,
    tags=st.sampled_from([(), ("think", "answer"), ("think",), ("answer", "think")]),
    strict=st.booleans(),
    sections=st.sampled_from([(), ("Plan", "Answer"), ("# Answer",)]),
    final_answer=st.sampled_from(["any", "one"]),
    think_opened=st.booleans(),
    non_empty=st.booleans(),
    partial=st.booleans(),
)


def score(completion: str, params: Format.Params) -> Verdict:
    return Format().score(Rollout(id="0", completion=completion), Task(), params)


def test_every_case_gets_the_reward_and_the_reason_it_promises(judge: Callable[..., Any], case: Case) -> None:
    judged = judge(Format, case)
    assert judged.reward == pytest.approx(case.rewards[0], abs=1e-12)
    assert (judged.status, judged.reason) == ("scored", case.reason or judged.reason)


def test_the_cases_reach_every_reason(judge: Callable[..., Any]) -> None:
    assert {judge(Format, case).reason for case in Format.cases} == set(Format.reasons)


@given(TEXT, PARAMS)
def test_any_text_gets_a_reward_in_range_and_all_parts(completion: str, params: Format.Params) -> None:
    verdict = score(completion, params)
    assert verdict.reward is not None and 0.0 <= verdict.reward <= 1.0
    assert tuple(verdict.parts) == Format.parts
    assert all(part is not None and 0.0 <= part <= 1.0 for part in verdict.parts.values())


@given(TEXT, PARAMS)
def test_the_full_reward_means_that_every_rule_holds(completion: str, params: Format.Params) -> None:
    verdict = score(completion, params)
    holds = all(part == 1.0 for part in verdict.parts.values())
    assert (verdict.reward == 1.0) == holds == (verdict.reason == "well_formed") == (verdict.feedback is None)


@given(st.text(alphabet="ab \n"), st.text(alphabet="ab \n"), st.sampled_from([" ", "\n", ""]))
def test_a_well_formed_completion_stays_so_with_any_content(thought: str, answer: str, gap: str) -> None:
    text = f"{gap}<think>x{thought}</think>{gap}<answer>{answer}x</answer>{gap}"
    assert score(text, Format.Params()).reward == 1.0


@given(st.text(alphabet=" \n\u200b\x00"), PARAMS)
def test_silence_earns_nothing(completion: str, params: Format.Params) -> None:
    if params.tags or params.sections or params.final_answer == "one":
        assert score(completion, params).reward == 0.0


def test_the_first_broken_rule_is_reported_in_one_sentence() -> None:
    verdict = score("Sure! <think>a</think><answer></answer>", Format.Params())
    assert verdict.reason == "empty_tag"
    assert verdict.feedback == "There is nothing in <answer>."
    assert verdict.parts == {"tags": 0.5, "order": 1.0, "outside": 0.0, "sections": 1.0, "final_answer": 1.0}


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        (Format.Params(tags=("",)), "/params/tags"),
        (Format.Params(tags=("a b",)), "/params/tags"),
        (Format.Params(tags=("<think>",)), "/params/tags"),
        (Format.Params(tags=("/think",)), "/params/tags"),
        (Format.Params(tags=("a", "b", "a")), "/params/tags"),
        (Format.Params(tags=()), "/params/tags"),
        (Format.Params(tags=(), sections=(" ",)), "/params/sections"),
        (Format.Params(sections=("##",)), "/params/sections"),
        (Format.Params(sections=("a\nb",)), "/params/sections"),
        (Format.Params(sections=("Plan", "## Plan")), "/params/sections"),
        (Format.Params(tags=(), sections=("a",), think_opened=True), "/params/think_opened"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_for_the_whole_group(params: Format.Params, pointer: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        Format().check_task(Task(), params)
    assert caught.value.pointer == pointer


@given(PARAMS.filter(lambda params: params.tags or not params.think_opened))
def test_parameters_that_make_sense_are_taken(params: Format.Params) -> None:
    if params.tags or params.sections or params.final_answer == "one":
        Format().check_task(Task(), params)


HOSTILE = ["<think>", "</answer>", "<", "# A0\n", "# A0 ", "#", " ", "\n", "`", "```\n", "```a\n~~~\n", "~", "\\boxed{"]
HOSTILE += ["\\boxed{}", "{", "}", "\u200b", "\x00", "a\u0301\u0316", "# A0" + " " * 500]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_mebibyte_is_judged_in_time_under_many_rules(piece: str) -> None:
    text = (piece * (MEBIBYTE // len(piece) + 1))[:MEBIBYTE]
    names = [f"t{index}" for index in range(16)]
    nested = "".join(f"<{name}>" for name in names) + text + "".join(f"</{name}>" for name in names)
    params = Format.Params(tags=tuple(names), sections=tuple(f"A{index}" for index in range(32)), final_answer="one")
    started = time.process_time()
    assert score(nested, params).reward == 0.0
    assert time.process_time() - started < 1.0
