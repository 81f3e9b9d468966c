"""Plus-or-minus written out: a value with such signs is the list of what it stands for."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from rewardsvc.rewards.math.values import Formula, Listing, Node, Relation, SetOf, Tuple, Value, number


def spread_out(value: Value) -> Value:
    """Plus-or-minus as the list of both, and a list with one member as that member."""
    if isinstance(value, Formula) and _has_sign(value.expr):
        return Listing(tuple(replace(value, expr=_chosen(value.expr, sign)) for sign in (1, -1)), "or")
    if isinstance(value, Tuple) and any(isinstance(item, Formula) and _has_sign(item.expr) for item in value.items):
        return _spread_tuple(value)
    if isinstance(value, Listing | SetOf) and any(
        isinstance(item, Formula | Tuple | Relation) and spread_out(item) is not item for item in value.items
    ):
        return replace(value, items=tuple(part for item in value.items for part in _spread_items(item)))
    if isinstance(value, Relation) and value.signs == ("=",) and isinstance(value.sides[1], Formula | Listing):
        spread = spread_out(value.sides[1])
        return value if spread is value.sides[1] else replace(value, sides=(value.sides[0], spread))
    return value


def _spread_items(item: Value) -> tuple[Value, ...]:
    if isinstance(item, Relation):
        spread = spread_out(item)
        if isinstance(spread, Relation) and isinstance(spread.sides[1], Listing) and spread is not item:
            return tuple(Relation((spread.sides[0], part), ("=",)) for part in spread.sides[1].items)
        return (item,)
    spread = spread_out(item)
    return spread.items if isinstance(spread, Listing) else (spread,)


def _spread_tuple(value: Tuple) -> Value:
    choices = []
    for item in value.items[:8]:
        signed = isinstance(item, Formula) and _has_sign(item.expr)
        choices.append(
            [replace(item, expr=_chosen(item.expr, sign)) for sign in (1, -1)]
            if signed and isinstance(item, Formula)
            else [item]
        )
    return Listing(tuple(Tuple((*items, *value.items[8:]), value.brackets) for items in product(*choices)), "or")


def _has_sign(node: Node) -> bool:
    return node.op in ("pm", "mp") or any(map(_has_sign, node.args))


def _chosen(node: Node, sign: int) -> Node:
    if node.op in ("pm", "mp"):
        inner = _chosen(node.args[0], sign)
        return inner if (node.op == "pm") == (sign > 0) else Node("mul", (number(-1), inner))
    return node._replace(args=tuple(_chosen(part, sign) for part in node.args)) if node.args else node
