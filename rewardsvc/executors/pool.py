"""What the pools of both kinds share: how workers are started, and started again, and what an item costs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from typing import ClassVar

from rewardsvc.contract import RewardInfo
from rewardsvc.errors import WrongShape
from rewardsvc.executors.link import Link
from rewardsvc.executors.parentage import Parent
from rewardsvc.executors.wire import Order, Rejected, Results
from rewardsvc.executors.work import Batch, Shard

WATCH_SECONDS = 0.025
_LOOKS_PER_CLEARANCE = 40
_LEAST_BACKOFF, _MOST_BACKOFF = 0.02, 2.0
_FIRST_GUESS = 0.001
_REMEMBERED = 64


class Cost:
    """Seconds that an item of one reward takes: the mean of the first, then of the last few dozen or so."""

    __slots__ = ("_items", "seconds")

    def __init__(self) -> None:
        self.seconds = _FIRST_GUESS
        self._items = 1

    def learn(self, seconds: float, items: int = 1) -> None:
        """So many items took so long, each."""
        self._items = min(self._items + items, _REMEMBERED)
        self.seconds += (seconds - self.seconds) * min(1.0, items / self._items)


class Pool(ABC):
    """Workers of one kind, and the batches that wait for them."""

    kind: ClassVar[str]

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._closed = False
        self._number = 0
        self._costs: defaultdict[str, Cost] = defaultdict(Cost)
        self._backoff = _LEAST_BACKOFF
        self._retry: asyncio.TimerHandle | None = None
        self._looks = 0
        self._watch: asyncio.TimerHandle | None = None

    @property
    @abstractmethod
    def links(self) -> list[Link]:
        """The workers there are."""

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Queues the rows of one group."""

    @abstractmethod
    def expected_wait(self, info: RewardInfo) -> float:
        """Seconds until work for this reward that is submitted now would start."""

    @abstractmethod
    def refill(self) -> None:
        """Starts the workers that are missing; called again when the parent comes back."""

    def _spawn(self) -> Link | None:
        """A new worker; None when there can be none now. When the parent is back, or later, there is another try."""
        if self._closed or not self._parent.ready:
            return None
        link = self._parent.spawn(self.kind)
        if link is None:
            self._refill_later()
        return link

    def _refill_after(self, lost: Link) -> None:
        """Another worker takes the place of a lost one: at once, or later if that one never came to life."""
        if lost.pid:
            self.refill()
        else:
            self._refill_later()

    def _refill_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._backoff, self._try_again)
            self._backoff = min(2 * self._backoff, _MOST_BACKOFF)

    def _try_again(self) -> None:
        self._retry = None
        self.refill()

    def _has_come_to_life(self) -> None:
        self._backoff = _LEAST_BACKOFF

    def cost(self, reward: str) -> float:
        """Seconds that an item of this reward takes, as a moving average."""
        return self._costs[reward].seconds

    def learn_cost(self, reward: str, seconds: float, items: int = 1) -> None:
        """So many items of a reward took so long, each; also those that were killed, after that time."""
        self._costs[reward].learn(seconds, items)

    def learn_from(self, reward: str, results: Results) -> None:
        """What finished items took."""
        count = len(results.verdicts)
        if count:
            milliseconds = sum([verdict.timing.run_ms for _, verdict in results.verdicts])
            self.learn_cost(reward, milliseconds / count / 1e3, count)

    def _watch_while(self, needed: bool) -> None:
        """Looks after what workers do every few milliseconds, as long as there is anything to look after."""
        if self._watch is None and needed and not self._closed:
            self._watch = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)

    def _look(self) -> None:
        self._watch = None
        self._look_at_workers()
        self._looks += 1
        if self._looks % _LOOKS_PER_CLEARANCE == 0:
            self._give_up_unwanted()
        self._pump()

    @abstractmethod
    def _look_at_workers(self) -> None:
        """Stops what is over a limit, or unwanted."""

    @abstractmethod
    def _give_up_unwanted(self) -> None:
        """Forgets batches whose callers have gone."""

    @abstractmethod
    def _pump(self) -> None:
        """Hands out what can be handed out."""

    def close(self) -> None:
        """Ends all workers; what is undone stays so."""
        self._closed = True
        for timer in (self._watch, self._retry):
            if timer is not None:
                timer.cancel()
        for link in self.links:
            link.kill("closing")


def order_of(shard: Shard) -> Order:
    """A shard as it goes to a worker."""
    batch = shard.batch
    return Order(
        shard.number, batch.info.name, batch.task, batch.params, batch.admitted_ns, batch.deadline_ns, shard.rows
    )


def refusal(shard: Shard, rejected: Rejected) -> WrongShape:
    """A worker's rejection as a problem for the caller."""
    return WrongShape(f"The reward {shard.batch.info.name!r} does not take this request.", rejected.errors)
