"""The `cpu` executor: warm processes that judge one shard at a time and are killed without regret.

A free worker takes the next shard of the group whose turn it is (groups take turns, so a large one does not starve a
small one). Cheap rewards travel in large shards, expensive ones in small: a shard should take about
`SHARD_SECONDS`. While a shard is out, a watch looks at the shared cell: an item over its time, or a worker over its
memory, costs that item its number and the worker its life; the other rows of the shard go back to the front of the
queue. Time that a worker spent waiting for a processor is not counted against the item.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque

from rewardsvc.errors import Crashed, NotScored, ResourceLimit, Timeout, WrongShape
from rewardsvc.executors.link import Link, Parent
from rewardsvc.executors.wire import Cell, Exit, FromWorker, Order, Ready, Rejected, Results, now_ns
from rewardsvc.executors.work import Batch, Shard

SHARD_SECONDS = 0.004
WATCH_SECONDS = 0.025
_FIRST_GUESS = 0.001
_PAGE_MB = 4096 / (1 << 20)
_LOST_NS = 1_000_000_000


class CpuPool:
    """A fixed number of workers and the shards that wait for one."""

    kind = "cpu"

    def __init__(self, parent: Parent, workers: int) -> None:
        self._parent = parent
        self._size = workers
        self._seats: set[_Seat] = set()
        self._free: list[_Seat] = []
        self._queue: deque[Batch] = deque()
        self._costs: dict[str, float] = {}
        self._backlog = 0.0
        self._number = 0
        self._closed = False

    @property
    def links(self) -> list[Link]:
        """The workers there are."""
        return [seat.link for seat in self._seats]

    @property
    def ready(self) -> bool:
        """Whether any worker has reported for work."""
        return any(seat.link.pid for seat in self._seats)

    def expected_wait(self) -> float:
        """Seconds until work that is submitted now would start."""
        return self._backlog / self._size

    def cost(self, reward: str) -> float:
        """Seconds that an item of this reward takes, as a moving average."""
        return self._costs.get(reward, _FIRST_GUESS)

    def refill(self) -> None:
        """Starts workers for all empty seats; called again when the parent comes back."""
        while len(self._seats) < self._size and not self._closed:
            link = self._parent.spawn(self.kind)
            if link is None:
                return
            self._seats.add(_Seat(self, link))

    def submit(self, batch: Batch) -> None:
        """Queues the rows of one group."""
        self._backlog += batch.units * self.cost(batch.info.name)
        self._queue.append(batch)
        self._pump()

    def _pump(self) -> None:
        while self._free and self._queue:
            batch = self._queue.popleft()
            cost = self.cost(batch.info.name)
            units, rows = batch.next_units(max(1, int(SHARD_SECONDS / cost)))
            self._backlog = max(0.0, self._backlog - units * cost)
            if batch.units:
                self._queue.append(batch)
            if rows is not None:
                self._number += 1
                self._free.pop().assign(Shard(self._number, batch, rows, now_ns()))

    def put_back(self, shard: Shard, blameless: bool = True) -> None:
        """What a lost worker left undone runs again, before anything else."""
        waiting = shard.batch.units
        units = shard.batch.put_back(shard.rows, blameless)
        self._backlog += units * self.cost(shard.batch.info.name)
        if units and waiting:
            self._queue.remove(shard.batch)
        if units:
            self._queue.appendleft(shard.batch)
        self._pump()

    def learn_cost(self, reward: str, results: Results) -> None:
        """Folds the run times of finished items into the moving average."""
        count = len(results.verdicts)
        if count:
            seconds = sum(verdict.timing.run_ms for _, verdict in results.verdicts) / count / 1e3
            self._costs[reward] = 0.8 * self.cost(reward) + 0.2 * max(seconds, 1e-6)

    def vacate(self, seat: _Seat) -> None:
        """A worker is gone; another takes its place at once."""
        self._seats.discard(seat)
        if seat in self._free:
            self._free.remove(seat)
        self.refill()

    def free(self, seat: _Seat) -> None:
        """A worker waits for work."""
        self._free.append(seat)
        self._pump()

    def close(self) -> None:
        """Ends all workers; what is undone stays so."""
        self._closed = True
        for seat in list(self._seats):
            seat.kill("closing")


class _Seat:
    """One worker's place in the pool: the worker, the shard it holds and the watch over it."""

    def __init__(self, pool: CpuPool, link: Link) -> None:
        self.pool = pool
        self.link = link
        self.held: Shard | None = None
        self._born_mb = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        link.on_message = self._message
        link.on_gone = self._gone

    def assign(self, shard: Shard) -> None:
        """Hands a shard over."""
        self.held = shard
        batch = shard.batch
        self.link.send(order_of(shard))
        self._timer = self._loop.call_later(min(WATCH_SECONDS, batch.info.resources.item_timeout), self._watch)

    def _message(self, message: FromWorker) -> None:
        if isinstance(message, Ready):
            self._born_mb = _resident_mb(self.link.pid)
            self.pool.free(self)
        elif self.held is not None and message.number == self.held.number:
            if isinstance(message, Rejected):
                self._rejected(self.held, message)
            else:
                self._results(self.held, message)

    def _results(self, held: Shard, results: Results) -> None:
        held.heard_ns = now_ns()
        held.batch.settle(results.verdicts)
        self.pool.learn_cost(held.batch.info.name, results)
        if results.done:
            self._finish(held, retire=results.retire)

    def _rejected(self, held: Shard, rejected: Rejected) -> None:
        held.batch.refuse(refusal(held, rejected))
        self._finish(held)

    def _finish(self, held: Shard, retire: bool = False) -> None:
        """The order is done; rows that the worker skipped and that somebody wants again go back."""
        self._release()
        if held.called_off:
            self.pool.put_back(held)
        if retire:
            self.link.retire("recycled")
            self.pool.vacate(self)
        else:
            self.pool.free(self)

    def _release(self) -> None:
        self.held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        """Looks at the item that the worker is on; kills when it is over a limit, else looks again later."""
        self.link.drain()
        held = self.held
        if held is None or not self.link.alive:
            return
        if not held.batch.is_wanted(held.rows):
            self._call_off(held)
            return
        pause = self._limit(held)
        if pause is not None:
            self._timer = self._loop.call_later(min(WATCH_SECONDS, pause), self._watch)

    def _limit(self, held: Shard) -> float | None:
        """Seconds that the current item has left; None after it was over a limit and the worker was killed."""
        resources = held.batch.info.resources
        limit_ns = int(resources.item_timeout * 1e9)
        current = self.link.cell.current()
        if current is None:
            if now_ns() - held.heard_ns > limit_ns + _LOST_NS:
                self._lose(held, None, Crashed("worker_lost"), "lost")
                return None
            return WATCH_SECONDS
        index, started_ns = current
        waited_ns = _waited_ns(self.link.pid)
        if index != held.watched:
            held.watched, held.starved_ns = index, waited_ns
        if _resident_mb(self.link.pid) - self._born_mb > resources.memory_mb:
            self._lose(held, index, ResourceLimit("memory_limit"), "memory_limit")
            return None
        left_ns = started_ns + limit_ns + (waited_ns - held.starved_ns) - now_ns()
        if left_ns <= 0:
            self._lose(held, index, Timeout("item_limit"), "item_limit")
            return None
        return max(left_ns / 1e9, 0.001)

    def _call_off(self, held: Shard) -> None:
        """Nobody waits for this shard: the worker may stop between items, and has until the next look to do so."""
        if held.called_off:
            self._lose(held, None, Timeout("abandoned"), "abandoned")
            return
        held.called_off = True
        self.link.cell.call_off(held.number)
        self._timer = self._loop.call_later(WATCH_SECONDS, self._watch)

    def _lose(self, held: Shard, index: int | None, fault: NotScored, because: str) -> None:
        """Kills the worker, blames the item at `index`, and lets the rest of the shard run again."""
        self.kill(because)
        self._blame(held, index, fault, {})

    def _blame(self, held: Shard, index: int | None, fault: NotScored, evidence: dict[str, object]) -> None:
        """The guilty rows get no number, the others run again. A task that breaks its worker is guilty as a whole."""
        guilty = held.rows if index == Cell.PREPARING else [] if index is None else held.rows_at(index)
        held.batch.fail(guilty, fault, evidence)
        self.pool.put_back(held, blameless=bool(guilty))

    def kill(self, because: str) -> None:
        """Ends the worker and frees the seat."""
        self._release()
        self.link.kill(because)
        self.pool.vacate(self)

    def _gone(self, report: Exit | None) -> None:
        """The worker died by itself: the item that it was on is to blame."""
        held, current = self.held, self.link.cell.current()
        self._release()
        self.pool.vacate(self)
        if held is not None:
            fault, evidence = death(report, self.link.killed_because)
            self._blame(held, current[0] if current else None, fault, evidence)


