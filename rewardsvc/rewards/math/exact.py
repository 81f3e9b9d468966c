"""Exact rational values of formulas, as far as they can be had for a bounded price.

Every operation is paid from a `Budget` of counted work (not of time, so that a verdict never depends on load), and no
number grows beyond `MAX_BITS`. What is too big, irrational or symbolic has no value here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from rewardsvc.rewards.math.formulas import whole
from rewardsvc.rewards.math.values import Exact, Node

MAX_BITS = 30_000
MAX_STEPS = 3_000
"""Terms of one sum, factors of one product, and the largest argument of a factorial that is multiplied out."""


class Undefined(Exception):
    """The formula has no value: a division by zero."""


class Exhausted(Exception):
    """The budget of counted work is spent."""


class _TooBig(Exception):
    """A number outgrew `MAX_BITS`."""


class Budget:
    """Counted work that one decision may take; one unit is about a microsecond."""

    def __init__(self, units: int = 20_000) -> None:
        self.units = units

    def pay(self, units: int) -> None:
        """Takes `units` away. Raises `Exhausted` when they are not there."""
        self.units -= units
        if self.units < 0:
            raise Exhausted


def exact(node: Node, budget: Budget, names: dict[str, Exact] | None = None) -> Exact | None:
    """The rational value of a formula, or None. Raises `Undefined` and `Exhausted`."""
    try:
        return _exact(node, budget, names)
    except _TooBig:
        return None


def _exact(node: Node, budget: Budget, names: dict[str, Exact] | None) -> Exact | None:
    if node.op == "num":
        value: Exact = node.value
        return value
    budget.pay(1)
    if node.op == "sym":
        return names.get(str(node.value)) if names else None
    if node.op == "call":
        return _call(node, budget, names)
    if node.op not in _OPERATIONS:
        return None
    parts = _parts(node.args, budget, names)
    return None if parts is None else _OPERATIONS[node.op](parts, budget)


def _parts(nodes: tuple[Node, ...], budget: Budget, names: dict[str, Exact] | None) -> list[Exact] | None:
    parts: list[Exact] = []
    for node in nodes:
        value = _exact(node, budget, names)
        if value is None:
            return None
        parts.append(value)
    return parts


def _add(parts: list[Exact], budget: Budget) -> Exact | None:
    total: Exact = 0
    for part in parts:
        total = _fit(total + part, budget)
    return total


def _multiply(parts: list[Exact], budget: Budget) -> Exact | None:
    product: Exact = 1
    for part in parts:
        if _bits(product) + _bits(part) > MAX_BITS:
            return None
        product = _fit(product * part, budget)
    return product


def _divide(parts: list[Exact], budget: Budget) -> Exact | None:
    if not parts[1]:
        raise Undefined
    return _fit(whole(Fraction(parts[0]) / Fraction(parts[1])), budget)


def _raise(parts: list[Exact], budget: Budget) -> Exact | None:
    base, exponent = parts
    if not isinstance(exponent, int):
        return _root_power(base, exponent, budget)
    if base == 0 and exponent < 0:
        raise Undefined
    if base in (0, 1, -1):
        return base if exponent % 2 or base != -1 else 1
    if abs(exponent) * max(_bits(base), 1) > MAX_BITS:
        return None
    budget.pay(abs(exponent) * _bits(base) // 500)
    return whole(Fraction(base) ** exponent) if exponent < 0 or isinstance(base, Fraction) else base**exponent


def _root_power(base: Exact, exponent: Fraction, budget: Budget) -> Exact | None:
    root = perfect_root(base, exponent.denominator)
    return None if root is None else _raise([root, exponent.numerator], budget)


def perfect_root(base: Exact, index: int) -> Exact | None:
    """The real root if it is rational."""
    if isinstance(base, Fraction):
        above, below = perfect_root(base.numerator, index), perfect_root(base.denominator, index)
        return whole(Fraction(above) / Fraction(below)) if above is not None and below else None
    if base < 0:
        root = perfect_root(-base, index) if index % 2 else None
        return None if root is None else -root
    if index == 2:
        guess = math.isqrt(base)
        return guess if guess * guess == base else None
    if index > 64 or index < 2 or base.bit_length() > 1_000:
        return base if base in (0, 1) and index > 0 else None
    guess = round(base ** (1 / index)) if base.bit_length() < 900 else 0
    for near in (guess - 1, guess, guess + 1):
        if near >= 0 and near**index == base:
            return near
    return None


_OPERATIONS = {"add": _add, "mul": _multiply, "div": _divide, "pow": _raise}


def _bits(value: Exact) -> int:
    if isinstance(value, int):
        return value.bit_length()
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _fit(value: Exact, budget: Budget) -> Exact:
    bits = _bits(value)
    if bits > 500:
        budget.pay(bits // 500)
        if bits > MAX_BITS:
            raise _TooBig
    return whole(value) if isinstance(value, Fraction) else value


def _call(node: Node, budget: Budget, names: dict[str, Exact] | None) -> Exact | None:
    if node.value in ("sum", "prod"):
        return _series(node, budget, names)
    function = _FUNCTIONS.get(str(node.value))
    if function is None:
        return None
    parts = _parts(node.args, budget, names)
    return None if parts is None else function(parts, budget)


def _series(node: Node, budget: Budget, names: dict[str, Exact] | None) -> Exact | None:
    variable, lower, upper, body = node.args
    low, high = _exact(lower, budget, names), _exact(upper, budget, names)
    if not isinstance(low, int) or not isinstance(high, int) or high - low > MAX_STEPS or variable.op != "sym":
        return None
    adding = node.value == "sum"
    total: Exact = 0 if adding else 1
    for step in range(low, high + 1):
        term = _exact(body, budget, {**(names or {}), str(variable.value): step})
        if term is None:
            return None
        total = _fit(total + term if adding else total * term, budget)
    return total


def _root(parts: list[Exact], budget: Budget) -> Exact | None:
    base, index = parts
    return perfect_root(base, index) if isinstance(index, int) and index > 1 else None


def _factorial(parts: list[Exact], budget: Budget) -> Exact | None:
    (top,) = parts
    if not isinstance(top, int) or not 0 <= top <= MAX_STEPS:
        return None
    budget.pay(top // 2)
    return _fit(math.factorial(top), budget)


def _double_factorial(parts: list[Exact], budget: Budget) -> Exact | None:
    (top,) = parts
    if not isinstance(top, int) or not -1 <= top <= MAX_STEPS:
        return None
    budget.pay(top)
    return _fit(math.prod(range(top, 0, -2)), budget)


def _binomial(parts: list[Exact], budget: Budget) -> Exact | None:
    top, bottom = parts
    if not isinstance(top, int) or not isinstance(bottom, int) or top < 0 or bottom < 0:
        return None
    steps = min(bottom, top - bottom) if top >= bottom else 0
    if steps > MAX_STEPS or steps * top.bit_length() > MAX_BITS:
        return None
    budget.pay(steps)
    return math.comb(top, bottom)


def _absolute(parts: list[Exact], budget: Budget) -> Exact | None:
    return parts[0] if parts[0] >= 0 else -parts[0]


def _floor(parts: list[Exact], budget: Budget) -> Exact | None:
    return math.floor(parts[0])


def _ceil(parts: list[Exact], budget: Budget) -> Exact | None:
    return math.ceil(parts[0])


def _gcd(parts: list[Exact], budget: Budget) -> Exact | None:
    return math.gcd(*[part for part in parts if isinstance(part, int)]) if _all_whole(parts) else None


def _lcm(parts: list[Exact], budget: Budget) -> Exact | None:
    return math.lcm(*[part for part in parts if isinstance(part, int)]) if _all_whole(parts) else None


def _all_whole(parts: list[Exact]) -> bool:
    return all(isinstance(part, int) for part in parts)


def _least(parts: list[Exact], budget: Budget) -> Exact | None:
    least = parts[0]
    for part in parts:
        if part < least:
            least = part
    return least


def _greatest(parts: list[Exact], budget: Budget) -> Exact | None:
    greatest = parts[0]
    for part in parts:
        if part > greatest:
            greatest = part
    return greatest


_FUNCTIONS: dict[str, Callable[[list[Exact], Budget], Exact | None]] = {
    "root": _root,
    "!": _factorial,
    "!!": _double_factorial,
    "binom": _binomial,
    "abs": _absolute,
    "floor": _floor,
    "ceil": _ceil,
    "gcd": _gcd,
    "lcm": _lcm,
    "min": _least,
    "max": _greatest,
}
