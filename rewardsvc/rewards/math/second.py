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

CALLS = 1_000_000
"""Function calls for one pair, parsing included: about a second. The median pair takes some 20,000."""

_CONFIG = (LatexExtractionConfig(), ExprExtractionConfig())
logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it would log rollout text
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

Outcome = Literal["equal", "not_equal", "undecided"]


class _Exhausted(BaseException):
    """The budget is spent. No `Exception`, because sympy and math-verify swallow those."""


class _Budget:
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


def decide(gold: str, answer: str, calls: int = CALLS) -> Outcome:
    """What math-verify says about two bare formulas; `undecided` when it cannot read one, fails, or takes too long."""
    warm()
    clear_cache()
    try:
        with _Budget(calls):
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
