"""Names that equations give to values: which sides are names, and what each name has been given.

`x`, `f(x)`, `AB`, `|AB|`, `(x, y)` and words are names; `2x` and `x + y` are not, so their equations stay equations.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewardsvc.rewards.math import words
from rewardsvc.rewards.math.restating import tasks
from rewardsvc.rewards.math.values import (
    Choice,
    Formula,
    Listing,
    Node,
    Ratio,
    Relation,
    SetOf,
    System,
    Text,
    Tuple,
    Value,
    listed,
    symbol,
)

_NAMING = frozenset(listed("abs sin cos tan cot sec csc ln log Re Im arg det max min"))


def is_label(side: Value) -> bool:
    """Is this side of an equation a name for the other: a letter, `f(x)`, `AB`, `|AB|`, `(x, y)`, or words?"""
    if isinstance(side, Text):
        return not words.denies(side.words)
    if isinstance(side, Tuple | Listing):
        return all(map(is_label, side.items))
    if isinstance(side, Ratio):
        return all(_is_name(term, 0) for term in side.terms)
    if isinstance(side, Choice):
        return True
    return isinstance(side, Formula) and not side.unit and _is_name(side.expr, 0)


def stands_for_value(side: Value) -> bool:
    """Is this side of an equation a name for the other, or a task that the other carries out?"""
    return is_label(side) or bool(tasks(side))


def _is_name(node: Node, depth: int) -> bool:
    if node.op == "sym":
        return True
    if node.op == "call":
        name = str(node.value)
        if name.startswith("f:"):
            return True
        return depth < 2 and len(node.args) == 1 and name in _NAMING and _is_name(node.args[0], depth + 1)
    if node.op == "div" and all(part.op == "mul" and part.args[0] == symbol("d") for part in node.args):
        return True
    if node.op in ("mul", "div") and depth < 2:
        return all(_is_corner(part) for part in node.args)
    return False


def _is_corner(node: Node) -> bool:
    """A capital letter, a differential, or a product of them: together they name a segment, an area, a derivative."""
    if node.op == "sym":
        text = str(node.value)
        return (
            text[:1].isupper()
            or text == "d"
            or text.startswith("\\partial")
            or (len(text) > 1 and text[0] != "\\" and text[1] != "_")
        )
    return node.op in ("mul", "div") and all(map(_is_corner, node.args))


def shared_value(names: Listing) -> Value | None:
    """The value that several names have been given in one chain."""
    contents = [content_of(item) for item in names.items]
    return contents[0] if all(content == contents[0] for content in contents) else None


def argument_names(first: Node, second: Node) -> dict[str, Node]:
    """How the arguments of a function are called on the other side."""
    if len(first.args) != len(second.args) or not all(part.op == "sym" for part in (*first.args, *second.args)):
        return {}
    return {str(theirs.value): mine for mine, theirs in zip(first.args, second.args, strict=True)}


def assignments_of(value: Value) -> dict[str, Value] | None:
    """Names and their values, when a value is nothing but that and no name comes twice."""
    pairs: list[tuple[Value, Value]] = []
    for item in value.items if isinstance(value, Listing | System | SetOf) else (value,):
        if not isinstance(item, Relation) or item.signs != ("=",) or not is_label(item.sides[0]):
            return None
        name, content = item.sides
        if isinstance(name, Tuple) and isinstance(content, Tuple) and len(name.items) == len(content.items):
            pairs += zip(name.items, content.items, strict=True)
        else:
            pairs.append((name, content))
    found = {_spelling(name): content for name, content in pairs}
    return found if len(found) == len(pairs) else None


def _spelling(name: Value) -> str:
    if isinstance(name, Text):
        return name.words.lower()
    if isinstance(name, Choice):
        return name.letter
    if isinstance(name, Formula) and name.expr.op == "sym":
        return str(name.expr.value)
    return repr(name)


def labels_of(items: Sequence[Value]) -> list[str] | None:
    """The names in a list of named values; None unless every item has one."""
    if not items or not all(
        isinstance(item, Relation) and item.signs == ("=",) and is_label(item.sides[0]) for item in items
    ):
        return None
    return [_spelling(item.sides[0]) for item in items if isinstance(item, Relation)]


def content_of(item: Value) -> Value:
    """The value that an equation gives a name; another value is its own."""
    if isinstance(item, Relation) and item.signs == ("=",) and is_label(item.sides[0]):
        return item.sides[1]
    return item
