"""Lists, tuples, sets and systems: which members are compared, and whether their order matters."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rewardsvc.rewards.math.formulas import whole
from rewardsvc.rewards.math.grids import basis_vector
from rewardsvc.rewards.math.grounds import Comparison, any_of
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.naming import assignments_of, content_of, labels_of
from rewardsvc.rewards.math.pairing import distinct, in_order, matched, same_assignments
from rewardsvc.rewards.math.sets import as_sets
from rewardsvc.rewards.math.values import (
    Formula,
    Interval,
    Listing,
    Matrix,
    Relation,
    SetOf,
    System,
    Tuple,
    Union,
    Value,
    number,
)


def same_members(by: Comparison, gold: Value, answer: Value) -> Outcome:
    """Two collections, or one and a formula."""
    if isinstance(gold, Formula) or isinstance(answer, Formula):
        return _one_against_many(by, gold, answer)
    regions = as_sets(by, gold, answer) if _joined(gold) or _joined(answer) else None
    if regions is not None and (regions == "equal" or not isinstance(gold, Listing) or not isinstance(answer, Listing)):
        return regions
    first, second = assignments_of(gold), assignments_of(answer)
    if first and second:
        return same_assignments(by, first, second)
    left, right = items_of(gold), items_of(answer)
    if left is None or right is None:
        return "undecided"
    if by.policy.either_gold and isinstance(gold, Listing) and gold.joint == "or":
        return any_of([by.compare(item, answer) for item in gold.items])
    return _same_collections(by, gold, answer, left, right)


def _same_collections(
    by: Comparison, gold: Value, answer: Value, left: Sequence[Value], right: Sequence[Value]
) -> Outcome:
    kinds = (type(gold), type(answer))
    if kinds in ((SetOf, Tuple), (Tuple, SetOf)) and not by.policy.set_or_tuple:
        return "not_equal"
    if isinstance(gold, Tuple) and isinstance(answer, Tuple) and len(left) == 2 and gold.brackets != answer.brackets:
        return "not_equal"  # one may be a closed interval and the other an open one
    left, right, ordered = _ordering(by, gold, answer, left, right)
    paired = _beside_its_noun(left, right)
    if paired is not None:
        return in_order(by, left, paired)
    if kinds == (SetOf, SetOf) or (kinds == (Listing, Listing) and _are_points(left) and _are_points(right)):
        left, right = distinct(by, left), distinct(by, right)
    if ordered and by.policy.order != "everything":
        return in_order(by, left, right)
    return matched(by, left, right)


def _ordering(
    by: Comparison, gold: Value, answer: Value, left: Sequence[Value], right: Sequence[Value]
) -> tuple[Sequence[Value], Sequence[Value], bool]:
    """Items without labels where only one side has them, and whether their order matters."""
    labelled = [labels_of(left), labels_of(right)]
    if all(labelled) or not any(labelled):
        tuples = isinstance(gold, Tuple) or isinstance(answer, Tuple)
        return left, right, tuples or by.policy.order == "nothing"
    labels = labelled[0] or labelled[1]
    plain_left, plain_right = [[content_of(item) for item in _by_axes(side)] for side in (left, right)]
    distinct = labels is not None and len(set(labels)) > 1
    ordered = (distinct and labelled[0] is not None) or isinstance(gold, Tuple) or isinstance(answer, Tuple)
    return plain_left, plain_right, ordered


def _one_against_many(by: Comparison, gold: Value, answer: Value) -> Outcome:
    """A formula against a collection: only one with a single member can be equal."""
    formula, other = (gold, answer) if isinstance(gold, Formula) else (answer, gold)
    items = items_of(other)
    if isinstance(other, Tuple | Matrix) and isinstance(formula, Formula):
        vector = basis_vector(formula.expr, len(items or ()))
        if vector is not None and items is not None:
            return (
                in_order(by, [Formula(part) for part in vector], items)
                if formula is gold
                else in_order(by, items, [Formula(part) for part in vector])
            )
    if items is not None and len(items) == 1:
        return _pair_of(by, gold, answer, items[0])
    if isinstance(other, Listing) and by.policy.decimal_comma:
        decimal = _decimal_comma(other)
        if (
            decimal is not None
            and isinstance(formula, Formula)
            and formula.places is not None
            and formula.expr == decimal.expr
        ):
            by.flag("decimal_comma")
            return "equal"
    if by.policy.either_gold and isinstance(gold, Listing) and gold.joint == "or":
        return any_of([by.compare(item, answer) for item in gold.items])
    return "not_equal" if items is not None else "undecided"


def _pair_of(by: Comparison, gold: Value, answer: Value, item: Value) -> Outcome:
    return by.compare(gold, item) if isinstance(gold, Formula) else by.compare(item, answer)


def _by_axes(items: Sequence[Value]) -> Sequence[Value]:
    """Coordinates in the order of their axes, in whatever order they were named."""
    labels = labels_of(items)
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


def items_of(value: Value) -> list[Value] | None:
    if isinstance(value, Listing | Tuple | SetOf | System):
        return list(value.items)
    if isinstance(value, Matrix):
        return [Formula(cell) for row in value.rows for cell in row]
    return None


def _are_points(items: Sequence[Value]) -> bool:
    """Pairs and longer tuples in a list are the members of a solution set, which may be named twice."""
    return all(isinstance(item, Tuple) for item in items)


def _joined(value: Value) -> bool:
    """Is it a list of relations, which may mean one set of numbers?"""
    return isinstance(value, Listing | System) and all(
        isinstance(item, Relation | Interval | Union) for item in value.items
    )


def _decimal_comma(value: Listing) -> Formula | None:
    """`1000,99` read as a decimal."""
    if len(value.items) != 2 or value.joint != ",":
        return None
    text = value.source.strip().strip("$") or ""
    first, comma, second = text.partition(",")
    if not comma or not first.lstrip("-").isdigit() or not second.isdigit() or len(text) > 40:
        return None
    return Formula(number(whole(Fraction(f"{first}.{second}"))), len(second), len((first + second).lstrip("-0")))
