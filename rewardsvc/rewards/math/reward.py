"""The `math` reward: is the final answer mathematically the same as the reference? Decided by math-verify.

math-verify's own time limits are alarms that do nothing in a server and turn slowness into "wrong"; here they are off,
and the worker that runs this is killed from outside when an item takes too long. Its parser and grader swallow errors
by default; here they are asked to raise, so that a failure is never a zero.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Annotated, Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from msgspec import Meta

from rewardsvc import extract
from rewardsvc.reward import BadReference, Case, Cpu, Model, PerRollout, Rollout, Task, Verdict

_CONFIG = (LatexExtractionConfig(), ExprExtractionConfig())
_MAX_ANSWER = 1_000
logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it would log rollout text


class Math(PerRollout):
    r"""1.0 when the final answer is mathematically equal to the reference.

    The final answer is what stands after the reasoning: the last `\boxed{…}`, an `<answer>` tag, a line that announces
    it, or else the last expression that math-verify finds. A list of references means that any of them is accepted.
    """

    name, version = "math", "1"
    resources = Cpu(item_timeout=5.0, memory_mb=1024)
    deterministic = True
    Reference = str | int | float | list[str | int | float]
    reasons = {
        "equal": "The answer equals an accepted reference.",
        "not_equal": "The answer is mathematics, but differs from every reference.",
        "no_answer": "The completion has no final answer.",
        "unparsable_answer": "The final answer cannot be read as mathematics and is not literally the reference.",
    }
    cases = [
        Case.full(r"Adding them gives \boxed{42}.", reference="42", reason="equal", why="a boxed number"),
        Case.full(r"\boxed{\frac{2}{4}}", reference="1/2", why="an unreduced fraction"),
        Case.full(r"<think>maybe \boxed{7}</think> So \boxed{8}", reference=8, why="the answer after the reasoning"),
        Case.full(r"\boxed{(x+1)^2}", reference="x^2+2x+1", why="an expanded polynomial"),
        Case.full(r"\boxed{\sqrt{8}}", reference=["3", r"2\sqrt{2}"], why="one of several references"),
        Case.zero(r"\boxed{41}", reference="42", reason="not_equal", why="a wrong number"),
        Case.zero(r"\boxed{\frac{1}{3}}", reference="0.25", why="a wrong fraction"),
        Case.full("The answer is 42.", reference="42", why="the full stop belongs to the sentence"),
        Case.malformed("", reference="42", reason="no_answer", why="nothing at all"),
        Case.malformed(r"I am sure. \boxed{}", reference="42", reason="no_answer", why="an empty box"),
        Case.attack(r"<think>\boxed{42}</think> \boxed{7}", reference="42", why="right only inside the reasoning"),
        Case.attack(r"\boxed{41 \text{ or } 42}", reference="42", why="two answers in one box"),
        Case.not_scored(r"\boxed{42}", "bad_reference", reference="", why="an empty reference"),
        Case.not_scored(r"\boxed{42}", "bad_reference", reference=r"\frac{", why="a reference that does not parse"),
    ]

    class Params(Model):
        """How strictly answers are compared."""

        strict: Annotated[
            bool, Meta(description="Symbols matter, and a set never equals a tuple; off, symbols may be renamed.")
        ] = True
        float_digits: Annotated[int, Meta(ge=1, le=15, description="Decimals are equal after so many digits.")] = 6

    @classmethod
    def warm(cls) -> None:
        """Fills the parser's tables before workers are forked."""
        for text in (r"\boxed{\frac{1}{2}+\sqrt{3}x}", r"\boxed{(1,2)}", r"\boxed{x=\sin 30^\circ}"):
            verify(_parse(text), _parse(text), timeout_seconds=None)

    def score(self, rollout: Rollout, task: Task, params: Any) -> Verdict:
        """Parses the references first: if none can be used, no answer is judged by them."""
        golds = [_gold(str(reference)) for reference in _references(task.reference)]
        answer = _answer(rollout.text)
        if not answer.strip():
            return Verdict.scored(0.0, "no_answer")
        parsed = _parse(answer)
        shown = (str(parsed[-1]) if parsed else answer)[:_MAX_ANSWER]
        if not parsed:
            return Verdict.scored(0.0, "unparsable_answer", answer=shown)
        same = any(_equal(gold, parsed, params) for gold in golds)
        return Verdict.scored(float(same), "equal" if same else "not_equal", answer=shown)


def _references(reference: Any) -> list[Any]:
    """The accepted references. Raises `BadReference` when there is none."""
    if reference is None or reference == []:
        raise BadReference("no_reference")
    return reference if isinstance(reference, list) else [reference]


def _answer(completion: str) -> str:
    """The part of a completion that math-verify shall read: the announced answer in a box, or the text as it is."""
    region = extract.after_reasoning(completion)
    if region is None:
        return ""
    announced = extract.final_answer(region.text)
    if announced is None:
        return region.text
    return _boxed(announced.text) if announced.text else ""


def _boxed(text: str) -> str:
    """math-verify reads a bare answer reliably only in a box. A full stop at the end belongs to the sentence."""
    bare = text.rstrip(".!。") or text
    return bare if "\\boxed" in bare else f"\\boxed{{{bare}}}"


@lru_cache(maxsize=256)
def _gold(reference: str) -> list[Any]:
    """A parsed reference, kept because a whole group is judged by it. Raises `BadReference`."""
    parsed = _parse(_boxed(reference)) if reference.strip() else []
    if not any(not isinstance(value, str) for value in parsed) and not _is_word(reference):
        raise BadReference("unparsable_reference")
    return parsed


def _is_word(reference: str) -> bool:
    """Plain words such as `yes` or `Monday` are compared as text."""
    return reference.replace(" ", "").isalpha()


def _parse(text: str) -> list[Any]:
    parsed: list[Any] = parse(
        text,
        _CONFIG,
        fallback_mode="first_match",
        extraction_mode="any_match",
        parsing_timeout=None,
        raise_on_error=True,
    )
    return parsed


def _equal(gold: list[Any], answer: list[Any], params: Any) -> bool:
    same: bool = verify(
        gold,
        answer,
        float_rounding=params.float_digits,
        strict=params.strict,
        timeout_seconds=None,
        raise_on_error=True,
    )
    return same
