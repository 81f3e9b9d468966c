"""Answers that only repeat the question: a formula of the prompt, or a task left unevaluated.

`\\int_0^1 x^2 dx` has the value that was asked for, and so has every formula that a question asks to evaluate. Whether
such an answer counts is a policy; here it is recognised.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rewardsvc.rewards.math.tokens import MAX_TEXT, Unreadable, repair, tokenize
from rewardsvc.rewards.math.values import Formula, Node, Relation, Tuple, Value

_TASKS = frozenset(["int", "sum", "prod", "lim", "derivative", "gcd", "lcm", "det"])
_TRIVIAL = re.compile(r"[-+]?[\d.,]*|[a-zA-Z]|\\[a-zA-Z]+")
_MAX_PROMPT = 20_000
_MAX_STRETCH = 300


def tasks(value: Value) -> frozenset[str]:
    """The operations that a value leaves to be carried out, such as `int` or `gcd`."""
    found: set[str] = set()
    waiting: list[object] = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Node):
            if part.op == "call" and part.value in _TASKS:
                found.add(str(part.value))
            waiting.extend(part.args)
        elif isinstance(part, Formula):
            waiting.append(part.expr)
        elif isinstance(part, Relation):
            waiting.extend(part.sides)
        elif isinstance(part, Tuple):
            waiting.extend(part.items)
    return frozenset(found)


def repeats(answer_text: str, prompt: str) -> bool:
    """Is the answer a formula of the question, apart from spacing?"""
    return bool(prompt and answer_text) and _compact(answer_text) in _compact_formulas(prompt[:_MAX_PROMPT])


def is_trivial(answer_text: str) -> bool:
    """A number or a single name: that the question has it too says nothing."""
    return _TRIVIAL.fullmatch(_compact(answer_text)) is not None


@lru_cache(maxsize=64)
def _compact_formulas(prompt: str) -> frozenset[str]:
    # Where dollars also mean money, delimiters cannot be paired: any stretch between two of them may be a formula.
    stretches = [stretch for stretch in _between_dollars(prompt) if len(stretch) < _MAX_STRETCH]
    return frozenset(_compact(formula) for formula in [*formulas(prompt), *stretches]) - {""}


def formulas(prompt: str) -> list[str]:
    """The formulas in a prompt: what stands between math delimiters, and the sides of equations there."""
    found = _between_dollars(prompt)[1::2]
    for opening, closing in ((r"\[", r"\]"), (r"\(", r"\)")):
        found += [piece.partition(closing)[0] for piece in prompt.split(opening)[1:] if closing in piece]
    return [formula for whole in found for formula in ([whole, *whole.split("=")] if "=" in whole else [whole])]


def _between_dollars(prompt: str) -> list[str]:
    return prompt.replace("$$", "$").split("$")


def _compact(text: str) -> str:
    """The tokens of a formula without spaces, delimiters and final punctuation."""
    if len(text) > MAX_TEXT:
        return ""
    try:
        tokens = tokenize(repair(text.strip()))
    except Unreadable:
        return ""
    return "".join(
        token.text for token in tokens if token.text not in ("$", "(", ")", "[", "]", "{", "}", "boxed")
    ).rstrip(".,;:?")
