"""For the author of a reward: its promises as a test, judged in the real executor, by the code that will judge them.

    from rewardsvc.testing import check_reward, judge

    def test_every_case_holds():
        check_reward("my_reward.py")                    # or the class, or the name of an installed reward

    def test_a_long_answer_is_no_answer():
        assert judge("my_reward.py", "word " * 1000, reference="word").reason == "no_answer"

What a reward prints is shown. `Bench` is what both stand on, and `rewardsvc check` too; use it to make many checks with
one start of the executor, which takes a second or two. It needs `pip install 'rewardsvc[server]'`.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rewardsvc import registry, selftest
from rewardsvc.clock import now_ns
from rewardsvc.contract import CaseInfo, Message, Model, RewardInfo, Rollout, ScoreRequest, Status, Task, Text, Verdict
from rewardsvc.errors import Problem, RewardFault
from rewardsvc.reward import CaseKind, Reward
from rewardsvc.scheduler import Limits, Scheduler
from rewardsvc.settings import worker_environment

Target = type[Reward] | Path | str
"""A reward class, its file, or its name."""

Chat = Sequence[Message | Mapping[str, str]]
"""Chat messages; the last assistant turn is judged."""


_kept: dict[Target, Bench] = {}


class CaseLine(Model):
    """One case in a file of cases: `completion` and `reward`, or `completions` and `rewards` for a whole group.

    A reward of null means that the rollout must not be scored.
    """

    why: str = ""
    completion: str | None = None
    reward: float | None = None
    completions: list[str] = []
    rewards: list[float | None] = []
    reference: Any = None
    params: dict[str, Any] = {}
    prompt: str = ""
    status: Status | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Checked:
    """A case, what the executor said to it, and what is wrong with that in one line (None: it is as promised)."""

    case: CaseInfo
    verdicts: list[Verdict]
    fault: str | None


def check_reward(reward: Target, cases: Path | str | None = None) -> None:
    """Raises AssertionError with a line for every case that does not get the verdict it promises.

    The cases are those of the class and, if a file is named, its lines (`CaseLine` as JSON). Raises `RewardFault` when
    the reward cannot be offered at all.
    """
    with Bench(reward) as bench:
        checked = list(bench.check(reward, case_lines(cases) if cases else ()))
        name = bench.info(reward).name
    faults = [each.fault for each in checked if each.fault]
    if not checked:
        raise AssertionError(f"{name} has no cases, so that nothing was checked; give it some")
    if faults:
        raise AssertionError("\n  ".join([f"{name} broke {len(faults)} of {len(checked)} promises:", *faults]))


def judge(
    reward: Target,
    completion: str | Chat,
    reference: Any = None,
    *,
    prompt: str | Chat = "",
    params: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on one completion. The executor is started by the first call and kept until the interpreter ends.

    Raises `RewardFault` when the reward cannot be offered, and `Problem` when the request would be refused.
    """
    task = Task(prompt=msgspec.convert(prompt, Text), reference=reference, metadata=dict(metadata or {}))
    bench = _kept.get(reward)
    if bench is None:
        bench = _kept[reward] = Bench(reward)
        atexit.register(bench.close)
    return bench.judge(reward, [completion], task, params)[0]


def case_lines(path: Path | str) -> Iterator[CaseInfo]:
    """The cases in a file, one JSON object per line. Raises `RewardFault` naming the line that is none."""
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        if line.strip():
            try:
                yield _case(msgspec.json.decode(line, type=CaseLine))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise RewardFault(f"{path}, line {number} is not a case: {error}") from None


def _case(line: CaseLine) -> CaseInfo:
    kinds: dict[float | None, CaseKind] = {None: "not_scored", 1.0: "full", 0.0: "zero"}
    if (line.completion is None) == (not line.completions) or len(line.completions) != len(line.rewards):
        raise msgspec.ValidationError("give `completion` and `reward`, or as many `completions` as `rewards`")
    about = {"reference": line.reference, "prompt": line.prompt, "params": line.params, "reason": line.reason}
    about |= {"status": line.status, "why": line.why}
    if line.completion is None:
        return CaseInfo("group", line.completions, line.rewards, **about)
    return CaseInfo(kinds.get(line.reward, "partial"), [line.completion], [line.reward], **about)


