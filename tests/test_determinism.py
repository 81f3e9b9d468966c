"""The same item gets the same verdict: on any number of workers, in any order, after a restart, in a crowd."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service, StartService

JUDGED = ("id", "reward", "status", "reason", "answer", "parts", "feedback", "evidence")
TROUBLE = Path(__file__).parent / "plugins" / "trouble.py"
Group = tuple[str, dict[str, Any]]
Verdicts = list[list[dict[str, Any]]]


def groups() -> list[Group]:
    """Two hundred groups of many kinds, some with rollouts that cannot be judged."""
    chance = random.Random(3)
    made: list[Group] = []
    for number in range(60):
        answers = [chance.choice(("7", "8", r"\frac{14}{2}", "seven", "7.0", "x+1", "")) for _ in range(8)]
        boxed = [rf"Because of {number}: \boxed{{{answer}}}" for answer in answers]
        tagged = [f"<think>{number}</think><answer>{answer}</answer>" for answer in answers]
        odd = [chance.choice(("raise", "7", "nan", "exit", "no", "two")) for _ in answers]
        made += [
            ("exact", group(boxed, "7")),
            ("math", group(boxed, chance.choice(("7", r"\frac{7}{1}", "x + 1")))),
            ("format", group(tagged, None)),
        ]
        if number % 4 == 0:
            made.append(("trouble", group(odd, "7")))
    return made


def group(completions: list[str], reference: str | None) -> dict[str, Any]:
    rollouts = [{"completion": completion} for completion in completions]
    return {"task": {"reference": reference}, "rollouts": rollouts, "deadline_ms": 120_000}


def verdicts_of(service: Service, order: int, callers: int = 4) -> Verdicts:
    """What the service says to all groups, sent in an order of its own."""
    asked = groups()
    places = random.Random(order).sample(range(len(asked)), len(asked))
    with ThreadPoolExecutor(callers) as pool:
        replies = dict(zip(places, pool.map(lambda place: service.post(*asked[place]), places), strict=True))
    assert {status for status, _ in replies.values()} == {200}
    return [
        [{name: verdict[name] for name in JUDGED} for verdict in replies[place][1]["verdicts"]]
        for place in range(len(asked))
    ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """The verdicts of one worker that is asked one group at a time."""
    from tests.conftest import running_service

    log = tmp_path_factory.mktemp("service") / "log"
    with running_service(log, reward_files=str(TROUBLE), workers="1", cache_mb="0") as service:
        return verdicts_of(service, order=0, callers=1)


def test_the_groups_are_worth_asking(expected: Verdicts) -> None:
    statuses = {verdict["status"] for verdicts in expected for verdict in verdicts}
    assert statuses == {"scored", "plugin_error", "crashed"}
    assert {verdict["reward"] for verdicts in expected for verdict in verdicts} >= {0.0, 1.0, None}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_on_any_number_of_workers_in_any_order(start_service: StartService, expected: Verdicts, workers: int) -> None:
    with start_service(reward_files=str(TROUBLE), workers=str(workers), cache_mb="0") as service:
        assert verdicts_of(service, order=workers, callers=8) == expected


def test_from_the_cache_and_after_a_restart(start_service: StartService, expected: Verdicts) -> None:
    for order in (10, 11):
        with start_service(reward_files=str(TROUBLE), workers="2") as service:
            assert verdicts_of(service, order) == expected
            assert verdicts_of(service, order + 10) == expected


def test_on_workers_that_are_replaced_all_the_time(start_service: StartService, expected: Verdicts) -> None:
    with start_service(reward_files=str(TROUBLE), workers="2", cache_mb="0", recycle_items="20") as service:
        assert verdicts_of(service, order=20) == expected


@contextmanager
def crowded_machine() -> Iterator[None]:
    """Three busy processes per processor besides the service."""
    processors = len(os.sched_getaffinity(0))
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * processors)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_when_four_processes_want_each_processor(start_service: StartService, expected: Verdicts) -> None:
    with start_service(reward_files=str(TROUBLE), workers="2", cache_mb="0") as service, crowded_machine():
        got = verdicts_of(service, order=30)
    assert json.dumps(got) == json.dumps(expected)
