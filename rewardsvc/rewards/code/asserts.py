"""Turns `assert f(2) == 4` into a call of `f` whose expected value stays outside of the box.

A text is parsed, never run. What cannot be taken apart that way is left to the weak mode, in which the program is in
the same process as the assertion and could cheat; the verdict then says so.
"""

from __future__ import annotations

import ast
import builtins
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rewardsvc.rewards.code.values import VIEWS, near, same_python, viewed

MAX_ASSERT = 100_000
"""Characters up to which an assertion is parsed."""


@dataclass(frozen=True, slots=True)
class Asserted:
    """A call, and what must hold of its result."""

    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    views: tuple[str, ...]
    holds: Callable[[Any], bool]

    def accepts(self, result: Any) -> bool:
        """Never raises; `result` is plain data."""
        try:
            return self.holds(viewed(result, self.views))
        except (TypeError, ValueError, OverflowError, RecursionError):
            return False


class _Weak(Exception):
    """This assertion cannot be taken apart."""


@lru_cache(maxsize=256)
def read(code: str) -> Asserted | None:
    """The call that an assertion stands for; None when there is none. Raises SyntaxError for what is no code."""
    if len(code) > MAX_ASSERT:
        raise SyntaxError(f"longer than {MAX_ASSERT:,} characters")
    try:
        body = ast.parse(code.strip()).body
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error) or "too deeply nested") from None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    try:
        return _condition(body[0].test)
    except (_Weak, ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _condition(test: ast.expr) -> Asserted:
    match test:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _comparison(left, op, right)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _call(operand, operator.not_)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr="isclose")):
            return _is_close(test)
        case ast.Call():
            return _call(test, _is_true)
    raise _Weak


def _is_true(value: Any) -> bool:
    """The truth of a plain value. An object of a class of its own has none that could be trusted."""
    return value is not None and type(value).__module__ == "builtins" and bool(value)


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Asserted:
    if isinstance(op, (ast.Lt, ast.LtE)) and _is_distance(left):
        return _within(left, op, right)
    if not _is_call(left):
        left, right = right, left
    literal = _literal(right)
    if isinstance(op, ast.Is) and (literal is None or literal is True or literal is False):
        return _call(left, lambda value: value is literal)
    if isinstance(op, ast.Eq):
        return _call(left, lambda value: same_python(literal, value))
    raise _Weak


def _is_call(node: ast.expr) -> bool:
    """`set([1])` around a literal is no call of the program's."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in VIEWS:
        if len(node.args) != 1:
            return False
        node = node.args[0]
    return isinstance(node, ast.Call)


def _is_distance(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "abs"


def _within(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Asserted:
    """`abs(f(x) - 0.5) < 1e-6`"""
    match left:
        case ast.Call(args=[ast.BinOp(left=call, op=ast.Sub(), right=middle)], keywords=[]):
            centre, most = _number(middle), _number(right)
            closer = operator.lt if isinstance(op, ast.Lt) else operator.le
            return _call(call, lambda value: type(value) in (int, float) and closer(abs(value - centre), most))
    raise _Weak


def _is_close(test: ast.expr) -> Asserted:
    match test:
        case ast.Call(args=[call, middle], keywords=keywords):
            tolerance = {keyword.arg or "": _number(keyword.value) for keyword in keywords}
            if set(tolerance) <= {"rel_tol", "abs_tol"}:
                centre = float(_number(middle))
                absolute, relative = tolerance.get("abs_tol", 0.0), tolerance.get("rel_tol", 1e-9)
                return _call(call, lambda value: near(centre, value, absolute, relative))
    raise _Weak


def _number(node: ast.expr) -> float:
    value = _literal(node)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _Weak
    return float(value) if type(value) is float else value


def _call(node: ast.expr, holds: Callable[[Any], bool]) -> Asserted:
    views: list[str] = []
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in VIEWS:
        if len(node.args) != 1 or node.keywords:
            raise _Weak
        views.insert(0, node.func.id)
        node = node.args[0]
    if not isinstance(node, ast.Call):
        raise _Weak
    kwargs = {_name(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    return Asserted(_function(node.func), [_literal(arg) for arg in node.args], kwargs, tuple(views), holds)


def _name(argument: str | None) -> str:
    if argument is None:
        raise _Weak
    return argument


def _function(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) if name not in _BUILTIN:
            return name
        case ast.Attribute(value=ast.Call(func=ast.Name(id=owner), args=[], keywords=[]), attr=method):
            return f"{owner}.{method}"
    raise _Weak


_BUILTIN = frozenset(dir(builtins))


def _literal(node: ast.expr) -> Any:
    """The value of a literal, also within `set(…)`, `sorted(…)` and the like. Raises `_Weak` or ValueError."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in VIEWS:
        if len(node.args) > 1 or node.keywords:
            raise _Weak
        inner = [_literal(arg) for arg in node.args]
        return viewed(inner[0], (node.func.id,)) if inner else VIEWS[node.func.id]([])
    return ast.literal_eval(node)
