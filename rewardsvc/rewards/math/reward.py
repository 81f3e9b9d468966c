"""The reward `math`: a completion's final answer is found, read, and compared with the references.

Each step is a room of its own: `answers` finds, `parsing` reads, `comparing` decides under a `policy`, `second` asks
math-verify about the rest, `grading` holds them together. Here is only what a caller sees: the verdict.
"""

from __future__ import annotations

from typing import Any

from rewardsvc.contract import text_of
from rewardsvc.reward import Case, Cpu, PerRollout, Rollout, Task, Verdict
from rewardsvc.rewards.math import credit, second
from rewardsvc.rewards.math.answers import MAX_ANSWER, Found, find
from rewardsvc.rewards.math.grading import MAX_SHOWN, Golds, Judged, golds, references
from rewardsvc.rewards.math.params import Params, asked, echoed
from rewardsvc.rewards.math.restating import is_trivial, repeats


class Math(PerRollout):
    r"""1.0 when the final answer is mathematically equal to the reference.

    The final answer is what the completion marks as such after the reasoning: the last `\boxed{…}`, an `<answer>` tag,
    `####`, "the final answer is", `Answer:`, a last line in brackets, a concluding sentence, or a completion that is
    nothing but an answer. A completion that marks none has none, whatever numbers stand in it.

    An exact engine of our own reads and compares both sides: it says equal or not equal only when that is shown, never
    because two floats look alike or two equations have no solutions. What it cannot decide goes to math-verify under a
    fixed budget; what that cannot decide either gets no number (`resource_limit`, reason `undecided`) unless the param
    `undecided` is `zero`.
    A list of references means that any of them is accepted.
    """

    name, version = "math", "2"
    resources = Cpu(item_timeout=5.0, memory_mb=1024)
    deterministic = True
    Reference = str | int | float | list[str | int | float]
    Params = Params  # type: ignore[assignment]  # made at run time, from the policy's own fields
    reasons = {
        "equal": "The answer equals an accepted reference.",
        "not_equal": "The answer is mathematics, but differs from every reference.",
        "no_answer": "The completion has no final answer.",
        "unparsable_answer": "The final answer cannot be read.",
        "restated_task": "The answer only repeats the question: one of its formulas, or a task left to be carried out.",
        "chain_with_false_link": "The answer is a chain of equations of which one is false.",
        "not_all_boxes_equal": "Every box had to be right, and one is not.",
        "undecided": "No tier could decide, and the caller wants 0 for that.",
    }
    cases = [
        Case.full(r"Adding them gives \boxed{42}.", reference="42", reason="equal", why="a boxed number"),
        Case.full(r"\boxed{\frac{2}{4}}", reference="1/2", why="an unreduced fraction"),
        Case.full(r"<think>maybe \boxed{7}</think> So \boxed{8}", reference=8, why="the answer after the reasoning"),
        Case.full(r"\boxed{(x+1)^2}", reference="x^2+2x+1", why="an expanded polynomial"),
        Case.full(r"\boxed{\sqrt{8}}", reference=["3", r"2\sqrt{2}"], why="one of several references"),
        Case.full("The answer is 42.", reference="42", why="the full stop belongs to the sentence"),
        Case.full(r"\boxed{2 < x \le 5}", reference="(2,5]", why="an inequality is an interval"),
        Case.zero(r"\boxed{41}", reference="42", reason="not_equal", why="a wrong number"),
        Case.zero(r"\boxed{\frac{1}{3}}", reference="0.25", why="a wrong fraction"),
        Case.malformed("", reference="42", reason="no_answer", why="nothing at all"),
        Case.malformed("I saw 42 and then 43 of them", reference="42", reason="no_answer", why="a number is no answer"),
        Case.malformed(r"I am sure. \boxed{}", reference="42", reason="no_answer", why="an empty box"),
        Case.attack(r"<think>\boxed{42}</think> \boxed{7}", reference="42", why="right only inside the reasoning"),
        Case.attack(r"\boxed{41 \text{ or } 42}", reference="42", why="two answers in one box"),
        Case.attack("The answer is 41 or 42.", reference="42", why="two answers in one sentence"),
        Case.attack(r"\boxed{0=1}", reference="x^2+1=0", why="equations without solutions are not all the same"),
        Case.attack(
            r"\boxed{\int_0^1 x^2 dx}",
            reference=r"\frac13",
            reason="restated_task",
            why="the task instead of its answer",
        ),
        Case.not_scored(r"\boxed{42}", "bad_reference", reference="", why="an empty reference"),
        Case.not_scored(r"\boxed{42}", "bad_reference", reference=r"\frac{", why="a reference that does not parse"),
    ]

    @classmethod
    def warm(cls) -> None:
        """Fills the second tier's tables before workers are forked."""
        second.warm()

    def score(self, rollout: Rollout, task: Task, params: Any) -> Verdict:
        """Reads the references first: if one of them cannot be used, no answer is judged by them."""
        accepted = golds(references(task.reference), asked(params), params.second_tier)
        found = find(rollout.text, styles=params.styles, region=params.region, several_boxes=params.several_boxes)
        if found.text is None:
            found = _verbatim(rollout.text, accepted) or found
        if found.text is None:
            return Verdict.scored(0.0, "no_answer", evidence=_where(found, found.flags) | {"policy": echoed(params)})
        answer = _without_exclamation(found, accepted)
        judged = accepted.judge(answer)
        repeated = repeats(answer, text_of(task.prompt) or "")
        reason = _reason(judged, found, accepted, repeated)
        flags = (*found.flags, *judged.flags)
        if repeated or reason == "restated_task":
            flags = (*flags, "restated_task")
        evidence = _where(found, flags) | judged.shown | {"policy": echoed(params)}
        shown = found.text[:MAX_SHOWN]
        if reason == "undecided" and params.undecided == "unscored":
            return Verdict(status="resource_limit", reason=reason, answer=shown, evidence=evidence)
        reward = credit.of(judged, params.credit) if reason in ("equal", "not_equal") else 0.0
        return Verdict.scored(reward, reason, answer=shown, evidence=evidence)


