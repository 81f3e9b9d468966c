"""Numbers in a base, times of day and ratios."""

from __future__ import annotations

from fractions import Fraction

from rewardsvc.rewards.math.formulas import fraction, whole
from rewardsvc.rewards.math.grounds import Comparison, all_of
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.quantities import is_whole, same_formulas, same_value
from rewardsvc.rewards.math.values import ZERO, Based, Clock, Formula, Node, Ratio, Value, number


def same_notation(by: Comparison, gold: Value, answer: Value) -> Outcome:
    """A number in a base, a time or a ratio against another, or against a plain number."""
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _based(by, gold, answer)
    if isinstance(gold, Clock) and isinstance(answer, Clock):
        unsaid = not gold.half or not answer.half
        same_time = gold.seconds == answer.seconds or (
            unsaid and gold.half != answer.half and gold.seconds % 43200 == answer.seconds % 43200
        )
        return "equal" if same_time else "not_equal"
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        return _ratios(by, gold, answer)
    return _quotients(by, gold, answer)


def _based(by: Comparison, gold: Value, answer: Value) -> Outcome:
    if isinstance(gold, Based) and isinstance(answer, Based):
        return "equal" if gold.base == answer.base and _plain_digits(gold) == _plain_digits(answer) else "not_equal"
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    assert isinstance(based, Based)
    if isinstance(other, Formula) and is_whole(other.expr) and str(other.expr.value) == _plain_digits(based):
        by.flag("base_omitted")
        return "equal"
    return "not_equal"


def _ratios(by: Comparison, gold: Ratio, answer: Ratio) -> Outcome:
    if len(gold.terms) != len(answer.terms):
        return "not_equal"
    pivot = next((place for place, term in enumerate(gold.terms) if term != ZERO), 0)
    first, second = gold.terms[pivot], answer.terms[pivot]
    if same_value(by, second, ZERO) == "equal":
        return "not_equal"
    pairs = zip(gold.terms, answer.terms, strict=True)
    return all_of([same_value(by, Node("mul", (left, second)), Node("mul", (right, first))) for left, right in pairs])


def _quotients(by: Comparison, gold: Value, answer: Value) -> Outcome:
    """A ratio of two terms as their quotient; a time of day without am or pm may have been one."""
    quotients = [_as_quotient(gold), _as_quotient(answer)]
    if (
        quotients[0] is None
        or quotients[1] is None
        or (isinstance(gold, Clock | Ratio) and isinstance(answer, Clock | Ratio))
    ):
        return "not_equal"
    return same_formulas(by, quotients[0], quotients[1])


def _plain_digits(based: Based) -> str:
    sign = "-" if based.digits.startswith("-") else ""
    return sign + (based.digits.lstrip("-").lstrip("0").upper() or "0")


def _as_quotient(value: Value) -> Formula | None:
    if isinstance(value, Ratio) and len(value.terms) == 2:
        return Formula(fraction(value.terms[0], value.terms[1]))
    if isinstance(value, Clock) and not value.half and value.seconds % 60 == 0:
        hours, minutes = value.seconds // 3600, value.seconds % 3600 // 60
        return Formula(number(whole(Fraction(hours, minutes)))) if minutes else None
    return value if isinstance(value, Formula) else None
