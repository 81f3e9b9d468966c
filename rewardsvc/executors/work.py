"""What a scheduler hands to an executor: a batch, the rollouts of one group that have to be computed.

Everything here is on the way of every rollout, so a batch is a handful of parallel lists and not an object per rollout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Raw

from rewardsvc.contract import RewardInfo, Verdict
from rewardsvc.errors import Crashed, NotScored, Problem

MAX_ATTEMPTS = 3
_CHECK_ONLY = -1  # stands for the one thing to do for a batch without rows: checking its params
Row = tuple[int, str, Raw]
"""Index in the batch, the caller's id, encoded sample."""


class Owner(Protocol):
    """Whoever made a batch: told once about each verdict, or once that the whole batch is refused."""

    def settled(self, batch: Batch, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        """New verdicts by index; called with none when a batch without rows was found to be in order."""

    def refused(self, batch: Batch, problem: Problem) -> None:
        """The request behind the batch is a mistake of the caller."""

    def wanted(self, batch: Batch, index: int) -> bool:
        """Whether anybody still waits for this row."""


class Batch:
    """Rows to be judged with the same task and params. Times are nanoseconds of the monotonic clock.

    A unit is what must stay together: one row, or (`whole`) all of them.
    """

    __slots__ = (
        "_attempts",
        "_left",
        "_owner",
        "_pending",
        "admitted_ns",
        "deadline_ns",
        "info",
        "params",
        "rows",
        "task",
        "whole",
    )

    def __init__(
        self,
        owner: Owner,
        info: RewardInfo,
        task: Raw,
        params: Raw,
        rows: list[Row],
        times_ns: tuple[int, int],
    ) -> None:
        """`times_ns` are admission and deadline."""
        self.info = info
        self.task = task
        self.params = params
        self.rows = rows
        self.admitted_ns, self.deadline_ns = times_ns
        self.whole = info.per_group or not rows
        self._owner = owner
        self._pending: deque[int] = deque((0,) if self.whole else range(len(rows)))
        self._left = {*range(len(rows))} or {_CHECK_ONLY}
        self._attempts: dict[int, int] = {}

    @property
    def units(self) -> int:
        """How many units wait for a worker."""
        return len(self._pending)

    def next_units(self, most: int) -> tuple[int, list[Row] | None]:
        """Up to `most` units for a shard: (units taken from the queue, their rows).

        Units that nobody waits for are taken and left out; None when there is nothing to do at all.
        """
        if self.whole:
            self._pending.clear()
            return 1, self.rows if self.is_wanted(self.rows) else None
        rows: list[Row] = []
        taken = 0
        while self._pending and len(rows) < most:
            index = self._pending.popleft()
            taken += 1
            if index in self._left and self._owner.wanted(self, index):
                rows.append(self.rows[index])
        return taken, rows or None

    def is_wanted(self, rows: Sequence[Row]) -> bool:
        """Whether anybody waits for any of these rows (a batch without rows is always wanted)."""
        return not rows or any(index in self._left and self._owner.wanted(self, index) for index, _, _ in rows)

    def settle(self, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        """Verdicts from a worker. A second verdict on the same row changes nothing."""
        left = self._left
        new = [(index, verdict) for index, verdict in verdicts if index in left]
        left.difference_update([index for index, _ in new])
        if new or _CHECK_ONLY in left:
            left.discard(_CHECK_ONLY)
            self._owner.settled(self, new)

    def fail(self, rows: Iterable[Row], fault: NotScored, evidence: dict[str, object] | None = None) -> None:
        """None of these rows gets a number, unless it has one already."""
        status, reason = fault.status, fault.reason
        self.settle(
            [
                (index, Verdict(status=status, reason=reason, evidence=dict(evidence or {})))  # type: ignore[arg-type]
                for index, _, _ in rows
            ]
        )

    def refuse(self, problem: Problem) -> None:
        """The caller made a mistake that spoils the whole group."""
        self._left.clear()
        self._pending.clear()
        self._owner.refused(self, problem)

    def put_back(self, rows: Sequence[Row], blameless: bool) -> int:
        """Rows that a lost worker left undone run again, first of all; returns how many units that makes.

        Rows may run again as often as somebody else was to blame; of a loss that nobody is to blame for they bear
        `MAX_ATTEMPTS`.
        """
        undone = [row for row in rows if row[0] in self._left]
        if not blameless:
            self._count_attempt(undone)
            undone = [row for row in undone if row[0] in self._left]
        if not undone and _CHECK_ONLY not in self._left:
            return 0
        units = (0,) if self.whole else [index for index, _, _ in undone]
        self._pending.extendleft(reversed(units))
        return len(units)

    def _count_attempt(self, rows: Sequence[Row]) -> None:
        for index, _, _ in rows:
            self._attempts[index] = self._attempts.get(index, 0) + 1
        self.fail([row for row in rows if self._attempts[row[0]] >= MAX_ATTEMPTS], Crashed("worker_lost"))


@dataclass(slots=True)
class Shard:
    """Rows of a batch that a worker holds.

    `heard_ns` is when the shard was sent or last heard of; `watched` is the row that the watch last saw being judged,
    and `starved_ns` how long the worker had waited for a processor by then.
    """

    number: int
    batch: Batch
    rows: list[Row]
    heard_ns: int
    called_off: bool = False
    watched: int | None = None
    starved_ns: int = 0

    def rows_at(self, index: int) -> list[Row]:
        """The rows that fall with the one at `index`: itself, or the whole group."""
        return self.rows if self.batch.whole else [row for row in self.rows if row[0] == index]