def order_of(shard: Shard) -> Order:
    """A shard as it goes to a worker."""
    batch = shard.batch
    return Order(
        shard.number, batch.info.name, batch.task, batch.params, batch.admitted_ns, batch.deadline_ns, shard.rows
    )


def refusal(shard: Shard, rejected: Rejected) -> WrongShape:
    """A worker's rejection as a problem for the caller."""
    return WrongShape(f"The reward {shard.batch.info.name!r} does not take this request.", rejected.errors)


def death(report: Exit | None, killed_because: str | None) -> tuple[NotScored, dict[str, object]]:
    """What the end of a worker means for the item that it was on."""
    if killed_because == "garbage":
        return Crashed("broken_stream"), {}
    if report is None:
        return Crashed("parent_killed"), {}
    if report.code >= 0:
        return Crashed("exited"), {"exit_code": report.code}
    if report.code == -signal.SIGKILL and _kernel_ran_out_of_memory():
        return ResourceLimit("out_of_memory"), {}
    return Crashed("killed_by_signal"), {"signal": signal.Signals(-report.code).name}


def _out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    try:
        with open("/proc/vmstat", "rb") as vmstat:
            return next((int(line.split()[1]) for line in vmstat if line.startswith(b"oom_kill ")), 0)
    except OSError:
        return 0


_seen_kills = _out_of_memory_kills()


def _kernel_ran_out_of_memory() -> bool:
    """Whether the kernel has killed for want of memory since the last time somebody asked."""
    global _seen_kills
    before, _seen_kills = _seen_kills, _out_of_memory_kills()
    return _seen_kills > before


def _resident_mb(pid: int) -> float:
    """Memory of a process in MiB, 0 when it is gone."""
    return _read_number(f"/proc/{pid}/statm", 1) * _PAGE_MB


def _waited_ns(pid: int) -> int:
    """Nanoseconds that a process was ready to run but had no processor; 0 where the kernel does not say."""
    return _read_number(f"/proc/{pid}/schedstat", 1)


def _read_number(path: str, field: int) -> int:
    try:
        with open(path, "rb") as file:
            return int(file.read().split()[field])
    except (OSError, IndexError, ValueError):
        return 0
