r"""Boxes at the end of a completion: the last one, and its neighbours when together they are one answer.

Only the neighbourhood of the last box is read, so the cost does not grow with the completion. Braces are balanced as
TeX does it; a box that never closes is not repaired, because nobody knows how the answer would have gone on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

MAX_BOX = 20_000
"""Characters that a box may hold, and that are read on either side of the last one."""
MAX_PARTS = 64
"""More boxes than these in one sentence are spam: then only the last one counts."""
_MAX_MENTIONS = 64
_STEMS = ("boxed", "\x08oxed", "fbox", "begin_of_box")

# `\b` of a JSON string that was not escaped turns \boxed into a backspace and `oxed`.
_OPENING = r"\\{1,4}(?:boxed|fbox)\s{0,8}\{|\x08oxed\s{0,8}\{|<\|begin_of_box\|>"
_OPEN = re.compile(_OPENING)
_TOKEN = re.compile(rf"{_OPENING}|<\|end_of_box\|>|\\.|\{{+|\}}+", re.DOTALL)
_BRACELESS = re.compile(r"(?:\\boxed|\x08oxed)\s{0,8}(-?[0-9][0-9.,]*(?<![.,])|\\[A-Za-z]{1,20}|[A-Za-z](?![A-Za-z]))")


class Box(NamedTuple):
    """A complete box from `start` to `end`; its content from `inner` to `close`. Offsets into the text."""

    start: int
    inner: int
    close: int
    end: int


@dataclass(frozen=True, slots=True)
class Boxes:
    """The outermost complete boxes around the last one, in order; `unclosed` when the last one never closes.

    `last` is where the content of the last one starts.
    """

    found: tuple[Box, ...]
    unclosed: bool
    last: int = 0


NONE = Boxes((), False)


def last_boxes(text: str) -> Boxes:
    """The boxes near the last one. Those that are denied, commented out or part of a program are no answers."""
    last = _last_opening(text)
    if last < 0:
        return NONE
    boxes, waiting = _scan(text, max(0, last - MAX_BOX), last + MAX_BOX)
    if last in waiting:
        return Boxes((), True, last)
    return Boxes(tuple(box for box in boxes[-MAX_PARTS - 1 :] if _is_meant(text, box)), False, last)


def mentions(text: str) -> int:
    """How many boxes are opened in `text`, complete or not."""
    return text.count("\\boxed") + text.count("\\fbox") + text.count("\x08oxed") + text.count("<|begin_of_box|>")


def _last_opening(text: str) -> int:
    """Where the content of the last box starts. The bare word "boxed" is none, so a few to the left are looked at."""
    places = {stem: text.rfind(stem) for stem in _STEMS}
    for _ in range(_MAX_MENTIONS):
        stem = max(places, key=places.__getitem__)
        place = places[stem]
        opening = _opening(text, max(0, place - 4), place + 32) if place >= 0 else None
        if opening or place < 0:
            return _inner(opening) if opening else -1
        places[stem] = text.rfind(stem, 0, place)
    return -1


def _opening(text: str, low: int, high: int) -> re.Match[str] | None:
    """The first opening of a box between two places."""
    return _OPEN.search(text, low, high) or _BRACELESS.search(text, low, high)


def _inner(opening: re.Match[str]) -> int:
    return opening.start(1) if opening.re is _BRACELESS else opening.end()


def _scan(text: str, low: int, high: int) -> tuple[list[Box], set[int]]:
    """The outermost complete boxes between two places, and where the contents start of those that do not close."""
    boxes: list[Box] = []
    waiting: list[tuple[int, int]] = []
    first = _opening(text, low, high)
    for token in _TOKEN.finditer(text, first.start() if first else high, high):
        kind = token[0]
        if kind[0] == "{":
            waiting.extend([(-1, -1)] * len(kind))
        elif kind[0] == "}" or kind == "<|end_of_box|>":
            _close(boxes, waiting, token)
        elif len(kind) > 2:
            waiting.append(token.span())
        elif kind == "\\b" and (found := _BRACELESS.match(text, token.start())):
            boxes.append(Box(found.start(), found.start(1), found.end(1), found.end(1)))
    return boxes, {inner for _, inner in waiting}


def _close(boxes: list[Box], waiting: list[tuple[int, int]], token: re.Match[str]) -> None:
    """Closes as many braces as a run of closing braces has, and keeps the boxes among them."""
    length = 1 if token[0][0] == "}" else len(token[0])
    for place in range(token.start(), token.end(), length):
        if not waiting:
            return
        start, inner = waiting.pop()
        if start >= 0:
            _keep(boxes, Box(start, inner, place, place + length))


def _keep(boxes: list[Box], box: Box) -> None:
    """Adds a box; those inside it belong to its content."""
    while boxes and boxes[-1].start > box.start:
        boxes.pop()
    boxes.append(box)


_DENIED = re.compile(
    r"(?:\bnot(?: equal(?: to)?)?|n't(?: be)?|\bnever|\brather than|\binstead of|\\neq?|≠|不是|不等于|并非)\W{0,8}\Z",
    re.IGNORECASE,
)
_PROGRAM = re.compile(r"```[ \t]*(?!(?:la)?tex\b|math\b|text\b|txt\b|markdown\b|md\b)[A-Za-z+#]")


def _is_meant(text: str, box: Box) -> bool:
    before = text[max(0, box.start - 40) : box.start]
    line = before[before.rfind("\n") + 1 :] if "\n" in before or box.start <= 40 else ""
    return not (_DENIED.search(before) or line.lstrip().startswith("%") or _in_program(text, box.start))


def _in_program(text: str, place: int) -> bool:
    """Whether the last fence before `place` opens a program. A closing fence names no language."""
    fence = text.rfind("```", max(0, place - MAX_BOX), place)
    return fence >= 0 and _PROGRAM.match(text, fence) is not None


def neighbours(text: str, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
    r"""The boxes that with the last one make up one answer: `x=\boxed{1} and y=\boxed{2}`; at least the last one."""
    first = len(boxes) - 1
    while first > 0 and are_parts(text[boxes[first - 1].end : boxes[first].start][:_MAX_GAP]):
        first -= 1
    return boxes[first:] if len(boxes) - first <= MAX_PARTS else boxes[-1:]


_MAX_GAP = 90
_DELIMITERS = re.compile(
    r"\\[\[\]()]|\\q?quad\b|\\[,;!: ]|\\\\|\\(?:text|mbox|mathrm|textnormal)\b|[${}*_&~\s]|\\(?:left|right|big)\b"
)
_CONNECTED = re.compile(r"[,;，；、]|\b(?:and|or|und|oder|et|ou|y|o|e)\b|[和或与及]", re.IGNORECASE)
_RESTATED = re.compile(
    r"[.!?。？！](?:\s|\Z)|\b(?:so|thus|hence|therefore|then|but|not|wait|actually|namely|equivalently|simplif\w*|which|ie|"
    r"equals?|that|approximately|because|since|means|answer|result)\b|\\(?:to|implies|Rightarrow|approx|neq?)\b|→|⇒|≈|即|所以|因此|不",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(r"\b(?:or|oder|ou)\b|或", re.IGNORECASE)


def are_parts(gap: str) -> bool:
    """Whether what stands between two boxes makes them parts of one answer, and not two tries or two forms of it."""
    if len(gap) >= _MAX_GAP or "\n\n" in gap or _RESTATED.search(gap):
        return False
    words = _DELIMITERS.sub(" ", gap).split()
    return not words or (len(words) <= 8 and _CONNECTED.search(" ".join(words)) is not None)


_NAME = re.compile(
    r"""(?<![A-Za-z\\])([A-Za-z](?:_\{?\w{1,4}\}?)?(?:\([A-Za-z]\))?|[A-Z]{2,4}|\([A-Za-z](?:,\s?[A-Za-z]){1,4}\))
    \s?=\s?(?:\\[\[(]|\$)?\s?\Z""",
    re.VERBOSE,
)


def joined(text: str, parts: tuple[Box, ...]) -> str:
    """The parts as one answer, with their names when all have one, and `or` where the text says so."""
    contents = [text[box.inner : box.close].strip() for box in parts]
    if len(set(contents)) == 1:
        return contents[0]
    names = [_name(text, box) for box in parts]
    if all(names):
        contents = [f"{name}={content}" for name, content in zip(names, contents, strict=True)]
    gaps = (text[before.end : after.start] for before, after in pairwise(parts))
    links = [" \\text{ or } " if _ALTERNATIVE.search(gap) else ", " for gap in gaps]
    return contents[0] + "".join(link + content for link, content in zip(links, contents[1:], strict=True))


def _name(text: str, box: Box) -> str:
    found = _NAME.search(text[max(0, box.start - 40) : box.start])
    return found[1] if found else ""


_MEASURE = re.compile(r" ?(?:\$|\\\))? ?(?:(?P<percent>\\?%|percent\b|per cent\b|pct\b)|(?P<degree>\^\{?\\circ\}?|°))")


def measure_after(text: str, box: Box) -> str:
    r"""The percent or degree sign that stands behind a box: `\boxed{28}\%` is 28 percent."""
    found = _MEASURE.match(text, box.end, box.end + 24)
    if found is None:
        return ""
    return "\\%" if found["percent"] else "^\\circ"
