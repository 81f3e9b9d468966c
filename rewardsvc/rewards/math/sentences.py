r"""Sentences in which a value is told: where they end, and which part of them is the value.

A sentence that tells two values, or one with doubt, is never cut down to one of them.
"""

from __future__ import annotations

import re

from rewardsvc.extract import Span
from rewardsvc.rewards.math.bare import UNIT, is_value

MAX_CLAUSE = 4_000
"""Characters of an announced answer that are read."""

_LEAD = re.compile(r"(?:\s|[*_#>`\"“|:：]|```[a-z]{0,10}\n)*+")
_CLAUSE = re.compile(
    r"""(?P<display>\$\$|\\\[|\\\]|\\begin\{|\\end\{)|(?P<inline>\$|\\\(|\\\))|\\.|(?P<line>\n|</?[a-z]|<\|)|
    (?P<stop>[.!](?=[\s*_"”')$|]|\Z)|。|！)""",
    re.VERBOSE | re.DOTALL,
)
_OPENERS = ("\\[", "\\begin{", "\\(")
_ABBREVIATION = re.compile(
    r"(?:\b[A-Za-z]\.[A-Za-z]|\b(?:sq|ft|in|approx|vs|no|cu|lb|oz|hr|min|sec|[ap]\.?m|i\.e|e\.g))\Z", re.IGNORECASE
)
_HANGING = re.compile(r"(?:[:：]|\b(?:is|are|by|=))[*_ ]*\Z")


def clause(text: str, start: int) -> Span:
    """The rest of the sentence from `start` on. A formula that is set off may run over lines, no other text may."""
    begin = _LEAD.match(text, start, start + MAX_CLAUSE)
    first = begin.end() if begin else start
    end = clause_end(text, first, min(len(text), first + MAX_CLAUSE))
    return Span(text[first:end], first, end, "line")


def clause_end(text: str, first: int, high: int) -> int:
    """Where the sentence ends that begins at `first`, at the latest at `high`."""
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
_COPULA = re.compile(
    r"""(?:\b(?:(?:is|are)(?:\sas\sfollows)?|equals?|(?<!might\ )(?<!could\ )(?<!may\ )be|was|were|becomes|by)\b|
    (?<=it)['’]s\b|是|为|等于)\s*(?:(?:exactly|simply|equal\sto|therefore|thus|then|given\sby)\s)?[:：]?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_FORMULA = re.compile(r"\$\$.{1,600}?\$\$|\$[^$\n]{1,600}+\$|\\\[.{1,600}?\\\]|\\\([^\n]{1,600}?\\\)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.,\\{])[-−]?(?:\\?[$€£]\s?)?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\s?\\?%|\s?°)?(?![\w])")
_UNITS = re.compile(rf"(?:\s?{UNIT.pattern}){{1,3}}", UNIT.flags)
_GUARDED = re.compile(
    r"\b(?:least|most|than|about|approximately|around|over|under|up\sto|not|no|except|between|every|all|or|neither|each|"
    r"first|once|twice|double|half|roots?|squared?|cubed?|factorial|reciprocal|divisors?|multiples?|digits?|power)\b|n't\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"""\b(?:maybe|perhaps|might|may|could|possibl[ey]|probably|potential|candidate|example|guess|suppose|assume|unsure|
    not\ssure|if|unless|whether|let|try|check|wait|hmm|consider|cannot|recall|given\sthat|i\sthink|need)\b|
    [?？]|n't\b(?!\sequal)""",
    re.VERBOSE | re.IGNORECASE,
)
_EITHER = re.compile(r"\b(?:or|either|neither)\b|或", re.IGNORECASE)


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
    if doubted(whole.text):
        value = after_copula(whole)
        alone = value is not None and not any(map(str.isdigit, whole.text[: value.start - whole.start]))
        return value if alone else None
    return after_copula(whole) or (_only_quantity(whole) if announced else None)


def doubted(text: str) -> bool:
    """Whether a sentence has words of doubt or of condition in it, outside of its formulas."""
    return _DOUBT.search(_FORMULA.sub(" ", text)) is not None


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
    if not text.endswith((".", "。", "！")) or text.endswith(("..", "\\right.")) or _ABBREVIATION.search(text[-8:-1]):
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


def after_copula(span: Span) -> Span | None:
    """What follows the last "is" of a sentence, if that is a value and not one of two."""
    formulas = [formula.span() for formula in _FORMULA.finditer(span.text)]
    places = [found.end() for found in _COPULA.finditer(span.text) if not _inside(found.start(), formulas)]
    for place in reversed(places[-8:]):
        rest = trimmed(Span(span.text[place:], span.start + place, span.end, span.method))
        if is_value(rest.text) and _TELLING.search(rest.text):
            return None if _EITHER.search(span.text[:place]) else rest
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
