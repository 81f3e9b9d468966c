"""Strict JSON: bytes in, plain values out, or a `NotJson` or `TooLarge` that says what is wrong.

RFC 8259 leaves much to the parser. Here every doubtful document is refused: bytes that are not UTF-8, a byte order
mark, lone surrogates, NaN and infinities, numbers that overflow, integers of more than 1,000 digits, nesting deeper
than `MAX_DEPTH`, more than `MAX_PARTS` parts, and a key that occurs twice in one object. What is *in* the document is
somebody else's concern.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from rewardsvc.errors import NotJson, TooLarge

MAX_DEPTH = 64
MAX_PARTS = 1_000_000  # as Python objects these take some hundred MB and a second; as text they fit into a few MB
TOO_LONG = 10**1_000  # the smallest integer of more than 1,000 digits

_decoder = msgspec.json.Decoder()
_PART = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)


def decode(body: bytes) -> Any:
    """The document in `body`. Raises `NotJson` or `TooLarge` (nesting, parts, integers).

    Duplicate keys are found without a second parse: a parser that keeps the last of two equal keys drops at least one
    string, so the bytes hold more quotes than the decoded strings account for. Only where that count is not exact
    (a quote inside a string may also be spelt `\\u0022`) does the slower parser of the standard library look.
    """
    if len(body) > MAX_PARTS and _has_too_many_parts(body):
        raise TooLarge(f"The JSON has more than {MAX_PARTS:,} brackets, commas and strings; send smaller groups.")
    try:
        document = _decoder.decode(body)
    except RecursionError:
        raise TooLarge(f"The JSON is nested deeper than {MAX_DEPTH} levels.") from None
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: invalid UTF-8, or int() refusing its input
        raise NotJson(_explain(error, body)) from None
    with_quotes: list[str] = []
    try:
        quotes = 2 * _count_strings(document, 1, with_quotes) + sum(text.count('"') for text in with_quotes)
    except OverflowError:
        where = [(place, "has more than 1,000 digits") for place in islice(_long_integers(document, ""), 10)]
        raise TooLarge("An integer has more than 1,000 digits; send it as a string.", where) from None
    if body.count(b'"') != quotes or (with_quotes and b"\\u0022" in body):
        _refuse_duplicate_keys(body)
    return document


def _has_too_many_parts(body: bytes) -> bool:
    """Counted before parsing, because parsing is what costs; text full of commas and brackets is looked at twice."""
    most = body.count(b",") + body.count(b"[") + body.count(b"{") + body.count(b'"') // 2
    return most > MAX_PARTS and next(islice(_PART.finditer(body), MAX_PARTS, None), None) is not None


def _count_strings(node: Any, depth: int, with_quotes: list[str]) -> int:
    """The number of strings, keys included, in a container; those that hold a quote are also collected.

    Enforces the limits on nesting and integers (`OverflowError`) on the way. One plain loop, because it runs for every
    field of every rollout on the way of each group.
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
        elif kind is int and not -TOO_LONG < value < TOO_LONG:
            raise OverflowError
    return strings


def _long_integers(node: Any, place: str) -> Iterator[str]:
    """JSON pointers to the integers that are too long."""
    if type(node) is int and not -TOO_LONG < node < TOO_LONG:
        yield place
    elif type(node) is list:
        for index, value in enumerate(node):
            yield from _long_integers(value, f"{place}/{index}")
    elif type(node) is dict:
        for key, value in node.items():
            yield from _long_integers(value, f"{place}/{key.replace('~', '~0').replace('/', '~1')}")


def _refuse_duplicate_keys(body: bytes) -> None:
    def pairs(items: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise NotJson(f"The key {json.dumps(key[:80])} occurs twice in one object.")
            seen.add(key)

    json.loads(body, object_pairs_hook=pairs, parse_int=len, parse_float=len)


def _explain(error: Exception, body: bytes) -> str:
    if not body.strip():
        return "The body is empty."
    if isinstance(error, msgspec.ValidationError):
        return "A number is too large to be represented."
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return f"The body is not UTF-8: byte {wrong.start} cannot be decoded."
    if "truncated" in str(error):
        return "The JSON ends too early, or a \\u escape is half of a surrogate pair."
    return f"{error}."
