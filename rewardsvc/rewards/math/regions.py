"""Sets of real numbers in a normal form: sorted, merged pieces with formulas as ends.

Intervals, unions, differences, set-builder conditions and inequalities in one name all become lists of `Piece`, so that
`x<-1 or x>1` and `(-∞,-1)∪(1,∞)` are compared alike. Ends are ordered by rigorous approximations and joined only when
they are proved the same; what cannot be ordered has no normal form.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from rewardsvc.rewards.math.canon import show
from rewardsvc.rewards.math.exact import Budget, Exhausted, Undefined, exact
from rewardsvc.rewards.math.formulas import whole
from rewardsvc.rewards.math.identity import Outcome, approximate, same
from rewardsvc.rewards.math.residues import names_of
from rewardsvc.rewards.math.values import (
    INFINITY,
    MINUS_INFINITY,
    Builder,
    Difference,
    Formula,
    Interval,
    Listing,
    Node,
    Relation,
    SetOf,
    System,
    Union,
    Value,
    negative,
    number,
)

MAX_PIECES = 64
_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


class Piece(NamedTuple):
    """All numbers between two ends; a single number has the same end twice, both closed."""

    low: Node
    high: Node
    closed_low: bool
    closed_high: bool


class Shapeless(Exception):
    """The value is no set of real numbers, or not one whose ends can be ordered."""


EVERYTHING = [Piece(MINUS_INFINITY, INFINITY, False, False)]


def region(value: Value, budget: Budget) -> tuple[list[Piece], str | None]:
    """The pieces of a set and the name of the variable that was bound, if any. Raises `Shapeless`."""
    found = _Finder(budget)
    pieces = found.pieces(value)
    return found.merged(pieces), found.name


def same_region(first: Sequence[Piece], second: Sequence[Piece], budget: Budget) -> Outcome:
    """`equal`, `not_equal` or `undecided`."""
    if len(first) != len(second):
        return "not_equal"
    outcomes: set[Outcome] = set()
    for left, right in zip(first, second, strict=True):
        if left[2:] != right[2:]:
            return "not_equal"
        outcomes |= {_same_end(left.low, right.low, budget), _same_end(left.high, right.high, budget)}
    if "not_equal" in outcomes:
        return "not_equal"
    return "undecided" if "undecided" in outcomes else "equal"


def _same_end(left: Node, right: Node, budget: Budget) -> Outcome:
    if left in (INFINITY, MINUS_INFINITY) or right in (INFINITY, MINUS_INFINITY):
        return "equal" if left == right else "not_equal"
    return same(left, right, budget)


class _Finder:
    """Turns values into pieces; remembers the name that inequalities bind."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.name: str | None = None

    def pieces(self, value: Value) -> list[Piece]:
        if isinstance(value, Interval):
            return [Piece(value.low, value.high, value.closed_low, value.closed_high)]
        if isinstance(value, SetOf):
            return [self._point(item) for item in value.items]
        if isinstance(value, Union):
            return [piece for part in value.parts for piece in self.pieces(part)]
        if isinstance(value, Difference):
            return self._without(self.merged(self.pieces(value.whole)), self.merged(self.pieces(value.removed)))
        if isinstance(value, Builder):
            return self._built(value)
        if isinstance(value, Relation):
            return self._relation(value)
        if isinstance(value, Listing | System):
            return self._listing(value)
        raise Shapeless

    def _point(self, item: Value) -> Piece:
        if not isinstance(item, Formula) or item.unit or names_of(item.expr):
            raise Shapeless
        return Piece(item.expr, item.expr, True, True)

    def _built(self, value: Builder) -> list[Piece]:
        variable = value.variable.sides[0] if isinstance(value.variable, Relation) else value.variable
        if not isinstance(variable, Formula) or variable.expr.op != "sym":
            raise Shapeless
        self._bind(str(variable.expr.value))
        return self.pieces(value.condition)

    def _bind(self, name: str) -> None:
        if self.name not in (None, name):
            raise Shapeless
        self.name = name

    def _listing(self, value: Listing | System) -> list[Piece]:
        if isinstance(value, Listing) and value.joint == "or":
            return [piece for item in value.items for piece in self.pieces(item)]
        if not all(isinstance(item, Relation) for item in value.items):
            if isinstance(value, Listing) and all(isinstance(item, Interval | Union) for item in value.items):
                return [piece for item in value.items for piece in self.pieces(item)]
            raise Shapeless
        if all(item.signs == ("=",) for item in value.items if isinstance(item, Relation)):
            return [piece for item in value.items for piece in self.pieces(item)]
        return self._common([self.merged(self.pieces(item)) for item in value.items])

    def _common(self, regions: list[list[Piece]]) -> list[Piece]:
        """The intersection, as what is left after taking away every complement."""
        rest = EVERYTHING
        for pieces in regions:
            rest = self._without(rest, self._without(EVERYTHING, pieces))
        return rest

    def _relation(self, relation: Relation) -> list[Piece]:
        sides, signs = relation.sides, relation.signs
        if signs == ("in",):
            self._name_of(sides[0])
            return self.pieces(sides[1])
        nodes = [side.expr for side in sides if isinstance(side, Formula) and not side.unit]
        if len(nodes) != len(sides) or len(sides) > 3:
            raise Shapeless
        if len(sides) == 3:
            return self._between(nodes, signs)
        return self._half(nodes[0], nodes[1], signs[0])

    def _name_of(self, side: Value) -> None:
        if not isinstance(side, Formula):
            raise Shapeless
        self._bind(_label(side.expr))

    def _between(self, nodes: list[Node], signs: tuple[str, ...]) -> list[Piece]:
        if signs[0] in (">", ">=") and signs[1] in (">", ">="):
            nodes, signs = nodes[::-1], (_MIRRORED[signs[1]], _MIRRORED[signs[0]])
        if not all(sign in ("<", "<=") for sign in signs):
            raise Shapeless
        if not _is_variable(nodes[1]):
            return self._common(
                [
                    self.merged(self._half(nodes[0], nodes[1], signs[0])),
                    self.merged(self._half(nodes[1], nodes[2], signs[1])),
                ]
            )
        if names_of(nodes[0]) or names_of(nodes[2]):
            raise Shapeless
        if nodes[1].op == "call" and nodes[1].value == "abs":
            self._bind(_label(nodes[1].args[0]))
            return [
                Piece(negative(nodes[2]), negative(nodes[0]), signs[1] == "<=", signs[0] == "<="),
                Piece(nodes[0], nodes[2], signs[0] == "<=", signs[1] == "<="),
            ]
        self._bind(_label(nodes[1]))
        return [Piece(nodes[0], nodes[2], signs[0] == "<=", signs[1] == "<=")]

    def _half(self, left: Node, right: Node, sign: str) -> list[Piece]:
        if not _is_variable(left):
            left, right, sign = (right, left, _MIRRORED.get(sign, "")) if _is_variable(right) else (left, right, sign)
        if not _is_variable(left) or names_of(right):
            left, right, sign = self._solved(left, right, sign)
        if left.op == "call" and left.value == "abs":
            return self._absolute(left, right, sign)
        self._bind(_label(left))
        return _side(right, sign)

    def _absolute(self, left: Node, right: Node, sign: str) -> list[Piece]:
        self._bind(_label(left.args[0]))
        if sign in ("<", "<="):
            return [Piece(negative(right), right, sign == "<=", sign == "<=")]
        return [*_side(negative(right), _MIRRORED[sign]), *_side(right, sign)]

    def _solved(self, left: Node, right: Node, sign: str) -> tuple[Node, Node, str]:
        """A linear inequality in one name, solved for it."""
        names = names_of(left) | names_of(right)
        if len(names) != 1 or sign not in _MIRRORED:
            raise Shapeless
        (name,) = names
        values = [self._difference(left, right, name, place) for place in (0, 1, 2, 5)]
        slope = values[1] - values[0]
        if not slope or values[2] - values[1] != slope or values[3] - values[2] != 3 * slope:
            raise Shapeless
        root = number(whole(Fraction(-values[0]) / Fraction(slope)))
        return Node("sym", (), name), root, sign if slope > 0 else _MIRRORED[sign]

    def _difference(self, left: Node, right: Node, name: str, place: int) -> Fraction:
        try:
            first, second = exact(left, self.budget, {name: place}), exact(right, self.budget, {name: place})
        except (Undefined, Exhausted):
            raise Shapeless from None
        if first is None or second is None:
            raise Shapeless
        return Fraction(first) - Fraction(second)

    def merged(self, pieces: list[Piece]) -> list[Piece]:
        """Sorted pieces, those that touch or overlap joined and empty ones left out."""
        if len(pieces) > MAX_PIECES:
            raise Shapeless
        kept = [piece for piece in pieces if not self._is_empty(piece)]
        kept.sort(key=lambda piece: (self._place(piece.low), not piece.closed_low))
        joined: list[Piece] = []
        for piece in kept:
            if joined and self._touch(joined[-1], piece):
                joined[-1] = self._joined(joined[-1], piece)
            else:
                joined.append(piece)
        return joined

    def _is_empty(self, piece: Piece) -> bool:
        order = self._order(piece.low, piece.high)
        return order > 0 or (order == 0 and not (piece.closed_low and piece.closed_high))

    def _place(self, end: Node) -> tuple[int, Fraction]:
        if end == INFINITY:
            return 1, Fraction(0)
        if end == MINUS_INFINITY:
            return -1, Fraction(0)
        value = approximate(end, self.budget)
        if value is None:
            raise Shapeless
        return 0, value

    def _order(self, left: Node, right: Node) -> int:
        if left == right:
            return 0
        first, second = self._place(left), self._place(right)
        if first[0] == second[0] == 0 and abs(first[1] - second[1]) <= abs(first[1]) / 2**50:
            if same(left, right, self.budget) == "equal":
                return 0
            if first[1] == second[1]:
                raise Shapeless
        return (first > second) - (first < second)

    def _touch(self, left: Piece, right: Piece) -> bool:
        order = self._order(left.high, right.low)
        return order > 0 or (order == 0 and (left.closed_high or right.closed_low))

    def _joined(self, left: Piece, right: Piece) -> Piece:
        order = self._order(left.high, right.high)
        if order > 0:
            return left
        closed = right.closed_high or (order == 0 and left.closed_high)
        return Piece(left.low, right.high, left.closed_low or (right.closed_low and left.low == right.low), closed)

    def _without(self, pieces: list[Piece], removed: list[Piece]) -> list[Piece]:
        for hole in removed:
            pieces = [part for piece in pieces for part in self._cut(piece, hole)]
        return self.merged(pieces)

    def _cut(self, piece: Piece, hole: Piece) -> list[Piece]:
        if self._order(hole.high, piece.low) < 0 or self._order(piece.high, hole.low) < 0:
            return [piece]
        low_end = self._least(Piece(piece.low, hole.low, piece.closed_low, not hole.closed_low), piece)
        high_end = self._greatest(Piece(hole.high, piece.high, not hole.closed_high, piece.closed_high), piece)
        return [part for part in (low_end, high_end) if not self._is_empty(part)]

    def _least(self, part: Piece, whole_piece: Piece) -> Piece:
        return whole_piece if self._order(part.high, whole_piece.high) > 0 else part

    def _greatest(self, part: Piece, whole_piece: Piece) -> Piece:
        return whole_piece if self._order(part.low, whole_piece.low) < 0 else part


def _side(end: Node, sign: str) -> list[Piece]:
    """The numbers on one side of an end."""
    if sign in ("<", "<="):
        return [Piece(MINUS_INFINITY, end, False, sign == "<=")]
    if sign in (">", ">="):
        return [Piece(end, INFINITY, sign == ">=", False)]
    if sign == "!=":
        return [Piece(MINUS_INFINITY, end, False, False), Piece(end, INFINITY, False, False)]
    if sign == "=":
        return [Piece(end, end, True, True)]
    raise Shapeless


def _is_variable(node: Node) -> bool:
    if node.op == "call" and node.value == "abs":
        return node.args[0].op == "sym"
    return node.op == "sym" or (node.op == "call" and str(node.value).startswith("f:"))


def _label(node: Node) -> str:
    if node.op == "sym":
        return str(node.value)
    if node.op == "call" and str(node.value).startswith("f:"):
        return show(node)
    raise Shapeless
