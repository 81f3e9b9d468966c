"""The `io` executor: one process outside the web process in which coroutine rewards wait for other people's servers.

Each unit (one rollout, or one group) is a shard of its own; a reward has at most `resources.concurrency` of them under
way. A coroutine that holds the event loop for more than `BLOCKED_SECONDS`, or makes the process grow over its memory,
costs its own rollout its number and the process its life; the others run again in the next one. A process that has
grown old is given no more work and ends when it has finished what it has, while its successor works already.
"""

from __future__ import annotations

from collections import Counter

from rewardsvc.clock import now_ns
from rewardsvc.contract import RewardInfo
from rewardsvc.errors import NotScored, ResourceLimit, Timeout
from rewardsvc.executors.line import Line
from rewardsvc.executors.link import GARBAGE, RECYCLED, Link
from rewardsvc.executors.parentage import Parent
from rewardsvc.executors.pool import Pool, order_of, refusal
from rewardsvc.executors.vitals import Stopwatch, death, grown_mb
from rewardsvc.executors.wire import Cancel, Exit, FromWorker, Ready, Rejected, is_mark_of, is_preparing
from rewardsvc.executors.work import Batch, Shard

BLOCKED_SECONDS = 1.0
_MISSED_SECONDS = 0.5


class IoPool(Pool):
    """The process that takes orders, what waits for its reward's turn, and the processes that come and go."""

    kind = "io"

    def __init__(self, parent: Parent) -> None:
        super().__init__(parent)
        self._hosts: set[_Host] = set()
        self._current: _Host | None = None
        self._absent_since_ns = now_ns() - int(_MISSED_SECONDS * 1e9)  # it is missed from the beginning
        self._lines: dict[str, Line] = {}
        self._running: Counter[str] = Counter()

    @property
    def links(self) -> list[Link]:
        """The workers there are."""
        return [host.link for host in self._hosts]

    @property
    def ready(self) -> bool:
        """Whether a process takes orders, or did so a moment ago: one that fell is soon replaced."""
        return self._absent_seconds() < _MISSED_SECONDS

    def _absent_seconds(self) -> float:
        return 0.0 if self._current else (now_ns() - self._absent_since_ns) / 1e9

    def expected_wait(self, info: RewardInfo) -> float:
        """Seconds until work for this reward that is submitted now would start.

        A process that cannot be started is expected to be missing for as long again as it has been missing already.
        """
        line = self._lines.get(info.name)
        waiting = line.units.total() * self.cost(info.name) / info.resources.concurrency if line else 0.0
        return waiting + self._absent_seconds()

    def refill(self) -> None:
        """Starts a process if there is none, or none that is young; not if one is on its way."""
        if any(host.is_on_its_way for host in self._hosts) or (self._current and not self._current.is_old):
            return
        link = self._spawn()
        if link is not None:
            self._hosts.add(_Host(self, link))

    def submit(self, batch: Batch) -> None:
        """Queues the rows of one group."""
        self._lines.setdefault(batch.info.name, Line()).append(batch)
        self._pump()

    def take_over(self, host: _Host) -> None:
        """A new process is there, and gets all orders from now on."""
        self._has_come_to_life()
        self._current = host
        self._pump()

    def _pump(self) -> None:
        """Starts what may start. A suspect runs alone, so that the next loss can be put down to it."""
        host = self._current
        while host and (suspected := self._suspected()) is not None and not host.under_way:
            self._start_next(host, suspected)
        if host and not self._suspected():
            for reward, line in self._lines.items():
                while line and self._running[reward] < line.head.info.resources.concurrency:
                    self._start_next(host, line)
        self._watch_while(any(self._lines.values()) or any(host.under_way for host in self._hosts))

    def _suspected(self) -> Line | None:
        return next((line for line in self._lines.values() if line and line.head.next_is_suspect), None)

    def _start_next(self, host: _Host, line: Line) -> None:
        batch = line.head
        rows = line.take(1)
        if rows is not None:
            self._number += 1
            self._running[batch.info.name] += 1
            host.start(Shard(self._number, batch, rows, now_ns()))

    def refuse(self, shard: Shard, rejected: Rejected) -> None:
        """A worker says that the group is a mistake of the caller."""
        batch = shard.batch
        self._lines[batch.info.name].change(batch, lambda: batch.refuse(refusal(shard, rejected)))

    def upset(self, shard: Shard, fault: NotScored, evidence: dict[str, object], at_once: bool) -> None:
        """The check of a batch's task has cost a process its life."""
        batch = shard.batch
        deed = batch.condemn if at_once else batch.upset
        self._lines[batch.info.name].change(batch, lambda: deed(fault, evidence))

    def end(self, shard: Shard) -> None:
        """A shard is over."""
        self._running[shard.batch.info.name] -= 1
        self._pump()

    def replace(self, host: _Host, lost: list[Shard], fault: NotScored | None) -> None:
        """A process is gone. What it had under way starts again in another one; a `fault` may be anybody's of it."""
        self._hosts.discard(host)
        if host is self._current:
            self._current, self._absent_since_ns = None, now_ns()
        for shard in reversed(lost):
            self._running[shard.batch.info.name] -= 1
            self._put_back(shard, fault)
        self._refill_after(host.link)
        self._pump()

    def _put_back(self, shard: Shard, fault: NotScored | None) -> None:
        batch = shard.batch
        self._lines[batch.info.name].change(batch, lambda: batch.put_back(shard.rows, fault))

    def _look_at_workers(self) -> None:
        for host in [host for host in self._hosts if host.under_way]:
            host.look()
        if self._current and self._current.is_old and self._retry is None:
            self.refill()

    def _give_up_unwanted(self) -> None:
        for line in self._lines.values():
            line.give_up_unwanted()


