"""Words and letters of choices. Words are never algebra: what is not plainly the same or another is undecided."""

from __future__ import annotations

from rewardsvc.rewards.math import words
from rewardsvc.rewards.math.grounds import Comparison
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.values import Choice, Formula, Listing, SetOf, Text, Value

FALSE_CHAIN = Text("false chain", "false chain")


def same_texts(by: Comparison, gold: Value, answer: Value) -> Outcome:
    """Words or a letter against any other value."""
    first, second = letter_of(gold), letter_of(answer)
    if first is not None and second is not None:
        return "equal" if first == second else "not_equal"
    if isinstance(gold, Text) and isinstance(answer, Text):
        return _prose(by, gold, answer)
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _choice(by, answer if isinstance(gold, Choice) else gold)
    text, other = (gold, answer) if isinstance(gold, Text) else (answer, gold)
    if text == FALSE_CHAIN:
        return "not_equal"
    if isinstance(other, Listing) and isinstance(text, Text) and all(isinstance(item, Text) for item in other.items):
        joined = " and ".join(item.words for item in other.items if isinstance(item, Text))
        return _prose(by, text, Text(joined, words.shape(joined)))
    letters = [letter_of(item) for item in other.items] if isinstance(other, Listing) else []
    if isinstance(text, Text) and letters and None not in letters:
        chosen = sorted(letter for letter in letters if letter)
        return "equal" if list(text.words) == chosen else "not_equal"
    if not isinstance(text, Text) or (isinstance(other, SetOf) and not other.items):
        return "undecided"
    if words.denies(text.words):
        return "not_equal"
    plain = text.words.replace(" ", "").isalpha() and len(text.words) < 60
    return "not_equal" if plain else "undecided"


def _choice(by: Comparison, other: Value) -> Outcome:
    if isinstance(other, Text):
        return "not_equal" if len(other.words.split()) <= 3 else "undecided"
    return "not_equal"


def _prose(by: Comparison, gold: Text, answer: Text) -> Outcome:
    first, second = gold.words, answer.words
    if by.policy.case == "fold":
        first, second = first.casefold(), second.casefold()
    if first == second or first.replace(" ", "") == second.replace(" ", ""):
        return "equal"
    members, others = words.members(first), words.members(second)
    if len(members) > 1 and members == others and not words.contradict(first, second):
        return "equal"
    if words.contradict(first, second) or (len(members) != len(others) and max(map(_length, members + others)) < 3):
        return "not_equal"
    if gold.shape.casefold() == answer.shape.casefold() and gold.shape != gold.words:
        return "not_equal"
    short = (
        max(len(first.split()), len(second.split())) <= 3
        and (first + second).replace(" ", "").replace("/", "").isalpha()
    )
    return "not_equal" if short or answer == FALSE_CHAIN else "undecided"


def _length(phrase: str) -> int:
    return len(phrase.split())


def letter_of(value: Value) -> str | None:
    """The capital letter that a value is."""
    if isinstance(value, Choice):
        return value.letter
    if isinstance(value, Formula) and value.expr.op == "sym" and len(str(value.expr.value)) == 1:
        return str(value.expr.value)
    return None
