"""What a judged answer earns: all or nothing, by its right parts, or by how near a wrong formula is.

Nearness is the expression edit distance score of PHYBench (arXiv 2504.16074): with r the edit distance between the two
expression trees relative to the size of the gold's, an answer that is not equal earns 0.6 - r, but at least 0. The
distance is that of Zhang and Shasha (SIAM J. Comput. 18, 1989) with unit costs, terms and factors in a fixed order.
"""

from __future__ import annotations

from typing import Literal

from rewardsvc.rewards.math.canon import show
from rewardsvc.rewards.math.grading import Judged
from rewardsvc.rewards.math.values import Formula, Node, Value

Credit = Literal["binary", "parts", "tree_edit"]
MAX_NODES = 60
"""Nodes of a tree that is compared; the work grows with the fourth power at worst."""

_BEST_WRONG = 0.6
_MOST_SHARED = 0.99  # right parts of an answer that is not equal as a whole, such as one in the wrong order
_REORDERED = ("add", "mul")


def of(judged: Judged, credit: Credit) -> float:
    """The reward in [0, 1]. Only an equal answer earns 1."""
    if judged.outcome == "equal":
        return 1.0
    if credit == "parts" and judged.parts:
        return shared(judged)
    if credit == "tree_edit":
        return nearness(judged.gold.value, judged.value)
    return 0.0


def shared(judged: Judged) -> float:
    """The share of right parts, of all that the gold has or the answer claims: naming many is no way to more."""
    claimed = len(getattr(judged.value, "items", ()))
    right = sum(part is True for part in judged.parts)
    return min(right / max(len(judged.parts), claimed), _MOST_SHARED)


def nearness(gold: Value, answer: Value | None) -> float:
    """0.6 - r for two formulas of moderate size that differ, else 0."""
    if not isinstance(gold, Formula) or not isinstance(answer, Formula):
        return 0.0
    first, second = _Tree(gold.expr), _Tree(answer.expr)
    if len(first.labels) > MAX_NODES or len(second.labels) > MAX_NODES:
        return 0.0
    return max(0.0, _BEST_WRONG - distance(first, second) / len(first.labels))


class _Tree:
    """A formula in postorder: labels, each node's leftmost leaf, and the roots of what Zhang and Shasha compare."""

    def __init__(self, root: Node) -> None:
        self.labels: list[str] = []
        self.leftmost: list[int] = []
        self._add(root)
        last = {leaf: place for place, leaf in enumerate(self.leftmost)}
        self.roots = sorted(last.values())

    def _add(self, node: Node) -> int:
        """Appends a node and what is below it; the place of its leftmost leaf."""
        below = sorted(node.args, key=show) if node.op in _REORDERED else node.args
        leaves = [self._add(child) for child in below] if len(self.labels) <= MAX_NODES else []
        leaf = leaves[0] if leaves else len(self.labels)
        self.labels.append(f"{node.op} {node.value}")
        self.leftmost.append(leaf)
        return leaf


def distance(first: _Tree, second: _Tree) -> int:
    """The least number of nodes to insert, delete or rename that turns one tree into the other."""
    between = [[0] * len(second.labels) for _ in first.labels]
    for one in first.roots:
        for other in second.roots:
            _fill(first, second, one, other, between)
    return between[-1][-1]


def _fill(first: _Tree, second: _Tree, one: int, other: int, between: list[list[int]]) -> None:
    """The distances between all forests that end within the subtrees at `one` and `other`."""
    low, lower = first.leftmost[one], second.leftmost[other]
    height, width = one - low + 2, other - lower + 2
    forest = [[row + column if not (row and column) else 0 for column in range(width)] for row in range(height)]
    for row in range(1, height):
        for column in range(1, width):
            i, j = low + row - 1, lower + column - 1
            best = min(forest[row - 1][column], forest[row][column - 1]) + 1
            if first.leftmost[i] == low and second.leftmost[j] == lower:
                renamed = first.labels[i] != second.labels[j]
                forest[row][column] = between[i][j] = min(best, forest[row - 1][column - 1] + renamed)
            else:
                before = forest[first.leftmost[i] - low][second.leftmost[j] - lower]
                forest[row][column] = min(best, before + between[i][j])
