"""What it costs to hand work to another process, and what happens when that process fails: ours and two libraries.

The first table hands a group of 16 rollouts of 4 KB, for a reward that does nothing, to a warm worker and back: time
from submitting to the last verdict as the caller sees it, and CPU time of the caller's process. The second puts one
culprit into a group of 16 with an item limit of 0.4 s: how late the reply is, whether the other 15 are right, and
whether the culprit is named. A figure depends on the machine and on what else it does; compare within one run.

    .venv/bin/python benchmarks/handover.py [hand-over | faults]
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pebble
import uvloop
from msgspec import Raw

from rewardsvc.clock import now_ns
from rewardsvc.contract import Rollout, ScoreRequest, Task, Verdict
from rewardsvc.errors import Problem
from rewardsvc.executors.work import Batch
from rewardsvc.packing import encode_stable
from rewardsvc.reward import Case, PerRollout
from rewardsvc.scheduler import Limits, Scheduler

HERE = Path(__file__)
TROUBLE = HERE.parent.parent / "tests" / "plugins" / "trouble.py"
GROUP, TEXT = 16, "x" * 4096
WARM_UP, GROUPS = 300, 2_000
ITEM_LIMIT, MEMORY_MB = 0.4, 256
CULPRIT = 5
DEEDS = ["hang in C", "spin", "segfault", "exit", "eat memory", "kill the parent"]


class Trivial(PerRollout):
    """1.0 for everything."""

    name, version = "trivial", "1"
    cases = [Case.full("x")]

    def score(self, rollout, task, params):
        return Verdict.scored(1.0, "fine")


def machine() -> str:
    return f"{len(os.sched_getaffinity(0))} processors, load average {os.getloadavg()[0]:.1f}"


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


class Caller:
    """Waits for the verdicts on one batch."""

    def __init__(self) -> None:
        self.missing = GROUP
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def settled(self, batch: Batch, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        self.missing -= len(verdicts)
        if not self.missing:
            self.ended.set_result(time.perf_counter_ns())

    def refused(self, batch: Batch, problem: Problem) -> None:
        self.ended.set_exception(problem)

    def wanted(self, batch: Batch, index: int) -> bool:
        return True


async def measure(name: str, hand_over: Callable[[], Awaitable[int]], groups: int = GROUPS, pause: float = 0) -> None:
    """Prints one line: latency in microseconds and CPU time of this process per group."""
    for _ in range(WARM_UP):
        await hand_over()
    micros = []
    cpu = time.process_time()
    for _ in range(groups):
        if pause:
            await asyncio.sleep(pause)
        began = time.perf_counter_ns()
        micros.append((await hand_over() - began) / 1e3)
    cpu = (time.process_time() - cpu) / groups * 1e6
    figures = f"{percentile(micros, 0.5):8.0f} {percentile(micros, 0.99):8.0f} {cpu:8.0f}"
    print(f"{name:58} {figures}   {os.getloadavg()[0]:.1f}", flush=True)


async def ours(workers: int, pause: float) -> None:
    limits = Limits(
        workers, 0, 100, environment=dict(os.environ), recycle_items=1_000_000_000, reward_files=(str(HERE),)
    )
    async with Scheduler(limits) as scheduler:
        info = scheduler.catalogue["trivial"]
        task, params = Raw(encode_stable(Task(reference="1"))), Raw(encode_stable({}))
        rows = [(index, str(index), Raw(encode_stable((TEXT, None, {})))) for index in range(GROUP)]

        async def hand_over() -> int:
            caller = Caller()
            scheduler.cpu.submit(Batch(caller, info, task, params, rows, (now_ns(), now_ns() + 10**10)))
            return await caller.ended

        name = f"rewardsvc, {workers} worker{'s' * (workers > 1)}"
        await measure(
            f"{name}, {pause * 1e3:g} ms apart" if pause else name, hand_over, 500 if pause else GROUPS, pause
        )


REWARD = Trivial()


def judge_one(text: str) -> Verdict:
    return REWARD.score(Rollout(completion=text), Task(reference="1"), None)


def judge_all(texts: list[str]) -> list[Verdict]:
    return [judge_one(text) for text in texts]


async def pebble_hand_over(by_group: bool) -> None:
    with pebble.ProcessPool(2) as pool:
        if by_group:
            tasks: list[tuple[Any, Any]] = [(judge_all, [TEXT] * GROUP)]
        else:
            tasks = [(judge_one, TEXT)] * GROUP

        async def hand_over() -> int:
            futures = [pool.schedule(work, args=[given], timeout=5) for work, given in tasks]
            await asyncio.gather(*map(asyncio.wrap_future, futures))
            return time.perf_counter_ns()

        await measure(f"pebble.ProcessPool, {'one task' if by_group else '16 tasks'} per group", hand_over, 400)


async def executor_hand_over(by_group: bool) -> None:
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        if by_group:
            tasks: list[tuple[Any, Any]] = [(judge_all, [TEXT] * GROUP)]
        else:
            tasks = [(judge_one, TEXT)] * GROUP

        async def hand_over() -> int:
            futures = [pool.submit(work, given) for work, given in tasks]
            await asyncio.gather(*map(asyncio.wrap_future, futures))
            return time.perf_counter_ns()

        await measure(f"ProcessPoolExecutor, {'one task' if by_group else '16 tasks'} per group", hand_over, 400)


def hand_over() -> None:
    """The first table."""
    print(f"Handing over 16 rollouts of 4 KB; {machine()}\n")
    print(f"{'':58} {'p50 µs':>8} {'p99 µs':>8} {'CPU µs':>8}   load")
    for _ in range(3):
        uvloop.run(ours(1, 0))
    uvloop.run(ours(2, 0))
    uvloop.run(ours(1, 0.005))
    for by_group in (True, False):
        uvloop.run(pebble_hand_over(by_group))
    for by_group in (True, False):
        uvloop.run(executor_hand_over(by_group))
    print("\nbar: rewardsvc p50 ≤ 100 µs on an idle machine\n")


def texts_with(deed: str) -> list[str]:
    return [deed if index == CULPRIT else ("fine", "else")[index % 2] for index in range(GROUP)]


def others_right(rewards: Sequence[float | None]) -> int:
    """How many of the fifteen honest rollouts have the reward that they deserve."""
    return sum(r == float(index % 2 == 0) for index, r in enumerate(rewards) if index != CULPRIT)


async def our_fault(scheduler: Scheduler, deed: str) -> tuple[float, int, str]:
    """(seconds, others right, what the culprit is called)."""
    rollouts = [Rollout(completion=text) for text in texts_with(deed)]
    request = ScoreRequest(task=Task(reference="fine"), rollouts=rollouts)
    began = now_ns()
    verdicts = (await scheduler.score("trouble", request, "", began)).verdicts
    seconds = (now_ns() - began) / 1e9
    return seconds, others_right([v.reward for v in verdicts]), f"{verdicts[CULPRIT].status}/{verdicts[CULPRIT].reason}"


def trouble() -> Any:
    """The plugin with the deeds."""
    spec = importlib.util.spec_from_file_location("trouble", TROUBLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judge_trouble(text: str) -> float:
    return float(JUDGE.score(Rollout(completion=text), Task(reference="fine"), None).reward)


def judge_troubles(texts: list[str]) -> list[float]:
    return [judge_trouble(text) for text in texts]


def limit_memory() -> None:
    """The only limit that pebble leaves to its user; a plugin may catch what comes of it."""
    resource.setrlimit(resource.RLIMIT_DATA, (2 * MEMORY_MB << 20,) * 2)


def pebble_fault(deed: str, by_group: bool) -> tuple[float, int, str]:
    """The same with pebble, in this process."""
    texts = texts_with(deed)
    with pebble.ProcessPool(2, initializer=limit_memory) as pool:
        pool.schedule(judge_trouble, args=["fine"]).result()
        began = time.perf_counter()
        if by_group:
            group = pool.schedule(judge_troubles, args=[texts], timeout=ITEM_LIMIT)
            rewards, called = result_of(group)
            rewards = rewards or [None] * GROUP
        else:
            futures = [pool.schedule(judge_trouble, args=[text], timeout=ITEM_LIMIT) for text in texts]
            results = [result_of(future) for future in futures]
            rewards, called = [reward for reward, _ in results], results[CULPRIT][1]
        return time.perf_counter() - began, others_right(rewards), called


def result_of(future: Any) -> tuple[Any, str]:
    try:
        return future.result(timeout=30), "scored"
    except Exception as error:  # noqa: BLE001 whatever the library makes of it is the answer here
        return None, type(error).__name__


def pebble_fault_apart(deed: str, by_group: bool) -> tuple[float, int, str]:
    """In a process of its own, which may die of it."""
    command = [sys.executable, str(HERE), "one-pebble-fault", deed, str(int(by_group))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if run.returncode:
        return float("nan"), 0, "the service is dead"
    seconds, right, called = json.loads(run.stdout.splitlines()[-1])
    return seconds, right, called


async def all_our_faults() -> dict[str, tuple[float, int, str]]:
    limits = Limits(2, 0, 100, environment=dict(os.environ), reward_files=(str(TROUBLE),))
    async with Scheduler(limits) as scheduler:
        return {deed: await our_fault(scheduler, deed) for deed in ["raise", *DEEDS]}


def faults() -> None:
    """The second table."""
    print(f"One culprit in a group of 16, item limit {ITEM_LIMIT * 1e3:.0f} ms; {machine()}\n")
    print(f"{'deed':16} {'executor':30} {'over the limit':>14} {'others right':>13}  culprit called")
    mine = uvloop.run(all_our_faults())
    for deed in DEEDS:
        rows = {
            "rewardsvc": mine[deed],
            "pebble, 16 tasks per group": pebble_fault_apart(deed, False),
            "pebble, one task per group": pebble_fault_apart(deed, True),
        }
        for name, (seconds, right, called) in rows.items():
            print(f"{deed:16} {name:30} {1e3 * (seconds - ITEM_LIMIT):+11.0f} ms {right:10d}/15  {called}", flush=True)
    print("\nbar: rewardsvc no later than 50 ms over the limit on a quiet machine, 15 right, culprit named\n")


if __name__ == "__main__":
    JUDGE = trouble().Trouble()
    what = sys.argv[1] if sys.argv[1:] else "all"
    if what == "one-pebble-fault":
        print(json.dumps(pebble_fault(sys.argv[2], bool(int(sys.argv[3])))))
    if what in ("all", "hand-over"):
        hand_over()
    if what in ("all", "faults"):
        faults()
