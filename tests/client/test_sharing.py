"""One client shared by threads, by forked processes, by event loops; and what importing it costs a trainer."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rewardsvc.client import AsyncClient, Client, aio, core

Script = Callable[..., Any]
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def exit_code_of_child(work: Callable[[], bool]) -> int:
    """0 when `work` returned True in a forked child."""
    pid = os.fork()
    if pid == 0:
        worked = False
        try:
            worked = work()
        finally:
            os._exit(0 if worked else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_threads_share_one_client_and_its_connections(script: Script, good: Any) -> None:
    service = script(good)
    with Client(service.url) as client, ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda i: client.score("exact", ["42"], request_id=f"id-{i}"), range(200)))
    assert all(reply.verdicts[0].reward == 1.0 for reply in replies)
    assert sorted(seen.headers["x-request-id"] for seen in service.seen) == sorted(f"id-{i}" for i in range(200))
    assert len(set(service.connections)) <= 8


@forks
def test_a_forked_child_never_uses_a_socket_of_its_parent(script: Script, good: Any) -> None:
    service = script(good)
    with Client(service.url) as client:
        client.score("exact", ["42"])
        assert exit_code_of_child(lambda: client.score("exact", ["42"]).verdicts[0].reward == 1.0) == 0
        client.score("exact", ["42"])
    assert service.connections == [0, 1, 0]


@forks
def test_a_child_forked_from_an_async_parent_never_uses_its_sockets(script: Script, good: Any) -> None:
    service = script(good)
    client = AsyncClient(service.url)

    async def in_child() -> bool:
        reply = await client.score("exact", ["42"])
        await client.aclose()
        return reply.verdicts[0].reward == 1.0

    with asyncio.Runner() as runner:
        runner.run(client.score("exact", ["42"]))
        assert exit_code_of_child(lambda: asyncio.run(in_child())) == 0
        runner.run(client.score("exact", ["42"]))
        runner.run(client.aclose())
    assert service.connections == [0, 1, 0]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's, for a loop that ended first
def test_an_async_client_outlives_its_first_event_loop(script: Script, good: Any) -> None:
    service = script(good)
    client = AsyncClient(service.url)
    for _ in range(2):
        assert asyncio.run(client.score("exact", ["42"])).verdicts[0].reward == 1.0
    assert service.connections == [0, 1]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Unclosed client session")
        asyncio.run(client.aclose())
        assert not client._opened
        gc.collect()


def test_two_running_loops_share_one_async_client(script: Script, good: Any) -> None:
    service = script(good)
    client = AsyncClient(service.url)
    together = threading.Barrier(2)

    async def several() -> list[float | None]:
        together.wait(5)
        replies = [await client.score("exact", ["42"]) for _ in range(20)]
        together.wait(5)
        await client.aclose()
        return [reply.verdicts[0].reward for reply in replies]

    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(asyncio.run, several()) for _ in range(2)]
        assert [answer.result(10) for answer in answers] == [[1.0] * 20] * 2
    assert set(service.connections) == {0, 1}


def test_more_calls_than_slots_wait_their_turn(script: Script, good: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "MAX_IN_FLIGHT", 3)
    service = script(good)

    async def many() -> list[float | None]:
        async with AsyncClient(service.url) as client:
            replies = await asyncio.gather(*(client.score("exact", ["42"]) for _ in range(30)))
            return [reply.verdicts[0].reward for reply in replies]

    assert asyncio.run(many()) == [1.0] * 30
    assert len(set(service.connections)) <= 3


def test_many_dead_connections_cost_one_call_a_single_retry(
    script: Script, good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "FIRST_WAIT_S", 60.0)  # a call that waited would be too late
    monkeypatch.setattr(core, "LONGEST_WAIT_S", 60.0)
    together = threading.Barrier(4)
    service = script(good)

    def call(client: Client) -> None:
        together.wait(5)
        client.score("exact", ["x" * 1_000_000])

    with Client(service.url, timeout=20.0) as client, ThreadPoolExecutor(4) as threads:
        list(threads.map(call, [client] * 4))
        service.hang_up()
        assert client.score("exact", ["42"]).verdicts[0].reward == 1.0
    assert len(service.seen) == 5


def test_a_cancelled_call_hangs_up_so_that_the_service_can_stop(script: Script) -> None:
    service = script("silence")

    async def give_up() -> None:
        async with AsyncClient(service.url) as client:
            call = asyncio.create_task(client.score("exact", ["42"]))
            while not service.seen:
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(give_up())
    assert service.gone.wait(2)


def test_a_connection_that_was_idle_for_long_is_not_used_again(
    script: Script, good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "KEEP_IDLE_S", 0.05)
    service = script(good)
    with Client(service.url) as client:
        client.score("exact", ["42"])
        time.sleep(0.1)
        client.score("exact", ["42"])
    assert service.connections == [0, 1]


def test_a_closed_client_leaves_no_socket_behind(script: Script, good: Any) -> None:
    service = script(good)
    client = Client(service.url)
    client.score("exact", ["42"])
    client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client
        gc.collect()


def test_importing_the_client_brings_no_server_and_no_heavy_library() -> None:
    check = (
        "import sys, rewardsvc.client; "
        "ours = {m for m in sys.modules if m.startswith('rewardsvc')}; "
        "heavy = {'aiohttp', 'fastapi', 'httpx', 'pydantic', 'starlette', 'sympy', 'uvicorn'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "assert ours <= {'rewardsvc', 'rewardsvc.client', 'rewardsvc.client.core', 'rewardsvc.client.sync', "
        "'rewardsvc.contract', 'rewardsvc.errors'}, ours; "
        "rewardsvc.client.AsyncClient; assert 'aiohttp' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