class Bench:
    """Rewards in the real executor, whether they keep their promises or not. Close it, or use it in a `with`.

    Blocks; not for use inside a running event loop. Raises `RewardFault` when there is no such file.
    """

    def __init__(self, *rewards: Target) -> None:
        self._places = {reward: _place(reward) for reward in rewards}
        files = sorted({str(place) for place in self._places.values() if isinstance(place, Path)})
        self._closed = False
        self._runner = asyncio.Runner()
        self._scheduler = self._runner.run(_start(files))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the executor's processes. Doing it twice does no harm."""
        if not self._closed:
            self._closed = True
            self._runner.run(_close(self._scheduler))
            self._runner.close()

    @property
    def catalogue(self) -> list[RewardInfo]:
        """Every reward there is, by name, self-tests aside."""
        return sorted(self._scheduler.catalogue.values(), key=lambda info: info.name)

    def info(self, reward: Target) -> RewardInfo:
        """The catalogue entry of one of this bench's rewards. Raises `RewardFault` when it cannot be offered."""
        place = self._places[reward]
        found = [info for info in self.catalogue if _is_from(place, info)]
        if not found:
            names = ", ".join(info.name for info in self.catalogue)
            raise RewardFault(f"there is no reward {place!r}: installed are {names}; a file is named {place}.py")
        if not found[0].available:
            raise RewardFault(f"{found[0].name} is unavailable: {found[0].unavailable_because}")
        return found[0]

    def check(self, reward: Target, more: Iterable[CaseInfo] = ()) -> Iterator[Checked]:
        """Judges each case of a reward, and then each of `more`."""
        info = self.info(reward)
        for case in (*info.cases, *more):
            yield self._check(info, case)

    def judge(
        self, reward: Target, completions: Sequence[str | Chat], task: Task, params: Mapping[str, Any] | None = None
    ) -> list[Verdict]:
        """The verdicts on a group. Raises `Problem` when the request would be refused."""
        rollouts = [Rollout(completion=msgspec.convert(completion, Text)) for completion in completions]
        request = ScoreRequest(task=task, rollouts=rollouts, params=dict(params or {}))
        return self._runner.run(self._scheduler.score(self.info(reward).name, request, "bench", now_ns())).verdicts

    def _check(self, info: RewardInfo, case: CaseInfo) -> Checked:
        outcome = self._runner.run(self._scheduler.outcome_of(info, case))
        verdicts = [] if isinstance(outcome, Problem) else outcome
        return Checked(case, verdicts, selftest.fault_of(case, outcome) or _undocumented(info, case, verdicts))


def _undocumented(info: RewardInfo, case: CaseInfo, verdicts: Sequence[Verdict]) -> str | None:
    """A scored verdict with a reason that the reward's own list of reasons does not have."""
    reasons = [verdict.reason for verdict in verdicts if verdict.status == "scored"]
    unknown = [reason for reason in reasons if info.reasons and reason not in info.reasons]
    return f"{selftest.name_of(case)}: its reason {unknown[0]!r} is missing from `reasons`" if unknown else None


class _EveryReward(Scheduler):
    """Offers every reward that could be imported, because a check is about those that break their promises."""

    async def _test(self, info: RewardInfo) -> None:
        self._tested.add(info.name)


async def _start(files: Sequence[str]) -> Scheduler:
    """Nothing is cached: every check runs the reward's code."""
    environment = worker_environment() | {"PYTHONUNBUFFERED": "1"}
    scheduler = _EveryReward(
        Limits(
            workers=1,
            cache_bytes=0,
            max_groups=8,
            quiet_workers=False,
            reward_files=tuple(files),
            environment=environment,
        )
    )
    await scheduler.start()
    return scheduler


async def _close(scheduler: Scheduler) -> None:
    scheduler.close()


def _place(reward: Target) -> Path | str:
    """Where a reward comes from: its file, or its name when it is (or may be) installed."""
    if isinstance(reward, type):
        return _place_of_class(reward)
    path = Path(reward)
    if path.suffix == ".py":
        if not path.is_file():
            raise RewardFault(f"there is no file {path}")
        return path.resolve()
    installed = {found.name for found in registry.find(())}
    local = Path(f"{reward}.py")
    return local.resolve() if reward not in installed and local.is_file() else str(reward)


def _place_of_class(reward: type[Reward]) -> Path | str:
    value = f"{reward.__module__}:{reward.__qualname__}"
    installed = {getattr(found.source, "value", None) for found in registry.find(())}
    return reward.name if value in installed else Path(inspect.getfile(reward)).resolve()


def _is_from(place: Path | str, info: RewardInfo) -> bool:
    return info.wheel == place.name if isinstance(place, Path) else info.name == place
