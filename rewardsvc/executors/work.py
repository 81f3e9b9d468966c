"""What a scheduler hands to an executor: flights (units of work that may have several waiters) gathered in jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Raw

from rewardsvc.contract import RewardInfo, Verdict
from rewardsvc.errors import NotScored, Problem

MAX_ATTEMPTS = 3


class Waiter(Protocol):
    """Somebody who waits for a flight."""

    def take(self, flight: Flight, verdicts: Sequence[Verdict]) -> None:
        """The flight has landed: one verdict per item."""

    def refuse(self, flight: Flight, problem: Problem) -> None:
        """The request behind the flight is a mistake of the caller."""


class Flight:
    """One unit of work: one rollout, or a whole group for a reward that judges groups. It lands exactly once."""

    __slots__ = ("_collected", "_missing", "attempts", "items", "key", "landed", "on_landed", "waiters")

    def __init__(self, key: bytes | None, items: list[tuple[str, Raw]], on_landed: Callable[[Flight], None]) -> None:
        """`items` are (the caller's id, encoded sample); `on_landed` runs once, before the waiters are told."""
        self.key = key
        self.items = items
        self.waiters: list[Waiter] = []
        self.attempts = 0
        self.landed = False
        self.on_landed = on_landed
        self._collected: list[Verdict | None] = [None] * len(items)
        self._missing = len(items)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return bool(self.waiters)

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """What has been collected; complete once the flight has landed with verdicts."""
        return [verdict for verdict in self._collected if verdict is not None]

    def collect(self, offset: int, verdict: Verdict) -> None:
        """The verdict on one item. A second verdict on the same item changes nothing."""
        if self.landed or self._collected[offset] is not None:
            return
        self._collected[offset] = verdict
        self._missing -= 1
        if not self._missing:
            self.land()

    def land(self) -> None:
        """All items are judged (an empty flight lands when its params were found good)."""
        if self.landed:
            return
        self.landed = True
        self.on_landed(self)
        verdicts = self.verdicts
        for waiter in self.waiters:
            waiter.take(self, verdicts)

    def fail(self, fault: NotScored, evidence: dict[str, object] | None = None) -> None:
        """No item gets a number; items that were judged already keep their verdict."""
        for offset in range(len(self.items)):
            verdict = Verdict(status=fault.status, reason=fault.reason, evidence=dict(evidence or {}))  # type: ignore[arg-type]
            self.collect(offset, verdict)
        self.land()

    def refuse(self, problem: Problem) -> None:
        """The caller made a mistake that spoils the whole group."""
        if self.landed:
            return
        self.landed = True
        self._collected = [None] * len(self.items)
        self.on_landed(self)
        for waiter in self.waiters:
            waiter.refuse(self, problem)


@dataclass(slots=True)
class Job:
    """The flights of one group that have to be computed. Times are nanoseconds of the monotonic clock."""

    info: RewardInfo
    task: Raw
    params: Raw
    admitted_ns: int
    deadline_ns: int
    pending: deque[Flight]


@dataclass(slots=True)
class Assignment:
    """A shard that a worker holds: row i of the shard is item `offset` of a flight.

    `heard_ns` is when the shard was sent or last heard of; `watched` is the row that the watch last saw being judged,
    and `starved_ns` how long the worker had waited for a processor by then.
    """

    number: int
    job: Job
    flights: list[Flight]
    rows: list[tuple[Flight, int]]
    heard_ns: int
    called_off: bool = False
    watched: int | None = None
    starved_ns: int = 0

    @classmethod
    def of(cls, number: int, job: Job, flights: list[Flight], heard_ns: int) -> Assignment:
        """The rows of a shard made of these flights."""
        rows = [(flight, offset) for flight in flights for offset in range(len(flight.items))]
        return cls(number, job, flights, rows, heard_ns)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for any of it."""
        return any(flight.wanted for flight in self.flights)

    def unfinished(self) -> list[Flight]:
        """The flights that have not landed."""
        return [flight for flight in self.flights if not flight.landed]
