"""`POST /v1/rewards/{name}`: bytes in, scheduler, bytes out; plain or one verdict per line.

The endpoint is a bare ASGI application, not a framework function: between the guard and the scheduler nothing else is
needed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from rewardsvc import observe, strict_json
from rewardsvc.contract import ScoreRequest, Verdict
from rewardsvc.http.guard import Exchange, exchange_of
from rewardsvc.http.problem import JSON, send_body, wrong_shape
from rewardsvc.scheduler import Scheduler

SCORE_PREFIX = "/v1/rewards/"
NDJSON = "application/x-ndjson"
_LINES_HEAD = ((b"content-type", NDJSON.encode()),)
_WATCH_SECONDS = 0.02
_WITH_INTEGERS = frozenset({"deadline_ms", "params"})
_EXACT = 1 << 53
_encode = msgspec.json.Encoder().encode


def parse(body: bytes) -> ScoreRequest:
    """A body as a request. Raises `NotJson`, `TooLarge` or `WrongShape`."""
    document = strict_json.decode(body)
    if type(document) is dict:
        for name in document.keys() & _WITH_INTEGERS:
            document[name] = _with_integers(document[name])
    try:
        return msgspec.convert(document, ScoreRequest)
    except msgspec.ValidationError as error:
        raise wrong_shape(error) from None


def _with_integers(node: Any) -> Any:
    """The same value with 5.0 as 5, which is what JSON Schema calls it and what `5 * 1000.0` gives in Python."""
    if type(node) is float and node.is_integer() and abs(node) < _EXACT:
        return int(node)
    if type(node) is list:
        return [_with_integers(value) for value in node]
    if type(node) is dict:
        return {key: _with_integers(value) for key, value in node.items()}
    return node


class Score:
    """Scores one group."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        name: str = scope["path_params"]["name"]
        with observe.span("score", exchange.traceparent, reward=name):
            request = parse(await exchange.body())
            watch = _Watch(receive)
            try:
                answer = self._stream if _wants_lines(scope) else self._reply
                answering = answer(name, request, exchange, send)
                del request  # its texts are many, and everybody below lets go of them as soon as they are packed
                await answering
            except asyncio.CancelledError:
                if not watch.gone:
                    raise
                observe.group_abandoned(name, exchange.request_id)
            finally:
                watch.stop()

    async def _reply(self, name: str, request: ScoreRequest, exchange: Exchange, send: Send) -> None:
        """All verdicts at once."""
        scoring = self._scheduler.score(name, request, exchange.request_id, exchange.arrived_ns)
        del request
        await send_body(send, 200, _encode(await scoring), JSON)

    async def _stream(self, name: str, request: ScoreRequest, exchange: Exchange, send: Send) -> None:
        """One line per verdict as it is ready, then the group. A problem before the first line is still a problem.

        Rollouts that no reward could judge are known before the params are checked: their lines wait for another one.
        """
        lines = self._scheduler.stream(name, request, exchange.request_id, exchange.arrived_ns)
        del request
        started, ready = False, b""
        try:
            async for line in lines:
                ready += _encode(line) + b"\n"
                if not started and isinstance(line, Verdict) and line.status == "bad_item":
                    continue
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": _LINES_HEAD})
                await send({"type": "http.response.body", "body": ready, "more_body": True})
                started, ready = True, b""
            await send({"type": "http.response.body", "body": b""})
        finally:
            await lines.aclose()  # type: ignore[attr-defined]


class _Watch:
    """Cancels the running request when its client hangs up. Short requests are over before it starts to look."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = False
        self._request: asyncio.Task[Any] | None = asyncio.current_task()
        self._looking: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._start)

    def _start(self) -> None:
        self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._request is not None:
            self._request.cancel()

    def stop(self) -> None:
        """The request is over."""
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()


def _wants_lines(scope: Scope) -> bool:
    return any(name == b"accept" and NDJSON.encode() in value for name, value in scope["headers"])
