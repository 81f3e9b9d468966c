"""The `cpu` executor: warm processes that judge one shard at a time and are killed without regret.

A free worker takes the next shard of the group whose turn it is (groups take turns, so a large one does not starve a
small one). Cheap rewards travel in large shards, expensive ones in small: a shard should take about
`SHARD_SECONDS`. While shards are out, a watch looks at the shared cells: an item over its time or its memory costs
that item its number and the worker its life; the other rows of the shard go back to the front of the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from rewardsvc.clock import now_ns
from rewardsvc.errors import Crashed, NotScored, ResourceLimit, Timeout, WrongShape
from rewardsvc.executors.link import GARBAGE, RECYCLED, Link, Parent
from rewardsvc.executors.vitals import Stopwatch, death, grown_mb
from rewardsvc.executors.wire import Cell, Exit, FromWorker, Order, Ready, Rejected, Results
from rewardsvc.executors.work import Batch, Shard

SHARD_SECONDS = 0.004
WATCH_SECONDS = 0.025
_FIRST_GUESS = 0.001
_LOST_SECONDS = 1.0
_LEAST_PAUSE = 0.001
_LEAST_BACKOFF, _MOST_BACKOFF = 0.02, 2.0
_LOOKS_PER_CLEARANCE = 40


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
        self._waiting: dict[str, int] = {}
        self._number = 0
        self._looks = 0
        self._backoff = _LEAST_BACKOFF
        self._closed = False
        self._watch: asyncio.TimerHandle | None = None

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
        return sum(units * self.cost(reward) for reward, units in self._waiting.items()) / self._size

    def cost(self, reward: str) -> float:
        """Seconds that an item of this reward takes, as a moving average."""
        return self._costs.get(reward, _FIRST_GUESS)

    def refill(self) -> None:
        """Starts workers for all empty seats; called again when the parent comes back."""
        while len(self._seats) < self._size and not self._closed and self._parent.ready:
            link = self._parent.spawn(self.kind)
            if link is None:
                self._refill_later()
                return
            self._seats.add(_Seat(self, link))

    def _refill_later(self) -> None:
        asyncio.get_running_loop().call_later(self._backoff, self.refill)
        self._backoff = min(2 * self._backoff, _MOST_BACKOFF)

    def submit(self, batch: Batch) -> None:
        """Queues the rows of one group."""
        self._count(batch, batch.units)
        self._queue.append(batch)
        self._pump()

    def _count(self, batch: Batch, units: int) -> None:
        reward = batch.info.name
        self._waiting[reward] = self._waiting.get(reward, 0) + units

    def _pump(self) -> None:
        while self._free and self._queue and not self._closed:
            batch = self._queue.popleft()
            units, rows = batch.next_units(max(1, int(SHARD_SECONDS / self.cost(batch.info.name))))
            self._count(batch, -units)
            if batch.units:
                self._queue.append(batch)
            if rows is not None:
                self._number += 1
                self._free.pop().assign(Shard(self._number, batch, rows, now_ns()))
        if self._watch is None and not self._closed and (self._queue or len(self._free) < len(self._seats)):
            self._watch = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)

    def _look(self) -> None:
        """Lets every busy seat look at what its worker does."""
        self._watch = None
        for seat in [seat for seat in self._seats if seat.held]:
            seat.look()
        self._looks += 1
        if self._looks % _LOOKS_PER_CLEARANCE == 0:
            self._give_up_unwanted()
        self._pump()

    def _give_up_unwanted(self) -> None:
        """Forgets groups whose callers have gone before their turn came: their texts would be kept in memory."""
        for batch in [batch for batch in self._queue if not batch.is_wanted(batch.rows)]:
            self._queue.remove(batch)
            self._count(batch, -batch.units)
            batch.give_up()

    def put_back(self, shard: Shard, fault: NotScored | None = None) -> None:
        """What a lost worker left undone runs again, before anything else; with a `fault` it may be to blame."""
        batch, waiting = shard.batch, shard.batch.units
        units = batch.put_back(shard.rows, fault)
        self._count(batch, units)
        if units and waiting:
            self._queue.remove(batch)
        if units:
            self._queue.appendleft(batch)
        self._pump()

    def clear(self, batch: Batch, end: Callable[[], None]) -> None:
        """Calls `end`, which leaves nothing, or everything, of a batch to be done."""
        waiting = batch.units
        end()
        self._count(batch, batch.units - waiting)
        if waiting and not batch.units:
            self._queue.remove(batch)

    def learn_cost(self, reward: str, results: Results) -> None:
        """Folds the run times of finished items into the moving average."""
        count = len(results.verdicts)
        if count:
            seconds = sum([verdict.timing.run_ms for _, verdict in results.verdicts]) / count / 1e3
            self._costs[reward] = 0.8 * self.cost(reward) + 0.2 * max(seconds, 1e-6)

    def vacate(self, seat: _Seat) -> None:
        """A worker is gone; another takes its place at once, or later if it never came to life."""
        self._seats.discard(seat)
        if seat in self._free:
            self._free.remove(seat)
        if seat.link.pid:
            self.refill()
        else:
            self._refill_later()

    def free(self, seat: _Seat) -> None:
        """A worker waits for work."""
        self._backoff = _LEAST_BACKOFF
        self._free.append(seat)
        self._pump()

    def close(self) -> None:
        """Ends all workers; what is undone stays so."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        for seat in list(self._seats):
            seat.kill("closing")