def _verbatim(completion: str, accepted: Golds) -> Found | None:
    """A completion that is the reference, to the letter, needs no mark."""
    text = completion.strip()
    if len(text) > MAX_ANSWER or all(text != gold.text for gold in accepted.accepted):
        return None
    start = completion.index(text)
    return Found(text, start, start + len(text), "verbatim", 1)


_SAID = frozenset({"line", "final_line", "conclusion", "hash"})


def _without_exclamation(found: Found, accepted: Golds) -> str:
    """A mark after a sentence is one of joy, unless the reference has factorials."""
    answer = found.text or ""
    if found.method not in _SAID or any("!" in gold.text for gold in accepted.accepted):
        return answer
    return answer.rstrip("!")


_OUTCOMES = {"equal": "equal", "not_equal": "not_equal", "undecided": "undecided", "unparsable": "unparsable_answer"}
_BROUGHT_UP = ("restated_task", "chain_with_false_link")


def _reason(judged: Judged, found: Found, accepted: Golds, repeated: bool) -> str:
    """The reason that a caller counts by; the engine's finer one is in the evidence."""
    if judged.outcome == "not_equal" and judged.reason in _BROUGHT_UP:
        return judged.reason
    if judged.outcome == "equal":
        if any(accepted.judge(box).outcome != "equal" for box in found.others):
            return "not_all_boxes_equal"
        if repeated and accepted.policy.restatement == "reject" and not _is_choice(found.text or "", judged):
            return "restated_task"
    return _OUTCOMES[judged.outcome]


def _is_choice(answer: str, judged: Judged) -> bool:
    """Whether a formula of the question may be its answer: it is just what the reference says, or a mere number."""
    return is_trivial(answer) or "".join(answer.split()) == "".join(judged.gold.text.split())


def _where(found: Found, flags: tuple[str, ...]) -> dict[str, Any]:
    """How the answer was found, and what about it should make one wary."""
    evidence: dict[str, Any] = {"method": found.method, "marks": found.count, "flags": list(dict.fromkeys(flags))}
    return evidence if found.text is None else evidence | {"start": found.start, "end": found.end}
