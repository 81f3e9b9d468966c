"""Arithmetic of small matrices inside formulas, so that a sum or product of matrices is one matrix.

Entries stay formulas; nothing is simplified. Only shapes of up to `MAX_SIDE` are computed, so that the price of a
product is bounded; what does not fit stays as it was written.
"""

from __future__ import annotations

from fractions import Fraction

from rewardsvc.rewards.math.formulas import fraction, whole
from rewardsvc.rewards.math.values import Node, negative, number

MAX_SIDE = 8
MAX_ENTRY = 400
"""Nodes of one entry: products of products would double with every factor."""

_Rows = tuple[tuple[Node, ...], ...]


def folded(node: Node) -> Node:
    """The formula with sums, products, multiples, powers and transposes of matrices carried out."""
    if not _has_matrix(node):
        return node
    parts = tuple(map(folded, node.args))
    rows = [_rows(part) for part in parts]
    if node.op == "add" and all(rows):
        return _matrix(_sum([found for found in rows if found])) or node._replace(args=parts)
    if node.op == "mul" and any(rows):
        return _product(parts) or node._replace(args=parts)
    if node.op == "div" and rows[0] and not rows[1]:
        return _matrix(tuple(tuple(fraction(cell, parts[1]) for cell in row) for row in rows[0])) or node
    if node.op == "pow" and rows[0]:
        return _power(parts[0], parts[1]) or node._replace(args=parts)
    return node._replace(args=parts)


def _has_matrix(node: Node) -> bool:
    return node.op == "mat" or any(map(_has_matrix, node.args))


def _rows(node: Node) -> _Rows | None:
    if node.op != "mat" or len(node.args) > MAX_SIDE or len(node.args[0].args) > MAX_SIDE:
        return None
    return tuple(row.args for row in node.args)


def _matrix(rows: _Rows | None) -> Node | None:
    return None if rows is None else Node("mat", tuple(Node("row", row) for row in rows))


def _sum(terms: list[_Rows]) -> _Rows | None:
    if len({(len(rows), len(rows[0])) for rows in terms}) != 1:
        return None
    return tuple(tuple(Node("add", cells) for cells in zip(*lines, strict=True)) for lines in zip(*terms, strict=True))


def _product(parts: tuple[Node, ...]) -> Node | None:
    """Scalars in front of matrices, and matrices in the order in which they were written."""
    scalars = [part for part in parts if part.op != "mat"]
    matrices = [_rows(part) for part in parts if part.op == "mat"]
    result = matrices[0]
    for rows in matrices[1:]:
        result = _times(result, rows)
    if result is None:
        return None
    if not scalars:
        return _matrix(result)
    if len(result) == len(result[0]) == 1 and len(matrices) > 1:
        return Node("mul", (*scalars, result[0][0]))
    return _matrix(tuple(tuple(Node("mul", (*scalars, cell)) for cell in row) for row in result))


def _times(left: _Rows | None, right: _Rows | None) -> _Rows | None:
    if left is None or right is None or len(left[0]) != len(right):
        return None
    if len(right) * (_largest(left) + _largest(right)) > MAX_ENTRY:
        return None
    columns = list(zip(*right, strict=True))
    return tuple(tuple(_inner(row, column) for column in columns) for row in left)


def _largest(rows: _Rows) -> int:
    return max(_size(cell) for row in rows for cell in row)


def _size(node: Node) -> int:
    return 1 + sum(map(_size, node.args))


def _inner(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
    pairs = list(zip(row, column, strict=True))
    if all(one.op == other.op == "num" for one, other in pairs):
        return number(whole(sum((Fraction(one.value * other.value) for one, other in pairs), Fraction(0))))
    return Node("add", tuple(Node("mul", pair) for pair in pairs))


def _power(base: Node, exponent: Node) -> Node | None:
    rows = _rows(base)
    if rows is None:
        return None
    if exponent.op == "sym" and exponent.value in ("T", "\\top", "t"):
        return _matrix(tuple(zip(*rows, strict=True)))
    if exponent.op != "num" or len(rows) != len(rows[0]):
        return None
    if exponent.value == -1 and len(rows) == 2:
        return _matrix(_inverse(rows))
    if not isinstance(exponent.value, int) or not 1 <= exponent.value <= 4 or len(rows) > 4:
        return None
    result: _Rows | None = rows
    for _ in range(exponent.value - 1):
        result = _times(result, rows)
    return _matrix(result)


def _inverse(rows: _Rows) -> _Rows:
    (a, b), (c, d) = rows
    determinant = Node("add", (Node("mul", (a, d)), Node("mul", (number(-1), b, c))))
    return (
        (fraction(d, determinant), fraction(negative(b), determinant)),
        (fraction(negative(c), determinant), fraction(a, determinant)),
    )
