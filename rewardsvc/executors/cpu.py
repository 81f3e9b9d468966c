"""The `cpu` executor: warm processes that judge one shard at a time and are killed without regret.

A free worker takes the next shard of the group whose turn it is (groups take turns, so a large one does not starve a
small one). Cheap rewards travel in large shards, expensive ones in small: a shard should take about
`SHARD_SECONDS`. While shards are out, a watch looks at the shared cells: an item over its time or its memory costs
that item its number and the worker its life; the other rows of the shard go back to the front of the queue.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from rewardsvc.clock import now_ns
from rewardsvc.contract import RewardInfo
from rewardsvc.errors import Crashed, NotScored, ResourceLimit, Timeout
from rewardsvc.executors.line import Line
from rewardsvc.executors.link import GARBAGE, RECYCLED, Link
from rewardsvc.executors.parentage import Parent
from rewardsvc.executors.pool import WATCH_SECONDS, Cost, Pool, order_of, refusal
from rewardsvc.executors.vitals import Stopwatch, death, grown_mb
from rewardsvc.executors.wire import Cell, Exit, FromWorker, Ready, Rejected, Results
from rewardsvc.executors.work import Batch, Shard

SHARD_SECONDS = 0.004
_LOST_SECONDS = 1.0
_LEAST_PAUSE = 0.001
_ATTENTION_NS = 1_000_000


class CpuPool(Pool):
    """A fixed number of workers and the shards that wait for one."""

    kind = "cpu"

    def __init__(self, parent: Parent, workers: int) -> None:
        super().__init__(parent)
        self._size = workers
        self._workers: set[_Worker] = set()
        self._free: list[_Worker] = []
        self.line = Line()
        self._attended_ns = 0
        self._turns: defaultdict[str, Cost] = defaultdict(Cost)

    @property
    def links(self) -> list[Link]:
        """The workers there are."""
        return [worker.link for worker in self._workers]

    @property
    def ready(self) -> bool:
        """Whether any worker has reported for work."""
        return any(worker.link.pid for worker in self._workers)

    def expected_wait(self, info: RewardInfo | None = None) -> float:
        """Seconds until work that is submitted now would start, whatever its reward."""
        return sum(units * self._turns[reward].seconds for reward, units in self.line.units.items()) / self._size

    def attend(self) -> None:
        """Hears workers that are done, if nobody has for a while: called by a front that is busy with many callers.

        One turn of its event loop may take dozens of milliseconds then, and a worker shall not be idle for so long.
        """
        now = now_ns()
        if now - self._attended_ns > _ATTENTION_NS and self.line:
            self._attended_ns = now
            for worker in [worker for worker in self._workers if worker.held]:
                worker.link.drain()

    def learn_turn(self, shard: Shard, units: int) -> None:
        """A worker was taken by so many units until now: the way there and back counts, and a front that is busy."""
        self._turns[shard.batch.info.name].learn((now_ns() - shard.sent_ns) / 1e9 / units, units)

    def refill(self) -> None:
        """Starts as many workers as are missing."""
        while len(self._workers) < self._size and (link := self._spawn()) is not None:
            self._workers.add(_Worker(self, link))

    def submit(self, batch: Batch) -> None:
        """Queues the rows of one group."""
        self.line.append(batch)
        self._pump()

    def _pump(self) -> None:
        while self._free and self.line and not self._closed:
            batch = self.line.head
            rows = self.line.take(max(1, int(SHARD_SECONDS / self.cost(batch.info.name))))
            if rows is not None:
                self._number += 1
                self._free.pop().assign(Shard(self._number, batch, rows, now_ns()))
        self._watch_while(len(self.line) > 0 or len(self._free) < len(self._workers))

    def _look_at_workers(self) -> None:
        for worker in [worker for worker in self._workers if worker.held]:
            worker.look()

    def _give_up_unwanted(self) -> None:
        self.line.give_up_unwanted()

    def put_back(self, shard: Shard, fault: NotScored | None = None) -> None:
        """What a lost worker left undone runs again, before anything else; with a `fault` it may be to blame."""
        self.line.change(shard.batch, lambda: shard.batch.put_back(shard.rows, fault))
        self._pump()

    def replace(self, worker: _Worker) -> None:
        """A worker is gone."""
        self._workers.discard(worker)
        if worker in self._free:
            self._free.remove(worker)
        self._refill_after(worker.link)

    def free(self, worker: _Worker) -> None:
        """A worker waits for work."""
        self._has_come_to_life()
        self._free.append(worker)
        self._pump()


class _Worker:
    """One worker: its link, the shard that it holds, and what there is to say about it."""

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
        self.pool.learn_from(held.batch.info.name, results)
        if results.done:
            self._finish(held)

    def _rejected(self, held: Shard, rejected: Rejected) -> None:
        self.pool.line.change(held.batch, lambda: held.batch.refuse(refusal(held, rejected)))
        self._finish(held)

    def _finish(self, held: Shard) -> None:
        """The order is done; rows that the worker left out go back."""
        self.pool.learn_turn(held, held.units)
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
            self._count_as_cost(held)
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
            self.pool.line.change(held.batch, lambda: held.batch.condemn(fault, {}))
        self._blame(held, mark, fault, {})

    def _blame(self, held: Shard, mark: int | None, fault: NotScored, evidence: dict[str, object]) -> None:
        """The marked row gets no number and the others run again.

        Without a mark each of them is a suspect, unless the worker had not even begun with them.
        """
        batch = held.batch
        if mark == Cell.PREPARING:
            self.pool.line.change(batch, lambda: batch.upset(fault, evidence))
        elif mark is not None:
            self._count_as_cost(held)
            batch.fail(held.rows_at(mark), fault, evidence)
        suspects = mark is None and self.link.cell.orders >= self._orders
        self.pool.put_back(held, fault if suspects else None)

    def _count_as_cost(self, held: Shard) -> None:
        """An item that is never finished has taken its time all the same."""
        self.pool.learn_turn(held, 1)
        mark, started_ns = self.link.cell.current() or (Cell.PREPARING, 0)
        if mark != Cell.PREPARING:
            self.pool.learn_cost(held.batch.info.name, (now_ns() - started_ns) / 1e9)

    def kill(self, because: str) -> None:
        """Ends the worker; another one takes its place."""
        self._release()
        self.link.kill(because)
        self.pool.replace(self)

    def _gone(self, report: Exit | None) -> None:
        """The worker died by itself: of age, or the item that it was on is to blame."""
        held, because, current = self.held, self.link.killed_because, self.link.cell.current()
        self._release()
        self.pool.replace(self)
        if held is not None and because == RECYCLED:
            self.pool.put_back(held)
        elif held is not None:
            mark = current and current[0]
            if because == GARBAGE and mark != Cell.PREPARING:
                mark = None  # it may be an earlier item's; that item was not sent before it either
            self._blame(held, mark, *death(report, because))
