"""Two values under a policy: equal, not equal, or undecided.

Values are compared by type. Where types differ, one is turned into the other only by rules that lose nothing: a named
value into the value, an inequality into an interval, a vector into a tuple. A comparison never raises and its work is
counted, so that a verdict depends on the two values and the policy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rewardsvc.rewards.math.exact import Exhausted, Undefined
from rewardsvc.rewards.math.grids import same_matrices
from rewardsvc.rewards.math.grounds import Comparison
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.members import same_members
from rewardsvc.rewards.math.notations import same_notation
from rewardsvc.rewards.math.phrases import same_texts
from rewardsvc.rewards.math.policy import Policy
from rewardsvc.rewards.math.quantities import same_formulas
from rewardsvc.rewards.math.restating import tasks
from rewardsvc.rewards.math.sets import SETS, same_sets
from rewardsvc.rewards.math.spreading import spread_out
from rewardsvc.rewards.math.statements import same_relations
from rewardsvc.rewards.math.values import (
    Based,
    Choice,
    Clock,
    Formula,
    Listing,
    Matrix,
    Ratio,
    Relation,
    SetOf,
    System,
    Text,
    Tuple,
    Value,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the comparison found. `parts` has an entry for each part of a gold with several: True, False or None."""

    outcome: Literal["equal", "not_equal", "undecided"]
    reason: str
    flags: tuple[str, ...] = ()
    parts: tuple[bool | None, ...] = ()


_SAME = Decision("equal", "same_value")
_OTHER = Decision("not_equal", "different_number")
_UNREDUCED = Decision("not_equal", "unreduced_fraction")


def decide(gold: Value, answer: Value, policy: Policy) -> Decision:
    """Is the answer the gold? Never raises; `undecided` when neither could be shown."""
    if policy.fractions == "as_written" and _is_fraction(gold) != _is_fraction(answer):
        return _UNREDUCED
    if type(gold) is Formula and type(answer) is Formula and gold.expr.op == answer.expr.op == "num":
        if gold.expr.value == answer.expr.value:
            if (gold.unit is None or answer.unit is None) and gold.mark == answer.mark and policy.missing_unit:
                return _SAME
        elif (
            gold.places is answer.places is None
            and not (gold.mark or answer.mark or gold.unit or answer.unit)
            and not policy.relative_tolerance
        ):
            return _OTHER
    if gold is answer or gold == answer:
        return _parts_of_same(gold)
    comparison = _Comparison(policy)
    outcome = comparison.run(gold, answer)
    return Decision(outcome, comparison.reason or outcome, tuple(comparison.flags), comparison.parts)


def _is_fraction(value: Value) -> bool:
    """Whether a whole number is written as a fraction."""
    whole_number = isinstance(value, Formula) and value.expr.op == "num" and value.expr.value == int(value.expr.value)
    return whole_number and ("/" in value.source or "frac" in value.source)


def _parts_of_same(gold: Value) -> Decision:
    if isinstance(gold, Listing | Tuple | SetOf | System) and len(gold.items) > 1:
        return Decision("equal", "same_value", (), (True,) * len(gold.items))
    return _SAME


class _Comparison(Comparison):
    """Sends two values to the room of their types."""

    def run(self, gold: Value, answer: Value) -> Outcome:
        try:
            left = tasks(_outcome_of(answer)) - tasks(gold)
            if left:
                self.flags.append("restated_task")
                if self.policy.restatement == "reject":
                    self.reason = "restated_task"
                    return "not_equal"
            outcome = self.compare(gold, answer)
            return "undecided" if self.doubtful and outcome == "equal" else outcome
        except (Exhausted, RecursionError):
            self.reason = "budget"
            return "undecided"
        except Undefined:
            self.reason = "undefined"
            return "not_equal"

    def compare(self, gold: Value, answer: Value) -> Outcome:
        """The outcome for two values of any types."""
        if gold == answer:
            return "equal"
        gold, answer = spread_out(gold), spread_out(answer)
        if isinstance(gold, Formula) and isinstance(answer, Formula):
            return same_formulas(self, gold, answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return same_relations(self, gold, answer)
        if isinstance(gold, SETS) or isinstance(answer, SETS):
            outcome = same_sets(self, gold, answer)
            if outcome is not None:
                return outcome
        if isinstance(gold, Text | Choice) or isinstance(answer, Text | Choice):
            return same_texts(self, gold, answer)
        if isinstance(gold, Matrix) or isinstance(answer, Matrix):
            return same_matrices(self, gold, answer)
        if isinstance(gold, Based | Clock | Ratio) or isinstance(answer, Based | Clock | Ratio):
            return same_notation(self, gold, answer)
        return same_members(self, gold, answer)


def _outcome_of(answer: Value) -> Value:
    """What a chain of equations ends in: `\\gcd(8, 20) = 4` leaves nothing to be carried out."""
    return answer.sides[-1] if isinstance(answer, Relation) and set(answer.signs) <= {"=", "~"} else answer
