r"""Answers that a completion announces in words: "The final answer is …", "Answer: …", 答案是 …, "Therefore, x = 5."

An announcement is read to the end of its sentence and handed over whole, so that a hedge ("41 or 42") stays one.
Nothing here is a fallback: a number that no word announces is not an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from rewardsvc.extract import Span
from rewardsvc.rewards.math.bare import is_value
from rewardsvc.rewards.math.sentences import after_copula, clause_end, doubted, told, trimmed

_MAX_MENTIONS = 64
_TAIL = 2_000

# What announcements have in common, whatever comes before: found fast, from the right.
_STEMS = (
    "nswer",
    "NSWER",
    "inal result",
    "inal solution",
    "inal value",
    "答",
    "ntwort",
    "spuesta",
    "sposta",
    "éponse",
    "твет",
)
_REACH = 100_000
"""Characters from the end within which an announcement must stand: what so much text follows is not final."""


class Announcement(NamedTuple):
    """`start` is where the answer may begin. `final` when it is called the final one."""

    place: int
    start: int
    final: bool


_AFTER = re.compile(
    r"""s?(?:案|え)?(?:\s(?:to|for|of|in)\s[^\n:.?!]{1,80}?)?(?:\s(?:final|correcta?|finale|korrekt\w*))?[*_]{0,3}
    (?:\s?(?:is|are|equals?|(?:should|would|will|must)\sbe|was|comes?\s(?:out\s)?to|es|est|ist|lautet|é|è|
             应?该?是|为|等于|は|은|는|=|\|)(?![a-z])[ ]?[*_]{0,3}\s?[:：]?
       (?:\s?(?:therefore|thus|then|simply|just|exactly|hence|given\sby|equal\sto)\b)?
      |\s?[:：]|[ ]?(?=\$|\\[\[(]|\\boxed|\\begin)
      |(?P<heading>[ ]?\#*[ \r]*(?:\n|\Z)))[*_]{0,3}""",
    re.VERBOSE | re.IGNORECASE,
)
_FINAL = re.compile(
    r"(?:\bfinal\s(?:[a-z]+\s)?a\Z|\bf\Z|最终(?:的)?(?:正确)?\Z|最后(?:的)?\Z|\bendgültige\sa\Z)", re.IGNORECASE
)
FINAL_WORDS = ("inal", "INAL", "最终", "最后", "endgültige")
"""Without one of these in it, no text announces a final answer."""
_HEADING = re.compile(r"[\s#*_>\d.|-]*(?:(?:the|my|our)\s)?(?:final\s)?[af]?\Z", re.IGNORECASE)
_VETOED = re.compile(
    r"\b(?:if|whether|wrong|incorrect|not|isn't|no|previous|possible|suppose|assum\w+|unless|student'?s?|their|his|her|"
    r"non|false|first|initial|other|check|verify\w*)\s?(?:the\s|an?\s)?(?:final\s|correct\s)?(?:a|f|r)?\Z",
    re.IGNORECASE,
)


def announcements(text: str, low: int = 0) -> Iterator[Announcement]:
    """The announcements in `text` from `low` on, the last one first. Only the last few mentions are looked at."""
    low = max(low, len(text) - _REACH)
    places = {stem: text.rfind(stem, low) for stem in _STEMS}
    for _ in range(_MAX_MENTIONS):
        stem = max(places, key=places.__getitem__)
        place = places[stem]
        if place < 0:
            return
        found = _announcement(text, place, place + len(stem))
        if found:
            yield found
        places[stem] = text.rfind(stem, low, place)


def _announcement(text: str, place: int, end: int) -> Announcement | None:
    """The announcement whose noun stands there, unless it is only talked about."""
    after = _AFTER.match(text, end, place + 200)
    before = text[max(0, place - 40) : place]
    line = before[before.rfind("\n") + 1 :]
    if after is None or _VETOED.search(line) or (after["heading"] is not None and not _HEADING.match(line)):
        return None
    return Announcement(place, after.end(), _FINAL.search(line) is not None)


_CONCLUDING = re.compile(
    r"""[\s*_#>-]*(?:(?:and\s)?(?:so|thus|hence|therefore|consequently|finally|in\sconclusion|in\ssummary|overall|accordingly|
    (?:(?:so|thus|hence|therefore),?\s)?we\s(?:\w+\s)?(?:find|get|have|obtain|conclude|see)(?:\sthat)?|it\sfollows\sthat|
    this\s(?:gives|means|yields)(?:\sus)?(?:\sthat)?)\b|因此|所以|故|综上(?:所述)?|从而)[,，:：]?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
# Models forget full stops, above all behind formulas.
_TURNS = re.compile(r"(?<=[\w$)\]}] )(?:So|Thus|Hence|Therefore|Consequently)\b")
_SUBJECT = re.compile(
    r"(?P<value>.+?)\s+(?:is|are)\s+(?:the|our|my)\s+(?:\w+\s){0,2}(?:answers?|solutions?|results?)\W*\Z",
    re.DOTALL | re.IGNORECASE,
)
_SHOWN = re.compile(r"[:：]\s*(?P<value>\$\$.+\$\$|\$[^$\n]+\$|\\\[.+\\\]|\\\([^\n]+\\\))\W*\Z", re.DOTALL)


def conclusion(text: str) -> Span | None:
    """The value in which the last sentence of `text` concludes, if it says so and has no doubt."""
    sentence = _last_sentence(text)
    turn = max((found.start() for found in _TURNS.finditer(sentence.text)), default=0) if sentence else 0
    sentence = _part(sentence, turn, len(sentence.text)) if sentence else None
    if sentence is None or doubted(sentence.text):
        return None
    starter = _CONCLUDING.match(sentence.text)
    begin = starter.end() if starter else 0
    rest = _part(sentence, begin, len(sentence.text))
    for found in (_SUBJECT.match(rest.text), _SHOWN.search(rest.text)):
        if found and is_value(trimmed(_part(rest, *found.span("value"))).text):
            return trimmed(_part(rest, *found.span("value")))
    if starter:
        return told(rest, announced=True)
    return after_copula(trimmed(rest))


def _part(span: Span, start: int, end: int) -> Span:
    return Span(span.text[start:end], span.start + start, span.start + end, "conclusion")


_HOPE = re.compile(r"\s*I hope (?:it|this) is (?:correct|right)\s*[.!]?\s*\Z")


def _last_sentence(text: str) -> Span | None:
    end = len(text)
    hope = _HOPE.search(text, max(0, end - 80))
    end = hope.start() if hope else end
    place = max(0, end - _TAIL)
    place = max(place, text.find("\n", place, end) + 1) if place else 0
    last = None
    while place < end:
        stop = min(end, clause_end(text, place, end))
        sentence = Span(text[place:stop], place, stop, "conclusion").trimmed()
        last = sentence if len(sentence.text) > 1 else last
        place = max(stop, place + 1)
    return last