class _Seat:
    """One worker's place in the pool: the worker, the shard it holds and what there is to say about it."""

    def __init__(self, pool: CpuPool, link: Link) -> None:
        self.pool = pool
        self.link = link
        self.held: Shard | None = None
        self._orders = 0
        self._stopwatch = Stopwatch()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        link.on_message = self._message
        link.on_gone = self._gone

    def assign(self, shard: Shard) -> None:
        """Hands a shard over."""
        self.held = shard
        self._orders += 1
        self.link.send(order_of(shard))
        self._look_again(shard.batch.info.resources.item_timeout)

    def _look_again(self, seconds: float) -> None:
        """Looks before the pool does, if the item's time may be over by then."""
        if seconds < WATCH_SECONDS and self._timer is None:
            self._timer = self._loop.call_later(max(seconds, _LEAST_PAUSE), self._look_now)

    def _look_now(self) -> None:
        self._timer = None
        self.look()

    def _message(self, message: FromWorker) -> None:
        if isinstance(message, Ready):
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
            self._finish(held)

    def _rejected(self, held: Shard, rejected: Rejected) -> None:
        self.pool.clear(held.batch, lambda: held.batch.refuse(refusal(held, rejected)))
        self._finish(held)

    def _finish(self, held: Shard) -> None:
        """The order is done; rows that the worker left out go back."""
        self._release()
        if held.called_off:
            self.pool.put_back(held)
        self.pool.free(self)

    def _release(self) -> None:
        self.held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Looks at the item that the worker is on; kills when it is over a limit."""
        self.link.drain()
        held = self.held
        if held is None or not self.link.alive:
            return
        mark, started_ns = self.link.cell.current() or (None, 0)
        if not held.batch.is_wanted(held.rows if mark is None or mark == Cell.PREPARING else held.rows_at(mark)):
            self._call_off(held)
        elif mark is None:
            self._expect(held)
        else:
            self._judge(held, mark, started_ns)

    def _call_off(self, held: Shard) -> None:
        """Nobody waits for this item: the worker may stop after it, and has until the next look to do so."""
        if held.called_off:
            self.kill("abandoned")
            self.pool.put_back(held)
        else:
            held.called_off = True
            self.link.cell.call_off(held.number)

    def _expect(self, held: Shard) -> None:
        """A worker that does nothing for long has lost its way: it never got the order, or nobody got its answer."""
        if now_ns() - held.heard_ns > (held.batch.info.resources.item_timeout + _LOST_SECONDS) * 1e9:
            self._lose(held, None, Crashed("worker_lost"), "lost")

    def _judge(self, held: Shard, mark: int, started_ns: int) -> None:
        """Kills for an item that is over a limit; lets nobody wait behind one that takes long."""
        resources = held.batch.info.resources
        seconds = self._stopwatch.seconds(self.link.pid, started_ns)
        if seconds >= resources.item_timeout:
            self._lose(held, mark, Timeout("item_limit"), "item_limit")
        elif grown_mb(self.link.pid, self.link.cell) > resources.memory_mb:
            self._lose(held, mark, ResourceLimit("memory_limit"), "memory_limit")
        else:
            self._look_again(resources.item_timeout - seconds)
            if seconds > WATCH_SECONDS and mark != Cell.PREPARING and not held.batch.whole:
                self._let_others_go(held, mark)

    def _let_others_go(self, held: Shard, mark: int) -> None:
        """The other rows of the shard run elsewhere, also those that are done and not yet sent."""
        others = [row for row in held.rows if row[0] != mark]
        if others:
            held.rows = held.rows_at(mark)
            self.link.cell.call_off(held.number)
            self.pool.put_back(Shard(held.number, held.batch, others, held.heard_ns))

    def _lose(self, held: Shard, mark: int | None, fault: NotScored, because: str) -> None:
        """Kills the worker over the item that is marked."""
        self.kill(because)
        if mark == Cell.PREPARING:
            self.pool.clear(held.batch, lambda: held.batch.condemn(fault, {}))
        self._blame(held, mark, fault, {})

    def _blame(self, held: Shard, mark: int | None, fault: NotScored, evidence: dict[str, object]) -> None:
        """The marked row gets no number and the others run again.

        Without a mark each of them is a suspect, unless the worker had not even begun with them.
        """
        batch = held.batch
        if mark == Cell.PREPARING:
            self.pool.clear(batch, lambda: batch.upset(fault, evidence))
        elif mark is not None:
            batch.fail(held.rows_at(mark), fault, evidence)
        suspects = mark is None and self.link.cell.orders >= self._orders
        self.pool.put_back(held, fault if suspects else None)

    def kill(self, because: str) -> None:
        """Ends the worker and frees the seat."""
        self._release()
        self.link.kill(because)
        self.pool.vacate(self)

    def _gone(self, report: Exit | None) -> None:
        """The worker died by itself: of age, or the item that it was on is to blame."""
        held, because, current = self.held, self.link.killed_because, self.link.cell.current()
        self._release()
        self.pool.vacate(self)
        if held is not None and because == RECYCLED:
            self.pool.put_back(held)
        elif held is not None:
            mark = current and current[0]
            if because == GARBAGE and mark != Cell.PREPARING:
                mark = None  # it may be an earlier item's; that item was not sent before it either
            self._blame(held, mark, *death(report, because))


def order_of(shard: Shard) -> Order:
    """A shard as it goes to a worker."""
    batch = shard.batch
    return Order(
        shard.number, batch.info.name, batch.task, batch.params, batch.admitted_ns, batch.deadline_ns, shard.rows
    )


def refusal(shard: Shard, rejected: Rejected) -> WrongShape:
    """A worker's rejection as a problem for the caller."""
    return WrongShape(f"The reward {shard.batch.info.name!r} does not take this request.", rejected.errors)
