r"""The final answer of a completion: where it stands, how it was found, and what about it should make one wary.

A completion has a final answer when it marks one. The marks, and how they rank:

1. a box, an `<answer>` tag, a last line that starts with `####`, "the final answer is …": the last of these counts
2. "the answer is …", `Answer: …`, 答案 …: the last of these, when there is none of the first
3. a last line in square brackets, then a last sentence that concludes in one value ("Therefore, x = 5.")
4. the whole completion, when it is one value and nothing else

Anything else is no answer, even if it ends in a number. A mark with nothing in it, or cut off in the middle, is no
answer either, and what stands further left is not taken instead. Everything is read from the right and within bounded
distances of a mark, so the cost does not grow faster than that of a search for a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from rewardsvc.extract import Span, after_reasoning, boxed
from rewardsvc.rewards.math import announcements, bare, boxes, sentences

Style = Literal["boxed", "tag", "hash", "line", "bracket", "conclusion", "bare"]
STYLES: tuple[Style, ...] = ("boxed", "tag", "hash", "line", "bracket", "conclusion", "bare")
Region = Literal["after_reasoning", "whole", "last_300_chars", "last_line"]
SeveralBoxes = Literal["last", "join", "all_equal"]

REASONING_TAGS = ("think", "thinking", "thought", "reasoning", "scratchpad")
MAX_ANSWER = 20_000
"""Characters; a longer answer is none."""


@dataclass(frozen=True, slots=True)
class Found:
    """The final answer, or that there is none (`text` is None) with what is known about why.

    `start` and `end` are offsets into the completion; of joined boxes, from the first to the last. `method` is the
    style that found it (`boxed`, `boxed_joined`, `tag`, `hash`, `final_line`, `line`, `bracket`, `conclusion`, `bare`,
    `none`), `count` how many marks of that style there are. `others` are the other boxes that must agree under
    `all_equal`.

    Flags: `several_boxes` · `answer_in_reasoning` (there is one, but only within the reasoning) · `truncated` (the
    reasoning, the last box or the last tag never ends) · `empty_answer` · `after_answer_text` · `hidden_characters`
    """

    text: str | None
    start: int = 0
    end: int = 0
    method: str = "none"
    count: int = 0
    flags: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class _Mark(NamedTuple):
    """What one style found: `span.text` is empty where the mark holds nothing; `end` is where the mark ends."""

    span: Span
    end: int
    marks: int = 1
    flags: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class _Wanted(NamedTuple):
    styles: Collection[Style]
    several_boxes: SeveralBoxes


def find(
    completion: str,
    *,
    styles: Collection[Style] = STYLES,
    region: Region = "after_reasoning",
    several_boxes: SeveralBoxes = "join",
    reasoning_tags: Collection[str] = REASONING_TAGS,
) -> Found:
    r"""The final answer of `completion`; never raises, on any text.

    - `styles`: the marks that count. A box within a tag, a line or a conclusion is opened in any case.
    - `region`: where the answer may stand: after the reasoning, anywhere, or in the last 300 characters or the last
      line after the reasoning.
    - `several_boxes`: the `last` box only; or `join` those that are parts of one answer in one sentence
      (`x=\boxed{1} and y=\boxed{2}`); or the last, and `all_equal`: the caller shall ask that every one is right.
    """
    wanted = _Wanted(styles, several_boxes)
    after = Span(completion, 0, len(completion), "whole")
    if region != "whole" and "<" in completion:
        thought = after_reasoning(completion, [tag for tag in reasoning_tags if f"{tag}>" in completion])
        if thought is None:
            return Found(None, flags=("truncated", *_in_reasoning(completion, wanted)))
        after = thought
    found = _find(_cut(_turn(after), region), wanted)
    if found.text is None and after.start:
        return replace(found, flags=(*found.flags, *_in_reasoning(completion[: after.start], wanted)))
    return found


_UNCLOSED = re.compile(r"\s*\\{1,4}boxed\s?\{")


def _boxes_alone(text: str) -> str | None:
    """What is in the boxes of a text that has several and hardly anything else: the parts of one answer."""
    contents = [span.text for span in boxed(text)] if text.count("boxed") > 1 else []
    outside = len(text) - sum(map(len, contents)) - len(r"\boxed{}") * len(contents)
    return ", ".join(contents) if len(contents) > 1 and outside <= _BETWEEN * len(contents) else None


_BETWEEN = 6  # characters between two boxes
_MAYBE_MARKED = re.compile(r"box|<a|####|[:]|\bis\b", re.IGNORECASE)


def reference(text: str) -> str:
    """A reference, which some data sets give as a whole solution: its marked answer, or else the text as it is.

    A reference that is one box without its last brace means what is in it; for a completion that would be a guess.
    """
    if text.isascii() and not _MAYBE_MARKED.search(text):
        return text
    found = find(text, styles=("boxed", "tag", "hash", "line"), region="whole")
    if found.text is not None:
        return _boxes_alone(text) or found.text
    opening = _UNCLOSED.match(text) if "truncated" in found.flags else None
    return text[opening.end() :] if opening else text


_TURN_END = re.compile(r"<(?:\|(?:im_end|im_start|eot_id|endoftext|end_of_text)\|>|/s>|｜end▁of▁sentence｜>)")


def _turn(region: Span) -> Span:
    """Cut off what a model says after its own turn has ended."""
    begin = len(region.text) - len(region.text.lstrip()) + 1
    maybe = "<|" in region.text or "</s>" in region.text or "<｜" in region.text
    end = _TURN_END.search(region.text, begin) if maybe else None
    if end is None:
        return region
    return Span(region.text[: end.start()], region.start, region.start + end.start(), region.method)


def _cut(span: Span, region: Region) -> Span:
    text = span.text.rstrip()
    start = 0
    if region == "last_300_chars":
        start = max(0, len(text) - 300)
    elif region == "last_line":
        start = text.rfind("\n") + 1
    return Span(text[start:], span.start + start, span.start + len(text), span.method)


def _in_reasoning(text: str, wanted: _Wanted) -> tuple[str, ...]:
    """The flag for an answer that is marked as final, but within the reasoning."""
    mark = _strongest(re.sub(r"</?[a-z]{5,10}>\s*\Z", "", text), wanted)
    return ("answer_in_reasoning",) if mark and not _EMPTY.match(mark.span.text) else ()


def _find(region: Span, wanted: _Wanted) -> Found:
    mark = _strongest(region.text, wanted)
    if mark is None:
        mark = next((mark for style in _WEAK if style in wanted.styles and (mark := _WEAK[style](region.text))), None)
    if mark is None:
        return Found(None)
    return _found(region, mark)


_EMPTY = re.compile(r"[\s$*_#>|:;.,\"'`\\()\[\]{}-]*+\Z")


def _found(region: Span, mark: _Mark) -> Found:
    answer = peeled(mark.span)
    if _EMPTY.match(answer.text) or len(answer.text) > MAX_ANSWER:
        flags = mark.flags if "truncated" in mark.flags else (*mark.flags, "empty_answer")
        return Found(None, method=answer.method, count=mark.marks, flags=flags)
    flags = (*mark.flags, *(("after_answer_text",) if _goes_on(region.text, mark.end) else ()))
    if _has_hidden(answer.text):
        flags = (*flags, "hidden_characters")
    start, end = region.start + answer.start, region.start + answer.end
    return Found(answer.text, start, end, answer.method, mark.marks, flags, mark.others)


def _goes_on(text: str, end: int) -> bool:
    return _WORD_CHARACTER.search(text, end, end + 200) is not None


def _has_hidden(text: str) -> bool:
    return not text.isascii() and any(unicodedata.category(character) == "Cf" for character in text)


_WORD_CHARACTER = re.compile(r"[^\W_]")


def _strongest(text: str, wanted: _Wanted) -> _Mark | None:
    """The last strong mark. The others are looked for behind the last box only, since it would rank before them."""
    box = _boxed(text, wanted.several_boxes) if "boxed" in wanted.styles else None
    low = box.end if box else 0
    if box and not _WORD_CHARACTER.search(text, low):
        return box
    later = (_STRONG[style](text, low, wanted.several_boxes) for style in _STRONG if style in wanted.styles)
    return max((mark for mark in later if mark), key=lambda mark: mark.end, default=box)


def _boxed(text: str, several: SeveralBoxes) -> _Mark | None:
    if "box" not in text and "\x08oxed" not in text:
        return None
    near = boxes.last_boxes(text)
    if near.unclosed:
        return _Mark(Span("", near.last, near.last, "boxed"), near.last, boxes.mentions(text), ("truncated",))
    if not near.found:
        return None
    parts = boxes.neighbours(text, near.found) if several == "join" else near.found[-1:]
    if not text[parts[-1].inner : parts[-1].close].strip():
        parts = parts[-1:]  # whatever stands before it, the last one says nothing
    contents = tuple(dict.fromkeys(text[box.inner : box.close].strip() for box in near.found))
    others = contents[:-1] if several == "all_equal" else ()
    count = boxes.mentions(text)
    return _Mark(_content(text, parts), parts[-1].end, count, ("several_boxes",) if count > 1 else (), others)


def _content(text: str, parts: tuple[boxes.Box, ...]) -> Span:
    """What the box or the joined boxes hold. Of a joined answer, the place reaches from the first to the last box."""
    last = parts[-1]
    if len(parts) > 1:
        return Span(boxes.joined(text, parts), parts[0].start, last.end, "boxed_joined")
    inner = Span(text[last.inner : last.close], last.inner, last.close, "boxed")
    measure = boxes.measure_after(text, last)
    if not measure and "box" not in inner.text:
        return inner
    inner = _innermost(peeled(inner))
    return inner._replace(text=inner.text + measure) if inner.text and not inner.text.endswith(measure) else inner


_BOX_ALONE = re.compile(r"\\boxed\s?\{([^{}]*+)\}")


def _innermost(span: Span) -> Span:
    """A box in which there is nothing but another box."""
    found = _BOX_ALONE.fullmatch(span.text)
    return Span(found[1], span.start + found.start(1), span.start + found.end(1), "boxed") if found else span


def _opened(span: Span, several: SeveralBoxes) -> Span:
    """What the last box in a piece of text holds, or the piece itself."""
    mark = _boxed(span.text, several) if "box" in span.text else None
    return mark.span.moved(span.start) if mark else span


def _tagged(text: str, low: int, several: SeveralBoxes) -> _Mark | None:
    closing = text.rfind("</answer>", low)
    opening = text.rfind("<answer>", max(low, closing))
    if opening >= 0:
        return _Mark(Span("", opening, opening, "tag"), len(text), 1, ("truncated",))
    opening = text.rfind("<answer>", 0, closing) if closing >= 0 else -1
    if opening < 0:
        return None
    inside = Span(text[opening + 8 : closing], opening + 8, closing, "tag")
    return _Mark(_said(_opened(inside, several)), closing + 9, text.count("</answer>"))


def _said(span: Span) -> Span:
    """What a tag holds may be said in words: `<answer>The answer is 5.</answer>`."""
    if span.method != "tag" or bare.is_value(sentences.trimmed(span).text):
        return span
    mark = _announced(span.text, 0, "last", final=False)
    return mark.span.moved(span.start)._replace(method="tag") if mark and mark.span.text else span


_STEP = re.compile(r"\s*\d+[.:)]\s+[A-Za-z]")


def _hashed(text: str, low: int, several: SeveralBoxes) -> _Mark | None:
    """The last `####`, unless it is a heading with text under it."""
    place = text.rfind("####", low)
    if place < 0 or text[place - 1 : place] == "#":
        return None
    end = text.find("\n", place)
    end = end if end >= 0 else len(text)
    answer = Span(text[place + 4 : end], place + 4, end, "hash").trimmed()
    if text[end:].strip() and not (bare.is_value(answer.text) and _numeric(answer.text)):
        return None
    return _Mark(_opened(answer, several), end, text.count("####"))


def _numeric(text: str) -> bool:
    return any(character.isdigit() for character in text) and not _STEP.match(text)


def _final_line(text: str, low: int, several: SeveralBoxes) -> _Mark | None:
    if not any(word in text for word in announcements.FINAL_WORDS):
        return None
    return _announced(text, low, several, final=True)


_DENIAL = re.compile(r"(?:not|no longer|never|unknown|不是)\b", re.IGNORECASE)


def _announced(text: str, low: int, several: SeveralBoxes, *, final: bool) -> _Mark | None:
    """The last announcement from `low` on that is not denied; if `final`, the last one that is called final."""
    found = (one for one in announcements.announcements(text, low) if one.final or not final)
    for last in found:
        clause = sentences.clause(text, last.start)
        if not _DENIAL.match(clause.text):
            method = "final_line" if last.final else "line"
            return _Mark(_told(clause, several)._replace(method=method), clause.end, 1 + sum(1 for _ in found))
    return None


def _told(clause: Span, several: SeveralBoxes) -> Span:
    opened = _opened(clause, several)
    if opened is not clause:
        return opened
    reasonless = sentences.unexplained(clause)
    return sentences.told(reasonless, announced=True) or sentences.trimmed(reasonless)


_BRACKET = re.compile(r"\s*\[([^\[\]\n]{1,200})\]\s*\.?\Z")


def _bracketed(text: str) -> _Mark | None:
    """A last line that is one pair of square brackets. With a comma in it, it may be an interval and keeps them."""
    start = text.rfind("\n") + 1
    found = _BRACKET.match(text, start)
    if found is None:
        return None
    place = found.span(0 if "," in found[1] else 1)
    return _Mark(Span(text[slice(*place)], *place, "bracket"), len(text))


_LABEL = re.compile(r"(?:solutions?|ans|results?)\s?[:：=]\s*+", re.IGNORECASE)


def _whole(text: str) -> _Mark | None:
    """The whole completion, when it is a value and no sentence."""
    label = _LABEL.match(text)
    start = label.end() if label else 0
    span = peeled(Span(text[start:], start, len(text), "bare"))
    balanced = span.text.count("{") == span.text.count("}")
    return _Mark(span, len(text)) if balanced and "boxed" not in span.text and bare.is_value(span.text) else None


def _concluded(text: str) -> _Mark | None:
    span = announcements.conclusion(text)
    return _Mark(span, span.end) if span else None


def _plain_line(text: str) -> _Mark | None:
    return _announced(text, 0, "join", final=False)


_STRONG: Mapping[Style, Callable[[str, int, SeveralBoxes], _Mark | None]] = {
    "tag": _tagged,
    "hash": _hashed,
    "line": _final_line,
}
_WEAK: Mapping[Style, Callable[[str], _Mark | None]] = {
    "line": _plain_line,
    "bracket": _bracketed,
    "bare": _whole,
    "conclusion": _concluded,
}

_WRAPPERS = (
    ("$$", "$$"),
    ("$", "$"),
    ("\\[", "\\]"),
    ("\\(", "\\)"),
    ("```", "```"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("`", "`"),
    ('"', '"'),
    ('\\"', '\\"'),
    ("“", "”"),
)
_OPENERS = frozenset(opening[0] for opening, _ in _WRAPPERS)
_HIDDEN_ENDS = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"


def peeled(span: Span) -> Span:
    """Without what only wraps the answer as a whole: white space, math marks, bold type, code, quotes, a full stop.

    The text of joined boxes and of a box with a percent sign behind it is not what stands at its place; it stays.
    """
    if span.end - span.start != len(span.text) or _is_plain(span.text):
        return span
    for _ in range(8):
        before = span
        span = sentences.trimmed(_stripped(span))
        for opening, closing in _WRAPPERS if span.text[:1] in _OPENERS else ():
            span = _unwrapped(span, opening, closing)
        if span == before:
            break
    return span


def _is_plain(text: str) -> bool:
    """Whether nothing can wrap a text, to see by its ends."""
    starts = text[:1].isalnum() or text[:1] in ("-", "(", "{") or (text[:1] == "\\" and text[1:2].isalpha())
    return starts and (text[-1].isalnum() or text[-1] in "})")


def _stripped(span: Span) -> Span:
    text = span.text.lstrip(_HIDDEN_ENDS)
    start = span.end - len(text)
    text = text.rstrip(_HIDDEN_ENDS)
    return Span(text, start, start + len(text), span.method)


def _unwrapped(span: Span, opening: str, closing: str) -> Span:
    text = span.text
    if not (text.startswith(opening) and text.endswith(closing)) or len(text) < len(opening) + len(closing):
        return span
    inside = text[len(opening) : len(text) - len(closing)]
    if opening in inside or closing in inside:
        return span
    start = span.start + len(opening)
    return Span(inside, start, start + len(inside), span.method)
