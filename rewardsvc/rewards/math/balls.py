"""Numeric values of formulas with error bounds: ball arithmetic (van der Hoeven 2009, Johansson 2017) over mpmath.

A ball is a midpoint and the binary logarithm of a bound on its absolute error, so a difference larger than the bounds
proves that two numbers differ, at any magnitude. The bounds are meant to be safe, not sharp. Two precisions are used:
machine numbers to tell most formulas apart, and as many bits as the caller wants to confirm that they agree.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import mpmath  # type: ignore[import-untyped]
from mpmath.ctx_mp import MPContext  # type: ignore[import-untyped]

from rewardsvc.rewards.math.exact import MAX_STEPS, Budget, Undefined, exact
from rewardsvc.rewards.math.values import Exact, Node

EXACT = -(10**9)
"""Error exponent of a midpoint that is exact."""


GAMMA_BITS = 500
"""Precision up to which factorials of fractions are evaluated; their price grows with its square."""

MAX_ROOT = 1_000
"""Roots up to this index are taken as roots, real for negative numbers too when odd; others are exponentials."""


class Unclear(Exception):
    """The value is not determined well enough here: near a pole or a jump, too large, or not a number at all."""


class Outside(Exception):
    """The value is not real at this point."""


class Ball(NamedTuple):
    """All numbers within 2**`error` of `middle`."""

    middle: Any
    error: int


class _Contexts(threading.local):
    """Every thread has its own precision: mpmath's global context would let threads change each other's."""

    def __init__(self) -> None:
        self.many: MPContext | None = None


_CONTEXTS = _Contexts()


def context(bits: int) -> Any:
    """mpmath's machine numbers for 53 bits, else arithmetic of that many bits."""
    if bits <= 53:
        return mpmath.fp
    if _CONTEXTS.many is None:
        _CONTEXTS.many = MPContext()
    _CONTEXTS.many.prec = bits
    return _CONTEXTS.many


