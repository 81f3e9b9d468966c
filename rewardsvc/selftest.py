"""A reward's cases as requests, and whether the verdicts that came back are the ones promised.

Used at start-up, by `rewardsvc check`, by `rewardsvc.testing` and by the docs; running the requests is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewardsvc.contract import CaseInfo, Rollout, ScoreRequest, Task, Verdict

_NEAR = 1e-9


def request_of(case: CaseInfo) -> ScoreRequest:
    """The group that a case stands for."""
    return ScoreRequest(
        task=Task(prompt=case.prompt, reference=case.reference),
        rollouts=[Rollout(completion=completion) for completion in case.rollouts],
        params=case.params,
    )


def fault_of(case: CaseInfo, verdicts: Sequence[Verdict]) -> str | None:
    """What is wrong with the verdicts on a case, in one line that can be acted on; None when they are as promised."""
    for index, (verdict, reward) in enumerate(zip(verdicts, case.rewards, strict=True)):
        fault = _fault(case, verdict, reward)
        if fault:
            what = case.why or case.rollouts[index][:60]
            return f"{case.kind} case {what!r}: {fault}"
    return None


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
