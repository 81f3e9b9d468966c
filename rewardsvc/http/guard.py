"""What stands in front of every route: request ids, keys, load shedding, and a whole body within its limits.

Pure ASGI, because a framework middleware would cost more than judging the group. What the protocol below HTTP must
limit (slow heads, slow readers) is in `deadlines`.
"""

from __future__ import annotations

import hmac
import re
import secrets
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardsvc import observe
from rewardsvc.errors import Forbidden, NotJson, Overloaded, TooLarge, Unauthorized, UnsupportedMediaType
from rewardsvc.executors.wire import now_ns
from rewardsvc.http.problem import of_framework, send_problem

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OPEN_PATHS = frozenset({"/livez", "/readyz", "/version", "/", "/docs", "/openapi.json", "/favicon.ico"})
OPEN_PREFIX = "/static-offline-docs/"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_JSON = re.compile(rb"application/(?:[a-z0-9.-]+\+)?json\s*(?:;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)
_INFLATE_STEP = 1 << 20


@dataclass(slots=True)
class Exchange:
    """One request as the routes see it. `arrived_ns` is on the monotonic clock; `body` is empty for GET."""

    request_id: str
    arrived_ns: int
    body: bytes = b""
    traceparent: str | None = None


class ClientGone(Exception):
    """The client hung up before its request was complete; there is nobody to answer."""


class Guard:
    """Lets through what has a right to be worked on. `admit` raises a `Problem` when nothing more can be taken."""

    def __init__(
        self,
        app: ASGIApp,
        admit: Callable[[], None],
        key_hashes: tuple[bytes, ...] = (),
        max_body: int = 32 << 20,
        max_waiting: int = 512 << 20,
    ) -> None:
        self._app = app
        self._admit = admit
        self._key_hashes = key_hashes
        self._max_body = max_body
        self._max_waiting = max_waiting
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived_ns = now_ns()
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        scope["rewardsvc.request_id"] = request_id
        reply = _Reply(send, request_id)
        held = 0
        try:
            self._check_key(scope["path"], headers.get(b"authorization"))
            exchange = Exchange(request_id, arrived_ns, b"", _text(headers.get(b"traceparent")))
            if scope["method"] == "POST":
                self._admit()
                exchange.body = await self._body(headers, receive)
                held = len(exchange.body)
                self._waiting += held
            scope["rewardsvc.exchange"] = exchange
            await self._app(scope, receive, reply)
        except ClientGone:
            return
        except Exception as error:  # the boundary of the service: whatever happened, the client gets a problem
            await self._refuse(reply, error, request_id)
        finally:
            self._waiting -= held

    async def _refuse(self, reply: _Reply, error: Exception, request_id: str) -> None:
        problem = of_framework(error)
        if problem.status == 500:
            observe.failed(request_id, error)
        observe.request_refused(problem.slug, request_id)
        if reply.started:
            raise error
        await send_problem(reply, problem, request_id)

    def _check_key(self, path: str, authorization: bytes | None) -> None:
        """Compares with every key, so that the time taken says nothing about which one was nearly right."""
        if not self._key_hashes or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise Unauthorized("Send `Authorization: Bearer <key>`.")
        digest = sha256(key.strip()).digest()
        if not sum(hmac.compare_digest(digest, known) for known in self._key_hashes):
            raise Forbidden("This key is not one of the service's keys.")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, inflated. Raises a `Problem`, or `ClientGone`."""
        if not _JSON.fullmatch(headers.get(b"content-type", b"").strip()):
            raise UnsupportedMediaType("Send `Content-Type: application/json`.")
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b"gzip", b"zstd"):
            raise UnsupportedMediaType("Content-Encoding must be gzip or zstd, once, or absent.")
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max_body:
            raise self._too_large()
        body = await self._read(receive)
        return body if encoding == b"identity" else self._inflate(body, encoding)

    async def _read(self, receive: Receive) -> bytes:
        message = await receive()
        if not message.get("more_body") and message["type"] == "http.request":
            return self._within_limit(message.get("body", b""))
        chunks: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_body:
                raise self._too_large()
            if self._waiting + size > self._max_waiting:
                raise Overloaded("The bodies that wait already take all the memory set aside.", retry_after_ms=1000)
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await receive()

    def _within_limit(self, body: bytes) -> bytes:
        if len(body) > self._max_body:
            raise self._too_large()
        if self._waiting + len(body) > self._max_waiting:
            raise Overloaded("The bodies that wait already take all the memory set aside.", retry_after_ms=1000)
        return body

    def _inflate(self, body: bytes, encoding: bytes) -> bytes:
        """Inflates step by step and stops at the limit, so that a bomb costs no more than an honest body."""
        inflater: _Inflater = _Gzip() if encoding == b"gzip" else zstd.ZstdDecompressor()
        pieces: list[bytes] = []
        size, data = 0, body
        try:
            while not inflater.eof:
                piece = inflater.decompress(data, _INFLATE_STEP)
                data = b""
                if not piece and inflater.needs_input:
                    raise NotJson("The compressed body ends too early.")
                pieces.append(piece)
                size += len(piece)
                if size > self._max_body:
                    raise self._too_large()
        except (zlib.error, zstd.ZstdError):
            raise NotJson(f"The body is not valid {encoding.decode()}.") from None
        if inflater.unused_data:
            raise NotJson("There is something after the end of the compressed body.")
        return self._within_limit(b"".join(pieces))

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"A body may have at most {self._max_body >> 20} MiB, also after inflation; send smaller groups."
        )


class _Inflater(Protocol):
    """What the two decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface that newer ones have: it keeps its own unread input."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class _Reply:
    """The way back to the client: adds the request id, and knows whether a reply has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id = (b"x-request-id", request_id.encode())
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message.get("headers", ()), self._id]
        await self._send(message)


def _request_id(given: bytes | None) -> str:
    """The caller's id when it is printable and short, else one of ours."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return secrets.token_hex(8)


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


def exchange_of(scope: Any) -> Exchange:
    """The exchange that the guard attached."""
    exchange: Exchange = scope["rewardsvc.exchange"]
    return exchange
