"""Whether two plain values are the same: what a call returned and what was expected, or two JSON documents.

Both sides are made of exact built-in types (`sandbox.plain` sees to that), so nothing here runs a program's code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

DEEPEST = 250
"""Nesting beyond which values are not the same; what comes out of a box is nested less deeply."""


def same_json(expected: Any, given: Any, absolute: float, relative: float, depth: int = 0) -> bool:
    """Whether a value is the expected one, which came out of JSON. Never raises.

    A tuple is a list. A truth value is no number. An expected integer is met by its exact value only; an expected
    decimal by any number within the tolerance, `nan` excepted, which equals nothing. An integer may stand for the key
    that JSON had to write as a string.
    """
    if depth > DEEPEST:
        return False
    kind = type(expected)
    if kind is list or kind is tuple:
        return (
            type(given) in (list, tuple)
            and len(expected) == len(given)
            and all(same_json(a, b, absolute, relative, depth + 1) for a, b in zip(expected, given, strict=True))
        )
    if kind is dict:
        return type(given) is dict and _same_members(expected, given, absolute, relative, depth)
    if kind is float:
        return near(expected, given, absolute, relative)
    if kind is int:
        return type(given) in (int, float) and bool(given == expected)
    return type(given) is kind and bool(given == expected)


def _same_members(
    expected: dict[Any, Any], given: dict[Any, Any], absolute: float, relative: float, depth: int
) -> bool:
    if len(expected) != len(given):
        return False
    named = {str(key) if type(key) is int and abs(key) < 10**18 else key: value for key, value in given.items()}
    return len(named) == len(given) and all(
        key in named and same_json(value, named[key], absolute, relative, depth + 1) for key, value in expected.items()
    )


def near(expected: float, given: Any, absolute: float, relative: float) -> bool:
    """Whether a number is within the tolerance of a finite one. An infinite one is met by itself only."""
    if type(given) not in (int, float):
        return False
    if math.isinf(expected):
        return bool(given == expected)
    try:
        return bool(abs(expected - given) <= max(absolute, relative * abs(expected)))
    except OverflowError:  # an integer beyond all floats
        return False


def same_python(expected: Any, given: Any) -> bool:
    """Whether Python's `==` holds between two plain values: 1 == 1.0 == True, but a list is no tuple. Never raises."""
    try:
        return bool(expected == given)
    except RecursionError:
        return False


VIEWS: Mapping[str, Callable[[Any], Any]] = {
    "set": set,
    "sorted": sorted,
    "list": list,
    "tuple": tuple,
    "len": len,
    "sum": sum,
}
"""What an assertion may do to a result before it compares it; done here instead, on plain data."""


def viewed(value: Any, views: tuple[str, ...]) -> Any:
    """The value after each of `views`. Raises TypeError or ValueError when it has no such view."""
    for view in views:
        if type(value) not in (list, tuple, set, frozenset, dict, str, bytes):
            raise TypeError(view)
        value = VIEWS[view](value)
    return value
