"""What an answer can be: the typed values that the reader makes of text and the comparison works on.

A value is data and nothing else. Formulas are trees of `Node`; sums and products are flat, so that the depth of a tree
is bounded by the brackets and exponents that were written. Every value remembers its source text, which plays no part
in equality: it is there for evidence, and so that an answer spelt like the gold is recognised at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple


def listed(text: str) -> list[str]:
    """The words of a table that is written as one line of text."""
    return text.split()


Exact = int | Fraction
"""A rational number; whole ones are `int`, which Python computes faster."""


class Node(NamedTuple):
    """A formula: an operation, what it is applied to, and the number or name that a leaf or a call stands for.

    `num` (value: exact number), `sym` (value: name), `const` (value: pi, e, i, inf), `add`, `mul`, `div`, `pow`,
    `pm` (plus or minus its argument), `mp` (the opposite sign), `deg` (degrees), and `call` (value: function name).
    """

    op: str
    args: tuple[Node, ...] = ()
    value: Any = 0


def number(value: Exact) -> Node:
    """The leaf of an exact number."""
    return Node("num", (), value)


ZERO, ONE, MINUS_ONE, TEN = number(0), number(1), number(-1), number(10)
PI, E, IMAGINARY, INFINITY = (Node("const", (), name) for name in ("pi", "e", "i", "inf"))
MINUS_INFINITY = Node("mul", (MINUS_ONE, INFINITY))


def symbol(name: str) -> Node:
    """The leaf of a name; names are case sensitive and may have several characters (`x_{1}`, `AB`)."""
    return Node("sym", (), name)


def call(name: str, *args: Node) -> Node:
    """A function applied to arguments; names the engine does not know stay uninterpreted."""
    return Node("call", args, name)


def negative(node: Node) -> Node:
    """The node with the opposite sign; numbers stay leaves."""
    if node.op == "num":
        return number(-node.value)
    return Node("mul", (MINUS_ONE, node))


class Unit(NamedTuple):
    """A unit of measurement: its dimension as sorted (base, power) pairs, its size in base units, and its spelling.

    A word that no table knows (`apples`) is a dimension of its own.
    """

    dimension: tuple[tuple[str, int], ...]
    factor: Exact
    name: str


def spelt(value: Value, source: str) -> Value:
    """A value that has just been made and that nobody else has seen, with its source text."""
    object.__setattr__(value, "source", source)  # a frozen copy of every answer costs more than reading a number
    return value


def _source() -> str:
    return field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Formula:
    """A number or an expression.

    `places` is the count of digits after the point and `significant` the count of significant digits when the number
    was written as a decimal, else None. `mark` is `percent`, `degrees`, `about` (written with ≈) or empty.
    """

    expr: Node
    places: int | None = None
    significant: int | None = None
    mark: str = ""
    unit: Unit | None = None
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Relation:
    """Sides joined by signs: `=`, `<`, `<=`, `>`, `>=`, `!=`, `~` (approximately), `in`. One sign fewer than sides."""

    sides: tuple[Value, ...]
    signs: tuple[str, ...]
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Interval:
    """All real numbers between two ends."""

    low: Node
    high: Node
    closed_low: bool
    closed_high: bool
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Union:
    """Sets joined by ∪."""

    parts: tuple[Value, ...]
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Difference:
    """A set without the members of another."""

    whole: Value
    removed: Value
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Builder:
    """The set of all values of a variable that meet a condition."""

    variable: Value
    condition: Value
    source: str = _source()


@dataclass(frozen=True, slots=True)
class SetOf:
    """A set written by its members; the empty set has none."""

    items: tuple[Value, ...]
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Tuple:
    """Values in an order that matters, in brackets: a point, a vector, a pair. `brackets` as written: `()`, `[]`."""

    items: tuple[Value, ...]
    brackets: str = "()"
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Listing:
    """Several values one after the other, without brackets. `joint` is `,`, `;`, `and` or `or`."""

    items: tuple[Value, ...]
    joint: str = ","
    source: str = _source()


@dataclass(frozen=True, slots=True)
class System:
    """Relations that hold together, or the branches of a function by cases."""

    items: tuple[Value, ...]
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of equal length; a vector is a matrix of one column or one row."""

    rows: tuple[tuple[Node, ...], ...]
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple-choice question and what was written after it."""

    letter: str
    rest: str = ""
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Based:
    """Digits in a number base, `1010_2`."""

    digits: str
    base: int
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day in seconds; `half` is am, pm or empty when it was not said."""

    seconds: int
    half: str = ""
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Ratio:
    """Terms joined by colons."""

    terms: tuple[Node, ...]
    source: str = _source()


@dataclass(frozen=True, slots=True)
class Text:
    """Words: compared as words, never as a product of letters. `words` is the normal form, `shape` has 0 for digits."""

    words: str
    shape: str = ""
    source: str = _source()


Value = (
    Formula
    | Relation
    | Interval
    | Union
    | Difference
    | Builder
    | SetOf
    | Tuple
    | Listing
    | System
    | Matrix
    | Choice
    | Based
    | Clock
    | Ratio
    | Text
)
