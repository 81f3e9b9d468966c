"""Two formulas with their units: by value, as percent or degrees, after rounding, and under other bound names.

Whether two bare formulas have the same value is asked of `identity`; here is what a policy allows beyond that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import islice

from rewardsvc.rewards.math import units
from rewardsvc.rewards.math.equations import difference, substituted
from rewardsvc.rewards.math.exact import exact
from rewardsvc.rewards.math.formulas import fraction, whole
from rewardsvc.rewards.math.grounds import Comparison
from rewardsvc.rewards.math.identity import Outcome, approximate, points, same
from rewardsvc.rewards.math.residues import names_of
from rewardsvc.rewards.math.values import PI, ZERO, Formula, Node, number, symbol

_COUNTERS = frozenset("kmnljNKMZt")
_FREE = frozenset(["C", "c", "K", "k", "c_1", "C_1", "D", "const", "A"])
_RADIAN = units.unit("radian")


def same_formulas(by: Comparison, gold: Formula, answer: Formula) -> Outcome:
    """Two numbers or expressions, with their units and marks."""
    scaled = _units(by, gold, answer)
    if scaled is None:
        return "not_equal"
    gold, answer = scaled
    outcome: Outcome = "not_equal"
    for first, second in _readings(by, gold, answer):
        found = _same_numbers(by, first, second)
        if found == "equal":
            return _same_things(by, gold, answer)
        outcome = "undecided" if found == "undecided" else outcome
    return outcome


def _same_things(by: Comparison, gold: Formula, answer: Formula) -> Outcome:
    """Equal numbers of different things: nobody can say from the words alone."""
    if gold.unit and answer.unit and by.policy.units != "ignore" and not units.commensurable(gold.unit, answer.unit):
        by.flag("unit_mismatch")
        return "undecided"
    return "equal"


def _units(by: Comparison, gold: Formula, answer: Formula) -> tuple[Formula, Formula] | None:
    """Both in the same unit; None when their units exclude each other."""
    left, right = gold.unit, answer.unit
    if by.policy.units == "ignore" or (left is None and right is None):
        return gold, answer
    if left is None or right is None:
        marked, measured = (gold, answer) if left is None else (answer, gold)
        if marked.mark == "degrees" and measured.unit == _RADIAN:
            return _radians_of(gold), _radians_of(answer)
        if marked.mark in ("degrees", "percent") and measured.unit and units.known_part(measured.unit):
            by.flag("unit_mismatch")
            return None
    if left is None or right is None:
        if not by.policy.missing_unit:
            by.flag("unit_missing")
            return None
        return gold, answer
    if not units.commensurable(left, right):
        by.flag("unit_mismatch")
        known = units.known_part(left), units.known_part(right)
        return None if all(known) and known[0] != known[1] else (gold, answer)
    if left.factor == right.factor:
        return gold, answer
    if by.policy.units == "match":
        by.flag("unit_mismatch")
        return None
    ratio = number(whole(Fraction(right.factor) / Fraction(left.factor)))
    return gold, replace(answer, expr=Node("mul", (ratio, answer.expr)), places=None, significant=None)


def _readings(by: Comparison, gold: Formula, answer: Formula) -> Iterable[tuple[Formula, Formula]]:
    """Pairs to compare: a percentage may be meant as a number or as its hundredth, degrees as radians."""
    marks = {gold.mark, answer.mark} - {"about"}
    if "percent" in marks and gold.mark != answer.mark:
        yield from _percent(by, gold, answer)
    elif "degrees" in marks and gold.mark != answer.mark:
        yield from _degrees(by, gold, answer)
    else:
        yield gold, answer


def _percent(by: Comparison, gold: Formula, answer: Formula) -> Iterable[tuple[Formula, Formula]]:
    if by.policy.percent in ("either", "ignore"):
        yield gold, answer
    if by.policy.percent in ("either", "strict"):
        yield tuple(_hundredth(side) if side.mark == "percent" else side for side in (gold, answer))  # type: ignore[misc]


def _degrees(by: Comparison, gold: Formula, answer: Formula) -> Iterable[tuple[Formula, Formula]]:
    if by.policy.degrees == "either":
        yield gold, answer
    yield tuple(_radians(side) if side.mark == "degrees" else side for side in (gold, answer))  # type: ignore[misc]


def _same_numbers(by: Comparison, gold: Formula, answer: Formula) -> Outcome:
    """Two formulas by value, then by rounding, then under other names."""
    if not by.policy.algebra and not (gold.expr.op == answer.expr.op == "num"):
        return "not_equal"
    outcome = same_value(by, gold.expr, answer.expr)
    if outcome == "equal":
        return outcome
    if rounded(by, gold, answer):
        by.flag("rounded")
        return "equal"
    if outcome == "not_equal" and (names_of(gold.expr) or names_of(answer.expr)):
        return _renamed(by, gold.expr, answer.expr)
    return outcome


def same_value(by: Comparison, gold: Node, answer: Node) -> Outcome:
    """Do two formulas have the same value, infinity included?"""
    if unbounded(gold) or unbounded(answer):
        return _infinite(by, gold, answer)
    return same(gold, answer, by.budget)


def _infinite(by: Comparison, gold: Node, answer: Node) -> Outcome:
    if gold == answer:
        return "equal"
    plain = [_infinity(gold), _infinity(answer)]
    if all(plain) or (any(plain) and not (unbounded(gold) and unbounded(answer))):
        return "equal" if plain[0] == plain[1] else "not_equal"
    return "undecided"


def rounded(by: Comparison, gold: Formula, answer: Formula) -> bool:
    """Is one of them the other, rounded to the digits that it shows?"""
    policy = by.policy
    if policy.decimals == "exact" and not policy.relative_tolerance:
        return False
    if gold.places is None and answer.places is None and not policy.relative_tolerance:
        return False
    left, right = approximate(gold.expr, by.budget), approximate(answer.expr, by.budget)
    if left is None or right is None:
        return False
    if policy.relative_tolerance and abs(left - right) <= Fraction(policy.relative_tolerance) * abs(left):
        return True
    if policy.decimals == "exact":
        return False
    return _rounds_to_gold(by, gold, answer, abs(left - right)) or _rounds_gold(by, gold, answer, abs(left - right))


def _rounds_to_gold(by: Comparison, gold: Formula, answer: Formula, distance: Fraction) -> bool:
    """A decimal answer must show more digits than the gold, and then the gold needs one digit more."""
    needed = by.policy.gold_digits + (answer.places is not None)
    if gold.places is None or gold.places <= 0 or (gold.significant or 0) < needed or is_whole(answer.expr):
        return False
    if answer.places is not None and answer.places <= gold.places:
        return False
    return distance <= half_unit(gold.places)


def _rounds_gold(by: Comparison, gold: Formula, answer: Formula, distance: Fraction) -> bool:
    if gold.places is not None or answer.places is None or (isinstance(gold.expr.value, int) and gold.expr.op == "num"):
        return False
    rational = exact(gold.expr, by.budget) is not None
    needed = by.policy.answer_digits if rational else by.policy.irrational_digits
    return (answer.significant or 0) >= needed and distance <= half_unit(answer.places)


def _renamed(by: Comparison, gold: Node, answer: Node) -> Outcome:
    """The same formula under other bound names, or up to a constant of integration."""
    first, second = names_of(gold), names_of(answer)
    mine, theirs = sorted(first - second), sorted(second - first)
    if by.policy.any_symbols and len(mine) == len(theirs) and mine:
        return same_value(by, gold, substituted(answer, dict(zip(theirs, map(symbol, mine), strict=True))))
    if not by.policy.rename:
        return "not_equal"
    counting = len(mine) == len(theirs) == 1 and _bound(mine[0], gold) and _bound(theirs[0], answer)
    if counting and same_value(by, gold, substituted(answer, {theirs[0]: symbol(mine[0])})) == "equal":
        return "equal"
    return _up_to_constant(by, gold, answer)


def _up_to_constant(by: Comparison, gold: Node, answer: Node) -> Outcome:
    constants = [_free_constant(gold), _free_constant(answer)]
    if constants[0] is None:
        return "not_equal"
    if constants[1] is None and by.policy.integration_constant == "required":
        return "not_equal"
    first = substituted(gold, {constants[0]: ZERO})
    second = answer if constants[1] is None else substituted(answer, {constants[1]: ZERO})
    names = names_of(first) | names_of(second)
    if not names:
        return "not_equal"
    gap = difference(first, second)
    for place in islice(points(sorted(names)), 3):
        outcome = same_value(by, gap, substituted(gap, {name: number(value) for name, value in place.items()}))
        if outcome != "undecided":
            return outcome
    return "undecided"


def half_unit(places: int) -> Fraction:
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


def unbounded(node: Node) -> bool:
    """Does infinity stand anywhere in the formula?"""
    return (node.op == "const" and node.value == "inf") or any(map(unbounded, node.args))


def _infinity(node: Node) -> str:
    """Plus or minus infinity by itself; empty for another formula."""
    if node.op == "const" and node.value == "inf":
        return "+"
    if node.op == "mul" and len(node.args) == 2 and node.args[0].op == "num" and _infinity(node.args[1]):
        return "-" if node.args[0].value < 0 else "+"
    return ""


def is_whole(node: Node) -> bool:
    """Is the formula a whole number?"""
    return node.op == "num" and isinstance(node.value, int)


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


def as_decimal(node: Node) -> Formula:
    """An end of an interval as what may have been a rounded decimal: its divisor divides a power of ten."""
    if node.op == "num" and isinstance(node.value, Fraction):
        for places in range(1, 12):
            if 10**places % node.value.denominator == 0:
                digits = str(abs(node.value.numerator) * 10**places // node.value.denominator).lstrip("0")
                return Formula(node, places, len(digits))
    return Formula(node)
