"""The second tier: math-verify and sympy, for the few pairs that the fast tier leaves undecided.

Both can take for ever, and their own time limits are alarms that do nothing in a server and turn slowness into "wrong".
Here they run under a budget of function calls, not of seconds: equal input then gives an equal verdict on a fast
machine and on a loaded one, in any thread, and whatever was asked before (sympy's caches are emptied each time, which
also keeps its memory flat). One huge operation in C counts as a single call; against that stands the worker's own
limit, which the front enforces from outside.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from types import FrameType
from typing import Any, Literal

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy.core.cache import clear_cache

from rewardsvc.rewards.math.exact import Budget
from rewardsvc.rewards.math.identity import approximate, has_i
from rewardsvc.rewards.math.residues import names_of
from rewardsvc.rewards.math.values import Node

CALLS = 1_000_000
"""Function calls for one pair, parsing included: about a second. The median pair takes some 20,000."""

_CONFIG = (LatexExtractionConfig(), ExprExtractionConfig())
logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it would log rollout text
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

MAX_OPERAND = 10_000
"""Exponents and operands of factorials up to which sympy, which carries them out in C and uncounted, is quick."""

Outcome = Literal["equal", "not_equal", "undecided"]


class _Exhausted(BaseException):
    """The budget is spent. No `Exception`, because sympy and math-verify swallow those."""


class _Calls:
    """Counts calls while it is the profiler of this thread, and ends the computation after so many."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Exhausted


def is_heavy(node: Node) -> bool:
    """Would sympy carry out a huge power, factorial or binomial in one uncounted step?"""
    if node.op == "pow" and _is_large(node.args[1]):
        return True
    if node.op == "call" and node.value in ("!", "!!", "binom", "f:\\Gamma", "f:Γ") and any(map(_is_large, node.args)):
        return True
    return any(map(is_heavy, node.args))


def _is_large(node: Node) -> bool:
    if node.op not in ("num", "pow", "call", "mul", "div", "add") or names_of(node) or has_i(node):
        return False
    value = approximate(node, Budget(1_000))
    return value is None or abs(value) > MAX_OPERAND


def decide(gold: str, answer: str, calls: int = CALLS) -> Outcome:
    """What math-verify says about two bare formulas; `undecided` when it cannot read one, fails, or takes too long."""
    warm()
    clear_cache()
    try:
        with _Calls(calls):
            return _verified(_parsed(gold), _parsed(answer))
    except (_Exhausted, RecursionError, MemoryError):
        return "undecided"
    except Exception:  # the boundary to a library that raises whatever sympy raises: no verdict, and no zero
        return "undecided"


def _parsed(formula: str) -> list[Any]:
    parsed: list[Any] = parse(
        f"\\boxed{{{formula}}}",
        _CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
        raise_on_error=True,
    )
    return parsed


def _verified(gold: list[Any], answer: list[Any]) -> Outcome:
    if not gold or not answer:
        return "undecided"
    same = verify(gold, answer, strict=True, timeout_seconds=None, raise_on_error=True)
    return "equal" if same else "not_equal"


@cache
def warm() -> None:
    """Fills the parser's tables once, before workers are forked, so that no budget has to pay for them."""
    for text in (r"\frac{1}{2}+\sqrt{3}x", "(1,2)", r"x=\sin 30^\circ"):
        _verified(_parsed(text), _parsed(text))
