"""Two values under a policy: equal, not equal, or undecided.

Values are compared by type. Where types differ, one is turned into the other only by rules that lose nothing: a named
value into the value, an inequality into an interval, a vector into a tuple. A comparison never raises and its work is
counted, so that a verdict depends on the two values and the policy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise, product
from typing import Literal

from rewardsvc.rewards.math import units, words
from rewardsvc.rewards.math.equations import difference, same_relation, sides, substituted
from rewardsvc.rewards.math.exact import Budget, Exhausted, Undefined, exact
from rewardsvc.rewards.math.formulas import fraction, whole
from rewardsvc.rewards.math.identity import Outcome, approximate, points, same
from rewardsvc.rewards.math.policy import Policy
from rewardsvc.rewards.math.regions import Piece, Shapeless, region, same_region
from rewardsvc.rewards.math.residues import names_of
from rewardsvc.rewards.math.restating import tasks
from rewardsvc.rewards.math.values import (
    PI,
    ZERO,
    Based,
    Builder,
    Choice,
    Clock,
    Difference,
    Formula,
    Interval,
    Listing,
    Matrix,
    Node,
    Ratio,
    Relation,
    SetOf,
    System,
    Text,
    Tuple,
    Union,
    Value,
    listed,
    number,
)

MAX_ITEMS = 80
"""Members of an unordered list that are matched with one another; longer lists must have the same spelling."""

WORK = 8_000
"""Units of counted work for one decision, see `exact.Budget`."""

_SETS = (Interval, Union, Difference, Builder)
_COUNTERS = frozenset("kmnljNKMZt")
_FREE = frozenset(["C", "c", "K", "k", "c_1", "C_1", "D", "const", "A"])


@dataclass(frozen=True, slots=True)
class Decision:
    """What the comparison found. `parts` has an entry for each part of a gold with several: True, False or None."""

    outcome: Literal["equal", "not_equal", "undecided"]
    reason: str
    flags: tuple[str, ...] = ()
    parts: tuple[bool | None, ...] = ()


_FALSE_CHAIN = Text("false chain", "false chain")
_RADIAN = units.unit("radian")
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


class _Comparison:
    """One comparison: its policy, its budget, and what it noticed on the way."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.budget = Budget(WORK)
        self.flags: list[str] = []
        self.reason = ""
        self.parts: tuple[bool | None, ...] = ()
        self.top = True
        self.doubtful = False

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

    def flag(self, name: str) -> None:
        if name not in self.flags:
            self.flags.append(name)

    def compare(self, gold: Value, answer: Value) -> Outcome:
        """The outcome for two values of any types."""
        if gold == answer:
            return "equal"
        gold, answer = _spread(gold), _spread(answer)
        if isinstance(gold, Formula) and isinstance(answer, Formula):
            return self.formulas(gold, answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self.relations(gold, answer)
        if isinstance(gold, _SETS) or isinstance(answer, _SETS):
            outcome = self.sets(gold, answer)
            if outcome is not None:
                return outcome
        if isinstance(gold, Text | Choice) or isinstance(answer, Text | Choice):
            return self.texts(gold, answer)
        if isinstance(gold, Matrix) or isinstance(answer, Matrix):
            return self.matrices(gold, answer)
        if isinstance(gold, Based | Clock | Ratio) or isinstance(answer, Based | Clock | Ratio):
            return self.special(gold, answer)
        return self.collections(gold, answer)

    # Formulas

    def formulas(self, gold: Formula, answer: Formula) -> Outcome:
        scaled = self._units(gold, answer)
        if scaled is None:
            return "not_equal"
        gold, answer = scaled
        outcome: Outcome = "not_equal"
        for first, second in self._readings(gold, answer):
            found = self.numbers(first, second)
            if found == "equal":
                return self._nouns(gold, answer)
            outcome = "undecided" if found == "undecided" else outcome
        return outcome

    def _nouns(self, gold: Formula, answer: Formula) -> Outcome:
        """Equal numbers of different things: nobody can say from the words alone."""
        if (
            gold.unit
            and answer.unit
            and self.policy.units != "ignore"
            and not units.commensurable(gold.unit, answer.unit)
        ):
            self.flag("unit_mismatch")
            return "undecided"
        return "equal"

    def _units(self, gold: Formula, answer: Formula) -> tuple[Formula, Formula] | None:
        """Both in the same unit; None when their units exclude each other."""
        left, right = gold.unit, answer.unit
        if self.policy.units == "ignore" or (left is None and right is None):
            return gold, answer
        if left is None or right is None:
            marked, measured = (gold, answer) if left is None else (answer, gold)
            if marked.mark == "degrees" and measured.unit == _RADIAN:
                return _radians_of(gold), _radians_of(answer)
            if marked.mark in ("degrees", "percent") and measured.unit and units.known_part(measured.unit):
                self.flag("unit_mismatch")
                return None
        if left is None or right is None:
            if not self.policy.missing_unit:
                self.flag("unit_missing")
                return None
            return gold, answer
        if not units.commensurable(left, right):
            self.flag("unit_mismatch")
            known = units.known_part(left), units.known_part(right)
            return None if all(known) and known[0] != known[1] else (gold, answer)
        if left.factor == right.factor:
            return gold, answer
        if self.policy.units == "match":
            self.flag("unit_mismatch")
            return None
        ratio = number(whole(Fraction(right.factor) / Fraction(left.factor)))
        return gold, replace(answer, expr=Node("mul", (ratio, answer.expr)), places=None, significant=None)

    def _readings(self, gold: Formula, answer: Formula) -> Iterable[tuple[Formula, Formula]]:
        """Pairs to compare: a percentage may be meant as a number or as its hundredth, degrees as radians."""
        marks = {gold.mark, answer.mark} - {"about"}
        if "percent" in marks and gold.mark != answer.mark:
            yield from self._percent(gold, answer)
        elif "degrees" in marks and gold.mark != answer.mark:
            yield from self._degrees(gold, answer)
        else:
            yield gold, answer

    def _percent(self, gold: Formula, answer: Formula) -> Iterable[tuple[Formula, Formula]]:
        if self.policy.percent in ("either", "ignore"):
            yield gold, answer
        if self.policy.percent in ("either", "strict"):
            yield tuple(_hundredth(side) if side.mark == "percent" else side for side in (gold, answer))  # type: ignore[misc]

    def _degrees(self, gold: Formula, answer: Formula) -> Iterable[tuple[Formula, Formula]]:
        if self.policy.degrees == "either":
            yield gold, answer
        yield tuple(_radians(side) if side.mark == "degrees" else side for side in (gold, answer))  # type: ignore[misc]

    def numbers(self, gold: Formula, answer: Formula) -> Outcome:
        """Two formulas by value, then by rounding, then under other names."""
        if not self.policy.algebra and not (gold.expr.op == answer.expr.op == "num"):
            return "not_equal"
        outcome = self.same(gold.expr, answer.expr)
        if outcome == "equal":
            return outcome
        if self._rounded(gold, answer):
            self.flag("rounded")
            return "equal"
        if outcome == "not_equal" and (names_of(gold.expr) or names_of(answer.expr)):
            return self._renamed(gold.expr, answer.expr)
        return outcome

    def same(self, gold: Node, answer: Node) -> Outcome:
        if _unbounded(gold) or _unbounded(answer):
            return self._infinite(gold, answer)
        return same(gold, answer, self.budget)

    def _infinite(self, gold: Node, answer: Node) -> Outcome:
        if gold == answer:
            return "equal"
        plain = [_infinity(gold), _infinity(answer)]
        if all(plain) or (any(plain) and not (_unbounded(gold) and _unbounded(answer))):
            return "equal" if plain[0] == plain[1] else "not_equal"
        return "undecided"

    def _rounded(self, gold: Formula, answer: Formula) -> bool:
        """Is one of them the other, rounded to the digits that it shows?"""
        policy = self.policy
        if policy.decimals == "exact" and not policy.relative_tolerance:
            return False
        if gold.places is None and answer.places is None and not policy.relative_tolerance:
            return False
        left, right = approximate(gold.expr, self.budget), approximate(answer.expr, self.budget)
        if left is None or right is None:
            return False
        if policy.relative_tolerance and abs(left - right) <= Fraction(policy.relative_tolerance) * abs(left):
            return True
        if policy.decimals == "exact":
            return False
        return self._rounds_to_gold(gold, answer, abs(left - right)) or self._rounds_gold(
            gold, answer, abs(left - right)
        )

    def _rounds_to_gold(self, gold: Formula, answer: Formula, distance: Fraction) -> bool:
        """A decimal answer must show more digits than the gold, and then the gold needs one digit more."""
        needed = self.policy.gold_digits + (answer.places is not None)
        if gold.places is None or gold.places <= 0 or (gold.significant or 0) < needed or _is_whole(answer.expr):
            return False
        if answer.places is not None and answer.places <= gold.places:
            return False
        return distance <= _half(gold.places)

    def _rounds_gold(self, gold: Formula, answer: Formula, distance: Fraction) -> bool:
        if (
            gold.places is not None
            or answer.places is None
            or (isinstance(gold.expr.value, int) and gold.expr.op == "num")
        ):
            return False
        rational = exact(gold.expr, self.budget) is not None
        needed = self.policy.answer_digits if rational else self.policy.irrational_digits
        return (answer.significant or 0) >= needed and distance <= _half(answer.places)

    def _renamed(self, gold: Node, answer: Node) -> Outcome:
        """The same formula under other bound names, or up to a constant of integration."""
        first, second = names_of(gold), names_of(answer)
        mine, theirs = sorted(first - second), sorted(second - first)
        if self.policy.any_symbols and len(mine) == len(theirs) and mine:
            return self.same(gold, substituted(answer, dict(zip(theirs, map(_symbol, mine), strict=True))))
        if not self.policy.rename:
            return "not_equal"
        counting = len(mine) == len(theirs) == 1 and _bound(mine[0], gold) and _bound(theirs[0], answer)
        if counting and self.same(gold, substituted(answer, {theirs[0]: _symbol(mine[0])})) == "equal":
            return "equal"
        return self._up_to_constant(gold, answer)

    def _up_to_constant(self, gold: Node, answer: Node) -> Outcome:
        constants = [_free_constant(gold), _free_constant(answer)]
        if constants[0] is None:
            return "not_equal"
        if constants[1] is None and self.policy.integration_constant == "required":
            return "not_equal"
        first = substituted(gold, {constants[0]: ZERO})
        second = answer if constants[1] is None else substituted(answer, {constants[1]: ZERO})
        names = names_of(first) | names_of(second)
        if not names:
            return "not_equal"
        gap = difference(first, second)
        for place in islice(points(sorted(names)), 3):
            outcome = self.same(gap, substituted(gap, {name: number(value) for name, value in place.items()}))
            if outcome != "undecided":
                return outcome
        return "undecided"

    # Relations

    def relations(self, gold: Value, answer: Value) -> Outcome:
        if not isinstance(gold, Relation) or not isinstance(answer, Relation):
            return self._one_relation(gold, answer)
        if self._other_statement(gold, answer):
            return "undecided"
        plain_gold = self._reduced(gold, trusted=True)
        plain_answer = self._reduced(answer)
        if plain_answer is None or plain_gold is None:
            return "not_equal"
        if not isinstance(plain_gold, Relation) or not isinstance(plain_answer, Relation):
            return self.compare(plain_gold, plain_answer)
        if (
            set(plain_gold.signs) | set(plain_answer.signs) <= {"=", "~"}
            and len(plain_gold.signs) == len(plain_answer.signs) == 1
        ):
            return self._equations(plain_gold, plain_answer)
        return self._inequalities(plain_gold, plain_answer)

    def _other_statement(self, gold: Relation, answer: Relation) -> bool:
        """Two chains of constants that may both be true: the same value does not make them the same statement."""
        chains = (gold, answer)
        if not all(set(chain.signs) <= {"=", "~"} and self._constant_link(chain) for chain in chains):
            return False
        other = gold.sides != answer.sides if len(gold.sides) == len(answer.sides) else gold.sides[0] != answer.sides[0]
        return other and self._links_hold(_links(answer))

    def _one_relation(self, gold: Value, answer: Value) -> Outcome:
        relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
        assert isinstance(relation, Relation)
        if isinstance(other, (*_SETS, SetOf)):
            outcome = self._as_sets(gold, answer)
            if outcome is not None:
                return outcome
        if relation.signs == ("in",):
            return self._member(gold, answer, relation)
        bare = self._unwrapped(relation, trusted=relation is gold)
        if bare is None and relation is answer and _asked_sum(relation) and _is_nonzero_constant(gold):
            return self.compare(gold, relation.sides[1])
        if bare is None:
            return self._not_unwrapped(relation, gold, answer)
        if isinstance(other, Listing | Tuple) and isinstance(bare, Formula) and _is_label(relation.sides[0]):
            return "not_equal" if isinstance(other, Tuple) else self._pair(gold, answer, relation, bare)
        return self._pair(gold, answer, relation, bare)

    def _pair(self, gold: Value, answer: Value, relation: Relation, bare: Value) -> Outcome:
        return self.compare(bare, answer) if gold is relation else self.compare(gold, bare)

    def _not_unwrapped(self, relation: Relation, gold: Value, answer: Value) -> Outcome:
        if isinstance(gold, Text) or isinstance(answer, Text):
            return self.texts(gold, answer)
        interval = self._tuple_as_interval(relation, answer if gold is relation else gold)
        if interval is not None:
            return interval
        other = answer if gold is relation else gold
        if isinstance(other, Listing | System):
            return self._as_sets(gold, answer) or self.collections(_listed(gold), _listed(answer))
        return "not_equal"

    def _tuple_as_interval(self, relation: Relation, other: Value) -> Outcome | None:
        if not isinstance(other, Tuple) or len(other.items) != 2 or self.policy.interval_as_chain == "never":
            return None
        low, high = other.items
        if not isinstance(low, Formula) or not isinstance(high, Formula):
            return None
        closed = other.brackets == "[]"
        return self._as_sets(relation, Interval(low.expr, high.expr, closed, closed))

    def _member(self, gold: Value, answer: Value, relation: Relation) -> Outcome:
        return self._pair(gold, answer, relation, relation.sides[1])

    def _unwrapped(self, relation: Relation, trusted: bool) -> Value | None:
        """The value that an equation gives a name, or that a chain of constants ends in; None if it is neither."""
        if not self.policy.unwrap or not set(relation.signs) <= {"=", "~"}:
            return None
        reduced = self._reduced(relation, trusted)
        if reduced is None:
            return _FALSE_CHAIN
        if isinstance(reduced, Listing):
            return _shared_value(reduced)
        if not isinstance(reduced, Relation):
            return reduced
        if len(reduced.signs) > 1 or not _stands_for_value(reduced.sides[0]):
            last = reduced.sides[-1]
            if (
                isinstance(last, Formula)
                and last.expr.op == "sym"
                and _is_label(last)
                and not _is_label(reduced.sides[0])
            ):
                return reduced.sides[0] if len(reduced.sides) == 2 else None
            return None
        return reduced.sides[1]

    def _reduced(self, relation: Relation, trusted: bool = False) -> Value | None:
        """A chain of equations as one equation or value; None when a link of it is false, unless it is trusted."""
        if not set(relation.signs) <= {"=", "~"}:
            return relation
        names = [side for side in relation.sides if _is_label(side)]
        labels = names or [side for side in relation.sides if tasks(side)]
        values = [(sign, side) for sign, side in _links(relation) if not _stands_for_value(side)]
        if len(relation.signs) == 1 and (labels or not self._constant_link(relation)):
            return relation
        last = values[-1][1] if values else relation.sides[-1]
        if not trusted and self.policy.chains == "every_link" and not self._links_hold(values):
            self.flag("chain_with_false_link")
            self.reason = "chain_with_false_link"
            return None
        exact_values = [side for sign, side in values if sign == "="]
        last = exact_values[-1] if exact_values else last
        if len(labels) > 1 and values:
            return Listing(tuple(Relation((label, last), ("=",)) for label in labels))
        if labels:
            return Relation((labels[0], last), ("=",))
        return last if self._constants(values) else relation

    def _constant_link(self, relation: Relation) -> bool:
        return all(isinstance(side, Formula) and not names_of(side.expr) for side in relation.sides)

    def _constants(self, values: Sequence[tuple[str, Value]]) -> bool:
        return all(isinstance(side, Formula) and not names_of(side.expr) for _, side in values) or len(values) > 2

    def _links_hold(self, values: Sequence[tuple[str, Value]]) -> bool:
        """False when a link is shown to be wrong; one that nobody can show is remembered in `doubtful`."""
        for (_, before), (sign, after) in pairwise(values):
            if sign == "~":
                if isinstance(before, Formula) and isinstance(after, Formula) and not self._near(before, after):
                    return False
                continue
            outcome = self._quiet(before, after)
            if outcome == "not_equal":
                return False
            self.doubtful = self.doubtful or outcome == "undecided"
        return True

    def _quiet(self, before: Value, after: Value) -> Outcome:
        """A comparison inside one text: its flags are nobody's business."""
        saved, reason = list(self.flags), self.reason
        outcome = self.compare(before, after)
        self.flags, self.reason = saved, reason
        return outcome

    def _near(self, before: Formula, after: Formula) -> bool:
        left, right = approximate(before.expr, self.budget), approximate(after.expr, self.budget)
        if left is None or right is None:
            return True
        return abs(left - right) <= (2 * _half(after.places) if after.places is not None else 1)

    def _equations(self, gold: Relation, answer: Relation) -> Outcome:
        if _is_label(gold.sides[0]) and _is_label(answer.sides[0]):
            outcome = self._named(gold, answer)
            if outcome is not None:
                return outcome
        if not all(isinstance(side, Formula) and not side.unit for side in (*gold.sides, *answer.sides)):
            first, second = _assignments(gold), _assignments(answer)
            if first and second:
                return self._assigned(first, second)
            if self.compare(gold.sides[0], answer.sides[0]) != "equal":
                return "undecided"
            return self.compare(gold.sides[1], answer.sides[1])
        nodes = [side.expr for side in (*gold.sides, *answer.sides) if isinstance(side, Formula)]
        if any(map(_unbounded, nodes)):
            return "not_equal"
        return same_relation(sides(nodes[0], nodes[1], "="), sides(nodes[2], nodes[3], "="), self.budget)

    def _named(self, gold: Relation, answer: Relation) -> Outcome | None:
        """Two named values: the same name, or the same function of another variable."""
        first, second = gold.sides[0], answer.sides[0]
        if first == second or (
            isinstance(first, Text) and isinstance(second, Text) and first.words.lower() == second.words.lower()
        ):
            return self.compare(gold.sides[1], answer.sides[1])
        if not isinstance(first, Formula) or not isinstance(second, Formula):
            return None
        if first.expr.op == second.expr.op == "call" and first.expr.value == second.expr.value and self.policy.rename:
            names = _argument_names(first.expr, second.expr)
            right = answer.sides[1]
            if names and isinstance(right, Formula):
                return self.compare(gold.sides[1], replace(right, expr=substituted(right.expr, names)))
        return None

    def _inequalities(self, gold: Relation, answer: Relation) -> Outcome:
        outcome = self._as_sets(gold, answer)
        if outcome is not None:
            return outcome
        if len(gold.signs) == len(answer.signs) == 1 and gold.signs[0] in "<=>=!=" and answer.signs[0] in "<=>=!=":
            nodes = [side.expr for side in (*gold.sides, *answer.sides) if isinstance(side, Formula)]
            if len(nodes) == 4 and not any(map(_unbounded, nodes)):
                return same_relation(
                    sides(nodes[0], nodes[1], gold.signs[0]), sides(nodes[2], nodes[3], answer.signs[0]), self.budget
                )
        if len(gold.sides) == len(answer.sides):
            for candidate in (answer, _mirrored(answer)):
                if candidate is not None and candidate.signs == gold.signs:
                    return _all(
                        [self.compare(left, right) for left, right in zip(gold.sides, candidate.sides, strict=True)]
                    )
        return "undecided" if gold.signs == answer.signs else "not_equal"

    # Sets

    def sets(self, gold: Value, answer: Value) -> Outcome | None:
        if (isinstance(gold, Interval) and isinstance(answer, Tuple)) or (
            isinstance(gold, Tuple) and isinstance(answer, Interval)
        ):
            return self._interval_or_point(gold, answer)
        if isinstance(gold, Text | Choice) or isinstance(answer, Text | Choice):
            return None
        gold, answer = _open_interval(gold), _open_interval(answer)
        return self._as_sets(gold, answer) or self._set_parts(gold, answer)

    def _set_parts(self, gold: Value, answer: Value) -> Outcome:
        if isinstance(gold, Union) and isinstance(answer, Union) and len(gold.parts) == len(answer.parts):
            return "equal" if self._matching(gold.parts, answer.parts) == "equal" else "undecided"
        if isinstance(gold, Interval) and isinstance(answer, Interval):
            if (gold.closed_low, gold.closed_high) != (answer.closed_low, answer.closed_high):
                return "not_equal"
            return _all([self.same(gold.low, answer.low), self.same(gold.high, answer.high)])
        if isinstance(gold, Builder) and isinstance(answer, Builder):
            return _sure(
                _all([self.compare(gold.variable, answer.variable), self.compare(gold.condition, answer.condition)])
            )
        if isinstance(gold, Formula | Matrix | Ratio | Clock | Based) or isinstance(
            answer, Formula | Matrix | Ratio | Clock | Based
        ):
            return "not_equal"
        return "undecided"

    def _interval_or_point(self, gold: Value, answer: Value) -> Outcome:
        interval, point = (gold, answer) if isinstance(gold, Interval) else (answer, gold)
        assert isinstance(interval, Interval) and isinstance(point, Tuple)
        if len(point.items) != 2 or (interval.closed_low, interval.closed_high) != ((point.brackets == "[]",) * 2):
            return "not_equal"
        ends = [Formula(interval.low), Formula(interval.high)]
        return _all([self.compare(left, right) for left, right in zip(ends, point.items, strict=True)])

    def _as_sets(self, gold: Value, answer: Value) -> Outcome | None:
        """Both as sets of real numbers, or None when one is not."""
        chains = self.policy.interval_as_chain
        if _is_inequality(answer) > _is_inequality(gold) and chains != "either":
            return None
        if _is_inequality(gold) > _is_inequality(answer) and chains == "never":
            return None
        try:
            first, name = region(_without_labels(gold), self.budget)
            second, other = region(_without_labels(answer), self.budget)
        except (Shapeless, Undefined):
            return None
        if not (first and second) and not (_is_empty(gold) or _is_empty(answer)):
            return None  # two conditions that nothing meets are no evidence for each other
        if name and other and name != other and isinstance(gold, Relation) and isinstance(answer, Relation):
            return "not_equal"
        return self._regions(first, second)

    def _regions(self, first: Sequence[Piece], second: Sequence[Piece]) -> Outcome:
        outcome: Outcome = same_region(first, second, self.budget)
        if outcome == "not_equal" and len(first) == len(second) and self.policy.decimals == "rounded":
            return self._rounded_regions(first, second)
        return outcome

    def _rounded_regions(self, first: Sequence[Piece], second: Sequence[Piece]) -> Outcome:
        """Ends may be decimals that were rounded."""
        for left, right in zip(first, second, strict=True):
            if left[2:] != right[2:]:
                return "not_equal"
            if not (self._close_ends(left.low, right.low) and self._close_ends(left.high, right.high)):
                return "not_equal"
        self.flag("rounded")
        return "equal"

    def _close_ends(self, one: Node, two: Node) -> bool:
        if one == two:
            return True
        if _unbounded(one) or _unbounded(two):
            return False
        return self._rounded(_as_decimal(one), _as_decimal(two)) or self.same(one, two) == "equal"

    # Words

    def texts(self, gold: Value, answer: Value) -> Outcome:
        first, second = _letter(gold), _letter(answer)
        if first is not None and second is not None:
            return "equal" if first == second else "not_equal"
        if isinstance(gold, Text) and isinstance(answer, Text):
            return self._prose(gold, answer)
        if isinstance(gold, Choice) or isinstance(answer, Choice):
            return self._choice(answer if isinstance(gold, Choice) else gold)
        text, other = (gold, answer) if isinstance(gold, Text) else (answer, gold)
        if text == _FALSE_CHAIN:
            return "not_equal"
        if (
            isinstance(other, Listing)
            and isinstance(text, Text)
            and all(isinstance(item, Text) for item in other.items)
        ):
            joined = " and ".join(item.words for item in other.items if isinstance(item, Text))
            return self._prose(text, Text(joined, words.shape(joined)))
        letters = [_letter(item) for item in other.items] if isinstance(other, Listing) else []
        if isinstance(text, Text) and letters and None not in letters:
            chosen = sorted(letter for letter in letters if letter)
            return "equal" if list(text.words) == chosen else "not_equal"
        if not isinstance(text, Text) or (isinstance(other, SetOf) and not other.items):
            return "undecided"
        if words.denies(text.words):
            return "not_equal"
        plain = text.words.replace(" ", "").isalpha() and len(text.words) < 60
        return "not_equal" if plain else "undecided"

    def _choice(self, other: Value) -> Outcome:
        if isinstance(other, Text):
            return "not_equal" if len(other.words.split()) <= 3 else "undecided"
        return "not_equal"

    def _prose(self, gold: Text, answer: Text) -> Outcome:
        first, second = gold.words, answer.words
        if self.policy.case == "fold":
            first, second = first.casefold(), second.casefold()
        if first == second or first.replace(" ", "") == second.replace(" ", ""):
            return "equal"
        members, others = words.members(first), words.members(second)
        if len(members) > 1 and members == others and not words.contradict(first, second):
            return "equal"
        if words.contradict(first, second) or (len(members) != len(others) and max(map(_length, members + others)) < 3):
            return "not_equal"
        if gold.shape.casefold() == answer.shape.casefold() and gold.shape != gold.words:
            return "not_equal"
        short = (
            max(len(first.split()), len(second.split())) <= 3
            and (first + second).replace(" ", "").replace("/", "").isalpha()
        )
        return "not_equal" if short or answer == _FALSE_CHAIN else "undecided"

    # Matrices and special notations

    def matrices(self, gold: Value, answer: Value) -> Outcome:
        first, second = _grid(gold), _grid(answer)
        if isinstance(gold, Formula) and second is not None:
            first = _components(gold, len(second))
        if isinstance(answer, Formula) and first is not None:
            second = _components(answer, len(first))
        if first is None or second is None:
            return (
                "undecided" if isinstance(gold, Formula | Text) or isinstance(answer, Formula | Text) else "not_equal"
            )
        if len(first) != len(second) or any(len(left) != len(right) for left, right in zip(first, second, strict=True)):
            flat_first, flat_second = _vector(first), _vector(second)
            both = isinstance(gold, Matrix) and isinstance(answer, Matrix)
            if flat_first is None or flat_second is None or len(flat_first) != len(flat_second) or both:
                return "not_equal"
            first, second = [flat_first], [flat_second]
        pairs = [pair for left, right in zip(first, second, strict=True) for pair in zip(left, right, strict=True)]
        return _all([self.compare(left, right) for left, right in pairs])

    def special(self, gold: Value, answer: Value) -> Outcome:
        if isinstance(gold, Based) or isinstance(answer, Based):
            return self._based(gold, answer)
        if isinstance(gold, Clock) and isinstance(answer, Clock):
            unsaid = not gold.half or not answer.half
            same_time = gold.seconds == answer.seconds or (
                unsaid and gold.half != answer.half and gold.seconds % 43200 == answer.seconds % 43200
            )
            return "equal" if same_time else "not_equal"
        if isinstance(gold, Ratio) and isinstance(answer, Ratio):
            return self._ratios(gold, answer)
        return self._quotient(gold, answer)

    def _based(self, gold: Value, answer: Value) -> Outcome:
        if isinstance(gold, Based) and isinstance(answer, Based):
            return "equal" if gold.base == answer.base and _digits(gold) == _digits(answer) else "not_equal"
        based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
        assert isinstance(based, Based)
        if isinstance(other, Formula) and _is_whole(other.expr) and str(other.expr.value) == _digits(based):
            self.flag("base_omitted")
            return "equal"
        return "not_equal"

    def _ratios(self, gold: Ratio, answer: Ratio) -> Outcome:
        if len(gold.terms) != len(answer.terms):
            return "not_equal"
        pivot = next((place for place, term in enumerate(gold.terms) if term != ZERO), 0)
        first, second = gold.terms[pivot], answer.terms[pivot]
        if self.same(second, ZERO) == "equal":
            return "not_equal"
        pairs = zip(gold.terms, answer.terms, strict=True)
        return _all([self.same(Node("mul", (left, second)), Node("mul", (right, first))) for left, right in pairs])

    def _quotient(self, gold: Value, answer: Value) -> Outcome:
        """A ratio of two terms as their quotient; a time of day without am or pm may have been one."""
        quotients = [_as_quotient(gold), _as_quotient(answer)]
        if (
            quotients[0] is None
            or quotients[1] is None
            or (isinstance(gold, Clock | Ratio) and isinstance(answer, Clock | Ratio))
        ):
            return "not_equal"
        return self.formulas(quotients[0], quotients[1])

    # Collections

    def collections(self, gold: Value, answer: Value) -> Outcome:
        if isinstance(gold, Formula) or isinstance(answer, Formula):
            return self._single(gold, answer)
        regions = self._as_sets(gold, answer) if _joined(gold) or _joined(answer) else None
        if regions is not None and (
            regions == "equal" or not isinstance(gold, Listing) or not isinstance(answer, Listing)
        ):
            return regions
        first, second = _assignments(gold), _assignments(answer)
        if first and second:
            return self._assigned(first, second)
        left, right = _items(gold), _items(answer)
        if left is None or right is None:
            return "undecided"
        if self.policy.either_gold and isinstance(gold, Listing) and gold.joint == "or":
            return _any([self.compare(item, answer) for item in gold.items])
        return self._collections(gold, answer, left, right)

    def _collections(self, gold: Value, answer: Value, left: Sequence[Value], right: Sequence[Value]) -> Outcome:
        kinds = (type(gold), type(answer))
        if kinds in ((SetOf, Tuple), (Tuple, SetOf)) and not self.policy.set_or_tuple:
            return "not_equal"
        if (
            isinstance(gold, Tuple)
            and isinstance(answer, Tuple)
            and len(left) == 2
            and gold.brackets != answer.brackets
        ):
            return "not_equal"  # one may be a closed interval and the other an open one
        left, right, ordered = self._order(gold, answer, left, right)
        paired = _beside_its_noun(left, right)
        if paired is not None:
            return self._in_order(left, paired)
        if kinds == (SetOf, SetOf) or (kinds == (Listing, Listing) and _are_points(left) and _are_points(right)):
            left, right = self._distinct(left), self._distinct(right)
        if ordered and self.policy.order != "everything":
            return self._in_order(left, right)
        return self._matching(left, right)

    def _order(
        self, gold: Value, answer: Value, left: Sequence[Value], right: Sequence[Value]
    ) -> tuple[Sequence[Value], Sequence[Value], bool]:
        """Items without labels where only one side has them, and whether their order matters."""
        labelled = [_labels(left), _labels(right)]
        if all(labelled) or not any(labelled):
            tuples = isinstance(gold, Tuple) or isinstance(answer, Tuple)
            return left, right, tuples or self.policy.order == "nothing"
        labels = labelled[0] or labelled[1]
        plain_left, plain_right = [[_bare(item) for item in _by_axes(side)] for side in (left, right)]
        distinct = labels is not None and len(set(labels)) > 1
        ordered = (distinct and labelled[0] is not None) or isinstance(gold, Tuple) or isinstance(answer, Tuple)
        return plain_left, plain_right, ordered

    def _in_order(self, left: Sequence[Value], right: Sequence[Value]) -> Outcome:
        top, self.top = self.top, False
        if len(left) != len(right):
            if top:
                self.parts = (False,) * len(left)
            return "not_equal"
        outcomes = [self.compare(one, two) for one, two in zip(left, right, strict=True)]
        if top:
            self.parts = tuple(_truth(outcome) for outcome in outcomes)
        return _all(outcomes)

    def _matching(self, left: Sequence[Value], right: Sequence[Value]) -> Outcome:
        """Every member of one side has its own partner on the other."""
        top, self.top = self.top, False
        if len(left) > MAX_ITEMS or len(right) > MAX_ITEMS:
            return "undecided"
        waiting, unsure = list(right), False
        parts: list[bool | None] = []
        for item in left:
            outcome = self._take(item, waiting)
            unsure = unsure or outcome == "undecided"
            parts.append(_truth(outcome))
        if top:
            self.parts = tuple(parts)
        if len(left) != len(right):
            return "not_equal"
        if all(parts):
            return "equal"
        return "undecided" if unsure else "not_equal"

    def _take(self, item: Value, waiting: list[Value]) -> Outcome:
        outcome: Outcome = "not_equal"
        for place, candidate in enumerate(waiting):
            if item == candidate:
                del waiting[place]
                return "equal"
        for place, candidate in enumerate(waiting):
            self.budget.pay(2)
            found = self._quiet(item, candidate)
            if found == "equal":
                del waiting[place]
                return found
            outcome = found if found == "undecided" else outcome
        return outcome

    def _distinct(self, items: Sequence[Value]) -> list[Value]:
        kept: list[Value] = []
        for item in items[:MAX_ITEMS]:
            if not any(item == other or self._quiet(item, other) == "equal" for other in kept):
                kept.append(item)
        return kept + list(items[MAX_ITEMS:])

    def _assigned(self, gold: dict[str, Value], answer: dict[str, Value]) -> Outcome:
        if set(gold) != set(answer):
            return "not_equal"
        top, self.top = self.top, False
        outcomes = [self.compare(gold[name], answer[name]) for name in gold]
        if top:
            self.parts = tuple(_truth(outcome) for outcome in outcomes)
        return _all(outcomes)

    def _single(self, gold: Value, answer: Value) -> Outcome:
        """A formula against a collection: only one with a single member can be equal."""
        formula, other = (gold, answer) if isinstance(gold, Formula) else (answer, gold)
        items = _items(other)
        if isinstance(other, Tuple | Matrix) and isinstance(formula, Formula):
            vector = _basis_vector(formula.expr, len(items or ()))
            if vector is not None and items is not None:
                return (
                    self._in_order([Formula(part) for part in vector], items)
                    if formula is gold
                    else self._in_order(items, [Formula(part) for part in vector])
                )
        if items is not None and len(items) == 1:
            return self._pair_of(gold, answer, items[0])
        if isinstance(other, Listing) and self.policy.decimal_comma:
            decimal = _decimal_comma(other)
            if (
                decimal is not None
                and isinstance(formula, Formula)
                and formula.places is not None
                and formula.expr == decimal.expr
            ):
                self.flag("decimal_comma")
                return "equal"
        if self.policy.either_gold and isinstance(gold, Listing) and gold.joint == "or":
            return _any([self.compare(item, answer) for item in gold.items])
        return "not_equal" if items is not None else "undecided"

    def _pair_of(self, gold: Value, answer: Value, item: Value) -> Outcome:
        return self.compare(gold, item) if isinstance(gold, Formula) else self.compare(item, answer)


def _length(phrase: str) -> int:
    return len(phrase.split())


def _links(relation: Relation) -> list[tuple[str, Value]]:
    """The members of a chain, each with the sign before it."""
    return list(zip(("=", *relation.signs), relation.sides, strict=True))


def _all(outcomes: Sequence[Outcome]) -> Outcome:
    if "not_equal" in outcomes:
        return "not_equal"
    return "undecided" if "undecided" in outcomes else "equal"


def _any(outcomes: Sequence[Outcome]) -> Outcome:
    if "equal" in outcomes:
        return "equal"
    return "undecided" if "undecided" in outcomes else "not_equal"


def _sure(outcome: Outcome) -> Outcome:
    return outcome if outcome == "equal" else "undecided"


def _truth(outcome: Outcome) -> bool | None:
    return None if outcome == "undecided" else outcome == "equal"


def _half(places: int) -> Fraction:
    """Half a unit of the last digit, and a little more for a digit that was rounded at five."""
    return Fraction(1, 2) / Fraction(10) ** places


def _hundredth(side: Formula) -> Formula:
    places = None if side.places is None else side.places + 2
    return replace(side, expr=fraction(side.expr, number(100)), places=places, mark="")


def _radians(side: Formula) -> Formula:
    return replace(
        side, expr=Node("mul", (side.expr, fraction(PI, number(180)))), places=None, significant=None, mark=""
    )


def _radians_of(side: Formula) -> Formula:
    return _radians(side) if side.mark == "degrees" else side


def _unbounded(node: Node) -> bool:
    return (node.op == "const" and node.value == "inf") or any(map(_unbounded, node.args))


def _infinity(node: Node) -> str:
    """Plus or minus infinity by itself; empty for another formula."""
    if node.op == "const" and node.value == "inf":
        return "+"
    if node.op == "mul" and len(node.args) == 2 and node.args[0].op == "num" and _infinity(node.args[1]):
        return "-" if node.args[0].value < 0 else "+"
    return ""


def _is_whole(node: Node) -> bool:
    return node.op == "num" and isinstance(node.value, int)


def _symbol(name: str) -> Node:
    return Node("sym", (), name)


def _bound(name: str, node: Node) -> bool:
    """Does the name count through whole numbers, as in kπ?"""
    return name in _COUNTERS and _has_pi(node)


def _has_pi(node: Node) -> bool:
    return node == PI or node.op == "deg" or any(map(_has_pi, node.args))


def _free_constant(node: Node) -> str | None:
    """The name of a constant that is added to everything else, as in x² + C."""
    if node.op != "add":
        return None
    terms = [str(term.value) for term in node.args if term.op == "sym" and term.value in _FREE]
    if len(terms) != 1 or sum(terms[0] in names_of(term) for term in node.args) != 1:
        return None
    return terms[0]


def _is_label(side: Value) -> bool:
    """Is this side of an equation a name for the other: a letter, `f(x)`, `AB`, `|AB|`, `(x, y)`, or words?"""
    if isinstance(side, Text):
        return not words.denies(side.words)
    if isinstance(side, Tuple | Listing):
        return all(map(_is_label, side.items))
    if isinstance(side, Ratio):
        return all(_is_name(term, 0) for term in side.terms)
    if isinstance(side, Choice):
        return True
    return isinstance(side, Formula) and not side.unit and _is_name(side.expr, 0)


def _stands_for_value(side: Value) -> bool:
    """Is this side of an equation a name for the other, or a task that the other carries out?"""
    return _is_label(side) or bool(tasks(side))


def _outcome_of(answer: Value) -> Value:
    """What a chain of equations ends in: `\\gcd(8, 20) = 4` leaves nothing to be carried out."""
    return answer.sides[-1] if isinstance(answer, Relation) and set(answer.signs) <= {"=", "~"} else answer


def _is_nonzero_constant(side: Value) -> bool:
    return isinstance(side, Formula) and side.expr != ZERO and not names_of(side.expr)


def _asked_sum(relation: Relation) -> bool:
    """`m + n = 42`, with a product or quotient of names as well: what a question asks for in names of its own."""
    side, value = relation.sides[0], relation.sides[-1]
    if relation.signs != ("=",) or not isinstance(side, Formula) or side.unit or not _is_nonzero_constant(value):
        return False
    return side.expr.op in ("add", "mul", "div") and all(part.op == "sym" for part in side.expr.args)


def _is_name(node: Node, depth: int) -> bool:
    if node.op == "sym":
        return True
    if node.op == "call":
        name = str(node.value)
        if name.startswith("f:"):
            return True
        return depth < 2 and len(node.args) == 1 and name in _NAMING and _is_name(node.args[0], depth + 1)
    if node.op == "div" and all(part.op == "mul" and part.args[0] == _symbol("d") for part in node.args):
        return True
    if node.op in ("mul", "div") and depth < 2:
        return all(_is_corner(part) for part in node.args)
    return False


_NAMING = frozenset(listed("abs sin cos tan cot sec csc ln log Re Im arg det max min"))


def _is_corner(node: Node) -> bool:
    """A capital letter, a differential, or a product of them: together they name a segment, an area, a derivative."""
    if node.op == "sym":
        text = str(node.value)
        return (
            text[:1].isupper()
            or text == "d"
            or text.startswith("\\partial")
            or (len(text) > 1 and text[0] != "\\" and text[1] != "_")
        )
    return node.op in ("mul", "div") and all(map(_is_corner, node.args))


def _shared_value(names: Listing) -> Value | None:
    """The value that several names have been given in one chain."""
    contents = [_bare(item) for item in names.items]
    return contents[0] if all(content == contents[0] for content in contents) else None


def _argument_names(first: Node, second: Node) -> dict[str, Node]:
    """How the arguments of a function are called on the other side."""
    if len(first.args) != len(second.args) or not all(part.op == "sym" for part in (*first.args, *second.args)):
        return {}
    return {str(theirs.value): mine for mine, theirs in zip(first.args, second.args, strict=True)}


def _assignments(value: Value) -> dict[str, Value] | None:
    """Names and their values, when a value is nothing but that and no name comes twice."""
    pairs: list[tuple[Value, Value]] = []
    for item in value.items if isinstance(value, Listing | System | SetOf) else (value,):
        if not isinstance(item, Relation) or item.signs != ("=",) or not _is_label(item.sides[0]):
            return None
        name, content = item.sides
        if isinstance(name, Tuple) and isinstance(content, Tuple) and len(name.items) == len(content.items):
            pairs += zip(name.items, content.items, strict=True)
        else:
            pairs.append((name, content))
    found = {_spelling(name): content for name, content in pairs}
    return found if len(found) == len(pairs) else None


def _spelling(name: Value) -> str:
    if isinstance(name, Text):
        return name.words.lower()
    if isinstance(name, Choice):
        return name.letter
    if isinstance(name, Formula) and name.expr.op == "sym":
        return str(name.expr.value)
    return repr(name)


def _labels(items: Sequence[Value]) -> list[str] | None:
    """The names in a list of named values; None unless every item has one."""
    if not items or not all(
        isinstance(item, Relation) and item.signs == ("=",) and _is_label(item.sides[0]) for item in items
    ):
        return None
    return [_spelling(item.sides[0]) for item in items if isinstance(item, Relation)]


def _by_axes(items: Sequence[Value]) -> Sequence[Value]:
    """Coordinates in the order of their axes, in whatever order they were named."""
    labels = _labels(items)
    if labels is None or sorted(labels) not in (["x", "y"], ["x", "y", "z"]):
        return items
    return [item for _, item in sorted(zip(labels, items, strict=True), key=lambda pair: pair[0])]


def _beside_its_noun(left: Sequence[Value], right: Sequence[Value]) -> Sequence[Value] | None:
    """`3 cats, 5 dogs` in the order of `5 dogs, 3 cats`; None unless each number has a noun of its own."""
    nouns, others = _nouns(left), _nouns(right)
    if len(left) < 2 or len(set(nouns)) < len(nouns) or None in nouns or set(nouns) != set(others):
        return None
    return [right[others.index(noun)] for noun in nouns] if len(nouns) == len(others) else None


def _nouns(items: Sequence[Value]) -> list[tuple[tuple[str, int], ...] | None]:
    return [item.unit.dimension if isinstance(item, Formula) and item.unit else None for item in items]


def _bare(item: Value) -> Value:
    if isinstance(item, Relation) and item.signs == ("=",) and _is_label(item.sides[0]):
        return item.sides[1]
    return item


def _items(value: Value) -> list[Value] | None:
    if isinstance(value, Listing | Tuple | SetOf | System):
        return list(value.items)
    if isinstance(value, Matrix):
        return [Formula(cell) for row in value.rows for cell in row]
    return None


def _is_inequality(value: Value) -> bool:
    return isinstance(value, Relation) and value.signs != ("in",)


def _is_empty(value: Value) -> bool:
    return isinstance(value, SetOf) and not value.items


def _open_interval(value: Value) -> Value:
    """A pair that is compared with a set is an interval."""
    if isinstance(value, Tuple) and len(value.items) == 2 and value.brackets == "()":
        low, high = value.items
        if isinstance(low, Formula) and isinstance(high, Formula):
            return Interval(low.expr, high.expr, False, False)
    return value


def _are_points(items: Sequence[Value]) -> bool:
    """Pairs and longer tuples in a list are the members of a solution set, which may be named twice."""
    return all(isinstance(item, Tuple) for item in items)


def _joined(value: Value) -> bool:
    """Is it a list of relations, which may mean one set of numbers?"""
    return isinstance(value, Listing | System) and all(
        isinstance(item, Relation | Interval | Union) for item in value.items
    )


def _listed(value: Value) -> Value:
    return Listing((value,)) if isinstance(value, Relation) else value


def _spread(value: Value) -> Value:
    """Plus-or-minus as the list of both, and a list with one member as that member."""
    if isinstance(value, Formula) and _has_sign(value.expr):
        return Listing(tuple(replace(value, expr=_chosen(value.expr, sign)) for sign in (1, -1)), "or")
    if isinstance(value, Tuple) and any(isinstance(item, Formula) and _has_sign(item.expr) for item in value.items):
        return _spread_tuple(value)
    if isinstance(value, Listing | SetOf) and any(
        isinstance(item, Formula | Tuple | Relation) and _spread(item) is not item for item in value.items
    ):
        return replace(value, items=tuple(part for item in value.items for part in _spread_items(item)))
    if isinstance(value, Relation) and value.signs == ("=",) and isinstance(value.sides[1], Formula | Listing):
        spread = _spread(value.sides[1])
        return value if spread is value.sides[1] else replace(value, sides=(value.sides[0], spread))
    return value


def _spread_items(item: Value) -> tuple[Value, ...]:
    if isinstance(item, Relation):
        spread = _spread(item)
        if isinstance(spread, Relation) and isinstance(spread.sides[1], Listing) and spread is not item:
            return tuple(Relation((spread.sides[0], part), ("=",)) for part in spread.sides[1].items)
        return (item,)
    spread = _spread(item)
    return spread.items if isinstance(spread, Listing) else (spread,)


def _spread_tuple(value: Tuple) -> Value:
    choices = []
    for item in value.items[:8]:
        signed = isinstance(item, Formula) and _has_sign(item.expr)
        choices.append(
            [replace(item, expr=_chosen(item.expr, sign)) for sign in (1, -1)]
            if signed and isinstance(item, Formula)
            else [item]
        )
    return Listing(tuple(Tuple((*items, *value.items[8:]), value.brackets) for items in product(*choices)), "or")


def _has_sign(node: Node) -> bool:
    return node.op in ("pm", "mp") or any(map(_has_sign, node.args))


def _chosen(node: Node, sign: int) -> Node:
    if node.op in ("pm", "mp"):
        inner = _chosen(node.args[0], sign)
        return inner if (node.op == "pm") == (sign > 0) else Node("mul", (number(-1), inner))
    return node._replace(args=tuple(_chosen(part, sign) for part in node.args)) if node.args else node


def _without_labels(value: Value) -> Value:
    """A named set, `D = (0, 1)`, as the set."""
    if (
        isinstance(value, Relation)
        and value.signs == ("=",)
        and _is_label(value.sides[0])
        and isinstance(value.sides[1], (*_SETS, SetOf))
    ):
        return value.sides[1]
    if isinstance(value, Tuple) and len(value.items) == 2:
        return value
    return value


def _mirrored(relation: Relation) -> Relation | None:
    signs = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~"}
    if not all(sign in signs for sign in relation.signs):
        return None
    return Relation(relation.sides[::-1], tuple(signs[sign] for sign in reversed(relation.signs)))


def _letter(value: Value) -> str | None:
    """The capital letter that a value is."""
    if isinstance(value, Choice):
        return value.letter
    if isinstance(value, Formula) and value.expr.op == "sym" and len(str(value.expr.value)) == 1:
        return str(value.expr.value)
    return None


def _grid(value: Value) -> list[list[Value]] | None:
    """The entries of anything like a matrix: rows of values; a vector is one row for each entry."""
    if isinstance(value, Matrix):
        return [[_as_decimal(cell) for cell in row] for row in value.rows]
    if isinstance(value, Tuple | Listing):
        if all(isinstance(item, Tuple) for item in value.items):
            return [list(item.items) for item in value.items if isinstance(item, Tuple)]
        return [[item] for item in value.items]
    if isinstance(value, Interval):
        return [[Formula(value.low)], [Formula(value.high)]]
    return None


def _components(value: Formula, size: int) -> list[list[Value]] | None:
    vector = _basis_vector(value.expr, size)
    return None if vector is None else [[Formula(part)] for part in vector]


def _vector(rows: list[list[Value]]) -> list[Value] | None:
    if len(rows) == 1:
        return rows[0]
    return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else None


_BASIS = (
    ("\\mathbf i", "\\hat i", "\\vec i"),
    ("\\mathbf j", "\\hat j", "\\vec j"),
    ("\\mathbf k", "\\hat k", "\\vec k"),
)


def _basis_vector(node: Node, size: int) -> list[Node] | None:
    """The components of 2i + 3j, written with unit vectors."""
    names = names_of(node)
    if (
        size not in (2, 3)
        or not any(names & set(group) for group in _BASIS[:size])
        or (size == 2 and names & set(_BASIS[2]))
    ):
        return None
    every = {name: ZERO for group in _BASIS for name in group}
    return [substituted(node, every | dict.fromkeys(group, number(1))) for group in _BASIS[:size]]


def _digits(based: Based) -> str:
    sign = "-" if based.digits.startswith("-") else ""
    return sign + (based.digits.lstrip("-").lstrip("0").upper() or "0")


def _as_quotient(value: Value) -> Formula | None:
    if isinstance(value, Ratio) and len(value.terms) == 2:
        return Formula(fraction(value.terms[0], value.terms[1]))
    if isinstance(value, Clock) and not value.half and value.seconds % 60 == 0:
        hours, minutes = value.seconds // 3600, value.seconds % 3600 // 60
        return Formula(number(whole(Fraction(hours, minutes)))) if minutes else None
    return value if isinstance(value, Formula) else None


def _decimal_comma(value: Listing) -> Formula | None:
    """`1000,99` read as a decimal."""
    if len(value.items) != 2 or value.joint != ",":
        return None
    text = value.source.strip().strip("$") or ""
    first, comma, second = text.partition(",")
    if not comma or not first.lstrip("-").isdigit() or not second.isdigit() or len(text) > 40:
        return None
    return Formula(number(whole(Fraction(f"{first}.{second}"))), len(second), len((first + second).lstrip("-0")))


def _as_decimal(node: Node) -> Formula:
    """An end of an interval as what may have been a rounded decimal: its divisor divides a power of ten."""
    if node.op == "num" and isinstance(node.value, Fraction):
        for places in range(1, 12):
            if 10**places % node.value.denominator == 0:
                digits = str(abs(node.value.numerator) * 10**places // node.value.denominator).lstrip("0")
                return Formula(node, places, len(digits))
    return Formula(node)
