"""Arguments on their way into a box and results on their way out, as plain data that no program can lie with.

A result is decoded here, in the service, into exact built-in types, whatever class it had in the program: an object
whose `__eq__` is always true arrives as what it is made of, or as `Opaque`. The form is that of `python_calls`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardsvc.sandbox.python_calls import plain, revive

_DEEPEST = 300
_LONGEST_DIGITS = 200_000


class Unreadable(Exception):
    """A line is not what a program's own runner would have written: the program has forged it, or broken off."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """A result of a type that has no plain form. It equals nothing but itself."""

    type_name: str

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True, slots=True)
class Raised:
    """The call ended with an exception."""

    type_name: str
    message: str


def encode_call(function: str, arguments: Sequence[Any], keywords: Mapping[str, Any] | None = None) -> bytes:
    """A call as a job carries it. `function` may be "Class.method". Raises ValueError for what has no plain form."""
    call = [function, [plain(argument) for argument in arguments], plain(dict(keywords or {}))]
    text = json.dumps(call, separators=(",", ":"))
    if '{"o":' in text and json.loads(text, object_hook=_refuse_opaque) is None:
        raise ValueError
    return text.encode() + b"\n"


def _refuse_opaque(members: dict[str, Any]) -> dict[str, Any]:
    if "o" in members:
        raise ValueError(f"an argument of type {members['o']} has no plain form")
    return members


def decode(line: bytes) -> Any:
    """The value that a call returned, or `Raised`. Raises `Unreadable`; takes time in proportion to the line."""
    try:
        told = json.loads(line, parse_constant=_no_constant, parse_int=_small_int)
    except (ValueError, RecursionError):
        raise Unreadable("not JSON") from None
    match told:
        case {"r": value} if len(told) == 1:
            return _value(value, 0)
        case {"e": [str(name), str(message)]} if len(told) == 1:
            return Raised(name, message)
    raise Unreadable("neither a result nor an exception")


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def _small_int(text: str) -> int:
    if len(text) > 17:
        raise ValueError("an integer of this length is written otherwise")
    return int(text)


def _value(told: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise Unreadable("nested too deeply")
    if isinstance(told, list):
        return [_value(item, depth + 1) for item in told]
    if not isinstance(told, dict):
        return told
    if len(told) != 1:
        raise Unreadable("an object has one member")
    ((kind, content),) = told.items()
    try:
        return _tagged(kind, content, depth + 1)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise Unreadable(f"a broken {kind!r}") from None


def _tagged(kind: str, content: Any, depth: int) -> Any:
    """What an object with one member stands for. Raises whatever comes of a content that does not fit."""
    match kind:
        case "o":
            return Opaque(str(content))
        case "i":
            return _integer(content)
        case "b":
            return base64.b64decode(content, validate=True)
        case "d":
            return {_value(key, depth): _value(value, depth) for key, value in content}
        case "t" | "s" | "z":
            return revive({kind: _value(list(content), depth)})
        case _:
            return revive({kind: content})


def _integer(text: str) -> int:
    if len(text) > _LONGEST_DIGITS:
        raise ValueError("too long")
    return int(text, 16)
