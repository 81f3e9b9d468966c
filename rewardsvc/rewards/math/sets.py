"""Intervals, unions and conditions, compared as sets of real numbers where both can be read as that.

What set a value is, and whether two sets are the same, is found in `regions`; here is when it may be taken for one.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewardsvc.rewards.math.exact import Undefined
from rewardsvc.rewards.math.grounds import Comparison, all_of, sure
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.naming import is_label
from rewardsvc.rewards.math.pairing import matched
from rewardsvc.rewards.math.quantities import as_decimal, rounded, same_value, unbounded
from rewardsvc.rewards.math.regions import Piece, Shapeless, region, same_region
from rewardsvc.rewards.math.values import (
    Based,
    Builder,
    Choice,
    Clock,
    Difference,
    Formula,
    Interval,
    Matrix,
    Node,
    Ratio,
    Relation,
    SetOf,
    Text,
    Tuple,
    Union,
    Value,
)

SETS = (Interval, Union, Difference, Builder)


def same_sets(by: Comparison, gold: Value, answer: Value) -> Outcome | None:
    """An interval, union or condition against another value; None when that is words."""
    if (isinstance(gold, Interval) and isinstance(answer, Tuple)) or (
        isinstance(gold, Tuple) and isinstance(answer, Interval)
    ):
        return _interval_or_point(by, gold, answer)
    if isinstance(gold, Text | Choice) or isinstance(answer, Text | Choice):
        return None
    gold, answer = open_interval(gold), open_interval(answer)
    return as_sets(by, gold, answer) or _set_parts(by, gold, answer)


def _set_parts(by: Comparison, gold: Value, answer: Value) -> Outcome:
    if isinstance(gold, Union) and isinstance(answer, Union) and len(gold.parts) == len(answer.parts):
        return "equal" if matched(by, gold.parts, answer.parts) == "equal" else "undecided"
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        if (gold.closed_low, gold.closed_high) != (answer.closed_low, answer.closed_high):
            return "not_equal"
        return all_of([same_value(by, gold.low, answer.low), same_value(by, gold.high, answer.high)])
    if isinstance(gold, Builder) and isinstance(answer, Builder):
        return sure(all_of([by.compare(gold.variable, answer.variable), by.compare(gold.condition, answer.condition)]))
    if isinstance(gold, Formula | Matrix | Ratio | Clock | Based) or isinstance(
        answer, Formula | Matrix | Ratio | Clock | Based
    ):
        return "not_equal"
    return "undecided"


def _interval_or_point(by: Comparison, gold: Value, answer: Value) -> Outcome:
    interval, point = (gold, answer) if isinstance(gold, Interval) else (answer, gold)
    assert isinstance(interval, Interval) and isinstance(point, Tuple)
    if len(point.items) != 2 or (interval.closed_low, interval.closed_high) != ((point.brackets == "[]",) * 2):
        return "not_equal"
    ends = [Formula(interval.low), Formula(interval.high)]
    return all_of([by.compare(left, right) for left, right in zip(ends, point.items, strict=True)])


def as_sets(by: Comparison, gold: Value, answer: Value) -> Outcome | None:
    """Both as sets of real numbers, or None when one is not."""
    chains = by.policy.interval_as_chain
    if _is_inequality(answer) > _is_inequality(gold) and chains != "either":
        return None
    if _is_inequality(gold) > _is_inequality(answer) and chains == "never":
        return None
    try:
        first, name = region(_without_labels(gold), by.budget)
        second, other = region(_without_labels(answer), by.budget)
    except (Shapeless, Undefined):
        return None
    if not (first and second) and not (_is_empty(gold) or _is_empty(answer)):
        return None  # two conditions that nothing meets are no evidence for each other
    if name and other and name != other and isinstance(gold, Relation) and isinstance(answer, Relation):
        return "not_equal"
    return _regions(by, first, second)


def _regions(by: Comparison, first: Sequence[Piece], second: Sequence[Piece]) -> Outcome:
    outcome: Outcome = same_region(first, second, by.budget)
    if outcome == "not_equal" and len(first) == len(second) and by.policy.decimals == "rounded":
        return _rounded_regions(by, first, second)
    return outcome


def _rounded_regions(by: Comparison, first: Sequence[Piece], second: Sequence[Piece]) -> Outcome:
    """Ends may be decimals that were rounded."""
    for left, right in zip(first, second, strict=True):
        if left[2:] != right[2:]:
            return "not_equal"
        if not (_close_ends(by, left.low, right.low) and _close_ends(by, left.high, right.high)):
            return "not_equal"
    by.flag("rounded")
    return "equal"


def _close_ends(by: Comparison, one: Node, two: Node) -> bool:
    if one == two:
        return True
    if unbounded(one) or unbounded(two):
        return False
    return rounded(by, as_decimal(one), as_decimal(two)) or same_value(by, one, two) == "equal"


def _is_inequality(value: Value) -> bool:
    return isinstance(value, Relation) and value.signs != ("in",)


def _is_empty(value: Value) -> bool:
    return isinstance(value, SetOf) and not value.items


def open_interval(value: Value) -> Value:
    """A pair that is compared with a set is an interval."""
    if isinstance(value, Tuple) and len(value.items) == 2 and value.brackets == "()":
        low, high = value.items
        if isinstance(low, Formula) and isinstance(high, Formula):
            return Interval(low.expr, high.expr, False, False)
    return value


def _without_labels(value: Value) -> Value:
    """A named set, `D = (0, 1)`, as the set."""
    if (
        isinstance(value, Relation)
        and value.signs == ("=",)
        and is_label(value.sides[0])
        and isinstance(value.sides[1], (*SETS, SetOf))
    ):
        return value.sides[1]
    if isinstance(value, Tuple) and len(value.items) == 2:
        return value
    return value
