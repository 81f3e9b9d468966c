"""The `io` executor: one process outside the web process in which coroutine rewards wait for other people's servers.

Each unit (one rollout, or one group) is a shard of its own; a reward has at most `resources.concurrency` of them under
way. A coroutine that holds the event loop for more than `BLOCKED_SECONDS`, or makes the process grow over its memory,
costs its own rollout its number and the process its life; the others run again in the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from rewardsvc.clock import now_ns
from rewardsvc.errors import NotScored, ResourceLimit, Timeout
from rewardsvc.executors.cpu import order_of, refusal
from rewardsvc.executors.link import GARBAGE, RECYCLED, Link, Parent
from rewardsvc.executors.vitals import Stopwatch, death, grown_mb
from rewardsvc.executors.wire import (
    Cancel,
    Exit,
    FromWorker,
    Ready,
    Rejected,
    is_mark_of,
    is_preparing,
)
from rewardsvc.executors.work import Batch, Row, Shard

BLOCKED_SECONDS = 1.0
WATCH_SECONDS = 0.025
_LEAST_BACKOFF, _MOST_BACKOFF = 0.02, 2.0


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
        self._backoff = _LEAST_BACKOFF
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._held, self._silent = Stopwatch(), Stopwatch()
        self._looked_ns = 0
        self._asked_ns = 0  # when something was first asked of the process that its loop has not turned since

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
        if self._link is not None or self._closed or not self._parent.ready:
            return
        self._link = self._parent.spawn(self.kind)
        if self._link is None:
            self._refill_later()
        else:
            self._link.on_message = self._message
            self._link.on_gone = self._gone

    def _refill_later(self) -> None:
        asyncio.get_running_loop().call_later(self._backoff, self.refill)
        self._backoff = min(2 * self._backoff, _MOST_BACKOFF)

    def submit(self, batch: Batch) -> None:
        """Queues the rows of one group."""
        self._queues.setdefault(batch.info.name, deque()).append(batch)
        self._pump()

    def _pump(self) -> None:
        """Starts what may start. A suspect runs alone, so that the next loss can be put down to it."""
        if not self.ready:
            return
        while (suspected := self._suspected()) is not None:
            if self._under_way:
                return
            self._start_next(suspected)
        for reward, queue in self._queues.items():
            while queue and self._running.get(reward, 0) < queue[0].info.resources.concurrency:
                self._start_next(queue)

    def _suspected(self) -> deque[Batch] | None:
        return next((queue for queue in self._queues.values() if queue and queue[0].next_is_suspect), None)

    def _start_next(self, queue: deque[Batch]) -> None:
        batch = queue[0]
        _, rows = batch.next_units(1)
        if not batch.units:
            queue.popleft()
        if rows is not None:
            self._start(batch, rows)

    def _start(self, batch: Batch, rows: list[Row]) -> None:
        assert self._link is not None
        self._number += 1
        if self._asked_ns <= self._link.cell.beat_ns:
            self._asked_ns = now_ns()
        shard = Shard(self._number, batch, rows, now_ns())
        self._under_way[shard.number] = shard
        self._running[batch.info.name] = self._running.get(batch.info.name, 0) + 1
        self._link.send(order_of(shard))
        if self._timer is None:
            self._looked_ns = now_ns()
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)

    def _message(self, message: FromWorker) -> None:
        if isinstance(message, Ready):
            self._backoff = _LEAST_BACKOFF
            self._pump()
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
        self._pump()

    def _look(self) -> None:
        """Stops what nobody waits for, what is over its time, and a process whose loop is held for too long."""
        self._timer = None
        link = self._link
        if link is not None:
            link.drain()
        if link is not None and link is self._link and self._is_sound(link):
            self._stop_what_is_over(link)
        if self._under_way and self._timer is None:
            self._looked_ns = now_ns()
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)

    def _is_sound(self, link: Link) -> bool:
        """Ends a process that does nothing but one thing, that does nothing at all, or that has grown too large."""
        mark, started_ns = link.cell.current() or (None, 0)
        turned_ns = max(link.cell.beat_ns, self._asked_ns)
        resources = [shard.batch.info.resources for shard in self._under_way.values()]
        allowed_mb = max([each.memory_mb for each in resources], default=None)
        if mark is not None and self._held.seconds(link.pid, started_ns) > BLOCKED_SECONDS:
            self._lose(link, mark, Timeout("blocked_event_loop"), "item_limit")
        elif mark is None and self._under_way and self._silent.seconds(link.pid, turned_ns) > 2 * BLOCKED_SECONDS:
            self._lose(link, None, Timeout("blocked_event_loop"), "lost")
        elif allowed_mb is not None and grown_mb(link.pid, link.cell) > allowed_mb:
            self._lose(link, mark, ResourceLimit("memory_limit"), "memory_limit")
        else:
            return True
        return False

    def _stop_what_is_over(self, link: Link) -> None:
        """While one coroutine holds the loop, the time of the others stands still."""
        now, looked = now_ns(), self._looked_ns
        mark, started_ns = link.cell.current() or (None, now)
        for shard in list(self._under_way.values()):
            holds = is_mark_of(mark, shard.number)
            if started_ns <= looked and not holds:
                shard.heard_ns += now - looked
            if now - shard.heard_ns > shard.batch.info.resources.item_timeout * 1e9:
                if started_ns <= looked and holds:
                    self._lose(link, mark, Timeout("item_limit"), "item_limit")
                    return
                shard.batch.fail(shard.rows, Timeout("item_limit"))
            if not shard.batch.is_wanted(shard.rows):
                shard.batch.fail(shard.rows, Timeout("abandoned"))
                link.send(Cancel(shard.number))
                self._end(shard)

    def _lose(self, link: Link, mark: int | None, fault: NotScored, because: str) -> None:
        link.kill(because)
        if is_preparing(mark):
            for shard in self._marked(mark):
                shard.batch.condemn(fault, {})
        self._restart(mark, fault, {})

    def _marked(self, mark: int | None) -> list[Shard]:
        return [shard for number, shard in self._under_way.items() if is_mark_of(mark, number)]

    def _gone(self, report: Exit | None) -> None:
        """The process died: the coroutine that held it is to blame, the others run again."""
        assert self._link is not None
        current, because = self._link.cell.current(), self._link.killed_because
        if because == RECYCLED:
            self._restart(None, None, {})
        else:
            mark = current and current[0]
            if because == GARBAGE and not is_preparing(mark):
                mark = None  # it may be an earlier item's
            self._restart(mark, *death(report, because))

    def _restart(self, mark: int | None, fault: NotScored | None, evidence: dict[str, object]) -> None:
        """What was under way starts again in a new process, without what is marked; else a `fault` may be anybody's."""
        was_ready, self._link, self._asked_ns = self.ready, None, 0
        for shard in self._marked(mark):
            assert fault is not None
            if is_preparing(mark):
                shard.batch.upset(fault, evidence)
            else:
                shard.batch.fail(shard.rows, fault, evidence)
        lost, self._under_way = self._under_way, {}
        self._running.clear()
        for shard in reversed(lost.values()):
            waiting = shard.batch.units
            if shard.batch.put_back(shard.rows, fault if mark is None else None) and not waiting:
                self._queues.setdefault(shard.batch.info.name, deque()).appendleft(shard.batch)
        if was_ready:
            self.refill()
        else:
            self._refill_later()

    def close(self) -> None:
        """Ends the process; what is undone stays so."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.kill("closing")
            self._link = None
