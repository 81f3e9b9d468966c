r"""Answers that a completion announces in words: "The final answer is …", "Answer: …", 答案是 …, "Therefore, x = 5."

An announcement is read to the end of its sentence and handed over whole, so that a hedge ("41 or 42") stays one.
Nothing here is a fallback: a number that no word announces is not an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from rewardsvc.extract import Span
from rewardsvc.rewards.math.bare import UNIT, is_value

MAX_CLAUSE = 4_000
"""Characters of an announced answer that are read."""
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


_LEAD = re.compile(r"(?:\s|[*_#>`\"“|:：]|```[a-z]{0,10}\n)*+")
_CLAUSE = re.compile(
    r"""(?P<display>\$\$|\\\[|\\\]|\\begin\{|\\end\{)|(?P<inline>\$|\\\(|\\\))|\\.|(?P<line>\n|</?[a-z]|<\|)|
    (?P<stop>[.!](?=[\s*_"”')$|]|\Z)|。|！)""",
    re.VERBOSE | re.DOTALL,
)
_OPENERS = ("\\[", "\\begin{", "\\(")
_CONTINUES = re.compile(r"[\s*_\"”')$|]*(?:\s[a-z\d]|(?:or|alternatively)\b)", re.IGNORECASE)
_ABBREVIATION = re.compile(
    r"(?:\b[A-Za-z]\.[A-Za-z]|\b(?:sq|ft|in|approx|vs|no|cu|lb|oz|hr|min|sec|[ap]\.?m|i\.e|e\.g))\Z", re.IGNORECASE
)
_HANGING = re.compile(r"(?:[:：]|\b(?:is|are|by|=))[*_ ]*\Z")


def clause(text: str, start: int) -> Span:
    """The rest of the sentence from `start` on. A formula that is set off may run over lines, no other text may."""
    begin = _LEAD.match(text, start, start + MAX_CLAUSE)
    first = begin.end() if begin else start
    end = _clause_end(text, first, min(len(text), first + MAX_CLAUSE))
    return Span(text[first:end], first, end, "line")


def _clause_end(text: str, first: int, high: int) -> int:
    """Where the sentence ends that begins at `first`."""
    display = inline = False
    for token in _CLAUSE.finditer(text, first, high):
        if token["display"]:
            display = not display if token[0] == "$$" else token[0] in _OPENERS
        elif token["inline"] and not display:
            inline = not inline if token[0] == "$" else token[0] in _OPENERS
        elif display:
            continue
        elif token["line"] and not (token[0] == "\n" and _HANGING.search(text[first : token.start()][-12:])):
            return token.start()
        elif token["stop"] and not inline and _ends(text, first, token):
            return token.end()
    return high


def _ends(text: str, first: int, stop: re.Match[str]) -> bool:
    """Whether a full stop ends the sentence: not in `approx. 5`, and not when the next sentence takes it back."""
    before = text[max(first, stop.start() - 8) : stop.start()]
    if stop[0] == "!" and before[-1:].isdigit():
        return False
    following = text[stop.end() : stop.end() + 24]
    if _ABBREVIATION.search(before):
        return not following.lstrip("*_\"'$) ")[:1].islower() and not following.lstrip()[:1].isdigit()
    return not re.match(r"[\s*_\"')$]*(?:or|alternatively)\b", following, re.IGNORECASE)


_EXPLAINED = re.compile(
    r"\s*[,，;；.(–—]?\s*(?:\b(?:because|since|which|as\s(?:we|it|the|there|required|desired|shown)|so\sthat|so\sthe|so\swe|"
    r"therefore|thus|hence|I\shope\s(?:it|this))\b|因为|所以|其中|希望).*",
    re.DOTALL | re.IGNORECASE,
)
_SENTENCE_COPULA = re.compile(
    r"(?:\b(?:is|are|equals?|be|was|were|becomes|to\sbe|by|are\sas\sfollows|is\sas\sfollows)\b|(?<=it)['’]s\b|是|为|等于)"
    r"\s*(?:exactly\s|simply\s|equal\sto\s|therefore\s|thus\s|then\s|given\sby\s)?[:：]?\s*",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$\$.{1,600}?\$\$|\$[^$\n]{1,600}+\$|\\\[.{1,600}?\\\]|\\\([^\n]{1,600}?\\\)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.,\\{])[-−]?(?:\\?[$€£]\s?)?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\s?\\?%|\s?°)?(?![\w])")
_UNITS = re.compile(rf"(?:\s?{UNIT.pattern}){{1,3}}", UNIT.flags)
_GUARDED = re.compile(
    r"\b(?:least|most|than|about|approximately|around|over|under|up\sto|not|no|except|between|every|all|or|neither|each|"
    r"first|once|twice|double|half)\b|n't\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:maybe|perhaps|might|may|could|possibl[ey]|probably|potential|candidate|example|guess|suppose|assume|unsure|not\ssure|if|unless|whether|let|"
    r"try|check|wait|hmm|consider|cannot|recall|given\sthat|i\sthink|need)\b|[?？]|n't\b(?!\sequal)",
    re.IGNORECASE,
)


def unexplained(span: Span) -> Span:
    """The clause without the reasons that follow it: `42, because …` is 42."""
    found = _EXPLAINED.search(span.text)
    if found is None or not span.text[: found.start()].strip():
        return span
    return span._replace(text=span.text[: found.start()], end=span.start + found.start())


def told(span: Span, *, announced: bool) -> Span | None:
    """The value in a sentence: all of it, what follows its last "is", or, if `announced`, its only quantity.

    None when the sentence tells no single value.
    """
    whole = trimmed(span)
    if is_value(whole.text):
        return whole
    return _after_copula(whole) or (_only_quantity(whole) if announced else None)


def trimmed(span: Span) -> Span:
    """Without white space, the full stop that ends a sentence, and closing marks that nothing in it opens."""
    if span.text and not span.text[0].isspace() and (span.text[-1].isalnum() or span.text[-1] in "})"):
        return span
    for _ in range(3):
        before = span.trimmed()
        span = _without_mark(_without_stop(before))
        if span == before:
            break
    return span


def _without_stop(span: Span) -> Span:
    text = span.text
    if not text.endswith((".", "。", "！")) or text.endswith("..") or _ABBREVIATION.search(text[-8:-1]):
        return span
    return span._replace(text=text[:-1], end=span.end - 1).trimmed()


_MARKS = ("**", "__", "```", "`", "|", '"', "”")


def _without_mark(span: Span) -> Span:
    mark = next((mark for mark in _MARKS if span.text.endswith(mark)), None)
    if mark is None or span.text.count(mark) % 2 == 0 or (mark == "”" and "“" in span.text):
        return span
    return span._replace(text=span.text[: -len(mark)], end=span.end - len(mark)).trimmed()


# A number, a formula or the letter of a choice: not `even`, which may be said of anything.
_TELLING = re.compile(r"[\d$\\]|\A\(?[A-H]\)?\Z")


def _after_copula(span: Span) -> Span | None:
    formulas = [formula.span() for formula in _FORMULA.finditer(span.text)]
    places = [found.end() for found in _SENTENCE_COPULA.finditer(span.text) if not _inside(found.start(), formulas)]
    for place in reversed(places[-8:]):
        rest = trimmed(Span(span.text[place:], span.start + place, span.end, span.method))
        if is_value(rest.text) and _TELLING.search(rest.text):
            return rest
    return None


def _inside(place: int, spans: list[tuple[int, int]]) -> bool:
    return any(start < place < end for start, end in spans)


def _only_quantity(span: Span) -> Span | None:
    """The one number or formula with a number of a sentence, with its unit; None when there are more, or a guard."""
    formulas = [found.span() for found in _FORMULA.finditer(span.text)]
    numbers = [found.span() for found in _NUMBER.finditer(span.text) if not _inside(found.start(), formulas)]
    telling = [place for place in formulas if any(map(str.isdigit, span.text[slice(*place)]))]
    quantities = [*telling, *numbers]
    if len(quantities) != 1 or _GUARDED.search(span.text):
        return None
    start, end = quantities[0]
    unit = _UNITS.match(span.text, end)
    end = unit.end() if unit else end
    return Span(span.text[start:end], span.start + start, span.start + end, span.method).trimmed()


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
    if sentence is None or _HEDGED.search(_FORMULA.sub(" ", sentence.text)):
        return None
    starter = _CONCLUDING.match(sentence.text)
    begin = starter.end() if starter else 0
    rest = _part(sentence, begin, len(sentence.text))
    for found in (_SUBJECT.match(rest.text), _SHOWN.search(rest.text)):
        if found and is_value(trimmed(_part(rest, *found.span("value"))).text):
            return trimmed(_part(rest, *found.span("value")))
    if starter:
        return told(rest, announced=True)
    return _after_copula(trimmed(rest))


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
        stop = min(end, _clause_end(text, place, end))
        sentence = Span(text[place:stop], place, stop, "conclusion").trimmed()
        last = sentence if len(sentence.text) > 1 else last
        place = max(stop, place + 1)
    return last
