"""What the tests of `code` share: a way to judge, skipped with the reason where programs cannot be isolated."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rewardsvc.contract import Rollout, Task, Verdict
from rewardsvc.errors import RewardFault
from rewardsvc.rewards.code import Code
from rewardsvc.rewards.code.reward import _supervisor

# The sandbox is not offered yet: until the reward `code` is registered, `make test-boxes` runs what needs real boxes.
collect_ignore = [] if os.environ.get("REWARDSVC_TEST_BOXES") else ["test_hacks.py", "test_reward.py"]

Score = Callable[..., Verdict]


@pytest.fixture(scope="session")
def _warm() -> None:
    try:
        Code.warm()
    except RewardFault as fault:
        pytest.skip(f"no sandbox here: {fault}")


@pytest.fixture
def score(_warm: None) -> Score:
    """The verdict on a source, under tests and params."""

    def judge(source: str, tests: list[Any], language: str = "python", **params: Any) -> Verdict:
        offered = _supervisor().offered()
        if language not in offered.languages:
            pytest.skip(f"{language}: {offered.missing.get(language)}")
        given = msgspec.convert({"language": language, **params}, Code.Params)
        task = Task(reference={"tests": tests})
        reward = Code()
        reward.check_task(task, given)
        completion = source if params.get("extract") == "whole" else f"```{language}\n{source}\n```"
        return reward.score(Rollout(id="0", completion=completion), task, given)

    return judge
