"""Units of measurement: what a spelling means, so that 3 hours are 180 minutes and 5 miles are not 5 km.

A table of names and a reader of their products, quotients and powers (`ft^2`, `square feet`, `m/s`, `miles per hour`).
Factors are exact; the base units are metre, gram, second, ampere, kelvin, mole, radian, dollar and so on. A noun that
the table lacks (`apples`) is a dimension of its own.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewardsvc.rewards.math.values import Exact, Unit, listed

_Dimension = tuple[tuple[str, int], ...]


def _power(**powers: int) -> _Dimension:
    return tuple(sorted(powers.items()))


_LENGTH, _MASS, _TIME, _VOLUME = _power(m=1), _power(g=1), _power(s=1), _power(m=3)
_FORCE, _ENERGY = _power(g=1, m=1, s=-2), _power(g=1, m=2, s=-2)
_TABLE: tuple[tuple[_Dimension, Exact, str], ...] = (
    (_LENGTH, 1, "m meter metre"),
    (_LENGTH, 1000, "km kilometer kilometre"),
    (_LENGTH, Fraction(1, 100), "cm centimeter centimetre"),
    (_LENGTH, Fraction(1, 10), "dm decimeter decimetre"),
    (_LENGTH, Fraction(1, 1000), "mm millimeter millimetre"),
    (_LENGTH, Fraction(1, 10**6), "micrometer micron um"),
    (_LENGTH, Fraction(1, 10**9), "nm nanometer"),
    (_LENGTH, Fraction(1, 10**10), "angstrom"),
    (_LENGTH, Fraction(254, 10000), "in inch inche"),
    (_LENGTH, Fraction(3048, 10000), "ft foot feet"),
    (_LENGTH, Fraction(9144, 10000), "yd yard"),
    (_LENGTH, Fraction(1609344, 1000), "mi mile"),
    (_MASS, 1, "g gram gm"),
    (_MASS, 1000, "kg kilogram kilo"),
    (_MASS, Fraction(1, 1000), "mg milligram"),
    (_MASS, 10**6, "tonne"),
    (_MASS, Fraction(45359237, 100000), "lb pound lbs"),
    (_MASS, Fraction(45359237, 1600000), "oz ounce"),
    (_MASS, Fraction(45359237 * 2000, 100000), "ton"),
    (_TIME, 1, "s sec second"),
    (_TIME, Fraction(1, 1000), "ms millisecond msec"),
    (_TIME, Fraction(1, 10**6), "microsecond us"),
    (_TIME, Fraction(1, 10**9), "ns nanosecond"),
    (_TIME, 60, "min minute"),
    (_TIME, 3600, "h hr hour"),
    (_TIME, 86400, "d day"),
    (_TIME, 604800, "week wk"),
    (_power(month=1), 1, "month mo"),
    (_power(month=1), 12, "y yr year"),
    (_VOLUME, Fraction(1, 1000), "l liter litre"),
    (_VOLUME, Fraction(1, 10**6), "ml milliliter millilitre cc"),
    (_VOLUME, Fraction(3785411784, 10**12), "gal gallon"),
    (_VOLUME, Fraction(3785411784, 4 * 10**12), "qt quart"),
    (_VOLUME, Fraction(3785411784, 8 * 10**12), "pt pint"),
    (_VOLUME, Fraction(3785411784, 16 * 10**12), "cup"),
    (_power(m=2), 10000, "ha hectare"),
    (_power(m=1, s=-1), Fraction(1609344, 3600000), "mph"),
    (_power(m=1, s=-1), Fraction(10, 36), "kph kmh"),
    (_FORCE, 1000, "n newton"),
    (_ENERGY, 1000, "j joule"),
    (_ENERGY, 10**6, "kj kilojoule"),
    (_ENERGY, Fraction(1602176634, 10**25), "ev"),
    (_power(g=1, m=2, s=-3), 1000, "w watt"),
    (_power(g=1, m=2, s=-3), 10**6, "kw kilowatt"),
    (_power(g=1, m=-1, s=-2), 1000, "pa pascal"),
    (_power(s=-1), 1, "hz hertz"),
    (_power(s=-1), 1000, "khz"),
    (_power(s=-1), 10**6, "mhz"),
    (_power(a=1), 1, "a amp ampere"),
    (_power(volt=1), 1, "v volt"),
    (_power(kelvin=1), 1, "k kelvin"),
    (_power(celsius=1), 1, "c celsius"),
    (_power(fahrenheit=1), 1, "f fahrenheit"),
    (_power(mole=1), 1, "mol mole"),
    (_power(ohm=1), 1, "ohm omega"),
    (_power(dollar=1), 1, "dollar usd buck"),
    (_power(dollar=1), Fraction(1, 100), "cent"),
    (_power(euro=1), 1, "euro eur"),
    (_power(poundsterling=1), 1, "pounds_sterling gbp"),
    (_power(yuan=1), 1, "yuan rmb cny"),
    (_power(yen=1), 1, "yen jpy"),
    (_power(rupee=1), 1, "rupee rs inr"),
    (_power(radian=1), 1, "rad radian"),
    (_power(unit=1), 1, "unit u"),
    (_power(bit=1), 1, "bit"),
    (_power(bit=1), 8, "byte"),
)
_KNOWN = {name: (dimension, factor) for dimension, factor, names in _TABLE for name in listed(names)}
_BASES = {base for dimension, _, _ in _TABLE for base, _ in dimension}
_PIECE = re.compile(
    r"(?P<name>[a-zA-Z_]+)|(?P<power>\^?\{?\s*(?P<digits>-?\d{1,3})\s*\}?)|(?P<slash>/)|(?P<dot>[-*.·\s])|(?P<other>.)"
)
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
_IDLE = frozenset(
    ["of", "the", "a", "an", "in", "and", "total", "each", "about", "long", "away", "high", "old", "tall", "wide"]
)
_NEVER = frozenset(
    [
        "minus", "plus", "divided", "multiplied", "factorial", "choose", "sqrt", "root", "mod", "modulo", "hundredths",
        "thousandths", "tenths", "halves", "thirds", "is", "are", "was", "were", "not", "isn't", "does", "doesn't",
        "wrong", "incorrect", "false", "others", "etc", "or", "pi", "e", "i", "x", "z",
    ]
)  # fmt: skip
"""Words behind a number that say something else about it than what was counted or measured."""
MAX_POWER = 6
MAX_WORDS = 6
"""A longer phrase after a number is prose, not a unit."""


def is_known(name: str) -> bool:
    """Is this a spelling in the table? Letters that stand for other things are not asked here."""
    return _singular(name) in _KNOWN


def _singular(name: str) -> str:
    lowered = name.lower()
    if lowered in _KNOWN:
        return lowered
    for ending in ("s", "es"):
        if lowered.endswith(ending) and lowered[: -len(ending)] in _KNOWN:
            return lowered[: -len(ending)]
    return lowered.removesuffix("s") if len(lowered) > 3 else lowered


def unit(phrase: str) -> Unit | None:
    """The unit that a phrase means; None when it is prose, or nothing."""
    names = _names(phrase)
    if names is None or not names:
        return None
    dimension: dict[str, int] = {}
    factor: Exact = 1
    for name, power in names:
        known = _KNOWN.get(_singular(name))
        for base, times in known[0] if known else ((_singular(name), 1),):
            dimension[base] = dimension.get(base, 0) + times * power
        factor = factor * Fraction(known[1]) ** power if known else factor
    return Unit(tuple(sorted((base, power) for base, power in dimension.items() if power)), factor, phrase.strip())


def _names(phrase: str) -> list[tuple[str, int]] | None:
    """Names with their powers. None for what is no unit."""
    names: list[tuple[str, int]] = []
    sign, coming, powered = 1, 1, False
    for found in _PIECE.finditer(phrase):
        piece = found.group()
        if found.lastgroup == "other":
            return None
        if found.group("slash") or piece.lower() == "per":
            sign = -1
        elif found.group("name"):
            word, powered = piece.lower(), False
            if piece in _NEVER:
                return None
            if word in _POWERS:
                if word in ("squared", "cubed") and names:
                    names[-1] = (names[-1][0], names[-1][1] * _POWERS[word])
                else:
                    coming = _POWERS[word]
            elif word not in _IDLE or (word == "in" and not names):
                names.append((piece, sign * coming))
                coming = 1
        elif found.group("digits"):
            if not names or powered or abs(int(found.group("digits"))) > MAX_POWER:
                return None
            powered = True
            names[-1] = (names[-1][0], names[-1][1] * int(found.group("digits")))
    return names if len(names) <= MAX_WORDS else None


def commensurable(left: Unit, right: Unit) -> bool:
    """Do both measure the same thing?"""
    return left.dimension == right.dimension


def known_part(one: Unit) -> tuple[tuple[str, int], ...]:
    """The dimension of those names that the table has."""
    return tuple((base, power) for base, power in one.dimension if base in _BASES)
