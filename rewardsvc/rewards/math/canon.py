"""Formulas and values as short plain text: the canonical form that verdicts show, and type names."""

from __future__ import annotations

from fractions import Fraction

from rewardsvc.rewards.math.values import (
    Based,
    Builder,
    Choice,
    Clock,
    Difference,
    Formula,
    Interval,
    Listing,
    Matrix,
    Node,
    Ratio,
    Relation,
    SetOf,
    System,
    Text,
    Tuple,
    Union,
    Value,
)

MAX_SHOWN = 1_000
"""Characters of a canonical form; the rest is cut."""

_MAX_BITS = 3_000
"""Numbers that are longer are not written out: Python would take quadratic time."""

_STRENGTH = {"add": 1, "mul": 2, "div": 2, "pow": 4, "pm": 1, "mp": 1}
_CONSTANTS = {"pi": "π", "inf": "∞"}


def show(node: Node, strength: int = 0) -> str:
    """A formula in one line, with the brackets that its structure needs."""
    text = _show(node)
    if not strength:
        return text
    mine = _STRENGTH.get(node.op, 5)
    if node.op == "num" and (isinstance(node.value, Fraction) or node.value < 0):
        mine = 2
    return f"({text})" if mine < strength or (mine == strength == 4) else text


def _show(node: Node) -> str:
    if node.op == "num":
        return _digits(node.value)
    if node.op in ("sym", "const"):
        return _CONSTANTS.get(str(node.value), str(node.value))
    if node.op == "add":
        return "".join(_term(place, term) for place, term in enumerate(node.args))
    if node.op == "mul":
        return "*".join(show(factor, 2) for factor in node.args)
    if node.op == "div":
        return f"{show(node.args[0], 2)}/{show(node.args[1], 3)}"
    if node.op == "pow":
        return f"{show(node.args[0], 4)}^{show(node.args[1], 4)}"
    if node.op in ("pm", "mp"):
        return ("±" if node.op == "pm" else "∓") + show(node.args[0], 2)
    if node.op == "deg":
        return show(node.args[0], 5) + "°"
    name = str(node.value).removeprefix("f:") or node.op
    return name + "(" + ", ".join(show(part) for part in node.args) + ")"


def _term(place: int, term: Node) -> str:
    text = show(term, 2) if term.op in ("pm", "mp") else show(term, 1)
    return text if not place or text.startswith(("-", "±", "∓")) else "+" + text


def _digits(value: int | Fraction | str) -> str:
    if isinstance(value, Fraction):
        return "…" if value.denominator >> _MAX_BITS else f"{value.numerator}/{value.denominator}"
    return "…" if isinstance(value, int) and abs(value) >> _MAX_BITS else str(value)


def canonical(value: Value) -> str:
    """The canonical form of a value as text of at most `MAX_SHOWN` characters."""
    text = _canonical(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _canonical(value: Value) -> str:
    if isinstance(value, Formula):
        return _formula(value)
    if isinstance(value, Relation):
        shown = [_canonical(value.sides[0])]
        for sign, side in zip(value.signs, value.sides[1:], strict=True):
            shown.append(f" {_SIGNS.get(sign, sign)} {_canonical(side)}")
        return "".join(shown)
    if isinstance(value, Interval):
        opening, closing = "[" if value.closed_low else "(", "]" if value.closed_high else ")"
        return f"{opening}{show(value.low)}, {show(value.high)}{closing}"
    if isinstance(value, Union):
        return " ∪ ".join(map(_canonical, value.parts))
    if isinstance(value, Difference):
        return f"{_canonical(value.whole)} ∖ {_canonical(value.removed)}"
    if isinstance(value, Builder):
        return f"{{{_canonical(value.variable)} | {_canonical(value.condition)}}}"
    if isinstance(value, SetOf):
        return "{" + ", ".join(map(_canonical, value.items)) + "}"
    if isinstance(value, Tuple):
        return value.brackets[0] + ", ".join(map(_canonical, value.items)) + value.brackets[1]
    if isinstance(value, Listing | System):
        return "; ".join(map(_canonical, value.items))
    if isinstance(value, Matrix):
        return "[" + "; ".join(", ".join(map(show, row)) for row in value.rows) + "]"
    return _leaf(value)


def _leaf(value: Choice | Based | Clock | Ratio | Text) -> str:
    if isinstance(value, Choice):
        return value.letter
    if isinstance(value, Based):
        return f"{value.digits}_{value.base}"
    if isinstance(value, Clock):
        hours, rest = divmod(value.seconds, 3600)
        return (
            f"{hours}:{rest // 60:02d}"
            + (f":{rest % 60:02d}" if rest % 60 else "")
            + (f" {value.half}" if value.half else "")
        )
    if isinstance(value, Ratio):
        return ":".join(show(term, 2) for term in value.terms)
    return value.words


_SIGNS = {"<=": "≤", ">=": "≥", "!=": "≠", "~": "≈", "in": "∈"}


def _formula(value: Formula) -> str:
    text = show(value.expr) + {"percent": "%", "degrees": "°"}.get(value.mark, "")
    return f"{text} {value.unit.name}" if value.unit else text


_TYPES = {
    Interval: "interval",
    Union: "union",
    Difference: "union",
    Builder: "set",
    SetOf: "set",
    Tuple: "tuple",
    Listing: "list",
    System: "system",
    Choice: "choice",
    Based: "based_number",
    Clock: "time",
    Ratio: "ratio",
    Text: "text",
}


def type_of(value: Value) -> str:
    """The type of a value as a slug."""
    if isinstance(value, Formula):
        return _formula_type(value)
    if isinstance(value, Relation):
        return _relation_type(value)
    if isinstance(value, Matrix):
        return "vector" if len(value.rows) == 1 or len(value.rows[0]) == 1 else "matrix"
    return _TYPES[type(value)]


def _formula_type(value: Formula) -> str:
    if value.mark in ("percent", "degrees"):
        return value.mark
    if value.unit:
        return "quantity"
    if _contains(value.expr, ("pm", "mp")):
        return "plus_minus"
    if value.expr.op == "num":
        return "number"
    return "complex" if _has_i(value.expr) and not _contains(value.expr, ("sym",)) else "expression"


def _relation_type(value: Relation) -> str:
    signs = set(value.signs)
    if signs == {"in"}:
        return "membership"
    if len(value.signs) > 1:
        return "chain"
    return "equation" if signs <= {"=", "~"} else "inequality"


def _contains(node: Node, ops: tuple[str, ...]) -> bool:
    return node.op in ops or any(_contains(part, ops) for part in node.args)


def _has_i(node: Node) -> bool:
    return (node.op == "const" and node.value == "i") or any(map(_has_i, node.args))
