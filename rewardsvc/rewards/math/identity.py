"""Are two formulas the same? Exact arithmetic first, then residues, then numbers with error bounds.

`equal` needs evidence: the same tree, the same exact value, the same residues modulo independent primes, or at least
four witnesses that agree to far more digits than the formulas' own size could feign. `not_equal` is a proof: one
witness whose error bounds exclude equality. Everything else is `undecided`. Points are fixed by the names, work is
counted, so the same two formulas get the same verdict anywhere.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

from rewardsvc.rewards.math.balls import EXACT, Ball, Evaluator, Outside, Unclear
from rewardsvc.rewards.math.exact import Budget, Exhausted, Undefined, exact
from rewardsvc.rewards.math.residues import CUBE_PRIME, SQUARE_PRIMES, Field, Vanishing, names_of
from rewardsvc.rewards.math.values import Exact, Node

Outcome = Literal["equal", "not_equal", "undecided"]
WITNESSES = 4
"""Points at which formulas with names must agree."""

COARSE_WITNESSES = 12
"""The same for formulas with functions such as gcd and floor, which are constant over long stretches."""

BITS = 200
MAX_PRECISION = 2_000
_RANGES = (
    (Fraction(1, 5), Fraction(9, 10)),
    (Fraction(11, 10), Fraction(29, 10)),
    (Fraction(-9, 10), Fraction(-1, 5)),
    (Fraction(3), Fraction(9)),
    (Fraction(-4), Fraction(-11, 10)),
    (Fraction(1, 20), Fraction(2, 5)),
    (Fraction(12), Fraction(60)),
    (Fraction(-60), Fraction(-12)),
    (Fraction(3, 2), Fraction(4)),
    (Fraction(1, 100), Fraction(1, 10)),
    (Fraction(200), Fraction(900)),
    (Fraction(1, 2), Fraction(2)),
)
_WHOLE_RANGES = ((3, 12), (5, 20), (2, 7), (8, 30), (1, 5), (10, 40), (4, 16), (2, 9))


def same(left: Node, right: Node, budget: Budget) -> Outcome:
    """Do two formulas have the same value wherever both are defined?"""
    if left == right:
        return "undecided" if _undefined(left, budget) else "equal"
    try:
        return _same(left, right, budget)
    except Undefined:
        return "not_equal"
    except Exhausted:
        return "undecided"


def _undefined(node: Node, budget: Budget) -> bool:
    try:
        exact(node, budget)
    except Undefined:
        return True
    except Exhausted:
        pass
    return False


def _same(left: Node, right: Node, budget: Budget) -> Outcome:
    if _divides_by_zero(left) or _divides_by_zero(right):
        raise Undefined
    first, second = exact(left, budget), exact(right, budget)
    if first is not None and second is not None:
        return "equal" if first == second else "not_equal"
    outcome = _by_residues(left, right, budget)
    return _by_numbers(left, right, budget) if outcome == "undecided" else outcome


def _divides_by_zero(node: Node) -> bool:
    if node.op == "div" and node.args[1].op == "num" and not node.args[1].value:
        return True
    return any(map(_divides_by_zero, node.args))


def _by_residues(left: Node, right: Node, budget: Budget) -> Outcome:
    for primes in (SQUARE_PRIMES, (CUBE_PRIME, CUBE_PRIME)):
        outcome = _by_primes(left, right, primes, budget)
        if outcome != "undecided" or (not _has_root(left) and not _has_root(right)):
            return outcome
    return "undecided"


def _has_root(node: Node) -> bool:
    return node.op == "pow" or node.value == "root" or any(map(_has_root, node.args))


def _by_primes(left: Node, right: Node, primes: tuple[int, int], budget: Budget) -> Outcome:
    for salt, prime in enumerate(primes):
        field = Field(prime, salt, budget)
        try:
            equal = field.residue(left) == field.residue(right)
        except Vanishing:
            return "undecided"
        if not equal:
            return "undecided" if field.opaque else "not_equal"
    return "equal"


def _by_numbers(left: Node, right: Node, budget: Budget) -> Outcome:
    names = sorted(names_of(left) | names_of(right))
    unreal = has_i(left) or has_i(right) or not names
    witnesses = 0
    coarse = _is_coarse(left) or _is_coarse(right)
    needed = COARSE_WITNESSES if coarse else WITNESSES
    for place in _places(names, left, right):
        outcome = _at(left, right, place, unreal, budget)
        if outcome == "not_equal":
            return outcome
        witnesses += outcome == "equal"
        if witnesses >= needed or (witnesses and not names):
            return "equal"
    return "undecided"


def has_i(node: Node) -> bool:
    """Is the imaginary unit in the formula?"""
    return (node.op == "const" and node.value == "i") or any(map(has_i, node.args))


def _places(names: list[str], left: Node, right: Node) -> Iterator[dict[str, Exact]]:
    """Witness points; a name that is rounded off, as in ⌊x⌋, is a real number unless it is called like a counter."""
    whole_points = _discrete(left) or _discrete(right)
    spread = (_is_coarse(left) or _is_coarse(right)) and not (_grows(left) or _grows(right))
    for attempt, place in enumerate(points(names, whole_points=whole_points)):
        if spread and attempt % 2:
            place = {name: value * _factor(name, attempt) for name, value in place.items()}
        if whole_points and not _counts(left) and not _counts(right):
            half = Fraction(1, 2) if len(place) == 1 else Fraction(2, 5)
            place = {name: value + half * (name in _REAL) for name, value in place.items()}
        yield place


_REAL = frozenset("xyztuvw")
_FACTORS = (12, 18, 20, 45, 84, 210, 900)


def _factor(name: str, attempt: int) -> int:
    """A number with many divisors, so that witnesses have some in common and are not all small."""
    return _FACTORS[zlib.crc32(f"{name}:{attempt}".encode()) % len(_FACTORS)]


def _is_coarse(node: Node) -> bool:
    """Is there a function that gives the same for many arguments, so that a few witnesses may agree by chance?"""
    coarse = node.op == "call" and node.value in ("floor", "ceil", "gcd", "lcm", "max", "min", "sgn")
    return coarse or any(map(_is_coarse, node.args))


def _grows(node: Node) -> bool:
    """Is there a function whose cost grows with its argument?"""
    dear = node.op == "call" and node.value in ("!", "!!", "binom", "sum", "prod")
    return dear or (node.op == "pow" and node.args[1].op != "num") or any(map(_grows, node.args))


def _counts(node: Node) -> bool:
    """Is there something that only whole numbers have, or a power whose sign alternates?"""
    rounds = node.value in ("floor", "ceil")
    return (_is_discrete_call(node) and not rounds) or _alternates(node) or any(map(_counts, node.args))


def _alternates(node: Node) -> bool:
    return node.op == "pow" and node.args[1].op != "num" and _negative(node.args[0])


def _discrete(node: Node) -> bool:
    """Is the formula about whole numbers only: factorials, floors, alternating signs, sums up to a name?"""
    return _is_discrete_call(node) or _alternates(node) or any(map(_discrete, node.args))


def _is_discrete_call(node: Node) -> bool:
    return node.op == "call" and node.value in ("!", "!!", "binom", "floor", "ceil", "gcd", "lcm", "sum", "prod")


def _negative(node: Node) -> bool:
    if node.op == "num":
        return bool(node.value < 0)
    return node.op == "mul" and bool(node.args) and _negative(node.args[0]) and not names_of(node)


def points(names: list[str], *, whole_points: bool = False) -> Iterator[dict[str, Exact]]:
    """Values for the names, fixed by their spelling: first all in the same range, then mixed."""
    if not names:
        yield {}
        return
    ranges = _WHOLE_RANGES if whole_points else _RANGES
    for attempt in range(2 * len(ranges)):
        yield {name: _value(name, attempt, order, whole_points) for order, name in enumerate(names)}


def _value(name: str, attempt: int, order: int, whole_points: bool) -> Exact:
    dice = zlib.crc32(f"{attempt}:{name}".encode())
    if whole_points:
        low, high = _WHOLE_RANGES[attempt % len(_WHOLE_RANGES)]
        return low + dice % (high - low + 1)
    mixed = order * 5 if attempt >= len(_RANGES) else 0
    start, end = _RANGES[(attempt + mixed) % len(_RANGES)]
    return start + (end - start) * Fraction(dice % 9973 + 1, 9975)


def _at(left: Node, right: Node, place: dict[str, Exact], unreal: bool, budget: Budget) -> Outcome:
    """One witness: told apart by machine numbers if possible, confirmed with many bits."""
    try:
        if _apart(left, right, Evaluator(53, dict(place), budget, complex_values=unreal)) is True:
            return "not_equal"
    except (Unclear, Undefined):
        pass
    except Outside:
        return "undecided"
    return _confirmed(left, right, place, unreal, budget)


def _confirmed(left: Node, right: Node, place: dict[str, Exact], unreal: bool, budget: Budget) -> Outcome:
    needed = BITS + _height(left) + _height(right)
    bits = min(needed, MAX_PRECISION)
    for _ in range(3):
        evaluator = Evaluator(bits, dict(place), budget, complex_values=unreal)
        try:
            apart = _apart(left, right, evaluator)
        except (Unclear, Outside, Undefined) as error:
            if place:
                return "undecided"
            if isinstance(error, Undefined):
                raise
            apart = None
        if apart is True:
            return "not_equal"
        if apart is False and not evaluator.lost:
            return "equal" if bits >= needed else "undecided"
        bits += evaluator.lost + BITS
        if bits > MAX_PRECISION:
            break
    return "undecided"


def _apart(left: Node, right: Node, evaluator: Evaluator) -> bool | None:
    """True: the error bounds exclude equality. False: they agree to most of the precision. None: cannot be told."""
    first, second = evaluator.ball(left), evaluator.ball(right)
    difference = first.middle - second.middle
    error = max(first.error, second.error) + 1
    size = evaluator._size(difference)
    if size - 2 > error:
        return True
    if evaluator.bits <= 53:
        return None
    return False if error <= max(_reach(evaluator, first, second), 0) - evaluator.bits // 2 else None


def _reach(evaluator: Evaluator, first: Ball, second: Ball) -> int:
    return max(evaluator._size(first.middle), evaluator._size(second.middle), EXACT)


def _height(node: Node) -> int:
    """How many bits of its numbers a formula shows: the logarithms of all numerators and denominators together.

    Constant exponents count by their value, since they are how a formula comes near to another without being it.
    """
    if node.op == "num":
        return _number_height(node.value)
    if node.op == "pow" and node.args[1].op == "num":
        power: Exact = min(abs(node.args[1].value), 10_000)
        return math.ceil((_height(node.args[0]) + 1) * max(power, 1))
    if node.op == "call" and node.value in _EVEN:
        return 2 * _height(node.args[0]) + sum(map(_height, node.args[1:]))
    return sum(map(_height, node.args))


_EVEN = frozenset(["cos", "cosh", "sec"])
"""Functions that are near to 1 by the square of what they are applied to."""


def _number_height(value: Exact) -> int:
    if isinstance(value, int):
        return value.bit_length()
    return value.numerator.bit_length() + value.denominator.bit_length()


def approximate(node: Node, budget: Budget, bits: int = 120) -> Fraction | None:
    """A real constant as a rational number good to at least 60 bits, or None: for order and for rounding."""
    try:
        value = exact(node, budget)
        if value is not None:
            return Fraction(value)
        evaluator = Evaluator(bits, {}, budget, complex_values=False)
        ball = evaluator.ball(node)
        middle = evaluator.real(ball)
    except (Unclear, Outside, Undefined, Exhausted):
        return None
    if middle == 0 or evaluator._size(middle) - ball.error < 60 or abs(evaluator._size(middle)) > 5_000:
        return None
    sign, mantissa, exponent, _ = middle._mpf_
    value_of = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return -value_of if sign else value_of
