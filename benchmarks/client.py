"""CPU that one scoring call costs the caller: the HTTP libraries against each other, and our two clients.

Every contender does the same work: encode a group of 16 rollouts of 4 KB (68 KB of JSON), POST it over a keep-alive
connection to a bare FastAPI route in another process, read and decode the reply. What counts is the CPU time of the
calling process alone (`time.process_time`), the best of a few rounds, because wall time measures the neighbours. The
bar for our clients is 300 µs.

    python benchmarks/client.py [--calls 500] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aiohttp
import httpx
import httpx2
import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

from rewardsvc.client import AsyncClient, Client
from rewardsvc.contract import GroupSummary, Rollout, ScoreReply, ScoreRequest, Task, Timing, Verdict

ROLLOUTS, TEXT_BYTES = 16, 4_096
PATH = "/v1/rewards/exact"
JSON = {"Content-Type": "application/json"}
SENTENCE = "The sum of two odd numbers is even, so we halve it.\n"
COMPLETIONS = [f"{i}: {SENTENCE * 80}"[: TEXT_BYTES - 11] + r" \boxed{42}." for i in range(ROLLOUTS)]
AT_ONCE = 64
"""Calls that the concurrent contenders keep in flight."""

Round = Callable[[int], float]
"""Makes so many calls and returns the CPU seconds of one."""

decode = msgspec.json.Decoder(ScoreReply).decode


def group() -> bytes:
    """The request as the clients send it."""
    rollouts = [Rollout(completion=completion) for completion in COMPLETIONS]
    return msgspec.json.encode(ScoreRequest(task=Task(reference="42"), rollouts=rollouts))


def reply() -> bytes:
    """The answer of the bare route: every rollout scored."""
    timing = Timing(queue_ms=0.1, run_ms=0.2)
    verdicts = [Verdict(id=str(i), reward=1.0, reason="equal", answer="42", timing=timing) for i in range(ROLLOUTS)]
    summary = GroupSummary(size=ROLLOUTS, scored=ROLLOUTS, mean=1.0, std=0.0, all_equal=True)
    return msgspec.json.encode(ScoreReply("0" * 32, "exact", "1", verdicts, summary))


def serve(listener: socket.socket) -> None:
    """A route that reads the body and sends a fixed reply. Runs in its own process."""
    app = FastAPI()
    body = reply()

    async def score(request: Request) -> Response:
        await request.body()
        return Response(body, media_type="application/json")

    app.add_api_route(PATH, score, methods=["POST"], response_model=None)
    config = uvicorn.Config(app, access_log=False, log_level="error", timeout_keep_alive=60)
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def server() -> Iterator[int]:
    """The port of a running server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(listener,), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.join()


def cpu_of(call: Callable[[], object], calls: int) -> float:
    call()
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls


async def cpu_of_awaited(call: Callable[[], Awaitable[object]], calls: int, at_once: int) -> float:
    async def caller(share: int) -> None:
        for _ in range(share):
            await call()

    await asyncio.gather(*(caller(1) for _ in range(at_once)))
    start = time.process_time()
    await asyncio.gather(*(caller(calls // at_once) for _ in range(at_once)))
    return (time.process_time() - start) / (calls // at_once * at_once)


def json_alone(port: int) -> Round:
    answer = reply()
    return lambda calls: cpu_of(lambda: (group(), decode(answer)), calls)


def by_http_client(port: int) -> Round:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def call() -> ScoreReply:
        connection.request("POST", PATH, group(), JSON)
        return decode(connection.getresponse().read())

    return lambda calls: cpu_of(call, calls)


def by_client(port: int) -> Round:
    client = Client(f"http://127.0.0.1:{port}")
    return lambda calls: cpu_of(lambda: client.score("exact", COMPLETIONS, reference="42"), calls)


def by_httpx(library: type[httpx.Client] | type[httpx2.Client]) -> Callable[[int], Round]:
    def contender(port: int) -> Round:
        client = library(base_url=f"http://127.0.0.1:{port}")
        return lambda calls: cpu_of(lambda: decode(client.post(PATH, content=group(), headers=JSON).content), calls)

    return contender


def by_async_httpx(library: type[httpx.AsyncClient] | type[httpx2.AsyncClient], at_once: int) -> Callable[[int], Round]:
    async def measure(port: int, calls: int) -> float:
        async with library(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            async def call() -> ScoreReply:
                return decode((await client.post(PATH, content=group(), headers=JSON)).content)

            return await cpu_of_awaited(call, calls, at_once)

    return lambda port: lambda calls: asyncio.run(measure(port, calls))


def by_aiohttp(at_once: int) -> Callable[[int], Round]:
    async def measure(port: int, calls: int) -> float:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

            async def call() -> ScoreReply:
                async with session.post(PATH, data=group(), headers=JSON) as response:
                    return decode(await response.read())

            return await cpu_of_awaited(call, calls, at_once)

    return lambda port: lambda calls: asyncio.run(measure(port, calls))


def by_async_client(at_once: int) -> Callable[[int], Round]:
    async def measure(port: int, calls: int) -> float:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            return await cpu_of_awaited(lambda: client.score("exact", COMPLETIONS, reference="42"), calls, at_once)

    return lambda port: lambda calls: asyncio.run(measure(port, calls))


CONTENDERS: dict[str, Callable[[int], Round]] = {
    "JSON alone, no HTTP": json_alone,
    "http.client": by_http_client,
    "httpx.Client": by_httpx(httpx.Client),
    "httpx2.Client": by_httpx(httpx2.Client),
    "rewardsvc Client": by_client,
    "aiohttp": by_aiohttp(1),
    "httpx.AsyncClient": by_async_httpx(httpx.AsyncClient, 1),
    "httpx2.AsyncClient": by_async_httpx(httpx2.AsyncClient, 1),
    "rewardsvc AsyncClient": by_async_client(1),
    f"aiohttp, {AT_ONCE} at once": by_aiohttp(AT_ONCE),
    f"httpx.AsyncClient, {AT_ONCE} at once": by_async_httpx(httpx.AsyncClient, AT_ONCE),
    f"httpx2.AsyncClient, {AT_ONCE} at once": by_async_httpx(httpx2.AsyncClient, AT_ONCE),
    f"rewardsvc AsyncClient, {AT_ONCE} at once": by_async_client(AT_ONCE),
}


def best_rounds(port: int, calls: int, rounds: int) -> dict[str, float]:
    """The least CPU seconds per call of each contender. They take turns, so that all meet the same neighbours."""
    contenders = {name: make(port) for name, make in CONTENDERS.items()}
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, measure in contenders.items():
            best[name] = min(best[name], measure(calls))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per scoring call, caller's side")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with server() as port:
        best = best_rounds(port, asked.calls, asked.rounds)
    load = " ".join(f"{average:.2f}" for average in os.getloadavg())
    lines = [f"{len(group())} bytes out, {len(reply())} bytes back; load average {load}; {os.cpu_count()} cores"]
    lines += [f"{'caller':42}{'CPU per call':>14}{'to http.client':>16}"]
    lines += [f"{name:42}{cost * 1e6:11.0f} µs{cost / best['http.client']:16.2f}" for name, cost in best.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
