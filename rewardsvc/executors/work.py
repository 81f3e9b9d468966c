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
from rewardsvc.errors import NotScored, Problem, Timeout

MAX_ATTEMPTS = 3
_LOSSES_IN_COMPANY = {"cpu": 1, "io": 2}  # coroutines wait long: one after the other, they would all be late
MAX_UPSETS = 2
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

    A unit is what must stay together: one row, or (`whole`) all of them. Rows are handed out in shards of many; a row
    that was with a worker when it was lost, and nobody could say which row was to blame, is soon handed out alone.
    """

    __slots__ = (
        "_attempts",
        "_left",
        "_owner",
        "_pending",
        "_unchecked",
        "_upsets",
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
        self._left = {*range(len(rows))}
        self._unchecked = not rows  # without rows there is one thing to do: checking the params
        self._attempts: dict[int, int] = {}
        self._upsets = 0

    @property
    def units(self) -> int:
        """How many units wait for a worker."""
        return len(self._pending)

    @property
    def next_is_suspect(self) -> bool:
        """Whether the next row runs alone: lost workers held it, and nobody else may be to blame for that."""
        return bool(self._pending) and self._is_suspect(self._pending[0])

    def _is_suspect(self, index: int) -> bool:
        return self._attempts.get(index, 0) >= _LOSSES_IN_COMPANY[self.info.resources.kind]

    def next_units(self, most: int) -> tuple[int, list[Row] | None]:
        """Up to `most` units for a shard: (units taken from the queue, their rows).

        Units that nobody waits for are given up; None when there is nothing to do at all.
        """
        if self.whole:
            self._pending.clear()
            if self.is_wanted(self.rows):
                return 1, self.rows
            self.give_up()
            return 1, None
        left, wanted = self._left, self._owner.wanted
        rows: list[Row] = []
        taken = 0
        while self._pending and len(rows) < most:
            index = self._pending[0]
            if self._attempts and self._is_suspect(index):
                most = 1
                if rows:
                    break
            self._pending.popleft()
            taken += 1
            if index in left:
                if wanted(self, index):
                    rows.append(self.rows[index])
                else:
                    self.fail([self.rows[index]], Timeout("abandoned"))
        return taken, rows or None

    def give_up(self) -> None:
        """Nobody waits for anything of this batch any more."""
        self.condemn(Timeout("abandoned"), {})

    def is_wanted(self, rows: Sequence[Row]) -> bool:
        """Whether anybody waits for any of these rows (a batch without rows is always wanted)."""
        return not rows or any(index in self._left and self._owner.wanted(self, index) for index, _, _ in rows)

    def settle(self, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        """Verdicts from a worker. A second verdict on the same row changes nothing."""
        left = self._left
        new: list[tuple[int, Verdict]] = []
        for row in verdicts:
            if row[0] in left:
                left.remove(row[0])
                new.append(row)
        if new or self._unchecked:
            self._unchecked = False
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
        self._unchecked = False
        self._pending.clear()
        self._owner.refused(self, problem)

    def put_back(self, rows: Sequence[Row], fault: NotScored | None = None) -> int:
        """Rows that a lost worker left undone run again, first of all; returns how many units that makes.

        They may run again as often as somebody else was to blame. A loss that may be theirs (`fault`), or the second
        one where coroutines are lost, makes each of them run alone from then on, and the third is put down to them.
        """
        if fault is not None:
            self._suspect(rows, fault)
        undone = [index for index, _, _ in rows if index in self._left]
        if not undone and not self._unchecked:
            return 0
        units = [0] if self.whole else undone
        self._pending.extendleft(reversed(units))
        return len(units)

    def _suspect(self, rows: Sequence[Row], fault: NotScored) -> None:
        if not rows:
            self.upset(fault, {})
        attempts = self._attempts
        for index, _, _ in rows:
            attempts[index] = attempts.get(index, 0) + 1
        self.fail([row for row in rows if attempts[row[0]] >= MAX_ATTEMPTS], fault)

    def upset(self, fault: NotScored, evidence: dict[str, object]) -> None:
        """The task itself, before any rollout, has cost a worker its life. The second time it is condemned for it."""
        self._upsets += 1
        if self._upsets >= MAX_UPSETS:
            self.condemn(fault, evidence)

    def condemn(self, fault: NotScored, evidence: dict[str, object]) -> None:
        """No row that is still without a verdict gets a number."""
        self._pending.clear()
        self.fail(self.rows, fault, evidence)


@dataclass(slots=True)
class Shard:
    """Rows of a batch that a worker holds; `heard_ns` is when it was sent or last heard of."""

    number: int
    batch: Batch
    rows: list[Row]
    sent_ns: int
    heard_ns: int = 0
    called_off: bool = False

    def __post_init__(self) -> None:
        self.heard_ns = self.sent_ns

    @property
    def units(self) -> int:
        """How many units it makes."""
        return 1 if self.batch.whole else len(self.rows)

    def rows_at(self, index: int) -> list[Row]:
        """The rows that fall with the one at `index`: itself, or the whole group."""
        return self.rows if self.batch.whole else [row for row in self.rows if row[0] == index]
