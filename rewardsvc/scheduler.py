"""The heart: one group in, its verdicts out, before the deadline. There are no HTTP types in here.

    admit → look in the cache, join a twin in flight → hand a batch to an executor → collect → order

Whatever happens to a rollout's computation, each group that waits for it is told once; whatever happens to a group
(deadline, caller gone), it lets go, and an executor stops work that nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import KW_ONLY, dataclass

from msgspec import Raw

from rewardsvc import observe, selftest
from rewardsvc.cache import Cache, context_hash
from rewardsvc.clock import now_ns
from rewardsvc.contract import (
    CaseInfo,
    GroupSummary,
    RewardInfo,
    Rollout,
    ScoreReply,
    ScoreRequest,
    StreamEnd,
    Verdict,
    summarise,
    text_of,
    unique_ids,
)
from rewardsvc.errors import Draining, NotFound, Overloaded, Problem, RewardUnavailable, TooLarge, WrongShape
from rewardsvc.executors.cpu import CpuPool
from rewardsvc.executors.io import IoPool
from rewardsvc.executors.parentage import Parent
from rewardsvc.executors.pool import Pool
from rewardsvc.executors.wire import Bootstrap
from rewardsvc.executors.work import Batch
from rewardsvc.flights import Gate, Group, is_too_long
from rewardsvc.packing import encode_stable

_SELF_TEST_SECONDS = 60.0
_SELF_TEST_TRIES = 3
_LAST_START = 0.8  # of the deadline: what starts later mostly ends too late, and is then done for nothing


@dataclass(frozen=True)
class Limits:
    """What one scheduler may use. `environment` is for the processes that run rewards."""

    workers: int
    cache_bytes: int
    max_groups: int
    _: KW_ONLY
    environment: dict[str, str]
    recycle_items: int = 20_000
    recycle_mb: int = 512
    quiet_workers: bool = True
    reward_files: tuple[str, ...] = ()
    required_rewards: tuple[str, ...] = ()


class Scheduler:
    """Knows the rewards, owns the executors, and scores groups.

    Use as an async context manager, or `launch` early, then `start` and `close`.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.catalogue: dict[str, RewardInfo] = {}
        self.draining = False
        self.under_way = 0
        bootstrap = Bootstrap(
            list(limits.reward_files), {}, limits.quiet_workers, limits.recycle_items, limits.recycle_mb
        )
        self.parent = Parent(bootstrap, limits.environment)
        self.cpu = CpuPool(self.parent, limits.workers)
        self.io = IoPool(self.parent)
        self._gate = Gate(Cache(limits.cache_bytes))
        self._tested: set[str] = set()
        self._faults: dict[str, str] = {}
        self._idle = asyncio.Event()
        self._self_test: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._testing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Scheduler:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def launch(self) -> None:
        """Starts the parent process; its imports then run beside the caller's."""
        self.parent.launch()

    async def start(self, wait: bool = True) -> None:
        """Connects to the parent; with `wait`, returns when every reward has been imported and tested."""
        self.parent.on_catalogue = self._catalogue_arrived
        self.parent.attach()
        if wait:
            await self._self_test

    def _catalogue_arrived(self, rewards: list[RewardInfo]) -> None:
        """The parent is up, for the first time or again."""
        self.catalogue = {info.name: info for info in rewards}
        self.cpu.refill()
        if any(info.resources.kind == "io" for info in rewards):
            self.io.refill()
        for info in rewards:
            if info.name in self._faults:
                self._withdraw(info, self._faults[info.name])
            elif not info.available:
                observe.reward_unavailable(info.name, info.unavailable_because or "")
        untested = [info for info in rewards if info.available and info.name not in self._tested]
        self._testing = asyncio.ensure_future(self._test_all(untested))

    async def _test_all(self, rewards: list[RewardInfo]) -> None:
        await asyncio.gather(*(self._test(info) for info in rewards))
        if not self._self_test.done():
            self._self_test.set_result(None)

    async def _test(self, info: RewardInfo) -> None:
        """Runs a reward's cases through the real executor; one that breaks its promise makes it unavailable."""
        try:
            fault = await self.fault_of(info)
            if fault:
                self._faults[info.name] = f"its self-test failed: {fault}"
                self._withdraw(info, self._faults[info.name])
        finally:
            self._tested.add(info.name)

    @staticmethod
    def _withdraw(info: RewardInfo, because: str) -> None:
        info.available, info.unavailable_because = False, because
        observe.reward_unavailable(info.name, because)

    async def fault_of(self, info: RewardInfo) -> str | None:
        """The first case of a reward that does not get the verdict it promises."""
        for case in info.cases:
            fault = selftest.fault_of(case, await self.outcome_of(info, case))
            if fault:
                return fault
        return None

    async def outcome_of(self, info: RewardInfo, case: CaseInfo) -> list[Verdict] | Problem:
        """What a case of a reward gets, whether the reward is offered or not; tried again after an accident."""
        verdicts: list[Verdict] = []
        for _ in range(_SELF_TEST_TRIES):
            try:
                verdicts = await self._judge_uncached(info, selftest.request_of(case))
            except Problem as problem:
                return problem
            if not selftest.is_accident(case, verdicts):
                break
        return verdicts

    async def _judge_uncached(self, info: RewardInfo, request: ScoreRequest) -> list[Verdict]:
        """The verdicts on a group that nobody sent."""
        group = self._admit(info, request, cached=False)
        timer = asyncio.get_running_loop().call_later(_SELF_TEST_SECONDS, group.expire)
        try:
            await group.done
        finally:
            timer.cancel()
            group.leave()
        return group.finished()

    def not_ready_because(self) -> list[str]:
        """Why the service should get no requests now; empty when it is ready."""
        reasons = ["the service is draining"] if self.draining else []
        if not self.parent.ready:
            reasons.append("the parent of the workers is starting")
        elif not self.cpu.ready:
            reasons.append("no worker has started yet")
        elif self._has_coroutines() and not self.io.ready:
            reasons.append("the process of the coroutine rewards cannot be started")
        for name, info in self.catalogue.items():
            if info.available and name not in self._tested:
                reasons.append(f"the self-test of {name} is running")
        for name in self.limits.required_rewards:
            known = self.catalogue.get(name)
            if self.catalogue and (known is None or not known.available):
                because = known.unavailable_because if known else "it is not installed"
                reasons.append(f"the required reward {name} is unavailable: {because}")
        return reasons

    def _has_coroutines(self) -> bool:
        return any(info.available and info.resources.kind == "io" for info in self.catalogue.values())

    def refuse_if_full(self) -> None:
        """Raises `Overloaded` or `Draining` when no further group can be taken, whatever it is."""
        if self.draining:
            raise Draining("The service is shutting down; send the group to another instance.", retry_after_ms=1000)
        if self.under_way >= self.limits.max_groups:
            detail = "As many groups as the service takes are under way."
            raise _overloaded(detail, self.cpu.expected_wait())

    async def score(self, name: str, request: ScoreRequest, request_id: str, arrived_ns: int) -> ScoreReply:
        """Verdicts in the order of the rollouts, at the latest `request.deadline_ms` after `arrived_ns`.

        `arrived_ns` is on the monotonic clock. Raises a `Problem` when the request cannot be taken at all.
        """
        group = self._enter(name, request, arrived_ns)
        timer = self._expire_later(group, request, arrived_ns)
        del request  # its texts are packed by now
        try:
            await group.done
            verdicts = group.finished()
            summary = self._report(group, verdicts, request_id, arrived_ns)
            return ScoreReply(request_id, group.info.name, group.info.version, verdicts, summary)
        finally:
            timer.cancel()
            self._exit(group)

    async def stream(
        self, name: str, request: ScoreRequest, request_id: str, arrived_ns: int
    ) -> AsyncIterator[Verdict | StreamEnd]:
        """The same verdicts, each as soon as it is there, and then the summary of the group."""
        group = self._enter(name, request, arrived_ns)
        timer = self._expire_later(group, request, arrived_ns)
        del request
        arrived: asyncio.Queue[Verdict | None] = asyncio.Queue()
        for early in group.finished():
            arrived.put_nowait(early)
        group.on_verdict = arrived.put_nowait
        group.done.add_done_callback(lambda _: arrived.put_nowait(None))
        try:
            while (verdict := await arrived.get()) is not None:
                yield verdict
            await group.done
            summary = self._report(group, group.finished(), request_id, arrived_ns)
            yield StreamEnd(request_id, group.info.name, group.info.version, summary)
        finally:
            timer.cancel()
            self._exit(group)

    def _enter(self, name: str, request: ScoreRequest, arrived_ns: int) -> Group:
        self.cpu.attend()
        self.refuse_if_full()
        info = self._info(name)
        wait = self._pool(info).expected_wait(info)
        if wait > _LAST_START * request.deadline_ms / 1e3:
            raise _overloaded(f"The group would wait for about {wait:.1f} s, too long for its deadline.", wait)
        group = self._admit(info, request, arrived_ns)
        self.under_way += 1
        observe.group_started()
        return group

    def _pool(self, info: RewardInfo) -> Pool:
        return self.cpu if info.resources.kind == "cpu" else self.io

    def _exit(self, group: Group) -> None:
        group.leave()
        self.under_way -= 1
        observe.group_ended()
        if not self.under_way:
            self._idle.set()

    def _info(self, name: str) -> RewardInfo:
        info = self.catalogue.get(name)
        if info is None:
            if not self.catalogue:
                raise Draining("The service is still starting.", retry_after_ms=1000)
            raise NotFound(f"There is no reward {name[:64]!r}; GET /v1/rewards lists those there are.")
        if not info.available:
            raise RewardUnavailable(f"The reward {name!r} is unavailable: {info.unavailable_because}")
        if name not in self._tested:
            raise Draining(f"The self-test of {name!r} is still running.", retry_after_ms=1000)
        return info

    def _expire_later(self, group: Group, request: ScoreRequest, arrived_ns: int) -> asyncio.TimerHandle:
        left = request.deadline_ms / 1e3 - (now_ns() - arrived_ns) / 1e9
        return asyncio.get_running_loop().call_later(max(0.0, left), group.expire)

    def _report(self, group: Group, verdicts: list[Verdict], request_id: str, arrived_ns: int) -> GroupSummary:
        summary = summarise(verdicts)
        milliseconds = round((now_ns() - arrived_ns) / 1e6, 3)
        observe.group_scored(group.info.name, request_id, verdicts, summary.all_equal, milliseconds)
        return summary

    def _admit(
        self, info: RewardInfo, request: ScoreRequest, arrived_ns: int | None = None, cached: bool = True
    ) -> Group:
        """A group whose flights are on their way. Raises `WrongShape` or `TooLarge`."""
        task, params = encode_stable(request.task), encode_stable(request.params)
        if is_too_long(text_of(request.task.prompt) or ""):
            raise TooLarge("The prompt is longer than 1 MiB.", [("/task/prompt", "at most 1 MiB in UTF-8")])
        group = Group(info, _ids(request.rollouts), self._gate)
        context = context_hash(info.name, info.version, task, params) if info.deterministic and cached else None
        board = self._gate.board_whole if info.per_group else self._gate.board_each
        rows = board(group, request.rollouts, context)
        if rows or all(verdict is not None and verdict.status == "bad_item" for verdict in group.verdicts):
            start = now_ns() if arrived_ns is None else arrived_ns
            times = (start, start + request.deadline_ms * 1_000_000)
            batch = Batch(group.flights, info, Raw(task), Raw(params), rows, times)
            self._pool(info).submit(batch)
        else:
            group.close_if_complete()
        return group

    async def drain(self, seconds: float) -> None:
        """Takes no further group and waits for those under way, at most so long."""
        self.draining = True
        observe.draining(self.under_way)
        if self.under_way:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)

    def close(self) -> None:
        """Ends every process that belongs to this scheduler."""
        self.parent.close()
        self.cpu.close()
        self.io.close()


def _overloaded(detail: str, wait: float) -> Overloaded:
    return Overloaded(detail, retry_after_ms=max(100, int(wait * 500)))


def _ids(rollouts: list[Rollout]) -> list[str]:
    try:
        return unique_ids(rollouts)
    except ValueError as error:
        raise WrongShape("Two rollouts have the same id.", [(str(error), "this id occurs before")]) from None
