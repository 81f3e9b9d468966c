"""What happens when ten times more work arrives than can be done: how fast it is refused, and what still gets done.

A service with two workers and a reward that sleeps (so that the judging itself takes no processor from the service or
from this load generator) is first asked by as many clients as keep it busy: the peak. Then requests are sent at ten
times that rate, whatever becomes of them. Printed are how long a refusal takes (p50, p99), the scored rollouts per
second relative to the peak, the time from the end of the overload until a probe is answered as on a quiet service, the
front's memory, and the machine's load. Bars: refused within 5 ms (p50), goodput at least 90 %, recovery within 1 s.

    .venv/bin/python benchmarks/overload.py [--seconds 5] [--times 10] [--item-ms 50]

Items of a few milliseconds are the harder case where the service and this load generator share few cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

PATIENT = Path(__file__).parent.parent / "tests" / "plugins" / "patient.py"
WORKERS, DEADLINE_MS = 2, 1_000
ITEM_MS = 50.0
_fresh = count(1)


@dataclass
class Outcome:
    """Replies by status with their latencies in seconds; `scored` and `expired` count verdicts."""

    latencies: dict[int, list[float]] = field(default_factory=dict)
    sent: int = 0
    scored: int = 0
    expired: int = 0

    def add(self, status: int, seconds: float, body: bytes) -> None:
        self.latencies.setdefault(status, []).append(seconds)
        self.scored += body.count(b'"status":"scored"')
        self.expired += body.count(b'"status":"timeout"')


def request() -> bytes:
    """A group of one that sleeps and is like no other."""
    milliseconds = ITEM_MS + next(_fresh) / 1e6
    group = {"rollouts": [{"completion": f"{milliseconds / 1e3:.9f}"}], "deadline_ms": DEADLINE_MS}
    body = json.dumps(group).encode()
    head = "POST /v1/rewards/patient HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    return head.encode() + b"%d\r\n\r\n" % len(body) + body


class Caller(asyncio.Protocol):
    """One kept connection with one request at a time."""

    def __init__(self) -> None:
        self._data = b""
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            self._data = b""
            assert self._reply is not None
            self._reply.set_result((int(head[9:12]), body))

    async def call(self, outcome: Outcome) -> None:
        self._reply = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        assert isinstance(self._transport, asyncio.WriteTransport)
        self._transport.write(request())
        status, body = await self._reply
        outcome.add(status, time.perf_counter() - started, body)


async def callers(port: int, number: int) -> list[Caller]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Caller, "127.0.0.1", port))[1] for _ in range(number)]


async def closed_loop(port: int, clients: int, seconds: float) -> float:
    """Scored rollouts per second with clients that wait for each reply."""
    outcome, end = Outcome(), time.perf_counter() + seconds

    async def ask(caller: Caller) -> None:
        while time.perf_counter() < end:
            await caller.call(outcome)

    asking = asyncio.gather(*map(ask, await callers(port, clients)))
    await asyncio.sleep(end - time.perf_counter())
    scored_in_time = outcome.scored
    await asking
    return scored_in_time / seconds


async def open_loop(port: int, rate: float, seconds: float) -> Outcome:
    """Requests at a steady rate, each on a connection that is idle."""
    outcome, free, under_way = Outcome(), await callers(port, 1_000), set()
    started = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        while sent < now * rate and free:
            caller = free.pop()
            task = asyncio.ensure_future(caller.call(outcome))
            under_way.add(task)
            task.add_done_callback(lambda task, caller=caller: (under_way.discard(task), free.append(caller)))
            sent += 1
        await asyncio.sleep(0.001)
    outcome.sent, scored_in_time = sent, outcome.scored
    await asyncio.gather(*under_way)
    outcome.scored = scored_in_time
    return outcome


async def recovery(port: int) -> float:
    """Seconds until a probe is scored about as fast as on a quiet service."""
    started = time.perf_counter()
    (caller,) = await callers(port, 1)
    while True:
        probe = Outcome()
        await caller.call(probe)
        if probe.scored and probe.latencies[200][0] < 10 * ITEM_MS / 1e3:
            return time.perf_counter() - started
        await asyncio.sleep(0.01)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def memory_mb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def start(log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """A service that is ready, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    environment = os.environ | {"REWARDSVC_REWARD_FILES": str(PATIENT), "REWARDSVC_WORKERS": str(WORKERS)}
    command = [sys.executable, "-m", "rewardsvc", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
    while not is_ready(port):
        time.sleep(0.02)
    return process, port


def is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            return b" 200 " in sock.recv(100)
    except OSError:
        return False


def quantiles(seconds: list[float]) -> str:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    return f"p50 {statistics.median(ordered) * 1e3:.1f} ms, p99 {ordered[int(len(ordered) * 0.99)] * 1e3:.1f} ms"


async def measure(process: subprocess.Popen[bytes], port: int, seconds: float, times: float) -> dict[str, str]:
    """The figures by name."""
    await closed_loop(port, 4, 1)
    memory = memory_mb(process.pid)
    peak = max([await closed_loop(port, clients, seconds / 2) for clients in (4, 8, 16)])
    cpu = cpu_seconds(process.pid)
    outcome = await open_loop(port, times * peak, seconds)
    cpu = cpu_seconds(process.pid) - cpu
    took = await recovery(port)
    refused, accepted = outcome.latencies.pop(503, []), outcome.latencies.pop(200, [])
    others = {status: len(values) for status, values in outcome.latencies.items()}
    goodput = outcome.scored / seconds
    return {
        "peak": f"{peak:.0f} scored/s with {WORKERS} workers and {ITEM_MS:g} ms per item",
        "offered": f"{outcome.sent / seconds:.0f} requests/s",
        "refused with 503": f"{len(refused) / seconds:.0f} requests/s, {quantiles(refused)}",
        "accepted": f"{len(accepted) / seconds:.0f} requests/s, {quantiles(accepted)} (deadline {DEADLINE_MS} ms)",
        "goodput": f"{goodput:.0f} scored/s, {goodput / peak:.0%} of the peak",
        "expired": f"{outcome.expired / seconds:.0f} rollouts/s taken and not judged before their deadline",
        "other statuses": str(others or "none"),
        "front's processor": f"{cpu / outcome.sent * 1e6:.0f} µs per request, {cpu / seconds:.0%} of a core",
        "front's memory": f"{memory} MB before, {memory_mb(process.pid)} MB after",
        "recovery": f"{took * 1e3:.0f} ms",
        "load average": f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    }


def main() -> None:
    global ITEM_MS
    parser = argparse.ArgumentParser(description="the service under ten times the load that it can carry")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--item-ms", type=float, default=ITEM_MS)
    asked = parser.parse_args()
    ITEM_MS = asked.item_ms
    with tempfile.TemporaryFile() as log:
        process, port = start(log)
        try:
            figures = asyncio.run(measure(process, port, asked.seconds, asked.times))
        finally:
            process.terminate()
            process.wait()
    for name, figure in figures.items():
        print(f"{name:20}{figure}")


if __name__ == "__main__":
    main()
