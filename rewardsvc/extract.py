r"""Finds things in model text: the part after the reasoning, boxed answers, tags, fenced code, the final answer.

Model text is hostile, so every function here is total (it never raises on any string) and linear: even a mebibyte made
of `\boxed{`, backticks or `<answer>` costs a fraction of a second. Hence scanners with a depth counter, regular
expressions whose repeats cannot give back what they took, and no recursion.

Nothing here decides whether an answer is right, and nothing guesses: where no style of answer is found there is no
final answer, not even if the text ends in a number. Places are offsets into the text that was passed, in characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

Style = Literal["boxed", "tag", "hash", "line"]
STYLES: tuple[Style, ...] = ("boxed", "tag", "hash", "line")
"""Every style of final answer, the most explicit first: the order in which `final_answer` tries them."""

MAX_CANONICAL = 10_000
"""Characters up to which `plain` composes accents: sorting a long run of combining marks takes quadratic time."""


class Span(NamedTuple):
    """A piece of a text, where it stands (`source[start:end] == text`), and the rule that found it."""

    text: str
    start: int
    end: int
    method: str

    def moved(self, offset: int) -> Span:
        """The same piece with its place counted from `offset` characters further left."""
        return self._replace(start=self.start + offset, end=self.end + offset)

    def trimmed(self) -> Span:
        """The same piece without white space around it."""
        start = self.start + len(self.text) - len(self.text.lstrip())
        text = self.text.strip()
        return Span(text, start, start + len(text), self.method)


class FencedBlock(NamedTuple):
    """A fenced code block. `start` and `end` enclose its lines, without the fences.

    `text` is those lines less the indentation of the opening fence; `label` is the first word after that fence in
    lower case; `complete` is False when the text ends before a closing fence.
    """

    text: str
    label: str
    start: int
    end: int
    complete: bool


def after_reasoning(text: str, tags: Sequence[str] = ("think",)) -> Span | None:
    """The region in which an answer may stand: everything after the last closing reasoning tag.

    The opening tag need not be there, since many chat templates put it into the prompt. A text without these tags is
    all answer. None when a reasoning tag opens after the last one that closes: the model never came to an answer.
    Tags count wherever they stand, in code and in quotes too, and must be spelt exactly (`<think>`, `</think>`).
    """
    closings = [(text.rfind(f"</{tag}>"), len(tag) + 3) for tag in tags]
    start = max((place + length for place, length in closings if place >= 0), default=0)
    if any(f"<{tag}>" in text[start:] for tag in tags):
        return None
    return Span(text[start:], start, len(text), "after_reasoning" if start else "whole")


_BOX = re.compile(r"\\(?:boxed|fbox)\s*+\{")


def boxed(text: str) -> list[Span]:
    r"""The contents of all complete `\boxed{…}` and `\fbox{…}`, in order. A box inside a box belongs to its content.

    Braces are balanced as TeX does it: `\{` and `\}` do not count. A box that never closes is no box, but boxes that
    follow or stand inside it are. `\\boxed{…}`, as text that was escaped twice has it, is taken for a box.
    """
    return [Span(text[start:end], start, end, "boxed") for start, end in _box_places(text)]


def _box_places(text: str) -> list[tuple[int, int]]:
    """Where the contents of the outermost complete boxes start and end.

    One pass, from box to box. `waiting` is the stack of boxes that are still open: where the content starts, and how
    deep the braces were outside of it.
    """
    first = _first_box(text)
    if first is None:
        return []
    structure = _without_escapes(text[first:])
    places: list[tuple[int, int]] = []
    waiting: list[tuple[int, int]] = []
    depth = 0
    starts = [box.end() for box in _BOX.finditer(structure)]
    for start, following in pairwise([*starts, len(structure) + 1]):
        waiting.append((start, depth))
        depth = _close_boxes(structure[start : following - 1], start, depth + 1, waiting, places)
    return [(start + first, end + first) for start, end in places]


def _first_box(text: str) -> int | None:
    """Where the backslashes before the first box begin: nothing before it need be looked at. None without a box."""
    found = [place for name in (r"\boxed", r"\fbox") if (place := text.find(name)) >= 0]
    if not found:
        return None
    first = min(found)
    while first and text[first - 1] == "\\":
        first -= 1
    return first


def _close_boxes(
    segment: str, place: int, depth: int, waiting: list[tuple[int, int]], places: list[tuple[int, int]]
) -> int:
    """Moves the boxes that close in `segment` (which starts at `place`) from `waiting` to `places`; the new depth."""
    *closed, rest = segment.split("}")
    for piece in closed:
        place += len(piece)
        depth += piece.count("{") - 1
        if depth == waiting[-1][1]:
            start, _ = waiting.pop()
            while places and places[-1][0] > start:  # boxes inside this one
                places.pop()
            places.append((start, place))
            if not waiting:
                return 0
        place += 1
    return depth + rest.count("{")


def _without_escapes(text: str) -> str:
    """`text` with every escaped character blotted out by NULs, so that all braces left are structure. Same length."""
    for doubled, single in ((r"\\boxed", "\0\\boxed"), (r"\\fbox", "\0\\fbox")):
        text = text.replace(doubled, single)
    for escaped in (r"\\", r"\{", r"\}"):
        text = text.replace(escaped, "\0\0")
    return text


def tagged(text: str, name: str) -> list[Span]:
    """The contents of all `<name>…</name>`, in order.

    Pairs do not nest: a closing tag belongs to the nearest opening tag before it, and what has no partner is ignored.
    """
    opening, closing = f"<{name}>", f"</{name}>"
    spans = []
    begin, end = 0, text.find(closing)
    while end >= 0:
        opened = text.rfind(opening, begin, end)
        if opened >= 0:
            start = opened + len(opening)
            spans.append(Span(text[start:end], start, end, "tag"))
        begin = end + len(closing)
        end = text.find(closing, begin)
    return spans


_FENCE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)([^\n]*+)(?:\n|\Z)", re.MULTILINE)


def fenced_blocks(text: str) -> list[FencedBlock]:
    """All fenced code blocks in order, by the rules of CommonMark 0.31 (section 4.5) with one exception.

    The exception: a fence may be indented by any amount, because models put code below list items. A block ends at a
    line of at least as many of the same marks and nothing else. A last block that never ends is reported incomplete.
    """
    blocks: list[FencedBlock] = []
    fence, mark = None, ""
    for line in _fence_lines(text):
        marks, words = line.group(2, 3)
        if fence is None:
            # A backtick further on makes it inline code: ```x```
            fence, mark = (line, marks) if marks[0] == "~" or "`" not in words else (None, "")
        elif marks.startswith(mark) and not words.strip():
            blocks.append(_block(text, fence, line.start(), complete=True))
            fence = None
    if fence is not None:
        blocks.append(_block(text, fence, len(text), complete=False))
    return blocks


def _fence_lines(text: str) -> Iterator[re.Match[str]]:
    return _FENCE.finditer(text) if "```" in text or "~~~" in text else iter(())


def _block(text: str, fence: re.Match[str], end: int, *, complete: bool) -> FencedBlock:
    start, (indent, words) = fence.end(), fence.group(1, 3)
    code = text[start:end]
    if indent:
        code = re.sub(rf"^[ \t]{{1,{len(indent)}}}", "", code, flags=re.MULTILINE)
    label = next(iter(words.split(None, 1)), "")
    return FencedBlock(code, label.lower(), start, end, complete)


def final_answer(text: str, styles: Sequence[Style] = STYLES) -> Span | None:
    r"""The final answer by the first of `styles` that occurs in `text`, without white space around it, or None.

    - `boxed`: the last complete `\boxed{…}` or `\fbox{…}`
    - `tag`: the last complete `<answer>…</answer>`
    - `hash`: the last line that starts with `####` (GSM8K), unless a line of the next style follows it, for then it is
      a Markdown heading
    - `line`: what stands after the last `Answer:`, `Final answer:` or `the answer is` that starts a line or a
      sentence, up to the end of the line, or on the next line if there is nothing. Bold marks around it are dropped.

    A style that is there but empty is an empty answer: `maybe 7 \boxed{}` has answered nothing.
    Pass the text of `after_reasoning`, or an answer inside the reasoning is taken for the final one.
    """
    return next((span for style in styles if (span := _FINDERS[style](text)) is not None), None)


def _last_boxed(text: str) -> Span | None:
    places = _box_places(text)
    if not places:
        return None
    start, end = places[-1]
    return Span(text[start:end], start, end, "boxed").trimmed()


def _last_tagged(text: str) -> Span | None:
    spans = tagged(text, "answer")
    return spans[-1].trimmed() if spans else None


_HASH = re.compile(r"^[ \t]*+####(?!#)([^\n]*+)", re.MULTILINE)

# The look-ahead only saves time: most lines and clauses begin with something else.
_LABEL = re.compile(
    r"""(?:^[ \t>*_#-]*+|(?<=[.!?:;,][ ])[*_]{0,3})(?=[astmfch])
    (?:(?:and[ ])?(?:so|thus|hence|therefore),?[ ])?
    (?:the[ ]|my[ ])?(?:final[ ]|correct[ ])?answer
    [*_]{0,3}(?:[ ]is\b[*_]{0,3}[ ]?[:：]?|[ ]?[:：])[*_]{0,3}""",
    re.ASCII | re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_LINE = re.compile(r"\s*+([^\n]*+)")


def _last_hash(text: str) -> Span | None:
    line = _last(_HASH.finditer(text)) if "####" in text else None
    if line is None or _last_label(text[line.end() :]) is not None:
        return None
    return Span(line[1], line.start(1), line.end(1), "hash").trimmed()


def _last_line(text: str) -> Span | None:
    label = _last_label(text)
    line = _LINE.match(text, label.end()) if label else None
    if label is None or line is None:
        return None
    answer = Span(line[1], line.start(1), line.end(1), "line").trimmed()
    return _without_bold(_without_hope(answer), label[0])


def _last_label(text: str) -> re.Match[str] | None:
    return _last(_LABEL.finditer(text)) if "answer" in text.lower() else None


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    return next(iter(deque(matches, maxlen=1)), None)


def _without_hope(answer: Span) -> Span:
    """Cuts off "I hope it is correct.", with which the Minerva prompt teaches models to end."""
    text = answer.text.removesuffix(".")
    if not text.endswith("I hope it is correct"):
        return answer
    text = text.removesuffix("I hope it is correct").rstrip().removesuffix(".")
    return answer._replace(text=text, end=answer.start + len(text))


def _without_bold(answer: Span, label: str) -> Span:
    """`**42**.` is 42, and so is `42**` after a label that opened the bold type (`**Answer: 42**`)."""
    text = answer.text.removesuffix(".")
    for mark in ("**", "__"):
        opened = text.startswith(mark)
        if text.endswith(mark) and (opened or mark in label):
            inside = text.removeprefix(mark).removesuffix(mark)
            start = answer.start + len(mark) * opened
            return Span(inside, start, start + len(inside), answer.method).trimmed()
    return answer


_FINDERS: Mapping[Style, Callable[[str], Span | None]] = {
    "boxed": _last_boxed,
    "tag": _last_tagged,
    "hash": _last_hash,
    "line": _last_line,
}


def plain(
    text: str, *, ignore_case: bool = True, ignore_whitespace: bool = True, ignore_punctuation: bool = False
) -> str:
    """`text` reduced to what matters when two answers are compared as text; the same for equal answers.

    - Always: white space at the ends goes; one full stop at the end goes (`Paris.`) but not an ellipsis (`3.14...`);
      accents are composed (Unicode NFC), up to `MAX_CANONICAL` characters.
    - `ignore_case`: full case folding (`STRASSE` is `straße`).
    - `ignore_whitespace`: a run of white space is one space. It never goes altogether: `1 2` is not `12`.
    - `ignore_punctuation`: Unicode punctuation goes, except where it touches a digit, so that 3.14 is not 314 and -5
      is not 5; brackets and quotes go even there.

    Characters that only look alike stay different, and hidden ones (zero-width, bidirectional marks, NUL) stay.
    Applying it twice changes nothing.
    """
    compose = len(text) <= MAX_CANONICAL
    text = unicodedata.normalize("NFD", text) if compose else text
    text = text.casefold() if ignore_case else text
    text = _without_punctuation(text) if ignore_punctuation else text
    text = " ".join(text.split()) if ignore_whitespace else text.strip()
    text = _without_full_stop(text)
    return unicodedata.normalize("NFC", text) if compose else text


def _without_full_stop(text: str) -> str:
    """One full stop at the end goes, unless it follows another or stands alone."""
    if len(text) < 2 or text[-1] not in ".。" or text[-2] in ".。" or text[-2].isspace():
        return text
    return text[:-1]


def _without_punctuation(text: str) -> str:
    kinds = {character: unicodedata.category(character) for character in set(text)}
    wrapping = [c for c, kind in kinds.items() if kind in {"Ps", "Pe", "Pi", "Pf"} or c in "\"'"]
    text = text.translate(str.maketrans("", "", "".join(wrapping)))
    others = "".join(sorted(c for c, kind in kinds.items() if kind[0] == "P" and c not in wrapping))
    return re.sub(rf"(?<!\d)[{re.escape(others)}](?!\d)", "", text) if others else text