class _Host:
    """One process, and what is under way in it."""

    def __init__(self, pool: IoPool, link: Link) -> None:
        self.pool = pool
        self.link = link
        self.under_way: dict[int, Shard] = {}
        self._held, self._silent = Stopwatch(), Stopwatch()
        self._looked_ns = 0
        self._asked_ns = 0  # when something was first asked of the process that its loop has not turned since
        link.on_message = self._message
        link.on_gone = self._gone

    @property
    def is_on_its_way(self) -> bool:
        """Whether the process has not reported for work yet."""
        return self.link.pid == 0

    @property
    def is_old(self) -> bool:
        """Whether the process has asked for a successor."""
        return self.link.cell.is_old

    def start(self, shard: Shard) -> None:
        """Hands a shard over."""
        if not self.under_way:
            self._looked_ns = now_ns()
        if self._asked_ns <= self.link.cell.beat_ns:
            self._asked_ns = now_ns()
        self.under_way[shard.number] = shard
        self.link.send(order_of(shard))

    def _message(self, message: FromWorker) -> None:
        if isinstance(message, Ready):
            self.pool.take_over(self)
            return
        shard = self.under_way.get(message.number)
        if shard is None:
            return
        if isinstance(message, Rejected):
            self.pool.refuse(shard, message)
        else:
            shard.batch.settle(message.verdicts)
            self.pool.learn_from(shard.batch.info.name, message)
        self._end(shard)

    def _end(self, shard: Shard) -> None:
        del self.under_way[shard.number]
        self.pool.end(shard)

    def look(self) -> None:
        """Stops what nobody waits for, what is over its time, and a process whose loop is held for too long."""
        self.link.drain()
        if self.link.alive and self._is_sound():
            self._stop_what_is_over()
        self._looked_ns = now_ns()

    def _is_sound(self) -> bool:
        """Ends a process that does nothing but one thing, that does nothing at all, or that has grown too large."""
        link = self.link
        mark, started_ns = link.cell.current() or (None, 0)
        turned_ns = max(link.cell.beat_ns, self._asked_ns)
        resources = [shard.batch.info.resources for shard in self.under_way.values()]
        allowed_mb = max([each.memory_mb for each in resources], default=None)
        if mark is not None and self._held.seconds(link.pid, started_ns) > BLOCKED_SECONDS:
            self._lose(mark, Timeout("blocked_event_loop"), "item_limit")
        elif mark is None and self.under_way and self._silent.seconds(link.pid, turned_ns) > 2 * BLOCKED_SECONDS:
            self._lose(None, Timeout("blocked_event_loop"), "lost")
        elif allowed_mb is not None and grown_mb(link.pid, link.cell) > allowed_mb:
            self._lose(mark, ResourceLimit("memory_limit"), "memory_limit")
        else:
            return True
        return False

    def _stop_what_is_over(self) -> None:
        """While one coroutine holds the loop, the time of the others stands still."""
        now, looked = now_ns(), self._looked_ns
        mark, started_ns = self.link.cell.current() or (None, now)
        for shard in list(self.under_way.values()):
            holds = is_mark_of(mark, shard.number)
            if started_ns <= looked and not holds:
                shard.heard_ns += now - looked
            if now - shard.heard_ns > shard.batch.info.resources.item_timeout * 1e9:
                if started_ns <= looked and holds:
                    self._lose(mark, Timeout("item_limit"), "item_limit")
                    return
                shard.batch.fail(shard.rows, Timeout("item_limit"))
            if not shard.batch.is_wanted(shard.rows):
                self._call_off(shard, now)

    def _call_off(self, shard: Shard, now: int) -> None:
        """Nobody waits for this shard any more, or not for longer than it may take."""
        shard.batch.fail(shard.rows, Timeout("abandoned"))
        self._count_as_cost(shard, now)
        self.link.send(Cancel(shard.number))
        self._end(shard)

    def _count_as_cost(self, shard: Shard, now: int) -> None:
        """An item that is never finished has taken its time all the same."""
        self.pool.learn_cost(shard.batch.info.name, (now - shard.heard_ns) / 1e9)

    def _lose(self, mark: int | None, fault: NotScored, because: str) -> None:
        self.link.kill(because)
        self._fall(mark, fault, {}, at_once=True)

    def _gone(self, report: Exit | None) -> None:
        """The process died: the coroutine that held it is to blame, the others run again."""
        current, because = self.link.cell.current(), self.link.killed_because
        mark = current and current[0]
        if because == RECYCLED:
            self.pool.replace(self, self._lost(), None)
            return
        if because == GARBAGE and not is_preparing(mark):
            mark = None  # it may be an earlier item's
        self._fall(mark, *death(report, because), at_once=False)

    def _fall(self, mark: int | None, fault: NotScored, evidence: dict[str, object], at_once: bool) -> None:
        """What is marked gets no number; without a mark, everything that was under way is suspected."""
        for shard in [shard for number, shard in self.under_way.items() if is_mark_of(mark, number)]:
            if is_preparing(mark):
                self.pool.upset(shard, fault, evidence, at_once)
            else:
                self._count_as_cost(shard, now_ns())
                shard.batch.fail(shard.rows, fault, evidence)
        self.pool.replace(self, self._lost(), fault if mark is None else None)

    def _lost(self) -> list[Shard]:
        """Everything that was under way, which is so no longer."""
        lost, self.under_way = list(self.under_way.values()), {}
        return lost