class Evaluator:
    """Evaluates formulas at one point. `smallest` is the least magnitude that an addend lost against its sum."""

    def __init__(self, bits: int, names: dict[str, Exact], budget: Budget, *, complex_values: bool) -> None:
        self.context = context(bits)
        self.bits = bits
        self.names = names
        self.budget = budget
        self.complex_values = complex_values
        self.price = 1 if bits <= 53 else 6 + bits // 40
        self.lost = 0

    def ball(self, node: Node) -> Ball:
        """The value of a formula. Raises `Unclear`, `Outside`, `exact.Undefined` and `exact.Exhausted`."""
        try:
            return self._ball(node)
        except (OverflowError, ValueError, ZeroDivisionError, NotImplementedError, mpmath.libmp.NoConvergence) as error:
            raise Unclear from error

    def _ball(self, node: Node) -> Ball:
        self.budget.pay(self.price)
        op = node.op
        if op == "num":
            return self._number(node.value)
        if op == "sym":
            value = self.names.get(str(node.value))
            if value is None:
                raise Unclear
            return self._number(value)
        if op == "const":
            return self._constant(str(node.value))
        if op == "add":
            return self._add([self._ball(part) for part in node.args])
        if op == "mul":
            return self._product([self._ball(part) for part in node.args])
        if op == "div":
            return self._quotient(self._ball(node.args[0]), self._ball(node.args[1]))
        if op == "pow":
            return self._power(node.args[0], node.args[1])
        if op == "deg":
            inner = self._ball(node.args[0])
            return self._product([inner, self._quotient(self._constant("pi"), self._number(180))])
        if op == "call":
            return self._call(str(node.value), node.args)
        raise Unclear

    def _number(self, value: Exact) -> Ball:
        if isinstance(value, int):
            if value.bit_length() <= min(self.bits, 50):
                return Ball(self.context.mpf(value), EXACT)
            return self._rounded(self.context.mpf(value))
        top = self.context.mpf(value.numerator) / self.context.mpf(value.denominator)
        return self._rounded(top)

    def _constant(self, name: str) -> Ball:
        if name == "pi":
            return self._rounded(+self.context.pi)
        if name == "e":
            return self._rounded(+self.context.e)
        if name == "i":
            return Ball(self.context.mpc(0, 1), EXACT)
        raise Unclear

    def _size(self, value: Any) -> int:
        """An upper bound of log2 of the magnitude; `EXACT` for zero."""
        if not value:
            return EXACT
        if self.bits <= 53:
            size = abs(value)
            if size != size or size == math.inf:
                raise Unclear
            return math.frexp(size)[1]
        if not self.context.isfinite(value):
            raise Unclear
        return int(self.context.mag(value))

    def _rounded(self, value: Any, error: int = EXACT) -> Ball:
        return Ball(value, max(error, self._size(value) - self.bits + 2))

    def _add(self, parts: list[Ball]) -> Ball:
        total = parts[0].middle
        for part in parts[1:]:
            total = total + part.middle
        error = max(part.error for part in parts)
        sizes = [self._size(part.middle) for part in parts]
        worst = max(max(sizes) - self.bits + 2, error) + len(parts).bit_length()
        for size in sizes:
            if EXACT < size < worst:
                self.lost = max(self.lost, worst - size)
        return Ball(total, worst)

    def _product(self, parts: list[Ball]) -> Ball:
        result = parts[0]
        for part in parts[1:]:
            left, right = self._size(result.middle), self._size(part.middle)
            error = max(result.error + right, part.error + left, result.error + part.error) + 2
            result = self._rounded(result.middle * part.middle, max(error, EXACT))
        return result

    def _quotient(self, above: Ball, below: Ball) -> Ball:
        if not below.middle and below.error == EXACT:
            raise Undefined
        size = self._size(below.middle)
        if size - 2 <= below.error:
            raise Unclear
        error = max(above.error - size + 1, below.error + self._size(above.middle) - 2 * size + 3) + 2
        return self._rounded(above.middle / below.middle, max(error, EXACT))

    def _power(self, base: Node, exponent: Node) -> Ball:
        power = exact(exponent, self.budget, self.names)
        if base.op == "const" and base.value == "e":
            return self._exponential(self._ball(exponent))
        ball = self._ball(base)
        if isinstance(power, int):
            return self._whole_power(ball, power)
        if isinstance(power, Fraction) and power.denominator <= MAX_ROOT:
            root = self._root(ball, power.denominator)
            return self._whole_power(root, power.numerator)
        return self._exponential(self._product([self._ball(exponent), self._logarithm(ball)]))

    def _whole_power(self, ball: Ball, power: int) -> Ball:
        if power < 0:
            return self._quotient(self._number(1), self._whole_power(ball, -power))
        if power == 0:
            return self._number(1)
        if power.bit_length() > 64:
            raise Unclear
        size = self._size(ball.middle)
        if self.bits <= 53 and abs(size * power) > 1000 and size != EXACT:
            raise Unclear
        value = ball.middle**power
        growth = size * (power - 1) + power.bit_length() if size != EXACT else 0
        error = ball.error + growth + 1 if ball.error > EXACT and ball.error < size - 1 else EXACT
        if ball.error > EXACT and ball.error >= size - 1:
            error = (max(ball.error, size) + 1) * power
        return Ball(value, max(error, self._size(value) - self.bits + 2 + power.bit_length()))

    def _root(self, ball: Ball, index: int) -> Ball:
        value = ball.middle
        negative = not self._is_complex(value) and value < 0
        size = self._size(value)
        if size <= ball.error + 1:
            if ball.error > EXACT and size > EXACT:
                if negative and not self.complex_values:
                    raise Unclear
                return Ball(self.context.mpf(0), ball.error // index + 1)
            if size == EXACT:
                return Ball(self.context.mpf(0), EXACT if ball.error == EXACT else ball.error // index + 1)
        if negative and index % 2:
            inner = self._root(Ball(-value, ball.error), index)
            return Ball(-inner.middle, inner.error)
        if negative and not self.complex_values:
            raise Outside
        root = self.context.sqrt(value) if index == 2 else self._any_root(value, index)
        return self._rounded(root, ball.error - size + self._size(root) + 1 if ball.error > EXACT else EXACT)

    def _any_root(self, value: Any, index: int) -> Any:
        if self._is_complex(value) or value < 0:
            return self.context.exp(self.context.log(value) / index)
        return value ** (1.0 / index) if self.bits <= 53 else self.context.root(value, index)

    def _is_complex(self, value: Any) -> bool:
        return isinstance(value, complex) or hasattr(value, "_mpc_")

    def _exponential(self, ball: Ball) -> Ball:
        if self._size(ball.middle) > (9 if self.bits <= 53 else 24) or ball.error > 0:
            raise Unclear
        value = self.context.exp(ball.middle)
        return self._rounded(value, self._size(value) + max(ball.error, -self.bits) + 2)

    def _logarithm(self, ball: Ball) -> Ball:
        value = ball.middle
        size = self._size(value)
        if size == EXACT and ball.error == EXACT:
            raise Undefined
        if size - 2 <= ball.error:
            raise Unclear
        if not self._is_complex(value) and value < 0 and not self.complex_values:
            raise Outside
        return self._rounded(self.context.log(value), ball.error - size + 3 if ball.error > EXACT else EXACT)

    def _call(self, name: str, args: tuple[Node, ...]) -> Ball:
        if name in ("sum", "prod"):
            return self._series(name, args)
        if name in _STEPS:
            value = exact(Node("call", args, name), self.budget, self.names)
            if value is not None:
                return self._number(value)
        if name == "root":
            index = exact(args[1], self.budget, self.names)
            if isinstance(index, int) and 2 <= index <= MAX_ROOT:
                return self._root(self._ball(args[0]), index)
            return self._power(args[0], Node("div", (Node("num", (), 1), args[1])))
        if name in ("log", "ln"):
            return self._log(name, args)
        if name.startswith("f:"):
            return self._uninterpreted(name, args)
        function = _FUNCTIONS.get(name)
        if function is None or len(args) != 1:
            return self._several(name, args)
        return function(self, self._ball(args[0]))

    def _log(self, name: str, args: tuple[Node, ...]) -> Ball:
        value = self._logarithm(self._ball(args[0]))
        if len(args) == 1 and name == "ln":
            return value
        base = self._number(10) if len(args) == 1 else self._ball(args[1])
        return self._quotient(value, self._logarithm(base))

    def _several(self, name: str, args: tuple[Node, ...]) -> Ball:
        if name == "binom" and len(args) == 2:
            top, bottom = self._ball(args[0]), self._ball(args[1])
            rest = self._add([top, self._product([self._number(-1), bottom])])
            return self._quotient(_gamma(self, top), self._product([_gamma(self, bottom), _gamma(self, rest)]))
        if name in ("max", "min") and args:
            balls = [self._ball(part) for part in args]
            if any(self._is_complex(ball.middle) for ball in balls):
                raise Unclear
            chosen = (max if name == "max" else min)(balls, key=lambda ball: ball.middle)
            return Ball(chosen.middle, max(ball.error for ball in balls))
        raise Unclear

    def _series(self, name: str, args: tuple[Node, ...]) -> Ball:
        variable, lower, upper, body = args
        low, high = exact(lower, self.budget, self.names), exact(upper, self.budget, self.names)
        if not isinstance(low, int) or not isinstance(high, int) or high - low > MAX_STEPS or variable.op != "sym":
            raise Unclear
        saved = dict(self.names)
        terms = []
        for step in range(low, high + 1):
            self.names[str(variable.value)] = step
            terms.append(self._ball(body))
        self.names.clear()
        self.names.update(saved)
        if not terms:
            return self._number(0 if name == "sum" else 1)
        return self._add(terms) if name == "sum" else self._product(terms)

    def _uninterpreted(self, name: str, args: tuple[Node, ...]) -> Ball:
        """A function that nobody defined: some fixed smooth map, so that equal arguments give equal values."""
        salt = sum((place + 1) * ord(letter) for place, letter in enumerate(name))
        total = [self._number(salt % 97 + 3)]
        for place, part in enumerate(args):
            total.append(
                self._product([_sine(self, self._ball(part)), self._number(Fraction(salt % 89 + 7 + place, 11))])
            )
        return self._add(total)

    def real(self, ball: Ball) -> Any:
        """The middle of a ball that must be real."""
        if self._is_complex(ball.middle):
            if self._size(ball.middle.imag) > ball.error:
                raise Outside
            return ball.middle.real
        return ball.middle


_STEPS = frozenset(["!", "!!", "binom", "floor", "ceil", "gcd", "lcm", "root"])


def _slope(ball: Ball, evaluator: Evaluator) -> None:
    """Functions of slope up to about one need an argument known to less than one."""
    if ball.error > -4 or evaluator._size(ball.middle) > (40 if evaluator.bits <= 53 else 400):
        raise Unclear


def _sine(evaluator: Evaluator, ball: Ball) -> Ball:
    _slope(ball, evaluator)
    return evaluator._rounded(evaluator.context.sin(ball.middle), _steeper(evaluator, ball))


def _cosine(evaluator: Evaluator, ball: Ball) -> Ball:
    _slope(ball, evaluator)
    return evaluator._rounded(evaluator.context.cos(ball.middle), _steeper(evaluator, ball))


def _steeper(evaluator: Evaluator, ball: Ball) -> int:
    """The error of sine and cosine; machine numbers lose what the reduction of a large argument costs."""
    lost = evaluator._size(ball.middle) - evaluator.bits + 2 if evaluator.bits <= 53 else EXACT
    growth = 2 if not evaluator._is_complex(ball.middle) else 2 + 2 * max(0, evaluator._size(ball.middle.imag))
    return max(ball.error + growth, lost)


def _tangent(evaluator: Evaluator, ball: Ball) -> Ball:
    return evaluator._quotient(_sine(evaluator, ball), _cosine(evaluator, ball))


def _cotangent(evaluator: Evaluator, ball: Ball) -> Ball:
    return evaluator._quotient(_cosine(evaluator, ball), _sine(evaluator, ball))


def _one_over(function: Callable[[Evaluator, Ball], Ball]) -> Callable[[Evaluator, Ball], Ball]:
    def inverse(evaluator: Evaluator, ball: Ball) -> Ball:
        return evaluator._quotient(evaluator._number(1), function(evaluator, ball))

    return inverse


def _of_inverse(function: Callable[[Evaluator, Ball], Ball]) -> Callable[[Evaluator, Ball], Ball]:
    def composed(evaluator: Evaluator, ball: Ball) -> Ball:
        return function(evaluator, evaluator._quotient(evaluator._number(1), ball))

    return composed


def _arcsine(evaluator: Evaluator, ball: Ball) -> Ball:
    return _bounded(evaluator, ball, evaluator.context.asin)


def _arccosine(evaluator: Evaluator, ball: Ball) -> Ball:
    return _bounded(evaluator, ball, evaluator.context.acos)


def _bounded(evaluator: Evaluator, ball: Ball, function: Callable[[Any], Any]) -> Ball:
    """Arc sine and cosine: near the ends of their domain half of the digits go."""
    value = evaluator.real(ball)
    gap = 1 - abs(value)
    if gap < 0 and evaluator._size(gap) > ball.error + 1:
        raise Outside
    near = evaluator._size(gap)
    if gap <= 0 or near <= ball.error + 2:
        sign = 1 if value > 0 else -1
        return evaluator._rounded(
            function(evaluator.context.mpf(sign)), ball.error // 2 + 2 if ball.error > EXACT else EXACT
        )
    return evaluator._rounded(function(value), ball.error - near // 2 + 2 if ball.error > EXACT else EXACT)


def _arctangent(evaluator: Evaluator, ball: Ball) -> Ball:
    value = evaluator.real(ball)
    return evaluator._rounded(evaluator.context.atan(value), ball.error + 1 if ball.error > EXACT else EXACT)


def _arccotangent(evaluator: Evaluator, ball: Ball) -> Ball:
    half = evaluator._quotient(evaluator._constant("pi"), evaluator._number(2))
    return evaluator._add([half, evaluator._product([evaluator._number(-1), _arctangent(evaluator, ball)])])


def _exponentials(evaluator: Evaluator, ball: Ball) -> tuple[Ball, Ball]:
    minus = evaluator._product([evaluator._number(-1), ball])
    return evaluator._exponential(ball), evaluator._exponential(minus)


def _hyperbolic_sine(evaluator: Evaluator, ball: Ball) -> Ball:
    up, down = _exponentials(evaluator, ball)
    return evaluator._quotient(
        evaluator._add([up, evaluator._product([evaluator._number(-1), down])]), evaluator._number(2)
    )


def _hyperbolic_cosine(evaluator: Evaluator, ball: Ball) -> Ball:
    up, down = _exponentials(evaluator, ball)
    return evaluator._quotient(evaluator._add([up, down]), evaluator._number(2))


def _hyperbolic_tangent(evaluator: Evaluator, ball: Ball) -> Ball:
    return evaluator._quotient(_hyperbolic_sine(evaluator, ball), _hyperbolic_cosine(evaluator, ball))


def _area(sign: int) -> Callable[[Evaluator, Ball], Ball]:
    """arsinh and arcosh by their logarithms."""

    def area(evaluator: Evaluator, ball: Ball) -> Ball:
        inner = evaluator._add([evaluator._product([ball, ball]), evaluator._number(sign)])
        return evaluator._logarithm(evaluator._add([ball, evaluator._root(inner, 2)]))

    return area


def _area_tangent(evaluator: Evaluator, ball: Ball) -> Ball:
    minus = evaluator._product([evaluator._number(-1), ball])
    one = evaluator._number(1)
    inner = evaluator._quotient(evaluator._add([one, ball]), evaluator._add([one, minus]))
    return evaluator._quotient(evaluator._logarithm(inner), evaluator._number(2))


def _absolute(evaluator: Evaluator, ball: Ball) -> Ball:
    return Ball(abs(ball.middle), ball.error)


def _steps(up: bool) -> Callable[[Evaluator, Ball], Ball]:
    """Floor and ceiling, wherever the ball does not contain a whole number."""

    def step(evaluator: Evaluator, ball: Ball) -> Ball:
        value = evaluator.real(ball)
        lower = evaluator.context.floor(value)
        gap = min(value - lower, lower + 1 - value)
        if evaluator._size(value) > evaluator.bits - 8 or evaluator._size(gap) - 2 <= ball.error:
            raise Unclear
        return Ball(evaluator.context.mpf(lower + 1 if up else lower), EXACT)

    return step


def _gamma(evaluator: Evaluator, ball: Ball) -> Ball:
    """The factorial of any number above minus one."""
    value = evaluator.real(ball)
    size = evaluator._size(value)
    if value < 0 or size > (7 if evaluator.bits <= 53 else 20) or ball.error > -8:
        raise Unclear
    if evaluator.bits > GAMMA_BITS:
        raise Unclear
    evaluator.budget.pay(evaluator.bits)
    result = evaluator.context.gamma(value + 1)
    extra = 12 if evaluator.bits <= 53 else 2
    reach = evaluator._size(result)
    return Ball(result, max(reach + max(ball.error, EXACT // 2) + 6, reach - evaluator.bits + 2 + extra))


def _sign(evaluator: Evaluator, ball: Ball) -> Ball:
    value = evaluator.real(ball)
    if evaluator._size(value) - 2 <= ball.error:
        raise Unclear
    return evaluator._number(1 if value > 0 else -1)


_FUNCTIONS: dict[str, Callable[[Evaluator, Ball], Ball]] = {
    "sin": _sine,
    "cos": _cosine,
    "tan": _tangent,
    "cot": _cotangent,
    "sec": _one_over(_cosine),
    "csc": _one_over(_sine),
    "arcsin": _arcsine,
    "arccos": _arccosine,
    "arctan": _arctangent,
    "arccot": _arccotangent,
    "arcsec": _of_inverse(_arccosine),
    "arccsc": _of_inverse(_arcsine),
    "sinh": _hyperbolic_sine,
    "cosh": _hyperbolic_cosine,
    "tanh": _hyperbolic_tangent,
    "coth": _one_over(_hyperbolic_tangent),
    "sech": _one_over(_hyperbolic_cosine),
    "csch": _one_over(_hyperbolic_sine),
    "arcsinh": _area(1),
    "arccosh": _area(-1),
    "arctanh": _area_tangent,
    "abs": _absolute,
    "floor": _steps(False),
    "ceil": _steps(True),
    "!": _gamma,
    "sgn": _sign,
}
