"""A reward's cases as requests, and whether what came back is what was promised.

Used at start-up, by `rewardsvc check`, by `rewardsvc.testing` and by the docs; the scheduler runs the requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewardsvc.contract import CaseInfo, Rollout, ScoreRequest, Task, Verdict
from rewardsvc.errors import Problem

_NEAR = 1e-9
_ACCIDENTS = ("crashed", "timeout", "resource_limit")
_SHOWN = 60


def request_of(case: CaseInfo) -> ScoreRequest:
    """The group that a case stands for."""
    return ScoreRequest(
        task=Task(prompt=case.prompt, reference=case.reference),
        rollouts=[Rollout(completion=completion) for completion in case.rollouts],
        params=case.params,
    )


def name_of(case: CaseInfo, index: int = 0) -> str:
    """How a case is called where its fault is told, which is in the rollout at `index`."""
    return f"{case.kind} case {case.why or ''.join(case.rollouts[index : index + 1])[:_SHOWN]!r}"


def fault_of(case: CaseInfo, outcome: Sequence[Verdict] | Problem) -> str | None:
    """What is wrong with what a case got, in one line that can be acted on; None when it is as promised."""
    if isinstance(outcome, Problem):
        errors = "; ".join(f"{pointer}: {message}" for pointer, message in outcome.errors)
        return f"{name_of(case)}: refused, {errors or outcome.detail}"
    for index, (verdict, reward) in enumerate(zip(outcome, case.rewards, strict=True)):
        fault = _fault(case, verdict, reward)
        if fault:
            return f"{name_of(case, index)}: {fault}"
    return None


def is_accident(case: CaseInfo, verdicts: Sequence[Verdict]) -> bool:
    """Whether something that may be nobody's fault left a rollout without the number that was promised."""
    return any(verdict.status in _ACCIDENTS and verdict.status != case.status for verdict in verdicts)


def _fault(case: CaseInfo, verdict: Verdict, reward: float | None) -> str | None:
    got = f"got {verdict.reward} ({verdict.status}, {verdict.reason}{_error(verdict)})"
    if reward is None:
        if verdict.status == "scored" or (case.status and verdict.status != case.status):
            return f"promised {case.status or 'no number'}, {got}"
    elif verdict.reward is None or abs(verdict.reward - reward) > _NEAR:
        return f"promised {reward}, {got}"
    if case.reason and verdict.reason != case.reason:
        return f"promised the reason {case.reason!r}, {got}"
    return None


def _error(verdict: Verdict) -> str:
    error, place = verdict.evidence.get("error"), verdict.evidence.get("at")
    return f": {error} at {place}" if error and place else f": {error}" if error else ""
