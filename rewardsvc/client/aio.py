"""The client for asyncio: thousands of calls in flight from one thread.

It stands on aiohttp, because httpx costs several times the CPU for the same group (`benchmarks/client.py` measures it)
and its pool slows down with every call that waits. Proxies from the environment and redirects are not followed.

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
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import aiohttp
from yarl import URL

from rewardsvc.client import core
from rewardsvc.client.core import Answer, Call, Outcome, Service

MAX_IN_FLIGHT = 256
"""Calls that one loop has under way at once; more wait here, under their deadline, and cost no file descriptor."""

P = ParamSpec("P")
T = TypeVar("T")


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

    `timeout` is the total number of seconds of one call, all its tries and waits included. A call that is cancelled
    closes its connection, which lets the service stop the work.
    """

    def __init__(
        self, base_url: str = core.DEFAULT_URL, api_key: str | None = None, timeout: float = core.DEFAULT_TIMEOUT_S
    ) -> None:
        self._service = Service(base_url, api_key, timeout)
        self._opened: dict[tuple[int, asyncio.AbstractEventLoop], _Opened] = {}

    score = _awaited(Service.score)
    rewards = _awaited(Service.rewards)
    reward = _awaited(Service.reward)
    ready = _awaited(Service.ready)

    async def aclose(self) -> None:
        """Close the connections of the running loop and of loops that have ended. A later call opens new ones.

        A loop that runs in another thread must close its own.
        """
        here = self._opened.pop(_process_and_loop(), None)
        if here is not None:
            await here.session.close()
        await self._forget_ended_loops()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[type[AsyncClient], tuple[str, str | None, float]]:
        """A pickled client, sent to an actor on another machine, opens its own connections there."""
        return AsyncClient, self._service.made_of

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
        here = self._opened.get(_process_and_loop())
        if here is None:
            here = self._opened[_process_and_loop()] = _open()
            await self._forget_ended_loops()
        return here

    async def _forget_ended_loops(self) -> None:
        """Let go of what belonged to loops of this process that are closed.

        What a parent process opened is never touched, not even to close it: the child's copy of the loop shares the
        parent's epoll instance, and closing there would unregister the parent's own connections.
        """
        for (process, loop), ended in list(self._opened.items()):
            if process == os.getpid() and loop.is_closed():
                self._opened.pop((process, loop), None)
                await ended.session.close()


def _open() -> _Opened:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=core.KEEP_IDLE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=core.CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    return _Opened(session, asyncio.Semaphore(MAX_IN_FLIGHT))


def _process_and_loop() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()
