"""Whether a program's output is the expected one, in bytes, by the rule that a test asks for.

Every rule is total and takes time in proportion to both outputs, also for fifty megabytes of white space. What a rule
needs in memory is bounded by a few times the outputs: they are cut into pieces where they would become millions of
objects. Bytes that are no text are compared as what they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, zip_longest
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from rewardsvc.contract import Model
from rewardsvc.rewards.code.values import same_json

Mode = Literal["exact", "trailing_space", "tokens", "floats", "unordered_lines", "json"]

_PIECE = 1 << 20
_LONGEST_NUMBER = 400
"""Characters up to which a token is read as a number; a longer one must be the expected one."""
_MORE_JSON = 8
_SMALL_JSON = 1 << 16


class Comparison(Model):
    """When an output is the expected one. Upper and lower case differ unless `ignore_case` says otherwise."""

    mode: Annotated[
        Mode,
        Meta(
            description="`exact`: every byte; `trailing_space`: white space at the ends of lines and empty lines at "
            "the end do not count; `tokens`: only what stands between white space counts; `floats`: tokens, of which "
            "decimals may differ within the tolerance while integers may not; `unordered_lines`: lines in any order; "
            "`json`: JSON values, whose decimals may differ within the tolerance."
        ),
    ] = "trailing_space"
    absolute: Annotated[float, Meta(ge=0, description="Tolerance of decimals.")] = 1e-6
    relative: Annotated[float, Meta(ge=0, description="Tolerance of decimals, times the expected one.")] = 1e-6
    ignore_case: Annotated[bool, Meta(description="The letters a to z and A to Z are the same.")] = False


def same(expected: bytes, given: bytes, by: Comparison) -> bool:
    """Whether `given` is `expected`. Never raises. In the modes with a tolerance `nan` equals nothing."""
    if by.ignore_case:
        expected, given = expected.lower(), given.lower()
    return _RULES[by.mode](expected, given, by)


def impossible(expected: bytes, by: Comparison) -> str | None:
    """Why no output can be the expected one, or None."""
    if same(expected, expected, by):
        return None
    return "nan equals nothing" if by.mode == "floats" else "it is not JSON, or it is nested too deeply"


def _exact(expected: bytes, given: bytes, _: Comparison) -> bool:
    return expected == given


# The look-behind keeps a long run of blanks within a line from being looked at once for each of them.
_TRAILING = re.compile(rb"(?<![ \t\r\f\v])[ \t\r\f\v]++(?=\n|\Z)")


def _trailing_space(expected: bytes, given: bytes, _: Comparison) -> bool:
    return expected == given or _without_trailing(expected) == _without_trailing(given)


def _without_trailing(output: bytes) -> bytes:
    return _TRAILING.sub(b"", output).rstrip()


_BLANK = re.compile(rb"[ \t-\r]")
_NEWLINE = re.compile(rb"\n")


def _pieces(output: bytes, border: re.Pattern[bytes]) -> Iterator[bytes]:
    """`output` cut at borders, which are dropped, into pieces of a megabyte and what is left up to the next border."""
    start = 0
    while start <= len(output):
        found = border.search(output, start + _PIECE)
        end = found.start() if found else len(output)
        yield output[start:end]
        start = end + 1


def _tokens(output: bytes) -> Iterator[bytes]:
    return chain.from_iterable(piece.split() for piece in _pieces(output, _BLANK))


def _lines(output: bytes) -> Iterator[bytes]:
    return chain.from_iterable(piece.split(b"\n") for piece in _pieces(_without_trailing(output), _NEWLINE))


def _same_tokens(expected: bytes, given: bytes, _: Comparison) -> bool:
    return expected == given or all(a == b for a, b in zip_longest(_tokens(expected), _tokens(given)))


def _unordered_lines(expected: bytes, given: bytes, _: Comparison) -> bool:
    """Lines are taken off the expected ones, so that only those are ever counted."""
    if expected == given:
        return True
    missing = Counter(_lines(expected))
    for line in _lines(given):
        left = missing.get(line, 0)
        if left == 0:
            return False
        missing[line] = left - 1
    return not any(missing.values())


_DECIMAL = re.compile(rb"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]{1,9})?")
_INTEGER = re.compile(rb"[+-]?[0-9]++")
_NAN = re.compile(rb"[+-]?nan", re.IGNORECASE)


class _Tolerance(NamedTuple):
    absolute: float
    relative: float

    def allows(self, expected: bytes | None, given: bytes | None) -> bool:
        """Whether one token may stand for the other."""
        if expected == given:
            return expected is None or _NAN.fullmatch(expected) is None
        if not (_is_decimal(expected) and _is_decimal(given)) or _INTEGER.fullmatch(expected or b""):
            return False
        wanted, found = float(expected or b""), float(given or b"")
        return abs(wanted - found) <= max(self.absolute, self.relative * abs(wanted))


def _is_decimal(token: bytes | None) -> bool:
    return token is not None and len(token) <= _LONGEST_NUMBER and _DECIMAL.fullmatch(token) is not None


def _floats(expected: bytes, given: bytes, by: Comparison) -> bool:
    allows = _Tolerance(by.absolute, by.relative).allows
    pairs = zip_longest(_tokens(expected), _tokens(given))
    return all((a == b and len(a) > 4) or allows(a, b) for a, b in pairs)


def _json(expected: bytes, given: bytes, by: Comparison) -> bool:
    """An output of many times the expected length is not read: it would only cost memory."""
    if len(given) > _MORE_JSON * len(expected) + _SMALL_JSON:
        return False
    try:
        wanted, found = msgspec.json.decode(expected), msgspec.json.decode(given)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return same_json(wanted, found, by.absolute, by.relative)


_RULES: Mapping[Mode, Callable[[bytes, bytes, Comparison], bool]] = {
    "exact": _exact,
    "trailing_space": _trailing_space,
    "tokens": _same_tokens,
    "floats": _floats,
    "unordered_lines": _unordered_lines,
    "json": _json,
}
