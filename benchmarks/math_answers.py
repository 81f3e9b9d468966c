"""How right and how fast `math` is, beside math-verify on the same rows in the same run. CPU time, in one process.

    .venv/bin/python benchmarks/math_answers.py [accuracy | speed | http | hostile]

Rows come from the labelled data that the tests use (`tests/rewards/math/labelled.py`); without it only `hostile` runs.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import front
from math_verify import parse, verify

sys.path.insert(0, str(Path(__file__).parents[1]))

import contextlib

from rewardsvc.contract import Rollout, Task
from rewardsvc.errors import NotScored
from rewardsvc.rewards.math import Math
from tests.rewards.math import hostile, labelled
from tests.rewards.math.labelled import Row

PORT, CONNECTIONS = 8153, 4
REWARD, PARAMS = Math(), Math.Params()
EASY = [(str(n), f"So the answer is \\boxed{{{n + (n % 4 == 0)}}}.") for n in range(1_000)]


def judge(row: Row) -> tuple[float | None, str, int]:
    """Reward, reason and tier."""
    params = Math.Params(**row.params)
    try:
        task = Task(reference=row.gold, prompt=row.question)
        verdict = REWARD.score(Rollout(id="0", completion=row.completion), task, params)
    except NotScored as fault:
        return None, fault.reason, 0
    return verdict.reward, verdict.reason, verdict.evidence.get("tier", 0)


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def accuracy() -> None:
    """One line per set: how many verdicts are as labelled, what was accepted, refused, left undecided, and the cost."""
    heads = ("rows", 5), ("right", 7), ("accepted", 8), ("unscored", 8), ("tier 2", 6), ("mean µs", 8), ("p99 µs", 8)
    print(f"{'set':24}", *(f"{head:>{width}}" for head, width in heads))
    for name, rows in SETS.items():
        right = accepted = unscored = second = 0
        micros = []
        for row in (rows := list(rows())):
            began = time.process_time_ns()
            reward, _, tier = judge(row)
            micros.append((time.process_time_ns() - began) / 1e3)
            right += (reward == 1.0) == row.right
            accepted += reward == 1.0
            unscored += reward is None
            second += tier == 2
        figures = f"{right / len(rows):7.4f} {accepted:8} {unscored:8} {second:6} {sum(micros) / len(rows):8.0f}"
        print(f"{name:24} {len(rows):5} {figures} {percentile(micros, 0.99):8.0f}", flush=True)


SETS: dict[str, Callable[[], Iterable[Row]]] = {
    "public_tests": lambda: labelled.labelled("public_tests.jsonl"),
    "probes": lambda: labelled.labelled("probes.jsonl"),
    "gsm8k_solutions": lambda: labelled.labelled("gsm8k_solutions.jsonl"),
    "gold: itself": labelled.itself,
    "gold: rewritten": labelled.rewritten,
    "gold: one digit changed": labelled.one_digit_changed,
    "gold: 0=1": labelled.false_equation,
    "gold: question's formula": labelled.last_formula,
}


def speed() -> None:
    """Mean CPU per pair of math-verify and of this reward on the same rows, and verdicts per second on easy rows."""
    rows = [*SETS["public_tests"](), *SETS["probes"](), *list(SETS["gsm8k_solutions"]())[:300]]
    rows += list(labelled.rewritten())[:300]
    REWARD.warm()  # as the service does before it forks its workers, which also spares them the collector's round
    gc.collect()
    gc.freeze()
    began = time.process_time()
    for row in rows:
        judge(row)
    ours = time.process_time() - began
    began = time.process_time()
    for row in rows:
        verify(parse(f"${row.gold}$" if "$" not in row.gold else row.gold), parse(row.completion))
    theirs = time.process_time() - began
    print(
        f"{len(rows)} rows: ours {ours / len(rows) * 1e6:.0f} µs, math-verify {theirs / len(rows) * 1e6:.0f} µs CPU,",
        end=" ",
    )
    print(f"ratio {theirs / ours:.0f} (bar 100)")
    began = time.process_time()
    for _ in range(10):
        for gold, completion in EASY:
            REWARD.score(Rollout(id="0", completion=completion), Task(reference=gold), PARAMS)
    seconds = time.process_time() - began
    print(f"easy mix: {10 * len(EASY) / seconds:,.0f} verdicts/s per core (bar 20,000)")


def over_http() -> None:
    """Verdicts per second and time per group of 16 over HTTP, service and load generator on the same processors."""
    service = subprocess.Popen(
        [sys.executable, "-m", "rewardsvc", "serve", "--port", str(PORT)], stderr=subprocess.DEVNULL
    )
    try:
        front.wait_for(PORT)
        front.load(PORT, [request(number) for number in range(200)])
        requests = [request(number) for number in range(200, 2_200)]
        cpu = front.cpu_seconds(service.pid)
        began = time.perf_counter()
        millis = latencies(requests)
        seconds = time.perf_counter() - began
        cpu = (front.cpu_seconds(service.pid) - cpu) / len(requests) * 1e6
    finally:
        service.terminate()
        service.wait()
    print(f"over HTTP: {16 * len(requests) / seconds:,.0f} verdicts/s (bar 5,000), per group p50", end=" ")
    print(f"{percentile(millis, 0.5):.1f} ms, p99 {percentile(millis, 0.99):.1f} ms (bar 20), front {cpu:.0f} µs CPU")


def request(number: int) -> bytes:
    """A group with its own reference and reasoning; a quarter of its answers are right."""
    gold = rf"\frac{{{number}}}{{{number + 3}}}"
    rollouts = [
        {"completion": f"<think>{'so it goes ' * 100}{i}</think> Thus \\boxed{{{number}/{number + 3 + i % 4}}}."}
        for i in range(16)
    ]
    body = json.dumps({"task": {"prompt": "What?", "reference": gold}, "rollouts": rollouts}).encode()
    head = "POST /v1/rewards/math HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def latencies(requests: Sequence[bytes]) -> list[float]:
    """Milliseconds of each request, over a few connections with one request at a time on each."""

    def drive(mine: Sequence[bytes]) -> list[float]:
        times = []
        with socket.create_connection(("127.0.0.1", PORT)) as sock:
            for one in mine:
                began = time.perf_counter()
                sock.sendall(one)
                front.read_reply(sock)
                times.append((time.perf_counter() - began) * 1e3)
        return times

    with ThreadPoolExecutor(CONNECTIONS) as callers:
        return [
            ms for times in callers.map(drive, [requests[i::CONNECTIONS] for i in range(CONNECTIONS)]) for ms in times
        ]


def tell_hostile() -> None:
    """CPU of each hostile input in the fast tier, and of all together (bar 5 s)."""
    total = 0.0
    slow: list[tuple[float, str]] = []
    params = Math.Params(second_tier=False)
    for name, (gold, completion) in hostile.INPUTS.items():
        began = time.process_time()
        with contextlib.suppress(NotScored):
            REWARD.score(Rollout(id="0", completion=completion), Task(reference=gold), params)
        seconds = time.process_time() - began
        total += seconds
        slow.append((seconds, name))
    for seconds, name in sorted(slow, reverse=True)[:8]:
        print(f"{seconds * 1e3:8.1f} ms  {name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(slow)} hostile inputs: {total:.2f} s CPU together (bar 5 s), peak memory {peak:.0f} MB")


if __name__ == "__main__":
    asked = sys.argv[1:] or ["accuracy", "speed", "http", "hostile"]
    print(f"{len(os.sched_getaffinity(0))} processors, load average {os.getloadavg()[0]:.1f}")
    for name in asked:
        {"accuracy": accuracy, "speed": speed, "http": over_http, "hostile": tell_hostile}[name]()
