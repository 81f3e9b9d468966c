"""Equal input gets an equal verdict: in any order, any thread, any process with any hash seed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from rewardsvc.contract import Rollout, Task, Verdict
from rewardsvc.errors import NotScored
from rewardsvc.rewards.math import Math
from tests.rewards.conftest import written_cases

ROOT = Path(__file__).parents[3]
HARD = [
    (r"\lim_{x\to0}\frac{\sin x}{x}", "1"),
    (r"\lim_{x\to0}\frac{\sin 3x}{x}", "1"),
    (r"\int_0^1 \frac{dx}{1+x^4}", r"\frac{\pi}{4}"),
    (r"\sum_{n=1}^{\infty} \frac{1}{n^2}", r"\frac{\pi^2}{6}"),
]
"""Pairs for the second tier."""


def pairs() -> list[tuple[str, str]]:
    """(reference, completion) of the cases and the hard pairs."""
    cases = [*Math.cases, *written_cases("math")]
    easy = [(case.reference, case.completions[0]) for case in cases if isinstance(case.reference, str)]
    return [*easy, *((gold, f"\\boxed{{{answer}}}") for gold, answer in HARD)]


def told(pair: tuple[str, str]) -> str:
    """Everything that a verdict says, but for the time it took."""
    gold, completion = pair
    try:
        verdict = Math().score(Rollout(id="0", completion=completion), Task(reference=gold), Math.Params())
    except NotScored as fault:
        verdict = Verdict.not_scored(fault.status, fault.reason)
    return msgspec.json.encode(verdict).decode()


@pytest.fixture(scope="module")
def calm() -> list[str]:
    return [told(pair) for pair in pairs()]


def test_the_hard_pairs_reach_the_second_tier(calm: list[str]) -> None:
    assert sum('"tier":2' in said for said in calm) >= 2


def test_in_any_order(calm: list[str]) -> None:
    order = list(range(len(calm)))
    random.Random(7).shuffle(order)
    shuffled = {place: told(pairs()[place]) for place in order}
    assert [shuffled[place] for place in range(len(calm))] == calm


def test_in_any_thread(calm: list[str]) -> None:
    with ThreadPoolExecutor(4) as threads:
        for said in [threads.map(told, pairs()) for _ in range(3)]:
            assert list(said) == calm


@pytest.mark.parametrize("seed", ["1", "4242"])
def test_in_any_process(calm: list[str], seed: str) -> None:
    program = "from tests.rewards.math.test_same_everywhere import *\nfor pair in reversed(pairs()): print(told(pair))"
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[::-1] == calm
