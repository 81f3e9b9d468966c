"""Words: the normal form of prose answers, numbers written out, and phrases that are values.

Prose is never algebra: it is compared word by word. What does not change the meaning of a short answer (articles,
punctuation, letter case when the policy folds it) is left out of the normal form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rewardsvc.rewards.math.values import listed

_SMALL = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")
_UNITS = {name: value for value, name in enumerate(_SMALL)} | {
    name: 10 * (place + 2) for place, name in enumerate(_TENS)
}
_SCALES = {
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "trillion": 1_000_000_000_000,
}
_WORD = re.compile(r"[a-z]+")
_ARTICLES = frozenset(["the", "a", "an"])
_PUNCTUATION = frozenset(".,!?${};:\"`'[]()")
_JOINT = re.compile(r"\s*+,\s*+|\s++(?:and|or)\s++|\s*+&\s*+")
_EMPTY = frozenset(
    [
        "no solution", "no solutions", "no real solution", "no real solutions", "empty set", "there is no solution",
        "none", "there are no solutions", "there are no real solutions", "no such x exists", "null set",
    ]
)  # fmt: skip
_EVERYTHING = frozenset(
    ["all real numbers", "all reals", "all real", "every real number", "real numbers", "any real number"]
)
_HALF_LINES = {"positive real": 1, "negative real": -1}
_SAME = {
    "dne": "does not exist",
    "true": "true",
    "n/a": "undefined",
    "correct": "true",
    "false": "false",
    "incorrect": "false",
}
_DENIALS = frozenset(["not", "never", "neither", "nor", "isn't", "cannot", "can't", "don't", "except", "unknown"])
_AND = {"or": "and", "&": "and"}
_ANNOUNCED = re.compile(
    r"^(?:so |thus |therefore |hence )?(?:the )?(?:final )?(?:answers?|solutions?)(?: to [a-z ]{1,40})?"
    r"(?: is| are|:| set is)+",
    re.IGNORECASE,
)


def words(pieces: Iterable[str]) -> str:
    """The normal form of prose given in pieces: single spaces, no articles, no punctuation."""
    kept = [word for piece in pieces if piece not in _PUNCTUATION for word in piece.split()]
    kept = [word.strip(".,!?;:\"'`") for word in kept]
    text = " ".join(word for word in kept if word and word.lower() not in _ARTICLES)
    return _SAME.get(text.lower(), text)


def shape(text: str) -> str:
    """The text with every number replaced by 0: what two phrases share that differ in their numbers only."""
    return re.sub(r"\d++(?:\.\d++)?", "0", text)


def is_empty_set(text: str) -> bool:
    """Does the phrase say that there is no solution?"""
    return text.lower() in _EMPTY


def half_line(text: str) -> int:
    """1 when the phrase means all positive real numbers, -1 for the negative ones, else 0."""
    return _HALF_LINES.get(text.lower().removeprefix("all ").removesuffix("s").removesuffix(" number"), 0)


def is_everything(text: str) -> bool:
    """Does the phrase mean all real numbers?"""
    return text.lower() in _EVERYTHING


def without_announcement(text: str) -> str:
    """The text without a leading `the answer is` or `Solution is:`."""
    found = _ANNOUNCED.match(text) if text[:1].isalpha() else None
    return text[found.end() :].lstrip(" :") if found else text


def spelt_number(text: str) -> int | None:
    """The whole number that words spell, up to the trillions; None when they are no number."""
    names = [name for name in _WORD.findall(text.lower()) if name != "and"]
    if not names or len(names) > 30 or not all(name in _UNITS or name in _SCALES for name in names):
        return None
    total = current = 0
    for name in names:
        if name in _UNITS:
            current += _UNITS[name]
        elif name == "hundred":
            current = max(current, 1) * 100
        else:
            total, current = total + max(current, 1) * _SCALES[name], 0
    return total + current


def denies(text: str) -> bool:
    """Does the phrase deny something, as in `not 5`?"""
    return not _DENIALS.isdisjoint(text.lower().replace(",", " ").split())


def contradict(one: str, other: str) -> bool:
    """Do two phrases differ only in that one denies what the other says, or has `or` for `and`?"""
    first, second = one.lower().split(), other.lower().split()
    without = [[word for word in phrase if word not in _DENIALS] for phrase in (first, second)]
    if len(first) != len(second):
        return without[0] == without[1]
    return [_AND.get(word, word) for word in first] == [_AND.get(word, word) for word in second] and first != second


def scale(word: str) -> int:
    """What a word such as `million` multiplies the number before it by; 1 for other words."""
    return _SCALES.get(word.lower(), 1)


def members(text: str) -> list[str]:
    """The members of an enumeration such as `red and blue`, sorted; the text itself when it is none."""
    return sorted(part.strip() for part in _JOINT.split(text) if part.strip())
