"""Strict JSON: bytes in, plain values out, or a `NotJson` or `TooLarge` that says what is wrong.

RFC 8259 leaves much to the parser. Here every doubtful document is refused: bytes that are not UTF-8, a byte order
mark, lone surrogates, NaN and infinities, numbers that overflow, integers of more than 1,000 digits, nesting deeper
than `MAX_DEPTH`, and a key that occurs twice in one object. What is *in* the document is somebody else's concern.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from rewardsvc.errors import NotJson, TooLarge

MAX_DEPTH = 64
MAX_INTEGER_BITS = 3_322  # 1,000 decimal digits

_decoder = msgspec.json.Decoder()


def decode(body: bytes) -> Any:
    """The document in `body`. Raises `NotJson` or `TooLarge` (nesting, integers).

    Duplicate keys are found without a second parse: a parser that keeps the last of two equal keys drops at least one
    string, so the quotes in the bytes outnumber those of the decoded strings. Only a document that also spells a
    quote as `\\u0022`, where that count is not exact, goes through the slower parser of the standard library.
    """
    try:
        document = _decoder.decode(body)
    except RecursionError:
        raise TooLarge(f"The JSON is nested deeper than {MAX_DEPTH} levels.") from None
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: invalid UTF-8, or int() refusing its input
        raise NotJson(_explain(error)) from None
    if body.count(b'"') != _quotes(document, 1) or (b"\\u0022" in body):
        _refuse_duplicate_keys(body)
    return document


def _quotes(node: Any, depth: int) -> int:
    """How many quotes a plain spelling of `node` has. Enforces the limits on nesting and integers on the way."""
    if type(node) is str:
        return 2 + node.count('"')
    if type(node) is dict:
        _refuse_depth(depth)
        count = 0
        for key, value in node.items():
            count += 2 + key.count('"')
            # The same three lines as above, unrolled: this loop runs for every field of every rollout.
            count += 2 + value.count('"') if type(value) is str else _quotes(value, depth + 1)
        return count
    if type(node) is list:
        _refuse_depth(depth)
        return sum(_quotes(value, depth + 1) for value in node)
    if type(node) is int and node.bit_length() > MAX_INTEGER_BITS:
        raise TooLarge("An integer has more than 1,000 digits.")
    return 0


def _refuse_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TooLarge(f"The JSON is nested deeper than {MAX_DEPTH} levels.")


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
