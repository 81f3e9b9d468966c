"""Memory: what an item may take, when a worker is too old, and that the front keeps nothing of what it has answered."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from rewardsvc.clock import now_ns
from rewardsvc.contract import Rollout, ScoreRequest, Task
from rewardsvc.scheduler import Limits, Scheduler
from tests.executors.conftest import StartWatched
from tests.executors.watched import Watched, plugin, wait_until

MB = 1 << 20


def ended(service: Watched, why: str) -> float:
    return float(service.metric("rewardsvc_workers_ended_total", why=why))


def test_an_item_over_its_memory_is_a_resource_limit_and_the_front_does_not_grow(watched: Watched) -> None:
    with watched.keeping_its_belongings():
        before = watched.front.memory_info().rss
        for _ in range(5):
            verdicts = watched.score("hungry", ["eat", "fine"], reference="fine")
            assert [(verdict["status"], verdict["reason"]) for verdict in verdicts] == [
                ("resource_limit", "memory_limit"),
                ("scored", "compared"),
            ]
        assert watched.front.memory_info().rss < before + 5 * MB


def test_one_allocation_far_over_the_limit_does_not_take_the_machine(watched: Watched) -> None:
    """The backstop in the worker refuses it before the front has looked."""
    verdicts = watched.score("mischief", ["allocate 100 GB", "fine"], reference="fine")
    assert [verdict["status"] for verdict in verdicts] == ["resource_limit", "scored"]


def test_what_earlier_items_left_behind_is_not_put_down_to_a_later_one(watched: Watched) -> None:
    """Each item takes 36 of the 60 MB that it may, and keeps them; the worker is replaced before that matters."""
    with watched.keeping_its_belongings():
        for _ in range(40):
            verdicts = watched.score("mischief", ["grow by 36", "fine"], reference="fine")
            assert {verdict["status"] for verdict in verdicts} == {"scored"}


def test_workers_are_replaced_after_so_many_items_and_no_verdict_is_lost(start_watched: StartWatched) -> None:
    with start_watched(recycle_items="40") as service, service.keeping_its_belongings():
        with ThreadPoolExecutor(8) as callers:
            replies = list(callers.map(lambda n: service.score("trouble", ["fine", f"{n}"] * 8, "fine"), range(150)))
        assert [verdict["reward"] for reply in replies for verdict in reply] == [1.0, 0.0] * 8 * 150
        assert 20 <= ended(service, "recycled") <= 2 * 150 * 16 / 40
        assert service.metric("rewardsvc_workers_ended_total") == ended(service, "recycled")


def test_workers_are_replaced_after_growing_and_no_verdict_is_lost(start_watched: StartWatched) -> None:
    with start_watched(recycle_mb="30") as service, service.keeping_its_belongings():
        with ThreadPoolExecutor(4) as callers:
            texts = ["grow by 15", "fine", "else"]
            replies = list(callers.map(lambda _: service.score("mischief", texts, "fine"), range(40)))
        assert [verdict["reward"] for reply in replies for verdict in reply] == [0.0, 1.0, 0.0] * 40
        assert ended(service, "recycled") >= 8
        assert service.metric("rewardsvc_workers_ended_total") == ended(service, "recycled")


def test_the_io_process_is_replaced_when_it_is_old_and_idle(start_watched: StartWatched) -> None:
    with start_watched(recycle_items="50") as service, service.keeping_its_belongings():
        for _ in range(10):
            verdicts = service.score("remote", ["fine"] * 20, reference="fine")
            assert {verdict["reward"] for verdict in verdicts} == {1.0}
        wait_until(lambda: service.metric("rewardsvc_workers_ended_total", why="recycled", kind="io") >= 1)


def test_the_io_process_is_replaced_while_it_is_never_idle(start_watched: StartWatched) -> None:
    """Callers overlap, so that something is always under way; the old process must not go on for ever."""
    with start_watched(recycle_items="60") as service, service.keeping_its_belongings():
        task = {"reference": "fine", "metadata": {"pause": 0.05}}
        began = time.monotonic()

        def ask(number: int) -> list[dict[str, Any]]:
            time.sleep(0.01 * number)
            verdicts: list[dict[str, Any]] = []
            while time.monotonic() < began + 4:
                verdicts += service.score("remote", [f"fine{'' if number % 2 else '!'}"] * 2, task=task)
            return verdicts

        with ThreadPoolExecutor(8) as callers:
            replies = list(callers.map(ask, range(8)))
            assert service.metric("rewardsvc_workers_ended_total", why="recycled", kind="io") >= 3
        for number, verdicts in enumerate(replies):
            assert {verdict["reward"] for verdict in verdicts} == {float(number % 2)}
        assert service.metric("rewardsvc_workers_ended_total") == ended(service, "recycled")


def call_many(port: int, bodies: list[bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in bodies:
        connection.request("POST", "/v1/rewards/exact", body, {"Content-Type": "application/json"})
        assert connection.getresponse().read().startswith(b'{"request_id"')
    connection.close()


@pytest.mark.parametrize("cache_mb", ["0", "1"])
def test_the_memory_of_the_front_is_flat_over_20_000_small_groups(start_watched: StartWatched, cache_mb: str) -> None:
    """The first groups fill pools, tables and (1 MB of) cache; after them nothing may be added."""

    def bodies(first: int, count: int) -> list[bytes]:
        def rollouts(number: int) -> list[Any]:
            return [{"completion": rf"{number}: \boxed{{{digit}}}"} for digit in (1, 2)]

        numbers = range(first, first + count)
        return [json.dumps({"task": {"reference": "1"}, "rollouts": rollouts(n)}).encode() for n in numbers]

    with start_watched(cache_mb=cache_mb, reward_files=plugin("remote"), recycle_items="1000000") as service:
        front: psutil.Process = service.front
        sizes = []
        for step in range(5):
            with ThreadPoolExecutor(4) as callers:
                list(
                    callers.map(
                        lambda n: call_many(service.port, bodies(n, 1000)), range(4000 * step, 4000 * step + 4000, 1000)
                    )
                )
            time.sleep(0.1)
            sizes.append(front.memory_info().rss)
        assert sizes[-1] - sizes[0] < 1.5 * MB, [round(size / MB, 2) for size in sizes]


def test_the_scheduler_lets_go_of_a_request_as_soon_as_its_texts_are_packed() -> None:
    async def score_slowly() -> int:
        limits = Limits(1, 0, 100, environment=dict(os.environ), reward_files=(plugin("patient"),))
        async with Scheduler(limits) as scheduler:
            request = ScoreRequest(task=Task(), rollouts=[Rollout(completion="0.5")])
            scoring = asyncio.ensure_future(scheduler.score("patient", request, "", now_ns()))
            del request
            await asyncio.sleep(0.2)
            kept = sum(isinstance(each, ScoreRequest) for each in gc.get_objects())
            assert not scoring.done()
            assert (await scoring).verdicts[0].reward == 1.0
            return kept

    assert asyncio.run(score_slowly()) == 0


def test_groups_given_up_before_their_turn_are_not_kept(start_watched: StartWatched) -> None:
    """Both workers are busy for seconds; meanwhile waves of groups of 1 MB come, and their deadlines pass."""
    text = "x" * (1 << 18)
    with start_watched(cache_mb="0") as service, ThreadPoolExecutor(62) as callers:
        held = [callers.submit(service.score, "patient", [f"9 {number}"]) for number in range(2)]
        time.sleep(0.3)
        sizes = []
        for wave in range(6):
            texts = [[f"{text}{wave} {number}"] * 4 for number in range(60)]
            groups = [callers.submit(service.score, "trouble", each, deadline_ms=1000) for each in texts]
            assert {verdict["reason"] for group in groups for verdict in group.result()} == {"deadline"}
            sizes.append(service.front.memory_info().rss)
        assert not any(future.done() for future in held)
        assert max(sizes[4:]) < max(sizes[:4]) + 50 * MB, [size // MB for size in sizes]
        assert {future.result()[0]["status"] for future in held} == {"scored"}
