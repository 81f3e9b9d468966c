"""Wires the service together, and nothing else: scheduler, routes, guard, server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from rewardsvc import __version__, observe
from rewardsvc.errors import Problem, SettingsFault
from rewardsvc.http import catalogue, deadlines, health, openapi, page, problem, problem_pages
from rewardsvc.http.guard import Guard
from rewardsvc.http.score import SCORE_PREFIX, Score
from rewardsvc.scheduler import Limits, Scheduler
from rewardsvc.settings import Settings, unread_variables, worker_environment

_BACKLOG = 4096
_FORMS = {"defaultModelsExpandDepth": -1, "tryItOutEnabled": True, "docExpansion": "list"}
"""How `/docs` looks: forms that are open to be filled in, and no list of every schema below them."""
_LASTING_SECONDS = 2.0
_HOST, _PORT = "--host or REWARDSVC_HOST", "--port or REWARDSVC_PORT"
_BIND_FAULTS = {
    errno.EADDRINUSE: f"Another program listens there: end it, or choose another port ({_PORT})",
    errno.EACCES: f"Ports below 1024 are for root: choose a higher one ({_PORT})",
    errno.EADDRNOTAVAIL: f"This machine has no such address: choose one that it has ({_HOST})",
}


def limits_of(settings: Settings) -> Limits:
    """The part of the settings that the scheduler works by."""
    return Limits(
        workers=settings.workers,
        cache_bytes=settings.cache_mb << 20,
        max_groups=settings.max_groups,
        recycle_items=settings.recycle_items,
        recycle_mb=settings.recycle_mb,
        quiet_workers=settings.worker_output == "discard",
        reward_files=tuple(settings.absolute_reward_files()),
        required_rewards=settings.required_rewards,
        environment=worker_environment(),
    )


def create_app(settings: Settings, scheduler: Scheduler) -> ASGIApp:
    """The application around a scheduler, which starts and closes with it: guard, then the one hot route or FastAPI."""
    score = Score(scheduler)
    pages = _pages(scheduler, keys=bool(settings.key_hashes()))

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(SCORE_PREFIX):
            scope["path_params"] = {"name": scope["path"].removeprefix(SCORE_PREFIX)}
            await score(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "HEAD":
            await pages({**scope, "method": "GET"}, receive, send)  # the server sends the head of this reply alone
        else:
            await pages(scope, receive, send)

    return Guard(
        route,
        admit=scheduler.refuse_if_full,
        key_hashes=settings.key_hashes(),
        max_body=settings.max_body_mb << 20,
        max_waiting=settings.max_waiting_mb << 20,
        quota_per_minute=settings.quota_per_minute,
    )


def _pages(scheduler: Scheduler, keys: bool) -> FastAPI:
    """Everything that is not scoring."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await scheduler.start(wait=False)
        yield
        scheduler.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="rewardsvc",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        swagger_ui_parameters=_FORMS,
    )
    app.include_router(catalogue.routes(scheduler))
    app.include_router(health.routes(scheduler))
    app.include_router(page.routes(scheduler, keys))
    app.include_router(problem_pages.routes())
    for error in (HTTPException, Problem, Exception):
        app.add_exception_handler(error, problem.handle)
    app.openapi = lambda: openapi.build(scheduler.catalogue, keys)  # type: ignore[method-assign]
    return app


def serve(settings: Settings) -> None:
    """Runs the service until it is told to stop. Raises `SettingsFault` before anything is started."""
    began = time.monotonic()
    settings.refuse_if_exposed()
    settings.key_hashes()
    observe.configure_logging(settings.log_level)
    observe.configure_tracing(settings.otlp_endpoint)
    if unread := list(unread_variables(os.environ)):
        observe.settings_unread(unread)
    _allow_many_connections()
    with _listen(settings) as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, sock, began))


def _loop_factory() -> Any:
    import uvloop

    return uvloop.new_event_loop


async def _serve(settings: Settings, sock: socket.socket, began: float) -> None:
    scheduler = Scheduler(limits_of(settings))
    scheduler.launch()
    times = deadlines.Times(settings.header_seconds, settings.body_seconds, settings.reply_seconds)
    config = uvicorn.Config(
        create_app(settings, scheduler),
        http=deadlines.protocol(times),
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=math.ceil(settings.reply_seconds) + 1,
        backlog=_BACKLOG,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.drain_then_exit, scheduler, settings.drain_seconds)
    announcing = asyncio.ensure_future(_announce(scheduler, sock, began))
    await server.serve(sockets=[sock])
    announcing.cancel()


async def _announce(scheduler: Scheduler, sock: socket.socket, began: float) -> None:
    """Says when the service is ready, and once for each reason that lasts why it is not."""
    since, before = time.monotonic(), list[str]()
    while reasons := scheduler.not_ready_because():
        if reasons != before:
            since, before = time.monotonic(), reasons
        elif time.monotonic() - since > _LASTING_SECONDS:
            observe.not_ready(reasons)
            since = math.inf
        await asyncio.sleep(0.01)
    host, port = sock.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    available = sum(info.available for info in scheduler.catalogue.values())
    observe.started(address, available, round(time.monotonic() - began, 3))


class _Server(uvicorn.Server):
    """uvicorn with our own way to stop: drain first, and leave with exit code 0. A second signal stops at once."""

    _draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def drain_then_exit(self, scheduler: Scheduler, seconds: float) -> None:
        """Readiness turns red, groups under way are answered, in the end with a refusal; then the server stops."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain(scheduler, seconds))
        else:
            self.force_exit = self.should_exit = True

    async def _drain(self, scheduler: Scheduler, seconds: float) -> None:
        await scheduler.drain(seconds)
        for request in self.server_state.tasks:
            request.cancel()
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    """A listening socket. Raises `SettingsFault` saying what is in the way."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        unknown = f"Nobody knows this name: give an address of this machine ({_HOST})"
        hint = unknown if isinstance(error, socket.gaierror) else _BIND_FAULTS.get(error.errno or 0)
        more = f" {hint}." if hint else ""
        raise SettingsFault(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.{more}") from None
    sock.listen(_BACKLOG)
    sock.set_inheritable(False)
    return sock


def _allow_many_connections() -> None:
    """Raises the soft limit on open files to the hard one: every connection is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
