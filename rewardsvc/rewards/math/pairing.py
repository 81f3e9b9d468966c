"""The members of two collections paired: one by one, in any order, or by their names.

Out of order, each member takes the first partner that is equal and still free.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewardsvc.rewards.math.grounds import Comparison, all_of, truth
from rewardsvc.rewards.math.identity import Outcome
from rewardsvc.rewards.math.values import Value

MAX_ITEMS = 80
"""Members of an unordered list that are matched with one another; longer lists must have the same spelling."""


def in_order(by: Comparison, left: Sequence[Value], right: Sequence[Value]) -> Outcome:
    """The first member with the first, and so on."""
    top, by.top = by.top, False
    if len(left) != len(right):
        if top:
            by.parts = (False,) * len(left)
        return "not_equal"
    outcomes = [by.compare(one, two) for one, two in zip(left, right, strict=True)]
    if top:
        by.parts = tuple(truth(outcome) for outcome in outcomes)
    return all_of(outcomes)


def matched(by: Comparison, left: Sequence[Value], right: Sequence[Value]) -> Outcome:
    """Every member of one side has its own partner on the other."""
    top, by.top = by.top, False
    if len(left) > MAX_ITEMS or len(right) > MAX_ITEMS:
        return "undecided"
    waiting, unsure = list(right), False
    parts: list[bool | None] = []
    for item in left:
        outcome = _take(by, item, waiting)
        unsure = unsure or outcome == "undecided"
        parts.append(truth(outcome))
    if top:
        by.parts = tuple(parts)
    if len(left) != len(right):
        return "not_equal"
    if all(parts):
        return "equal"
    return "undecided" if unsure else "not_equal"


def _take(by: Comparison, item: Value, waiting: list[Value]) -> Outcome:
    outcome: Outcome = "not_equal"
    for place, candidate in enumerate(waiting):
        if item == candidate:
            del waiting[place]
            return "equal"
    for place, candidate in enumerate(waiting):
        by.budget.pay(2)
        found = by.quiet(item, candidate)
        if found == "equal":
            del waiting[place]
            return found
        outcome = found if found == "undecided" else outcome
    return outcome


def distinct(by: Comparison, items: Sequence[Value]) -> list[Value]:
    """The members without those that are equal to an earlier one."""
    kept: list[Value] = []
    for item in items[:MAX_ITEMS]:
        if not any(item == other or by.quiet(item, other) == "equal" for other in kept):
            kept.append(item)
    return kept + list(items[MAX_ITEMS:])


def same_assignments(by: Comparison, gold: dict[str, Value], answer: dict[str, Value]) -> Outcome:
    """Values by their names, in any order."""
    if set(gold) != set(answer):
        return "not_equal"
    top, by.top = by.top, False
    outcomes = [by.compare(gold[name], answer[name]) for name in gold]
    if top:
        by.parts = tuple(truth(outcome) for outcome in outcomes)
    return all_of(outcomes)
