"""What every comparison of two values shares: the policy, the counted work, and what was noticed on the way.

Each room of the comparison (`quantities`, `statements`, `sets`, `phrases`, `grids`, `notations`, `members`) is a set of
functions that take a `Comparison` first. Which room two values go to is decided in `comparing` alone, so a room that
has parts to compare asks `Comparison.compare` and imports no room above it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rewardsvc.rewards.math.exact import Budget
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.policy import Policy
from rewardsvc.rewards.math.values import Value

WORK = 8_000
"""Units of counted work for one decision, see `exact.Budget`."""


class Comparison(ABC):
    """One comparison: its policy, its budget, and what it noticed on the way.

    `reason` is the finer reason of its outcome, where there is one. `parts` tells of each part of a gold that has
    several; only the outermost collection sets it, while `top` is true. `doubtful` when a link of a chain was neither
    shown nor refuted: then nothing is equal.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.budget = Budget(WORK)
        self.flags: list[str] = []
        self.reason = ""
        self.parts: tuple[bool | None, ...] = ()
        self.top = True
        self.doubtful = False

    @abstractmethod
    def compare(self, gold: Value, answer: Value) -> Outcome:
        """The outcome for two values of any types."""

    def flag(self, name: str) -> None:
        """Notes something that should make one wary, once."""
        if name not in self.flags:
            self.flags.append(name)

    def quiet(self, before: Value, after: Value) -> Outcome:
        """A comparison inside one text: its flags are nobody's business."""
        saved, reason = list(self.flags), self.reason
        outcome = self.compare(before, after)
        self.flags, self.reason = saved, reason
        return outcome


def all_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Equal when all are; different when one is."""
    if "not_equal" in outcomes:
        return "not_equal"
    return "undecided" if "undecided" in outcomes else "equal"


def any_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Equal when one is; different when all are."""
    if "equal" in outcomes:
        return "equal"
    return "undecided" if "undecided" in outcomes else "not_equal"


def sure(outcome: Outcome) -> Outcome:
    """Two parts that differ do not make the whole differ: only equality counts."""
    return outcome if outcome == "equal" else "undecided"


def truth(outcome: Outcome) -> bool | None:
    """The outcome as an entry of `parts`."""
    return None if outcome == "undecided" else outcome == "equal"
