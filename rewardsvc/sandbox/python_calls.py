"""Calls one function of a Python program again and again. It runs in the untrusted process.

A line of JSON comes in for each call, a line goes out: `{"r": value}`, or `{"e": [name, message]}` for an exception.
Values that JSON cannot tell apart are written as an object with one member; `plain` has the list.
"""

from __future__ import annotations

import base64
import json
import math
import os
import types
from collections.abc import Callable
from typing import Any

LOADED = b"loaded\n"
_SMALL = 1 << 53
_AS_IS = frozenset((str, bool, type(None)))
_DEEPEST = 200
_MESSAGE = 500

_dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def serve(module: types.ModuleType, calls: int, returns: int) -> None:
    """Reads calls from one descriptor and writes to another, until the calls end."""
    os.write(returns, LOADED)
    decode = json.JSONDecoder(object_hook=revive).decode
    functions: dict[str, Callable[..., Any] | None] = {}
    with os.fdopen(calls, "rb") as lines:
        for line in lines:
            name, arguments, keywords = decode(line.decode())
            if name not in functions:
                functions[name] = _find(module, name)
            _write(returns, _answer(functions[name], name, arguments, keywords))


def _find(module: types.ModuleType, name: str) -> Callable[..., Any] | None:
    """A function of the program; `Solution.twoSum` is a method of a new object for each call."""
    owner, _, method = name.rpartition(".")
    if not owner:
        return getattr(module, name, None)
    made = getattr(module, owner, None)
    return None if made is None else lambda *a, **k: getattr(made(), method)(*a, **k)


def _answer(function: Callable[..., Any] | None, name: str, arguments: list[Any], keywords: dict[str, Any]) -> str:
    try:
        if function is None:
            raise NameError(f"name {name!r} is not defined")
        return '{"r":' + _dumps(plain(function(*arguments, **keywords))) + "}\n"
    except BaseException as error:  # noqa: BLE001 whatever the program does is its result
        return _dumps({"e": [type(error).__name__, _message(error)]}) + "\n"


def _message(error: BaseException) -> str:
    try:
        return str(error)[:_MESSAGE]
    except BaseException:  # noqa: BLE001 the program's own class
        return ""


def _write(descriptor: int, text: str) -> None:
    data = text.encode()
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON can carry it without losing its type. Raises ValueError when it is nested too deeply."""
    kind = type(value)
    if kind in _AS_IS:
        return value
    if kind is int:
        return value if -_SMALL <= value <= _SMALL else {"i": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"f": repr(value)}
    if depth > _DEEPEST:
        raise ValueError("the result is nested too deeply")
    write = _WRITERS.get(kind)
    return {"o": kind.__name__} if write is None else write(value, depth + 1)


def _items(values: Any, depth: int) -> list[Any]:
    return [plain(value, depth) for value in values]


_WRITERS: dict[type, Callable[[Any, int], Any]] = {
    list: _items,
    tuple: lambda value, depth: {"t": _items(value, depth)},
    set: lambda value, depth: {"s": _items(value, depth)},
    frozenset: lambda value, depth: {"z": _items(value, depth)},
    dict: lambda value, depth: {"d": [[plain(k, depth), plain(v, depth)] for k, v in value.items()]},
    bytes: lambda value, _: {"b": base64.b64encode(value).decode()},
    complex: lambda value, _: {"c": [repr(value.real), repr(value.imag)]},
}


def revive(members: dict[str, Any]) -> Any:
    """The value that an object with one member stands for. It is used on what our own client has written."""
    ((kind, value),) = members.items()
    return _READERS[kind](value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "i": lambda value: int(value, 16),
    "f": float,
    "t": tuple,
    "s": set,
    "z": frozenset,
    "d": dict,
    "b": base64.b64decode,
    "c": lambda value: complex(float(value[0]), float(value[1])),
}
