r"""Looks at the references of a data set before anything is trained on them: what is each, and what will become of it?

Nothing here decides an answer. The engine's own `read` and `decide` are asked about each reference by itself, so what
is found is what the reward will do: a reference that cannot be read is never a zero, but it is no signal either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from msgspec import structs

from rewardsvc.rewards.math.canon import canonical, type_of
from rewardsvc.rewards.math.comparing import decide
from rewardsvc.rewards.math.grading import gold_of
from rewardsvc.rewards.math.parsing import read
from rewardsvc.rewards.math.policy import Policy
from rewardsvc.rewards.math.restating import formulas
from rewardsvc.rewards.math.tokens import Unreadable, repair
from rewardsvc.rewards.math.values import Choice, Formula, Listing, SetOf, System, Text, Tuple, Union, Value

Finding = Literal[
    "unparsable",
    "irreflexive",
    "ambiguous",
    "restated",
    "multi_valued",
    "needs_units",
    "choice",
    "text",
    "prose",
    "unread",
    "damaged",
    "solution",
]
Treatment = Literal["refused", "exact", "parts", "letter", "words", "second_tier"]

FINDINGS: dict[Finding, str] = {
    "unparsable": "It cannot be read as mathematics, nor as text.",
    "irreflexive": "It is not even found equal to itself.",
    "ambiguous": "It can be read as more than one kind of value; the first reading is taken.",
    "restated": "A formula of the question is equal to it, so copying the question would be right.",
    "multi_valued": "It has several values: a list, a set, a plus or minus, an `or`.",
    "needs_units": "It has a unit, so answers in other units have to be converted.",
    "choice": "It is the letter of a choice, which is right one time in four by guessing.",
    "text": "It is a word or two, compared as words.",
    "prose": "It is a sentence, which only a judge can compare.",
    "unread": "It is mathematics beyond the engine, compared by its spelling and else in the second tier.",
    "damaged": "Backslashes were lost to JSON escapes; they are put back.",
    "solution": "It is a whole solution; only its marked answer is used.",
}
"""What is found in references, the worst first."""

TREATMENTS: dict[Treatment, str] = {
    "refused": "No rollout gets a number (`bad_reference`).",
    "exact": "Answers are decided by exact mathematics.",
    "parts": "Each part is decided, and all must be right.",
    "letter": "The letter is compared.",
    "words": "The words are compared, whatever their case.",
    "second_tier": "Answers that are spelt otherwise go to the second tier, or stay undecided.",
}

_MAX_FORMULAS = 40
_PROSE_WORDS = 4
# One reading for each way in which a short text can be taken, as an answer would be by the type of its gold.
_HINTS = ("(0,1]", "(a,b)", "a,b", "a,b,c", "1:2:3", "x")


@dataclass(frozen=True, slots=True)
class Audited:
    """One reference: the text that is used, its type and canonical form (None when unparsable), what was found.

    `readings` are the types it can be read as when it is `ambiguous`; `reason` says why it is `unparsable`.
    """

    text: str
    type: str | None
    canonical: str | None
    findings: tuple[Finding, ...]
    treatment: Treatment
    readings: tuple[str, ...] = ()
    reason: str | None = None


def audit(gold: str, prompt: str = "", policy: Policy | None = None) -> Audited:
    """Examines one reference, with the question if there is one. Never raises, on any text."""
    policy = policy or Policy()
    try:
        accepted = gold_of(gold, policy)
    except Unreadable as why:
        return Audited(gold, None, None, ("unparsable",), "refused", reason=why.reason)
    text, value = accepted.text, accepted.value
    readings = _readings(text, policy)
    kind = _kind(text)
    found = {
        "irreflexive": not _is_itself(text, policy),
        "ambiguous": len(readings) > 1,
        "restated": _is_restated(value, prompt, policy),
        "multi_valued": _has_parts(value),
        "needs_units": _has_unit(value),
        "choice": isinstance(value, Choice),
        kind: isinstance(value, Text),
        "damaged": repair(text) != text,
        "solution": len(text) + 20 < len(gold),
    }
    findings = tuple(name for name in FINDINGS if found.get(name))
    shown = readings if found["ambiguous"] else ()
    return Audited(text, type_of(value), canonical(value), findings, _treatment(value, findings), shown)


def _treatment(value: Value, findings: tuple[Finding, ...]) -> Treatment:
    if {"irreflexive", "prose", "unread"} & set(findings):
        return "second_tier"
    if isinstance(value, Choice):
        return "letter"
    if isinstance(value, Text):
        return "words"
    return "parts" if "multi_valued" in findings else "exact"


def _readings(text: str, policy: Policy) -> tuple[str, ...]:
    """The types that the text is read as, alone and as an answer to golds of several types."""
    types = [type_of(read(text, policy))]
    for example in _HINTS:
        try:
            types.append(type_of(read(text, policy, read(example, policy))))
        except Unreadable:
            continue
    return tuple(dict.fromkeys(types))


def _is_itself(text: str, policy: Policy) -> bool:
    """Whether the text equals itself between spaces, so that the comparison cannot stop at the same spelling."""
    gold = read(text, policy)
    try:
        again = read(f" {text} ", policy, gold)
    except Unreadable:
        return False
    return decide(gold, again, structs.replace(policy, restatement="accept")).outcome == "equal"


def _is_restated(value: Value, prompt: str, policy: Policy) -> bool:
    """Whether a formula of the question, other than a plain number or name, is found equal to the reference."""
    return any(_is_equal(value, formula, policy) for formula in formulas(prompt)[-_MAX_FORMULAS:])


def _is_equal(value: Value, formula: str, policy: Policy) -> bool:
    try:
        given = read(formula.strip(" .,;:?"), policy, value)
    except Unreadable:
        return False
    trivial = isinstance(given, Formula) and given.expr.op in ("num", "sym", "const")
    return not trivial and decide(value, given, policy).outcome == "equal"


def _has_parts(value: Value) -> bool:
    if isinstance(value, Listing | SetOf | System | Union):
        return len(value.parts if isinstance(value, Union) else value.items) > 1
    return type_of(value) == "plus_minus"


def _has_unit(value: Value) -> bool:
    """Whether the value, or a member of it, is a quantity with a unit."""
    members = value.items if isinstance(value, Listing | SetOf | Tuple | System) else (value,)
    return any(isinstance(member, Formula) and member.unit is not None for member in members)


_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf)\s?|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_MATHEMATICS = re.compile(r"[\d=^_\\<>]")


def _kind(text: str) -> Literal["text", "prose", "unread"]:
    """Which kind of text this would be: a word or two, a sentence, or a formula that could not be read."""
    words = len(_WORD.findall(_COMMAND.sub(" ", text)))
    if words > _PROSE_WORDS:
        return "prose"
    return "unread" if _MATHEMATICS.search(_COMMAND.sub(" ", text)) else "text"
