"""`/livez`, `/readyz`, `/version` and `/metrics`: for balancers, probes and Prometheus."""

from __future__ import annotations

import asyncio
import platform

import msgspec
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from rewardsvc import __version__, observe
from rewardsvc.http.problem import JSON
from rewardsvc.scheduler import Scheduler


class Live(msgspec.Struct):
    """The event loop answers."""

    live: bool = True


class Readiness(msgspec.Struct):
    """Whether requests should be sent here, and why not."""

    ready: bool
    reasons: list[str]


class Version(msgspec.Struct):
    """What runs here."""

    version: str
    python: str


def routes(scheduler: Scheduler) -> APIRouter:
    """The routes for machines that watch the service."""
    router = APIRouter()

    @router.get("/livez")
    async def livez() -> Response:
        return Response(msgspec.json.encode(Live()), media_type=JSON)

    @router.get("/readyz")
    async def readyz() -> Response:
        reasons = scheduler.not_ready_because()
        body = msgspec.json.encode(Readiness(not reasons, reasons))
        return Response(body, 503 if reasons else 200, media_type=JSON)

    @router.get("/version")
    async def version() -> Response:
        return Response(msgspec.json.encode(Version(__version__, platform.python_version())), media_type=JSON)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(observe.exposition), media_type=CONTENT_TYPE_LATEST)

    return router
