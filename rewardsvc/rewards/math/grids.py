"""Matrices and vectors, entry by entry; a vector may also be a tuple or a sum of unit vectors."""

from __future__ import annotations

from rewardsvc.rewards.math.equations import substituted
from rewardsvc.rewards.math.grounds import Comparison, all_of
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.quantities import as_decimal
from rewardsvc.rewards.math.residues import names_of
from rewardsvc.rewards.math.values import ZERO, Formula, Interval, Listing, Matrix, Node, Text, Tuple, Value, number

_BASIS = (
    ("\\mathbf i", "\\hat i", "\\vec i"),
    ("\\mathbf j", "\\hat j", "\\vec j"),
    ("\\mathbf k", "\\hat k", "\\vec k"),
)


def same_matrices(by: Comparison, gold: Value, answer: Value) -> Outcome:
    """A matrix or vector against anything that may be one."""
    first, second = _grid_of(gold), _grid_of(answer)
    if isinstance(gold, Formula) and second is not None:
        first = _components(gold, len(second))
    if isinstance(answer, Formula) and first is not None:
        second = _components(answer, len(first))
    if first is None or second is None:
        return "undecided" if isinstance(gold, Formula | Text) or isinstance(answer, Formula | Text) else "not_equal"
    if len(first) != len(second) or any(len(left) != len(right) for left, right in zip(first, second, strict=True)):
        flat_first, flat_second = _vector(first), _vector(second)
        both = isinstance(gold, Matrix) and isinstance(answer, Matrix)
        if flat_first is None or flat_second is None or len(flat_first) != len(flat_second) or both:
            return "not_equal"
        first, second = [flat_first], [flat_second]
    pairs = [pair for left, right in zip(first, second, strict=True) for pair in zip(left, right, strict=True)]
    return all_of([by.compare(left, right) for left, right in pairs])


def _grid_of(value: Value) -> list[list[Value]] | None:
    """The entries of anything like a matrix: rows of values; a vector is one row for each entry."""
    if isinstance(value, Matrix):
        return [[as_decimal(cell) for cell in row] for row in value.rows]
    if isinstance(value, Tuple | Listing):
        if all(isinstance(item, Tuple) for item in value.items):
            return [list(item.items) for item in value.items if isinstance(item, Tuple)]
        return [[item] for item in value.items]
    if isinstance(value, Interval):
        return [[Formula(value.low)], [Formula(value.high)]]
    return None


def _components(value: Formula, size: int) -> list[list[Value]] | None:
    vector = basis_vector(value.expr, size)
    return None if vector is None else [[Formula(part)] for part in vector]


def _vector(rows: list[list[Value]]) -> list[Value] | None:
    if len(rows) == 1:
        return rows[0]
    return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else None


def basis_vector(node: Node, size: int) -> list[Node] | None:
    """The components of 2i + 3j, written with unit vectors."""
    names = names_of(node)
    if (
        size not in (2, 3)
        or not any(names & set(group) for group in _BASIS[:size])
        or (size == 2 and names & set(_BASIS[2]))
    ):
        return None
    every = {name: ZERO for group in _BASIS for name in group}
    return [substituted(node, every | dict.fromkeys(group, number(1))) for group in _BASIS[:size]]
