"""The `io` executor: one process outside the web process in which coroutine rewards wait for other people's servers.

Each unit (one rollout, or one group) is a shard of its own; a reward has at most `resources.concurrency` of them under way. A coroutine that
holds the event loop for more than `BLOCKED_SECONDS` costs its own rollout a `timeout` and the process its life; the
others run again in the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from rewardsvc.errors import NotScored, Timeout
from rewardsvc.executors.cpu import WATCH_SECONDS, death, order_of, refusal
from rewardsvc.executors.link import Link, Parent
from rewardsvc.executors.wire import Cancel, Cell, Exit, FromWorker, Ready, Rejected, now_ns
from rewardsvc.executors.work import Batch, Row, Shard

BLOCKED_SECONDS = 1.0
_GRACE_SECONDS = 0.025


class IoPool:
    """The process, what is under way in it, and what waits for its reward's turn."""

    kind = "io"

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._link: Link | None = None
        self._queues: dict[str, deque[Batch]] = {}
        self._under_way: dict[int, Shard] = {}
        self._running: dict[str, int] = {}
        self._number = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def links(self) -> list[Link]:
        """The workers there are."""
        return [self._link] if self._link else []

    @property
    def ready(self) -> bool:
        """Whether the process has reported for work."""
        return self._link is not None and self._link.pid > 0

    def expected_wait(self) -> float:
        """Waiting is what these rewards do; their queues are bounded by the number of groups alone."""
        return 0.0

    def refill(self) -> None:
        """Starts the process if it is not there."""
        if self._link is not None or self._closed:
            return
        self._link = self._parent.spawn(self.kind)
        if self._link is not None:
            self._link.on_message = self._message
            self._link.on_gone = self._gone

    def submit(self, batch: Batch) -> None:
        """Queues the rows of one group."""
        self._queues.setdefault(batch.info.name, deque()).append(batch)
        self._pump(batch.info.name)

    def _pump(self, reward: str) -> None:
        queue = self._queues.get(reward, deque())
        while queue and self.ready and self._running.get(reward, 0) < queue[0].info.resources.concurrency:
            batch = queue[0]
            _, rows = batch.next_units(1)
            if not batch.units:
                queue.popleft()
            if rows is not None:
                self._start(batch, rows)

    def _start(self, batch: Batch, rows: list[Row]) -> None:
        assert self._link is not None
        self._number += 1
        shard = Shard(self._number, batch, rows, now_ns())
        self._under_way[shard.number] = shard
        self._running[batch.info.name] = self._running.get(batch.info.name, 0) + 1
        self._link.send(order_of(shard))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._watch)

    def _message(self, message: FromWorker) -> None:
        if isinstance(message, Ready):
            for reward in list(self._queues):
                self._pump(reward)
            return
        shard = self._under_way.get(message.number)
        if shard is None:
            return
        if isinstance(message, Rejected):
            shard.batch.refuse(refusal(shard, message))
        else:
            shard.batch.settle(message.verdicts)
        self._end(shard)

    def _end(self, shard: Shard) -> None:
        del self._under_way[shard.number]
        self._running[shard.batch.info.name] -= 1
        self._pump(shard.batch.info.name)

    def _watch(self) -> None:
        """Stops what nobody waits for or what is over its time, and a process whose loop is blocked."""
        self._timer = None
        assert self._link is not None
        self._link.drain()
        now = now_ns()
        for shard in list(self._under_way.values()):
            limit = shard.batch.info.resources.item_timeout + _GRACE_SECONDS
            if now - shard.heard_ns > limit * 1e9:
                shard.batch.fail(shard.rows, Timeout("item_limit"))
            if not shard.batch.is_wanted(shard.rows):
                self._cancel(shard)
        current = self._link.cell.current()
        if current is not None and now - current[1] > BLOCKED_SECONDS * 1e9:
            self._lose(current[0], Timeout("blocked_event_loop"), "item_limit")
        if self._under_way:
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._watch)

    def _cancel(self, shard: Shard) -> None:
        assert self._link is not None
        self._link.send(Cancel(shard.number))
        self._end(shard)

    def _lose(self, mark: int, fault: NotScored, because: str) -> None:
        assert self._link is not None
        self._link.kill(because)
        self._restart(mark, fault, {})

    def _gone(self, report: Exit | None) -> None:
        """The process died: the coroutine that held it is to blame, the others run again."""
        assert self._link is not None
        current = self._link.cell.current()
        fault, evidence = death(report, self._link.killed_because)
        self._restart(current[0] if current else None, fault, evidence)

    def _restart(self, mark: int | None, fault: NotScored, evidence: dict[str, object]) -> None:
        lost, self._under_way, self._link = self._under_way, {}, None
        self._running.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        guilty = [shard for number, shard in lost.items() if number % Cell.PREPARING == mark]
        for shard in guilty:
            shard.batch.fail(shard.rows, fault, evidence)
        for shard in lost.values():
            waiting = shard.batch.units
            if shard.batch.put_back(shard.rows, blameless=bool(guilty)) and not waiting:
                self._queues.setdefault(shard.batch.info.name, deque()).appendleft(shard.batch)
        self.refill()

    def close(self) -> None:
        """Ends the process; what is undone stays so."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.kill("closing")
            self._link = None
