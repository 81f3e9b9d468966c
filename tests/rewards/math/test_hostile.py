"""Nothing that a policy can write makes `math` hang, grow, crash or hand out a number that it did not earn."""

from __future__ import annotations

import gc
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from rewardsvc.contract import Rollout, Task, Verdict
from rewardsvc.errors import NotScored
from rewardsvc.rewards.math import Math
from tests.rewards.math.hostile import INPUTS

FAST = Math.Params(second_tier=False)
RIGHT = {"3,000 minus signs", "chain of 2,000"}
"""Strange, but equal to what they are judged by."""

ANSWERED = {"scored", "resource_limit", "bad_reference", "timeout"}


def verdict_on(gold: str, completion: str) -> Verdict:
    try:
        return Math().score(Rollout(id="0", completion=completion), Task(reference=gold), FAST)
    except NotScored as fault:
        return Verdict.not_scored(fault.status, fault.reason)


def test_all_hostile_inputs_together_take_little_time_in_the_exact_tier() -> None:
    began = time.process_time()
    for gold, completion in INPUTS.values():
        verdict_on(gold, completion)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", INPUTS)
def test_a_hostile_input_gets_the_same_verdict_twice_and_no_reward(name: str) -> None:
    first, second = verdict_on(*INPUTS[name]), verdict_on(*INPUTS[name])
    assert first == second
    assert first.reward in ((1.0,) if name in RIGHT else (0.0, None))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def test_memory_is_flat_over_a_hundred_thousand_calls() -> None:
    def judge(count: int, start: int) -> None:
        for n in range(start, start + count):
            verdict_on(rf"\frac{{{n}}}{{7}}", rf"\boxed{{{n}/7{f' + x^{n % 9}' * (n % 10 == 0)}}}")

    judge(20_000, 0)
    gc.collect()
    before = resident_mb()
    judge(80_000, 20_000)
    gc.collect()
    assert resident_mb() - before <= 10


def test_others_get_their_verdicts_while_hostile_ones_are_judged(service_with_plugins: Any) -> None:
    over = Event()

    def ordinary(_: int) -> list[Any]:
        found = []
        while not over.is_set():
            verdicts = service_with_plugins.score("math", [r"\boxed{12}", r"\boxed{13}"], "12", deadline_ms=30_000)
            found += [verdict["reward"] for verdict in verdicts]
        return found

    with ThreadPoolExecutor(5) as callers:
        others = [callers.submit(ordinary, n) for n in range(5)]
        try:
            for name, (gold, completion) in INPUTS.items():
                (verdict,) = service_with_plugins.score("math", [completion], gold, deadline_ms=30_000)
                assert verdict["status"] in ANSWERED
                assert verdict["reward"] in (0.0, None) or name in RIGHT
        finally:
            over.set()
        for other in others:
            rewards = other.result()
            assert rewards == [1.0, 0.0] * (len(rewards) // 2)
            assert rewards
