"""What it costs to hand a shard to a warm worker and back, and what one bad item does to its group: ours and pebble.

    .venv/bin/python benchmarks/handover.py

First the hand-over of 16 rollouts of 4 KB to a reward that does next to nothing, machine idle: p50 and p99 from submit
to the last verdict, and the front's CPU time. Beside it `pebble.ProcessPool` and `ProcessPoolExecutor`, with one task
per group and one per rollout. Then a group of 16 with one bad item at each of them: how much later than the item's
limit the group was complete, whether the other 15 are right, and whether the culprit is named.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pebble
import uvloop
from msgspec import Raw

from rewardsvc.contract import Rollout, ScoreRequest, Task, Verdict
from rewardsvc.errors import Problem
from rewardsvc.executors.wire import encode_stable, now_ns
from rewardsvc.executors.work import Batch
from rewardsvc.scheduler import Limits, Scheduler

PLUGINS = Path(__file__).parent.parent / "tests" / "plugins"
TEXT = "x" * 4096
ROUNDS, LIMIT = 400, 0.4
DEEDS = ("hang in C", "spin", "segfault", "exit", "eat memory", "kill the parent")
Judge = Callable[[list[str]], list[Any]]


def judge_one(text: str) -> float:
    """What a pool's task does: the same as the plugin."""
    sys.path.insert(0, str(PLUGINS))
    from trouble import DEEDS as deeds  # type: ignore[import-not-found]

    if text in deeds:
        deeds[text]()
    return float(text == "fine")


def judge_group(texts: list[str]) -> list[float]:
    """A whole group as one task."""
    return [float(text == "fine") for text in texts]


def timed(name: str, call: Callable[[list[str]], Any]) -> None:
    """Prints the latency and the CPU time of handing over one group, after a warm-up."""
    for _ in range(50):
        call([TEXT] * 16)
    latencies, cpu = [], time.process_time()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call([TEXT] * 16)
        latencies.append((time.perf_counter() - began) * 1e6)
    cpu = (time.process_time() - cpu) / ROUNDS * 1e6
    p99 = statistics.quantiles(latencies, n=100)[98]
    print(f"{name:38} p50 {statistics.median(latencies):7.0f} µs  p99 {p99:7.0f} µs  front CPU {cpu:6.0f} µs/group")


def pebble_group(pool: pebble.ProcessPool, texts: list[str]) -> list[Any]:
    """One task per rollout, each with its own limit; an exception stands for the verdict."""
    futures = [pool.schedule(judge_one, args=[text], timeout=LIMIT) for text in texts]
    results: list[Any] = []
    for future in futures:
        try:
            results.append(future.result(timeout=10))
        except (Exception, concurrent.futures.CancelledError) as error:  # whatever pebble says of the item
            results.append(type(error).__name__)
    return results


def faults(name: str, judge: Judge, is_named: Callable[[Any], bool]) -> None:
    """Prints what each deed does to a group of 16."""
    for deed in DEEDS:
        if deed == "kill the parent":  # which is this program
            print(f"  {name:10} {deed:16} kills the program that uses the pool")
            continue
        texts = ["fine"] * 16
        texts[5] = deed
        began = time.perf_counter()
        try:
            results = judge(texts)
        except Exception as error:  # the pool itself broke
            print(f"  {name:10} {deed:16} the pool failed: {type(error).__name__}")
            continue
        late = (time.perf_counter() - began - LIMIT) * 1e3
        others = all(result == 1.0 for index, result in enumerate(results) if index != 5)
        culprit = f"{results[5]}" if is_named(results[5]) else f"not named ({results[5]})"
        print(
            f"  {name:10} {deed:16} complete {late:+7.0f} ms after the limit, other 15 right: {others}, "
            f"culprit: {culprit}"
        )


class Waiting:
    """Waits for a batch, and for nothing else."""

    def __init__(self) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.missing = 16

    def settled(self, batch: Batch, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        self.missing -= len(verdicts)
        if not self.missing:
            self.done.set_result(None)

    def refused(self, batch: Batch, problem: Problem) -> None:
        self.done.set_exception(problem)

    def wanted(self, batch: Batch, index: int) -> bool:
        return True


async def ours() -> None:
    """The scheduler in this process, without HTTP."""
    limits = Limits(2, 0, 4096, reward_files=(str(PLUGINS / "trouble.py"),), environment=dict(os.environ))
    async with Scheduler(limits) as scheduler:
        info = scheduler.catalogue["trouble"]
        task, params = Raw(encode_stable(Task(reference="fine"))), Raw(encode_stable({}))
        rows = [(index, str(index), Raw(encode_stable((TEXT, None, {})))) for index in range(16)]
        latencies = []
        for _ in range(50 + ROUNDS):
            waiting = Waiting()
            batch = Batch(waiting, info, task, params, rows, (now_ns(), now_ns() + 10**10))
            await asyncio.sleep(0.001)
            began = time.perf_counter()
            cpu = time.process_time()
            scheduler.cpu.submit(batch)
            await waiting.done
            latencies.append(((time.perf_counter() - began) * 1e6, (time.process_time() - cpu) * 1e6))
        times = [latency for latency, _ in latencies[50:]]
        spent = statistics.fmean(cpu for _, cpu in latencies[50:])
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"{'rewardsvc, one shard per group':38} p50 {statistics.median(times):7.0f} µs  p99 {p99:7.0f} µs  "
              f"front CPU {spent:6.0f} µs/group  (bar p50 100 µs)")  # fmt: skip
        print("one bad item in a group of 16:")
        for deed in DEEDS:
            texts = ["fine"] * 16
            texts[5] = deed
            asked = ScoreRequest(task=Task(reference="fine"), rollouts=[Rollout(completion=text) for text in texts])
            began = time.perf_counter()
            reply = await scheduler.score("trouble", asked, "bench", now_ns())
            late = (time.perf_counter() - began - LIMIT) * 1e3
            others = all(verdict.reward == 1.0 for index, verdict in enumerate(reply.verdicts) if index != 5)
            culprit = f"{reply.verdicts[5].status} ({reply.verdicts[5].reason})"
            print(f"  {'rewardsvc':10} {deed:16} complete {late:+7.0f} ms after the limit, other 15 right: {others}, "
                  f"culprit: {culprit}")  # fmt: skip


def main() -> None:
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    uvloop.run(ours())
    with pebble.ProcessPool(max_workers=2) as pool:
        timed("pebble, one task per group", lambda texts: pool.schedule(judge_group, args=[texts]).result())
        timed("pebble, one task per rollout", lambda texts: pebble_group(pool, texts))
        faults("pebble", lambda texts: pebble_group(pool, texts), lambda result: isinstance(result, str))
        pool.stop()
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        timed("ProcessPoolExecutor, one task per group", lambda texts: executor.submit(judge_group, texts).result())
        timed("ProcessPoolExecutor, one per rollout", lambda texts: list(executor.map(judge_one, texts)))
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
