"""The heart: one group in, its verdicts out, before the deadline. There are no HTTP types in here.

    admit → look in the cache, join a twin in flight → hand a batch to an executor → collect → order

Whatever happens to a rollout's computation, each group that waits for it is told once; whatever happens to a group
(deadline, caller gone), it lets go, and an executor stops work that nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from rewardsvc import observe, selftest
from rewardsvc.cache import Cache, Context, context_hash
from rewardsvc.cache import key as cache_key
from rewardsvc.contract import (
    MAX_TEXT_BYTES,
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
from rewardsvc.executors.link import Parent
from rewardsvc.executors.wire import Bootstrap, encode, encode_stable, now_ns
from rewardsvc.executors.work import Batch, Row

_SELF_TEST_SECONDS = 60.0
_SELF_TEST_TRIES = 3
_ACCIDENTS = ("crashed", "timeout", "resource_limit")
_LAST_START = 0.8  # of the deadline: what starts later mostly ends too late, and is then done for nothing
_copy = msgspec.structs.replace


@dataclass(frozen=True)
class Limits:
    """What one scheduler may use. `environment` is for the processes that run rewards."""

    workers: int
    cache_bytes: int
    max_groups: int
    recycle_items: int = 20_000
    recycle_mb: int = 512
    quiet_workers: bool = True
    reward_files: tuple[str, ...] = ()
    required_rewards: tuple[str, ...] = ()
    environment: dict[str, str] | None = None


class Group:
    """One group under way: its verdicts so far, and where it waits for the others."""

    __slots__ = ("done", "ids", "info", "missing", "on_verdict", "seats", "verdicts")

    def __init__(self, info: RewardInfo, ids: list[str]) -> None:
        self.info = info
        self.ids = ids
        self.verdicts: list[Verdict | None] = [None] * len(ids)
        self.missing = len(ids)
        self.seats: list[tuple[Flights, int, int]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_verdict: Callable[[Verdict], None] | None = None

    def settle(self, position: int, verdict: Verdict) -> None:
        """The verdict on one rollout."""
        verdict.id = self.ids[position]
        if verdict.reward is None and self.info.parts:
            verdict.parts = dict.fromkeys(self.info.parts)
        self.verdicts[position] = verdict
        self.missing -= 1
        if self.on_verdict is not None:
            self.on_verdict(verdict)

    def close_if_complete(self) -> None:
        """Wakes whoever waits when nothing is missing."""
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def refuse(self, problem: Problem) -> None:
        """The request is a mistake of the caller."""
        self.leave()
        if not self.done.done():
            self.done.set_exception(problem)

    def expire(self) -> None:
        """The deadline: what is missing is a timeout, and nothing is waited for any more."""
        self.leave()
        for position, verdict in enumerate(self.verdicts):
            if verdict is None:
                self.settle(position, Verdict.not_scored("timeout", "deadline"))
        self.close_if_complete()

    def leave(self) -> None:
        """Gives up every seat whose verdict has not come."""
        if self.missing:
            for flights, index in {(flights, index) for flights, index, _ in self.seats}:
                flights.let_go(index, self)
        self.seats.clear()

    def finished(self) -> list[Verdict]:
        """The verdicts in the order of the rollouts."""
        return [verdict for verdict in self.verdicts if verdict is not None]


class Flights:
    """The rows of one batch with their cache keys and everybody who waits for them."""

    __slots__ = ("_cache", "_under_way", "groups", "keys", "waiters", "whole_key")

    def __init__(self, cache: Cache, under_way: dict[bytes, tuple[Flights, int]], group: Group) -> None:
        """`under_way` is where twins are found by key; `whole_key` stands for all rows of a reward per group."""
        self._cache = cache
        self._under_way = under_way
        self.groups = {group}
        self.keys: list[bytes | None] = []
        self.waiters: list[list[tuple[Group, int]]] = []
        self.whole_key: bytes | None = None

    def add(self, key: bytes | None, group: Group, position: int) -> int:
        """A new row that this group waits for; its index."""
        index = len(self.keys)
        self.keys.append(key)
        self.waiters.append([(group, position)])
        group.seats.append((self, index, position))
        if key is not None:
            self._under_way[key] = (self, index)
        return index

    def join(self, index: int, group: Group, position: int) -> None:
        """This group waits for the row as well."""
        self.waiters[index].append((group, position))
        group.seats.append((self, index, position))
        self.groups.add(group)

    def let_go(self, index: int, group: Group) -> None:
        """This group waits no longer. A row that nobody waits for may never be judged, so no twin may join it."""
        self.groups.discard(group)
        waiters = self.waiters[index]
        self.waiters[index] = [waiter for waiter in waiters if waiter[0] is not group]
        if waiters and not self.waiters[index]:
            self._forget(self.keys[index], index)
            self._forget(self.whole_key, 0)

    def _forget(self, key: bytes | None, index: int) -> None:
        """Twins no longer find this row; the key may stand for a newer one by now."""
        if key is not None and self._under_way.get(key) == (self, index):
            del self._under_way[key]

    def name_whole(self, key: bytes) -> None:
        """All rows together can be joined under this key."""
        self.whole_key = key
        self._under_way[key] = (self, 0)

    def wanted(self, batch: Batch, index: int) -> bool:
        """Whether anybody still waits for this row."""
        return bool(self.waiters[index])

    def settled(self, batch: Batch, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        """New verdicts: kept in the cache, handed to everybody who waits."""
        self._keep(verdicts)
        for index, verdict in verdicts:
            waiters, self.waiters[index] = self.waiters[index], []
            if len(waiters) == 1:
                group, position = waiters[0]
                group.settle(position, verdict)
            else:
                for group, position in waiters:
                    group.settle(position, _copy(verdict))
        for group in self.groups:
            if not group.missing:
                group.close_if_complete()

    def _keep(self, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        if self.whole_key is not None and len(verdicts) == len(self.keys):
            self._forget(self.whole_key, 0)
            self._cache.put(self.whole_key, [verdict for _, verdict in sorted(verdicts, key=lambda row: row[0])])
        for index, verdict in verdicts:
            key = self.keys[index]
            if key is not None:
                self._forget(key, index)
                self._cache.put(key, (verdict,))

    def refused(self, batch: Batch, problem: Problem) -> None:
        """The request is a mistake of the caller, for everybody who made it."""
        for index, key in enumerate(self.keys):
            self._forget(key, index)
        self._forget(self.whole_key, 0)
        for group in list(self.groups):
            group.refuse(problem)


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
        self.parent = Parent(bootstrap, dict(os.environ) if limits.environment is None else limits.environment)
        self.cpu = CpuPool(self.parent, limits.workers)
        self.io = IoPool(self.parent)
        self._cache = Cache(limits.cache_bytes)
        self._under_way: dict[bytes, tuple[Flights, int]] = {}
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
            try:
                verdicts = await self._verdicts_on(info, case)
            except Problem as problem:
                return f"{case.kind} case {case.why or case.rollouts[:1]!r}: refused, {problem.detail} {problem.errors}"
            fault = selftest.fault_of(case, verdicts)
            if fault:
                return fault
        return None

    async def _verdicts_on(self, info: RewardInfo, case: CaseInfo) -> list[Verdict]:
        """What a case gets; tried again when an accident, which may be nobody's fault, left it without a number."""
        for _ in range(_SELF_TEST_TRIES):
            group = self._admit(info, selftest.request_of(case), cached=False)
            timer = asyncio.get_running_loop().call_later(_SELF_TEST_SECONDS, group.expire)
            try:
                await group.done
            finally:
                timer.cancel()
                group.leave()
            if not any(verdict.status in _ACCIDENTS and verdict.status != case.status for verdict in group.finished()):
                break
        return group.finished()

    def not_ready_because(self) -> list[str]:
        """Why the service should get no requests now; empty when it is ready."""
        reasons = ["the service is draining"] if self.draining else []
        if not self.parent.ready:
            reasons.append("the parent of the workers is starting")
        elif not self.cpu.ready:
            reasons.append("no worker has started yet")
        for name, info in self.catalogue.items():
            if info.available and name not in self._tested:
                reasons.append(f"the self-test of {name} is running")
        for name in self.limits.required_rewards:
            known = self.catalogue.get(name)
            if self.catalogue and (known is None or not known.available):
                because = known.unavailable_because if known else "it is not installed"
                reasons.append(f"the required reward {name} is unavailable: {because}")
        return reasons

    def refuse_if_full(self) -> None:
        """Raises `Overloaded` or `Draining` when no further group can be taken, whatever it is."""
        if self.draining:
            raise Draining("The service is shutting down; send the group to another instance.", retry_after_ms=1000)
        if self.under_way >= self.limits.max_groups:
            raise self._overloaded("As many groups as the service takes are under way.")

    def _overloaded(self, detail: str) -> Overloaded:
        return Overloaded(detail, retry_after_ms=max(100, int(self.cpu.expected_wait() * 500)))

    async def score(self, name: str, request: ScoreRequest, request_id: str, arrived_ns: int) -> ScoreReply:
        """Verdicts in the order of the rollouts, at the latest `request.deadline_ms` after `arrived_ns`.

        `arrived_ns` is on the monotonic clock. Raises a `Problem` when the request cannot be taken at all.
        """
        group = self._enter(name, request, arrived_ns)
        timer = self._expire_later(group, request, arrived_ns)
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
        self.refuse_if_full()
        info = self._info(name)
        wait = (self.cpu if info.resources.kind == "cpu" else self.io).expected_wait()
        if wait > _LAST_START * request.deadline_ms / 1e3:
            raise self._overloaded(f"The work that waits already takes about {wait:.1f} s, too long for the deadline.")
        group = self._admit(info, request, arrived_ns)
        self.under_way += 1
        observe.group_started()
        return group

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
        ids = _ids(request.rollouts)
        task, params = encode_stable(request.task), encode_stable(request.params)
        if is_too_long(text_of(request.task.prompt) or ""):
            raise TooLarge("The prompt is longer than 1 MiB.", [("/task/prompt", "at most 1 MiB in UTF-8")])
        group = Group(info, ids)
        context = context_hash(info.name, info.version, task, params) if info.deterministic and cached else None
        seat = self._seat_whole if info.per_group else self._seat_each
        rows, flights = seat(group, request.rollouts, context)
        if rows or all(verdict is not None and verdict.status == "bad_item" for verdict in group.verdicts):
            start = now_ns() if arrived_ns is None else arrived_ns
            times = (start, start + request.deadline_ms * 1_000_000)
            batch = Batch(flights, info, Raw(task), Raw(params), rows, times)
            (self.cpu if info.resources.kind == "cpu" else self.io).submit(batch)
        else:
            group.close_if_complete()
        return group

    def _seat_each(self, group: Group, rollouts: list[Rollout], context: Context | None) -> tuple[list[Row], Flights]:
        """Each rollout for itself: from the cache, with a twin under way, or as a new row (those are returned)."""
        flights = Flights(self._cache, self._under_way, group)
        rows: list[Row] = []
        hits = joined = 0
        for position, rollout in enumerate(rollouts):
            fault = _unusable(rollout)
            if fault:
                group.settle(position, Verdict.not_scored("bad_item", fault))
                continue
            payload = encode_stable((rollout.completion, rollout.reference, rollout.metadata))
            key = None
            if context is not None:
                key = cache_key(context, payload)
                known = self._cache.get(key)
                if known is not None:
                    hits += 1
                    group.settle(position, known[0])
                    continue
                twin = self._under_way.get(key)
                if twin is not None:
                    joined += 1
                    twin[0].join(twin[1], group, position)
                    continue
            index = flights.add(key, group, position)
            rows.append((index, group.ids[position], Raw(payload)))
        observe.cache_looked_up(hits, joined, len(rows) if context is not None else 0)
        return rows, flights

    def _seat_whole(self, group: Group, rollouts: list[Rollout], context: Context | None) -> tuple[list[Row], Flights]:
        """A reward that compares rollouts judges the whole group at once, or none of it."""
        flights = Flights(self._cache, self._under_way, group)
        faults = [_unusable(rollout) for rollout in rollouts]
        if any(faults):
            for position, fault in enumerate(faults):
                group.settle(position, Verdict.not_scored("bad_item", fault or "bad_item_in_group"))
            return [], flights
        payloads = [encode_stable((rollout.completion, rollout.reference, rollout.metadata)) for rollout in rollouts]
        if context is not None and rollouts:
            key = cache_key(context, encode([group.ids, payloads]))
            if self._found_whole(group, key):
                return [], flights
            flights.name_whole(key)
        for position in range(len(rollouts)):
            flights.add(None, group, position)
        return [(index, group.ids[index], Raw(payload)) for index, payload in enumerate(payloads)], flights

    def _found_whole(self, group: Group, key: bytes) -> bool:
        """Whether the verdicts on a whole group were in the cache or are under way."""
        known, twin = self._cache.get(key), self._under_way.get(key)
        for position in range(len(group.ids)):
            if known is not None:
                group.settle(position, known[position])
            elif twin is not None:
                twin[0].join(position, group, position)
        return known is not None or twin is not None

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


def _ids(rollouts: list[Rollout]) -> list[str]:
    try:
        return unique_ids(rollouts)
    except ValueError as error:
        raise WrongShape("Two rollouts have the same id.", [(str(error), "this id occurs before")]) from None


def _unusable(rollout: Rollout) -> str | None:
    """Why a rollout cannot be judged by any reward, as a reason slug."""
    text = rollout.completion if type(rollout.completion) is str else text_of(rollout.completion)
    if text is None:
        return "no_assistant_turn"
    return "too_long" if is_too_long(text) else None


def is_too_long(text: str) -> bool:
    """Whether a text has more than 1 MiB in UTF-8."""
    return len(text) > MAX_TEXT_BYTES // 4 and len(text.encode()) > MAX_TEXT_BYTES
