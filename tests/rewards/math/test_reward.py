"""The reward `math`: its cases, what it refuses to judge by, and that no input turns slowness into a number."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rewardsvc.contract import Rollout, Task
from rewardsvc.errors import BadReference
from rewardsvc.rewards.math import Math

REWARD = Math


def test_every_case_gets_the_reward_and_the_reason_it_promises(judge: Any, case: Any) -> None:
    judged = judge(Math, case)
    assert judged.reward == case.rewards[0]
    assert case.status in (None, judged.status)
    assert case.reason in (None, judged.reason)


@pytest.mark.parametrize("reference", ["", " ", r"\frac{", r"\boxed{}", None, [], ["1", ""], "((", "$$"])
def test_a_reference_that_cannot_be_used_is_never_a_zero(reference: Any) -> None:
    with pytest.raises(BadReference):
        Math().score(Rollout(id="0", completion=r"\boxed{1}"), Task(reference=reference), Math.Params())


def test_params_change_how_strictly_answers_are_compared() -> None:
    rollout, task = Rollout(id="0", completion=r"\boxed{0.333}"), Task(reference=r"\frac{1}{3}")
    assert Math().score(rollout, task, Math.Params()).reward == 1.0
    assert Math().score(rollout, task, Math.Params(decimals="exact")).reward == 0.0
    assert Math().score(rollout, task, Math.Params(preset="prm800k")).reward == 0.0
    assert Math().score(rollout, task, Math.Params(preset="prm800k", decimals="rounded")).reward == 1.0


def test_a_completion_that_is_the_reference_to_the_letter_needs_no_mark() -> None:
    gold = "The lines are parallel, so they never meet"
    verdict = Math().score(Rollout(id="0", completion=f"  {gold}\n"), Task(reference=gold), Math.Params())
    assert (verdict.reward, verdict.evidence["method"]) == (1.0, "verbatim")
    assert (verdict.evidence["start"], verdict.evidence["end"]) == (2, 2 + len(gold))


@pytest.mark.parametrize("bomb", [r"\boxed{9!!!!!}", r"\boxed{10^{10^{10^{10}}}}"], ids=["factorials", "tower"])
def test_a_bomb_costs_its_own_rollout_a_status_and_nobody_else(service_with_plugins: Any, bomb: str) -> None:
    began = time.monotonic()
    verdicts = service_with_plugins.score("math", [r"\boxed{1}", bomb, r"\boxed{2}"], "1", deadline_ms=20_000)
    assert [verdicts[0]["reward"], verdicts[2]["reward"]] == [1.0, 0.0]
    assert verdicts[1]["status"] in ("timeout", "resource_limit", "scored")
    assert (verdicts[1]["reward"] is None) == (verdicts[1]["status"] != "scored")
    assert time.monotonic() - began < 20


def test_a_misspelt_parameter_is_told_its_name(service_with_plugins: Any) -> None:
    status, problem = service_with_plugins.post("math", {"rollouts": [], "params": {"preste": "dapo"}})
    assert status == 422
    assert problem["errors"] == [
        {"pointer": "/params/preste", "detail": "Unknown field `preste`; did you mean `preset`?"}
    ]


def test_no_marks_at_all_is_a_mistake_of_the_caller_and_not_a_group_of_zeros(service_with_plugins: Any) -> None:
    group = {"task": {"reference": "1"}, "rollouts": [{"completion": "1"}], "params": {"styles": []}}
    assert service_with_plugins.post("math", group)[0] == 422


def test_what_was_asked_for_is_echoed() -> None:
    params = Math.Params(preset="gsm8k", credit="parts", percent="strict")
    for completion in ("no answer", r"\boxed{1}"):
        verdict = Math().score(Rollout(id="0", completion=completion), Task(reference="1"), params)
        assert verdict.evidence["policy"] == {"preset": "gsm8k", "credit": "parts", "percent": "strict"}
