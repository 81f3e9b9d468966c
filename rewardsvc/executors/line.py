"""Batches that wait for a worker: whose turn it is, and how much there is to do of each reward."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from rewardsvc.executors.work import Batch, Row


class Line:
    """Batches take turns, so that a large one does not starve a small one; what has to run again comes first."""

    def __init__(self) -> None:
        self.units: Counter[str] = Counter()
        """How many units wait, by reward."""
        self._batches: deque[Batch] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def head(self) -> Batch:
        """The batch whose turn it is."""
        return self._batches[0]

    def append(self, batch: Batch) -> None:
        """A new batch."""
        self.units[batch.info.name] += batch.units
        self._batches.append(batch)

    def take(self, most: int) -> list[Row] | None:
        """The rows of up to `most` units of the head, whose turn is then over; None when nobody waits for them."""
        batch = self._batches.popleft()
        units, rows = batch.next_units(most)
        self.units[batch.info.name] -= units
        if batch.next_is_suspect:
            self._batches.appendleft(batch)
        elif batch.units:
            self._batches.append(batch)
        return rows

    def change(self, batch: Batch, deed: Callable[[], object]) -> None:
        """Does what leaves less, nothing or more of a batch to be done. What is more comes first."""
        before = batch.units
        deed()
        after = batch.units
        self.units[batch.info.name] += after - before
        if before and (not after or after > before):
            self._batches.remove(batch)
        if after > before:
            self._batches.appendleft(batch)

    def give_up_unwanted(self) -> None:
        """Forgets batches that nobody waits for before their turn has come: their texts would be kept in memory."""
        for batch in [batch for batch in self._batches if not batch.is_wanted(batch.rows)]:
            self.change(batch, batch.give_up)
