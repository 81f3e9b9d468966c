"""Cases as data: every reward is tested by the cases of its class and by the lines of `tests/cases/<reward>/*.jsonl`.

A test module sets `REWARD` to its class and takes the fixtures `case` (one at a time) and `judge`. To add a case, add
a line: `completion`, `reward` (null when it must not be scored) and `why`; if needed also `reference`, `params`,
`prompt`, `status` and `reason`. No Python is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest

from rewardsvc.contract import Model, Rollout, Status, Task
from rewardsvc.errors import NotScored
from rewardsvc.reward import Case, PerRollout

CASES = Path(__file__).parents[1] / "cases"


class CaseLine(Model):
    """One line of a case file."""

    completion: str
    reward: float | None
    why: Annotated[str, msgspec.Meta(min_length=1)]
    reference: Any = None
    params: dict[str, Any] = {}
    prompt: str = ""
    status: Status | None = None
    reason: str | None = None


class Judged(NamedTuple):
    """What a verdict, or the refusal of one, comes down to."""

    reward: float | None
    status: str
    reason: str


def written_cases(reward: str) -> Iterator[Case]:
    """The cases in the files of one reward."""
    for path in sorted((CASES / reward).glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            yield _case(msgspec.json.decode(line, type=CaseLine))


def _case(line: CaseLine) -> Case:
    kind: Any = {None: "not_scored", 1.0: "full", 0.0: "zero"}.get(line.reward, "partial")
    about = {field: getattr(line, field) for field in ("reference", "params", "prompt", "status", "reason", "why")}
    return Case(kind, (line.completion,), (line.reward,), **about)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case for each test function that takes `case`."""
    if "case" in metafunc.fixturenames:
        reward = metafunc.module.REWARD
        cases = [*reward.cases, *written_cases(reward.name)]
        metafunc.parametrize("case", cases, ids=[case.why or case.completions[0][:40] for case in cases])


@pytest.fixture(scope="session")
def judge() -> Callable[[type[PerRollout], Case], Judged]:
    """Runs a reward class on the one completion of a case, without a service."""
    return _judge


def _judge(reward_class: type[PerRollout], case: Case) -> Judged:
    reward = reward_class()
    task = Task(prompt=case.prompt, reference=case.reference)
    params = msgspec.convert(dict(case.params or {}), reward_class.Params)
    try:
        reward.check_task(task, params)
        verdict: Any = reward.score(Rollout(id="0", completion=case.completions[0]), task, params)
    except NotScored as error:
        return Judged(None, error.status, error.reason)
    assert tuple(verdict.parts) == reward_class.parts
    assert verdict.reason in reward_class.reasons
    return Judged(verdict.reward, verdict.status, verdict.reason)
