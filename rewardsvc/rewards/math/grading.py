"""An answer against its golds: the fast exact tier first, math-verify for what it leaves undecided.

`Golds` are read once and remember what they have decided, because the rollouts of a group share their golds and often
their answers. What is remembered is bounded, and nothing in it depends on who asked or when.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from rewardsvc.errors import BadReference
from rewardsvc.rewards.math import answers, second
from rewardsvc.rewards.math.canon import canonical, type_of
from rewardsvc.rewards.math.comparing import Decision, decide
from rewardsvc.rewards.math.params import Asked
from rewardsvc.rewards.math.parsing import read
from rewardsvc.rewards.math.policy import Policy
from rewardsvc.rewards.math.tokens import Unreadable
from rewardsvc.rewards.math.values import Formula, Text, Value

Outcome = Literal["equal", "not_equal", "undecided", "unparsable"]
MAX_SHOWN = 1_000
"""Characters of a text in a verdict."""

MAX_REMEMBERED = 512
MAX_REMEMBERED_LENGTH = 500
MAX_SECOND_LENGTH = 300
"""Characters of a formula that the second tier is asked about; longer ones cost it seconds and it fails on most."""


@dataclass(frozen=True)
class Gold:
    """One accepted answer."""

    text: str
    value: Value

    @cached_property
    def shown(self) -> dict[str, Any]:
        """The gold as a verdict shows it."""
        return {"text": self.text[:MAX_SHOWN], "type": type_of(self.value), "canonical": canonical(self.value)}


@dataclass(frozen=True)
class Judged:
    """What was found about one answer text. `gold` is the one that it was compared with last: the equal one, if any.

    `tier` is 1 for the exact engine and 2 for math-verify; `value` is None when the answer cannot be read. `parts` has
    an entry for each part of a gold that has several.
    """

    outcome: Outcome
    reason: str
    tier: int
    gold: Gold
    flags: tuple[str, ...] = ()
    parts: tuple[bool | None, ...] = ()
    value: Value | None = None

    @cached_property
    def shown(self) -> dict[str, Any]:
        """What the answer was taken for, what it was compared with, and by whom."""
        shown: dict[str, Any] = {"tier": self.tier, "because": self.reason, "gold": self.gold.shown}
        if self.value is self.gold.value:
            shown |= {name: self.gold.shown[name] for name in ("type", "canonical")}
        elif self.value is not None:
            shown |= {"type": type_of(self.value), "canonical": canonical(self.value)}
        return shown | ({"parts": list(self.parts)} if self.parts else {})


@dataclass(frozen=True, slots=True)
class Golds:
    """The accepted answers of one task under one policy."""

    accepted: tuple[Gold, ...]
    policy: Policy
    second_tier: bool
    remembered: dict[str, Judged] = field(default_factory=dict)

    def judge(self, answer: str) -> Judged:
        """Equal to any of the golds, to none, or undecided. Never raises."""
        known = self.remembered.get(answer)
        if known is None:
            known = self._judge(answer)
            if len(answer) <= MAX_REMEMBERED_LENGTH and len(self.remembered) < MAX_REMEMBERED:
                self.remembered[answer] = known
        return known

    def _judge(self, answer: str) -> Judged:
        found: list[Judged] = []
        for gold in self.accepted:
            judged = _against(gold, answer, self.policy)
            if judged.outcome == "equal":
                return judged
            found.append(judged)
        if self.second_tier:
            found = [_again(judged, answer) for judged in found]
        return min(found, key=lambda judged: _RANK[judged.outcome])


_RANK: dict[Outcome, int] = {"equal": 0, "undecided": 1, "not_equal": 2, "unparsable": 3}


def _against(gold: Gold, answer: str, policy: Policy) -> Judged:
    try:
        value = read(answer, policy, gold.value)
    except Unreadable as why:
        return Judged("unparsable", why.reason, 1, gold)
    decision: Decision = decide(gold.value, value, policy)
    if decision.outcome == "undecided" and isinstance(value, Text) and not isinstance(gold.value, Text):
        return Judged("unparsable", "words_for_mathematics", 1, gold, decision.flags, decision.parts, value)
    return Judged(decision.outcome, decision.reason, 1, gold, decision.flags, decision.parts, value)


def _again(judged: Judged, answer: str) -> Judged:
    """Asks the second tier about two bare formulas, and nothing else: sets, equations and units it only guesses."""
    gold = judged.gold
    if judged.outcome != "undecided" or judged.reason == "budget" or judged.flags:
        return judged
    if not (_is_bare(gold.value) and _is_bare(judged.value)) or max(len(gold.text), len(answer)) > MAX_SECOND_LENGTH:
        return judged
    if any(isinstance(value, Formula) and second.is_heavy(value.expr) for value in (gold.value, judged.value)):
        return judged
    outcome = second.decide(gold.text, answer)
    return Judged(outcome, f"second_{outcome}", 2, gold, (), judged.parts, judged.value)


def _is_bare(value: Value | None) -> bool:
    return isinstance(value, Formula) and value.unit is None and not value.mark


@lru_cache(maxsize=256)
def golds(texts: tuple[str, ...], asked: Asked, second_tier: bool) -> Golds:
    """References as golds; kept, because a whole group is judged by them. Raises `BadReference`."""
    policy = asked.policy()
    return Golds(tuple(_accepted(text, policy) for text in texts), policy, second_tier)


def _accepted(reference: str, policy: Policy) -> Gold:
    try:
        return gold_of(reference, policy)
    except Unreadable as why:
        said = f"{reference[:200]!r} is no usable reference: {why.reason}."
        raise BadReference("unparsable_reference", said) from None


def gold_of(reference: str, policy: Policy) -> Gold:
    """A reference, which may be a whole solution, as a gold. Raises `Unreadable`, also for a formula cut short."""
    text = answers.reference(reference).strip(" \n")  # a form feed may be what JSON has left of `\frac`
    value = read(text, policy)
    if isinstance(value, Text) and _BROKEN.search(text.replace("\\{", "").replace("\\}", "")):
        raise Unreadable("cut_short")
    return Gold(text, value)


_BROKEN = re.compile(r"\\[a-zA-Z]+\s*\{[^{}]*\Z|[-+*/^_=<>]\s*\$?\s*\Z")


def references(reference: Any) -> tuple[str, ...]:
    """The accepted references as text. Raises `BadReference` when there is none."""
    given: Sequence[Any] = reference if isinstance(reference, list) else [reference]
    if not given or reference is None:
        raise BadReference("no_reference", "The task has no reference.")
    return tuple(str(one) for one in given)
