"""Errors as `application/problem+json` (RFC 9457), and the few lines that send any JSON reply.

`type` is a stable path below `/problems/`, documented in docs/errors.md; `instance` is the request id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from rewardsvc import observe
from rewardsvc.contract import ScoreRequest, first_error
from rewardsvc.errors import Internal, MethodNotAllowed, NotFound, Problem, WrongShape

TYPE_PREFIX = "/problems/"
MEDIA_TYPE = "application/problem+json"
JSON = "application/json"
Header = tuple[bytes, bytes]


class PlaceInfo(msgspec.Struct):
    """One mistake: a JSON pointer (RFC 6901) into the request, and what is wrong there."""

    pointer: str
    detail: str


class ProblemDocument(msgspec.Struct):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[PlaceInfo]
    retryable: bool
    retry_after_ms: int | None


def document(problem: Problem, request_id: str) -> ProblemDocument:
    """A problem as it goes over the wire."""
    return ProblemDocument(
        type=TYPE_PREFIX + problem.slug,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        instance=request_id,
        errors=[PlaceInfo(pointer, detail) for pointer, detail in problem.errors],
        retryable=problem.retryable,
        retry_after_ms=problem.retry_after_ms,
    )


def headers(problem: Problem) -> list[Header]:
    """The headers that a problem asks for besides its body's."""
    extra = []
    if problem.retry_after_ms is not None:
        extra.append((b"retry-after", b"%d" % math.ceil(problem.retry_after_ms / 1000)))
    if problem.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    return extra


async def send_problem(send: Send, problem: Problem, request_id: str) -> None:
    """The whole reply."""
    body = msgspec.json.encode(document(problem, request_id))
    await send_body(send, problem.status, body, MEDIA_TYPE, headers(problem))


async def send_body(send: Send, status: int, body: bytes, media_type: str, extra: Iterable[Header] = ()) -> None:
    """A reply of known length."""
    head = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def of_framework(error: Exception) -> Problem:
    """The framework's own refusals (no such page, wrong method) as problems of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            return MethodNotAllowed("The page exists, but not for this method; see the Allow header.")
        if error.status_code < 500:
            return NotFound("There is no such page; GET /openapi.json lists those there are.")
    return Internal("The service failed; its log has the details under this request id.")


async def handle(request: Request, error: Exception) -> Response:
    """For the framework's table of exception handlers."""
    problem = of_framework(error)
    request_id = request.scope["rewardsvc.exchange"].request_id
    if problem.status != 500:  # those are raised again, and seen by the guard
        observe.request_refused(problem.slug, request_id)
    kept: dict[str, Any] = dict(getattr(error, "headers", None) or {})
    if problem.status == 405:
        kept["Allow"] = ", ".join(sorted({*kept["Allow"].split(", "), "HEAD"}))
    kept |= {name.decode(): value.decode() for name, value in headers(problem)}
    body = msgspec.json.encode(document(problem, request_id))
    return Response(body, problem.status, kept, MEDIA_TYPE)


def wrong_shape(error: msgspec.ValidationError) -> WrongShape:
    """A body that is JSON but not a `ScoreRequest`."""
    place, message = first_error(error, model=ScoreRequest)
    return WrongShape("The body is not a score request.", [(place, message)])
