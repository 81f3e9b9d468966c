"""Strict JSON: bytes in, plain values out, or a `NotJson` or `TooLarge` that says what is wrong.

RFC 8259 leaves much to the parser. Here every doubtful document is refused: bytes that are not UTF-8, a byte order
mark, lone surrogates, NaN and infinities, numbers that overflow, integers of more than 1,000 digits, nesting deeper
than `MAX_DEPTH`, and a key that occurs twice in one object. What is *in* the document is somebody else's concern.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from rewardsvc.errors import NotJson, TooLarge

MAX_DEPTH = 64
MAX_INTEGER_BITS = 3_322  # 1,000 decimal digits

_decoder = msgspec.json.Decoder()


def decode(body: bytes) -> Any:
    """The document in `body`. Raises `NotJson` or `TooLarge` (nesting, integers).

    Duplicate keys are found without a second parse: a parser that keeps the last of two equal keys drops at least one
    string, so the bytes hold more quotes than the decoded strings account for. Only where that count is not exact
    (a quote inside a string may also be spelt `\\u0022`) does the slower parser of the standard library look.
    """
    try:
        document = _decoder.decode(body)
    except RecursionError:
        raise TooLarge(f"The JSON is nested deeper than {MAX_DEPTH} levels.") from None
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: invalid UTF-8, or int() refusing its input
        raise NotJson(_explain(error)) from None
    with_quotes: list[str] = []
    quotes = 2 * _count_strings(document, 1, with_quotes) + sum(text.count('"') for text in with_quotes)
    if body.count(b'"') != quotes or (with_quotes and b"\\u0022" in body):
        _refuse_duplicate_keys(body)
    return document


def _count_strings(node: Any, depth: int, with_quotes: list[str]) -> int:
    """The number of strings, keys included, in a container; those that hold a quote are also collected.

    Enforces the limits on nesting and integers on the way. One plain loop, because it runs for every field of every
    rollout on the way of each group.
    """
    if depth > MAX_DEPTH:
        raise TooLarge(f"The JSON is nested deeper than {MAX_DEPTH} levels.")
    strings = 0
    if type(node) is dict:
        strings = len(node)
        with_quotes.extend([key for key in node if '"' in key])
        values: Iterable[Any] = node.values()
    elif type(node) is list:
        values = node
    else:
        values = (node,)
    for value in values:
        kind = type(value)
        if kind is str:
            strings += 1
            if '"' in value:
                with_quotes.append(value)
        elif kind is dict or kind is list:
            strings += _count_strings(value, depth + 1, with_quotes)
        elif kind is int and value.bit_length() > MAX_INTEGER_BITS:
            raise TooLarge("An integer has more than 1,000 digits.")
    return strings


def _refuse_duplicate_keys(body: bytes) -> None:
    def pairs(items: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise NotJson(f"The key {json.dumps(key[:80])} occurs twice in one object.")
            seen.add(key)

    json.loads(body, object_pairs_hook=pairs, parse_int=len, parse_float=len)


def _explain(error: Exception) -> str:
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"The body is not UTF-8: byte {error.start} cannot be decoded."
    if isinstance(error, msgspec.ValidationError):
        return "A number is too large to be represented."
    if "truncated" in text:
        return "The JSON ends too early, or a \\u escape is half of a surrogate pair."
    return f"{text}."
