"""The `io` executor: one process outside the web process in which coroutine rewards wait for other people's servers.

Each flight is a shard of its own; a reward has at most `resources.concurrency` of them under way. A coroutine that
holds the event loop for more than `BLOCKED_SECONDS` costs its own rollout a `timeout` and the process its life; the
others run again in the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from rewardsvc.errors import Crashed, NotScored, Timeout, WrongShape
from rewardsvc.executors.cpu import WATCH_SECONDS, death
from rewardsvc.executors.link import Link, Parent
from rewardsvc.executors.wire import Cancel, Cell, Exit, FromWorker, Ready, Rejected, Results, Shard, now_ns
from rewardsvc.executors.work import MAX_ATTEMPTS, Assignment, Flight, Job

BLOCKED_SECONDS = 1.0
_GRACE_SECONDS = 0.025


class IoPool:
    """The process, what is under way in it, and what waits for its reward's turn."""

    kind = "io"

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._link: Link | None = None
        self._jobs: dict[str, deque[Job]] = {}
        self._under_way: dict[int, Assignment] = {}
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

    def submit(self, job: Job) -> None:
        """Queues the flights of one group."""
        self._jobs.setdefault(job.info.name, deque()).append(job)
        self._pump(job.info.name)

    def _pump(self, reward: str) -> None:
        jobs = self._jobs.get(reward, deque())
        while jobs and self.ready and self._running.get(reward, 0) < jobs[0].info.resources.concurrency:
            job = jobs[0]
            flight = job.pending.popleft()
            if not job.pending:
                jobs.popleft()
            if flight.wanted and not flight.landed:
                self._start(job, flight)

    def _start(self, job: Job, flight: Flight) -> None:
        assert self._link is not None
        self._number += 1
        held = Assignment.of(self._number, job, [flight], now_ns())
        self._under_way[held.number] = held
        self._running[job.info.name] = self._running.get(job.info.name, 0) + 1
        items = [(index, name, payload) for index, (name, payload) in enumerate(flight.items)]
        self._link.send(
            Shard(held.number, job.info.name, job.task, job.params, job.admitted_ns, job.deadline_ns, items)
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._watch)

    def _message(self, message: FromWorker) -> None:
        if isinstance(message, Ready):
            for reward in list(self._jobs):
                self._pump(reward)
            return
        held = self._under_way.get(message.number)
        if held is None:
            return
        flight = held.flights[0]
        if isinstance(message, Rejected):
            flight.refuse(WrongShape(f"The reward {held.job.info.name!r} does not take this request.", message.errors))
        else:
            self._results(flight, message)
        self._end(held)

    @staticmethod
    def _results(flight: Flight, results: Results) -> None:
        for offset, verdict in results.verdicts:
            flight.collect(offset, verdict)
        flight.land()

    def _end(self, held: Assignment) -> None:
        del self._under_way[held.number]
        self._running[held.job.info.name] -= 1
        self._pump(held.job.info.name)

    def _watch(self) -> None:
        """Stops what nobody waits for or what is over its time, and a process whose loop is blocked."""
        self._timer = None
        assert self._link is not None
        self._link.drain()
        now = now_ns()
        for held in list(self._under_way.values()):
            limit = held.job.info.resources.item_timeout + _GRACE_SECONDS
            if not held.wanted:
                self._cancel(held)
            elif now - held.heard_ns > limit * 1e9:
                self._cancel(held)
                held.flights[0].fail(Timeout("item_limit"))
        current = self._link.cell.current()
        if current is not None and now - current[1] > BLOCKED_SECONDS * 1e9:
            self._lose(current[0], Timeout("blocked_event_loop"), "item_limit")
        if self._under_way:
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._watch)

    def _cancel(self, held: Assignment) -> None:
        assert self._link is not None
        self._link.send(Cancel(held.number))
        self._end(held)

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
        guilty = [held for number, held in lost.items() if number % Cell.PREPARING == mark]
        for held in guilty:
            held.flights[0].fail(fault, evidence)
        for held in lost.values():
            self._again(held, blameless=bool(guilty))
        self.refill()

    def _again(self, held: Assignment, blameless: bool) -> None:
        flight, job = held.flights[0], held.job
        flight.attempts += not blameless
        if flight.attempts >= MAX_ATTEMPTS:
            flight.fail(Crashed("worker_lost"))
        if not flight.landed:
            again = Job(job.info, job.task, job.params, job.admitted_ns, job.deadline_ns, deque([flight]))
            self._jobs.setdefault(job.info.name, deque()).appendleft(again)

    def close(self) -> None:
        """Ends the process; flights that have not landed stay so."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.kill("closing")
            self._link = None
