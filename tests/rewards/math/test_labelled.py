"""What `math` promises on labelled answers of others, and on answers whose label is known by construction."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rewardsvc.contract import Rollout, Task, Verdict
from rewardsvc.errors import NotScored
from rewardsvc.rewards.math import Math
from tests.rewards.math import labelled
from tests.rewards.math.labelled import Row


def verdict_on(row: Row) -> Verdict:
    """The verdict, also where a gold cannot be used."""
    task = Task(reference=row.gold, prompt=row.question)
    try:
        return Math().score(Rollout(id="0", completion=row.completion), task, Math.Params(**row.params))
    except NotScored as fault:
        return Verdict.not_scored(fault.status, fault.reason)


def accepted(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if verdict_on(row).reward == 1.0]


@pytest.mark.parametrize(
    ("name", "bar"), [("public_tests.jsonl", 0.99), ("probes.jsonl", 0.97), ("gsm8k_solutions.jsonl", 1.0)]
)
def test_verdicts_agree_with_the_labels(name: str, bar: float) -> None:
    rows = list(labelled.labelled(name))
    wrong = [row for row in rows if (verdict_on(row).reward == 1.0) != row.right]
    assert 1 - len(wrong) / len(rows) >= bar, wrong


def test_every_gold_is_its_own_answer() -> None:
    rows = list(labelled.itself())
    assert accepted(rows) == rows


def test_a_cosmetic_rewrite_changes_no_verdict() -> None:
    rows = list(labelled.rewritten())
    assert accepted(rows) == rows


def test_one_changed_digit_is_almost_never_accepted() -> None:
    rows = list(labelled.one_digit_changed())
    assert len(accepted(rows)) <= len(rows) / 1_000, accepted(rows)


def test_a_false_equation_is_never_accepted() -> None:
    assert accepted(labelled.false_equation()) == []


def test_the_formula_of_the_question_is_flagged_and_never_rewarded() -> None:
    rows = list(labelled.last_formula())
    assert accepted(rows) == []
    found = [(row, verdict_on(row)) for row in rows]
    unflagged = [row for row, verdict in found if verdict.answer and "restated_task" not in verdict.evidence["flags"]]
    assert unflagged == []


def test_nearly_everything_is_settled_by_the_exact_tier() -> None:
    rows = [row for name in ("public_tests", "probes", "gsm8k_solutions") for row in labelled.labelled(f"{name}.jsonl")]
    tiers = [verdict_on(row).evidence.get("tier", 1) for row in rows]
    assert tiers.count(2) <= 0.03 * len(rows)
