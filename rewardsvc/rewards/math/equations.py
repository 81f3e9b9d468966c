"""Do two equations, or two inequalities, say the same?

Equal needs evidence: one side minus the other is a constant multiple, or each equation, solved for a name in which it
is linear, makes the other an identity. Different is shown by a point that lies on one curve and off the other. Two
equations without any solution found are no evidence for anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from typing import NamedTuple

from rewardsvc.rewards.math.balls import Evaluator, Outside, Unclear
from rewardsvc.rewards.math.exact import Budget, Exhausted, Undefined
from rewardsvc.rewards.math.identity import Outcome, approximate, points, same
from rewardsvc.rewards.math.residues import names_of
from rewardsvc.rewards.math.values import MINUS_ONE, ZERO, Exact, Node, negative, number

_STEPS = [
    Fraction(step, 100)
    for step in (1, 7, 13, 19, 26, 34, 47, 61, 83, 113, 151, 197, 263, 349, 463, 617, 821, 1093, 2000, 9000)
]
_GRID = [-step for step in reversed(_STEPS)] + _STEPS
_HALVINGS = 45


class Sides(NamedTuple):
    """An equation or inequality as the difference of its sides and its sign."""

    difference: Node
    sign: str


def sides(left: Node, right: Node, sign: str) -> Sides:
    """The relation with everything on the left; `>` becomes `<`."""
    if sign in (">", ">="):
        left, right, sign = right, left, {">": "<", ">=": "<="}[sign]
    return Sides(Node("add", (left, negative(right))), sign)


def same_relation(gold: Sides, answer: Sides, budget: Budget) -> Outcome:
    """`equal`, `not_equal` or `undecided` for two relations of the same kind."""
    names, others = names_of(gold.difference), names_of(answer.difference)
    if not names or not others:
        return "not_equal" if names or others else "undecided"
    if gold.sign != answer.sign:
        return "not_equal"
    try:
        factor = _factor(gold.difference, answer.difference, budget)
        if factor is not None:
            return "equal" if gold.sign in ("=", "!=") or factor > 0 else "not_equal"
        if gold.sign not in ("=", "!="):
            return "undecided"
        return _same_zeros(gold.difference, answer.difference, budget)
    except (Exhausted, Undefined):
        return "undecided"


def _factor(first: Node, second: Node, budget: Budget) -> int | None:
    """The sign of the constant by which the formulas differ, or None when there is no such constant."""
    names = sorted(names_of(first) | names_of(second))
    for place in islice(points(names), 3):
        constants = {name: number(value) for name, value in place.items()}
        here, there = substituted(first, constants), substituted(second, constants)
        if same(here, ZERO, budget) != "not_equal" or same(there, ZERO, budget) != "not_equal":
            continue
        if same(Node("mul", (first, there)), Node("mul", (second, here)), budget) != "equal":
            return None
        here_value, there_value = approximate(here, budget), approximate(there, budget)
        if here_value is None or there_value is None:
            return None
        return 1 if here_value * there_value > 0 else -1
    return None


MAX_SOLVED = 12
"""Names for which an equation is solved; the work for each grows with the length of the equation."""


def substituted(node: Node, names: dict[str, Node]) -> Node:
    """The formula with names replaced."""
    if node.op == "sym":
        return names.get(str(node.value), node)
    if not node.args:
        return node
    return node._replace(args=tuple(substituted(part, names) for part in node.args))


def _same_zeros(first: Node, second: Node, budget: Budget) -> Outcome:
    outcomes = {_implied(first, second, budget), _implied(second, first, budget)}
    if outcomes == {"equal"}:
        return "equal"
    if "not_equal" in outcomes:
        return "not_equal"
    places = [_separated(first, second, budget), _separated(second, first, budget)]
    if True in places:
        return "not_equal"
    return "not_equal" if places == [None, None] else "undecided"


def _implied(first: Node, second: Node, budget: Budget) -> Outcome:
    """Is the second zero wherever the first is, as far as solving the first for a name can show?"""
    for name in sorted(names_of(first) & names_of(second))[:MAX_SOLVED]:
        root = _linear_root(first, name, budget)
        if root is not None:
            outcome = same(substituted(second, {name: root}), ZERO, budget)
            if outcome != "undecided":
                return outcome
    return "undecided"


def _linear_root(node: Node, name: str, budget: Budget) -> Node | None:
    """The formula of the root in `name`, if the formula is linear in it."""
    at_zero, at_one, at_two = (substituted(node, {name: number(place)}) for place in (0, 1, 2))
    slope = Node("add", (at_one, negative(at_zero)))
    second = Node("add", (at_two, negative(at_one)))
    if same(slope, second, budget) != "equal" or same(slope, ZERO, budget) != "not_equal":
        return None
    return Node("div", (negative(at_zero), slope))


def _separated(first: Node, second: Node, budget: Budget) -> bool | None:
    """Is there a point on the first curve that is clearly off the second? None when the first has no points."""
    names = sorted(names_of(first) | names_of(second))
    found = None
    for name in sorted(names_of(first))[:MAX_SOLVED]:
        for place in islice(points(names), 3):
            for root in islice(_roots(first, name, place, budget), 2):
                found = False
                value = _float(second, {**place, name: root}, budget)
                nearby = _float(second, {**place, name: root + Fraction(1, 1000)}, budget)
                if value is not None and nearby is not None and abs(value) > 1e-6 * (1 + abs(nearby)):
                    return True
    return found


def _roots(node: Node, name: str, place: dict[str, Exact], budget: Budget) -> Iterator[Fraction]:
    """Roots in one name between points of a grid where the sign changes, by bisection."""
    values = ((step, _float(node, {**place, name: step}, budget)) for step in _GRID)
    for (low, before), (high, after) in pairwise(values):
        if before is None or after is None or before * after >= 0:
            continue
        value: float | None = before
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            value = _float(node, {**place, name: middle}, budget)
            if value is None:
                break
            low, high = (middle, high) if (value < 0) == (before < 0) else (low, middle)
        if value is not None and abs(value) < 1e-7 * (1 + abs(before) + abs(after)):
            yield Fraction(float(low))


def _float(node: Node, place: dict[str, Exact], budget: Budget) -> float | None:
    evaluator = Evaluator(53, dict(place), budget, complex_values=False)
    try:
        return float(evaluator.real(evaluator.ball(node)))
    except (Unclear, Outside, Undefined, OverflowError):
        return None


def difference(left: Node, right: Node) -> Node:
    """One formula minus another."""
    return Node("add", (left, Node("mul", (MINUS_ONE, right))))
