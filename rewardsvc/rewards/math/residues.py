"""Identity of formulas by arithmetic modulo large primes (Schwartz 1980, Zippel 1979).

Replacing every name by a fixed whole number maps rational formulas into a prime field; exponents live modulo the order
of the group, so a tower of powers costs microseconds. Different residues prove that formulas differ. Roots of small
primes and the imaginary unit have fixed images too, since the primes were chosen so that these exist: the second
kind of prime gives every number exactly one cube root instead. Functions are opaque: their image depends on name and
argument alone, so equal images mean equal formulas, but different ones mean nothing (`opaque` is then set).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from rewardsvc.rewards.math.exact import MAX_STEPS, Budget, exact
from rewardsvc.rewards.math.values import Exact, Node

SQUARE_PRIMES = (2923032215752872721, 4333084769344188841)
"""Primes of 62 bits, 1 modulo 24, in which -1 and the primes up to 23 have square roots."""

CUBE_PRIME = 3226580171807580947
"""A prime of 62 bits in whose field third, fifth and seventh roots exist and are unique."""

_SMALL = (2, 3, 5, 7, 11, 13, 17, 19, 23)


class Vanishing(Exception):
    """A divisor is zero in the field."""


def point(name: str, salt: int) -> int:
    """The whole number that stands for a name: fixed, positive, of 40 bits."""
    return (zlib.crc32(f"{name}/{salt}".encode()) << 8 | salt) + 2


class Field:
    """Residues modulo one prime. `opaque` tells whether a function was met that the field does not understand."""

    def __init__(self, prime: int, salt: int, budget: Budget) -> None:
        self.prime = prime
        self.salt = salt
        self.budget = budget
        self.opaque = False
        self.bound: dict[str, int] = {}

    def residue(self, node: Node) -> int:
        """The image of a formula. Raises `Vanishing` and `exact.Exhausted`."""
        self.budget.pay(1)
        op, args, value = node
        if op == "num":
            return self._rational(value)
        if op == "sym":
            bound = self.bound.get(str(value))
            return (point(str(value), self.salt) if bound is None else bound) % self.prime
        if op == "add":
            return sum([self.residue(part) for part in args]) % self.prime
        if op == "mul":
            product = 1
            for part in args:
                product = product * self.residue(part) % self.prime
            return product
        if op == "div":
            return self.residue(args[0]) * self._inverse(self.residue(args[1])) % self.prime
        if op == "pow":
            return self._power(args[0], args[1])
        if op == "const" and value == "i" and self.prime in SQUARE_PRIMES:
            return square_root(self.prime - 1, self.prime) or 0
        return self._function(node)

    def _rational(self, value: Exact) -> int:
        if isinstance(value, int):
            return value % self.prime
        return value.numerator * self._inverse(value.denominator % self.prime) % self.prime

    def _inverse(self, value: int) -> int:
        if not value:
            raise Vanishing
        return pow(value, -1, self.prime)

    def _power(self, base: Node, exponent: Node) -> int:
        power = exact(exponent, self.budget, self._points(exponent))
        if power is None:
            reduced = self._reduced(exponent, self.prime - 1)
            if reduced is None or base.op == "const":
                return self._opaque("pow", (base, exponent))
            return self._raised(self.residue(base), reduced)
        if isinstance(power, Fraction):
            return self._rooted(base, power)
        if base.op == "const" and base.value != "i" and exponent.op != "num":
            return self._opaque("pow", (base, exponent))
        return self._raised(self.residue(base), power)

    def _raised(self, base: int, exponent: int) -> int:
        if not base and exponent <= 0:
            raise Vanishing
        return pow(base, exponent, self.prime)

    def _points(self, node: Node) -> dict[str, Exact]:
        return {name: self.bound.get(name, point(name, self.salt)) for name in names_of(node)}

    def _reduced(self, node: Node, modulus: int, depth: int = 0) -> int | None:
        """A huge whole exponent modulo the order of the group, by Euler's theorem; None when that is not possible."""
        self.budget.pay(1)
        if depth > 6:
            return None
        value = exact(node, self.budget, self._points(node))
        if value is not None:
            return value % modulus if isinstance(value, int) else None
        if node.op in ("add", "mul"):
            parts = [self._reduced(part, modulus, depth) for part in node.args]
            return _joined(node.op, parts, modulus)
        if node.op != "pow":
            return None
        base = exact(node.args[0], self.budget, self._points(node.args[0]))
        order = carmichael(modulus)
        if not isinstance(base, int) or order is None:
            return None
        direct = exact(node.args[1], self.budget, self._points(node.args[1]))
        if isinstance(direct, int):
            return pow(base, direct, modulus) if direct >= 0 else None
        inner = self._reduced(node.args[1], order, depth + 1)
        return None if inner is None else pow(base, inner + order * modulus.bit_length(), modulus)

    def _rooted(self, base: Node, power: Fraction) -> int:
        radicand = exact(base, self.budget)
        below = power.denominator
        if self.prime in SQUARE_PRIMES and below == 2 and radicand is not None:
            root = self._square_root(radicand)
            if root is not None:
                return self._raised(root, power.numerator)
        if self.prime == CUBE_PRIME and below in (3, 5, 7, 9, 15, 21):
            inner = pow(below, -1, self.prime - 1)
            return self._raised(pow(self.residue(base), inner, self.prime), power.numerator)
        return self._opaque("pow", (base, Node("num", (), power)))

    def _square_root(self, radicand: Exact) -> int | None:
        """The root of a rational number as the product of the fixed roots of its prime factors."""
        above = Fraction(radicand).numerator
        below = Fraction(radicand).denominator
        rest, root = above * below, 1
        self.budget.pay(rest.bit_length() // 20)
        if not rest:
            return 0
        if rest < 0:
            rest, root = -rest, square_root(self.prime - 1, self.prime) or 0
        for small in _SMALL:
            while rest % small == 0:
                rest //= small
                root = root * (square_root(small, self.prime) or 0) % self.prime
        if rest != 1:
            residual = _root_of_square(rest)
            if residual is None:
                return None
            root = root * residual % self.prime
        return root * self._inverse(below % self.prime) % self.prime

    def _function(self, node: Node) -> int:
        name = node.value
        if node.op == "call" and name == "root":
            index = exact(node.args[1], self.budget)
            if isinstance(index, int) and index > 1:
                return self._rooted(node.args[0], Fraction(1, index))
        if node.op == "call" and name in ("sum", "prod"):
            series = self._series(node)
            if series is not None:
                return series
        if node.op == "call" and name in ("!", "!!", "binom", "gcd", "lcm", "floor", "ceil", "min", "max", "abs"):
            value = exact(node, self.budget)
            if value is not None:
                return self._rational(value)
        return self._opaque(f"{node.op} {name}", node.args)

    def _series(self, node: Node) -> int | None:
        variable, lower, upper, body = node.args
        low, high = exact(lower, self.budget), exact(upper, self.budget)
        if not isinstance(low, int) or not isinstance(high, int) or high - low > MAX_STEPS or variable.op != "sym":
            return None
        name, saved = str(variable.value), dict(self.bound)
        total = 0 if node.value == "sum" else 1
        for step in range(low, high + 1):
            self.bound[name] = step
            term = self.residue(body)
            total = (total + term if node.value == "sum" else total * term) % self.prime
        self.bound = saved
        return total

    def _opaque(self, name: str, args: Sequence[Node]) -> int:
        if not name.startswith("call f:"):
            self.opaque = True
        images = ",".join(str(self.residue(part)) for part in args)
        text = f"{name}({images})/{self.salt}".encode()
        return (zlib.crc32(text) << 29 ^ zlib.crc32(text[::-1])) % self.prime


def _joined(op: str, parts: list[int | None], modulus: int) -> int | None:
    result = 0 if op == "add" else 1
    for part in parts:
        if part is None:
            return None
        result = (result + part if op == "add" else result * part) % modulus
    return result


def names_of(node: Node) -> set[str]:
    """The free names in a formula."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if part.op == "sym":
            found.add(str(part.value))
        waiting.extend(part.args)
    return found


def _root_of_square(value: int) -> int | None:
    root = math.isqrt(value)
    return root if root * root == value else None


@lru_cache(maxsize=64)
def square_root(value: int, prime: int) -> int | None:
    """A fixed square root in the field (Tonelli 1891, Shanks 1973); None when there is none."""
    if pow(value, (prime - 1) // 2, prime) != 1:
        return None
    odd, twos = prime - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    other = next(number for number in range(2, 1000) if pow(number, (prime - 1) // 2, prime) == prime - 1)
    factor, root, left = pow(other, odd, prime), pow(value, (odd + 1) // 2, prime), pow(value, odd, prime)
    while left != 1:
        order, square = 0, left
        while square != 1:
            square, order = square * square % prime, order + 1
        step = pow(factor, 1 << (twos - order - 1), prime)
        root, factor, twos = root * step % prime, step * step % prime, order
        left = left * factor % prime
    return root


@lru_cache(maxsize=64)
def carmichael(modulus: int) -> int | None:
    """A multiple of the order of every unit modulo `modulus`; None when it does not factor easily."""
    order, rest = 1, modulus
    for small in range(2, 1 << 12):
        if rest % small == 0:
            times = 0
            while rest % small == 0:
                rest, times = rest // small, times + 1
            order = math.lcm(order, (small - 1) * small ** (times - 1))
    if rest == 1:
        return order
    return math.lcm(order, rest - 1) if _is_prime(rest) else None


def _is_prime(value: int) -> bool:
    """Miller and Rabin's test with the bases that decide every number below 3.3e24 (Sorenson and Webster 2015)."""
    odd, twos = value - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):
        power = pow(base, odd, value)
        if base % value == 0 or power in (1, value - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % value
            if power == value - 1:
                break
        else:
            return False
    return True
