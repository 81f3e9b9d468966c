"""The client for asyncio: thousands of calls in flight from one thread.

It stands on aiohttp, because httpx costs a multiple of the CPU, the more so the more calls wait
(`benchmarks/client.py` measures it). Proxies from the environment and redirects are not followed.

An `AsyncClient` may be made where no loop runs, and shared by any number of loops, threads and forked processes:
connections belong to one process and one running loop.
"""

from __future__ import annotations

import asyncio
import functools
import io
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, NamedTuple, ParamSpec

import aiohttp
from yarl import URL

from rewardsvc.client import core
from rewardsvc.client.core import Answer, Call, Outcome, Service, T

MAX_IN_FLIGHT = 256
"""Calls that one loop has under way at once; more wait here, under their deadline, and cost no file descriptor."""

P = ParamSpec("P")


def _awaited(
    calls: Callable[Concatenate[Service, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @functools.wraps(calls)
    async def ask(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client._run(calls(client._service, *args, **kwargs))

    return ask


class _Opened(NamedTuple):
    """What belongs to one running loop."""

    session: aiohttp.ClientSession
    slots: asyncio.Semaphore


class AsyncClient:
    """Calls a reward service. Every call raises ServiceRefused, ServiceUnreachable or DeadlineExceeded (`ClientError`).

    `timeout` is the total number of seconds of one call, all its tries and waits included; `absent` how many of them
    nobody need be at the address. A call that is cancelled closes its connection, which lets the service stop the work.
    """

    def __init__(
        self,
        base_url: str = core.URL,
        api_key: str | None = None,
        timeout: float = core.TIMEOUT_S,
        absent: float = core.ABSENT_S,
    ) -> None:
        self._service = Service(base_url, api_key, timeout, absent)
        self._opened: dict[tuple[int, asyncio.AbstractEventLoop], _Opened] = {}

    score = _awaited(Service.score)
    rewards = _awaited(Service.rewards)
    reward = _awaited(Service.reward)
    ready = _awaited(Service.ready)

    async def aclose(self) -> None:
        """Close the connections of the running loop and of ended ones; a loop in another thread must close its own."""
        here = self._opened.pop((os.getpid(), asyncio.get_running_loop()), None)
        if here is not None:
            await here.session.close()
        await self._forget_ended_loops()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, call: Call[T]) -> T:
        try:
            async with asyncio.timeout(self._service.timeout):
                return call.read(await self._last_outcome(call))
        except TimeoutError as error:
            return call.read(error)

    async def _last_outcome(self, call: Call[T]) -> Outcome:
        until = time.monotonic() + self._service.timeout
        here = await self._here()
        while True:
            async with here.slots:
                outcome = await self._try(here.session, call, until - time.monotonic())
            wait = call.wait(outcome, until - time.monotonic())
            if wait is None:
                return outcome
            await asyncio.sleep(wait)

    async def _try(self, session: aiohttp.ClientSession, call: Call[T], left: float) -> Outcome:
        url = URL(self._service.origin + call.target, encoded=True)
        body = call.body(left)
        # Above 1 MiB aiohttp wants a file, which it sends in pieces, so that one upload does not hold the loop.
        payload = io.BytesIO(body) if body is not None and len(body) > 1_048_576 else body
        try:
            async with session.request(
                call.method, url, headers=call.headers, data=payload, allow_redirects=False
            ) as response:
                return Answer(response.status, await response.read(), response.headers.get("Retry-After"))
        except aiohttp.ClientError as error:
            return error

    async def _here(self) -> _Opened:
        key = os.getpid(), asyncio.get_running_loop()
        here = self._opened.get(key)
        if here is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=core.KEEP_IDLE_S)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=core.CONNECT_S)
            session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
            here = self._opened[key] = _Opened(session, asyncio.Semaphore(MAX_IN_FLIGHT))
            await self._forget_ended_loops()
        return here

    async def _forget_ended_loops(self) -> None:
        """Let go of what belonged to closed loops of this process.

        What a parent process opened is not even closed: the child's copy of the loop shares the parent's epoll
        instance, and closing there would unregister the parent's own connections.
        """
        for (process, loop), ended in list(self._opened.items()):
            if process == os.getpid() and loop.is_closed():
                self._opened.pop((process, loop), None)
                await ended.session.close()
