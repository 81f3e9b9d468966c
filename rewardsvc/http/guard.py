"""What stands in front of every route: request ids, keys, load shedding, and a whole body within its limits.

Pure ASGI, because a framework middleware would cost more than judging the group. What the protocol below HTTP must
limit (slow heads, slow readers) is in `deadlines`.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import sys
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardsvc import observe
from rewardsvc.clock import now_ns
from rewardsvc.errors import (
    Draining,
    Forbidden,
    MalformedRequest,
    NotJson,
    Overloaded,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from rewardsvc.http.problem import of_framework, send_problem
from rewardsvc.http.quota import Quota

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OPEN_PATHS = frozenset({"/livez", "/readyz", "/version", "/", "/docs", "/openapi.json", "/favicon.ico"})
OPEN_PREFIXES = ("/static-offline-docs/", "/problems/")
_ONCE = (b"authorization", b"content-encoding", b"content-type", b"host", b"transfer-encoding", b"x-request-id")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_JSON = re.compile(rb"application/(?:[a-z0-9.-]+\+)?json\s*(?:;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)
_INFLATE_STEP = 1 << 20
Headers = dict[bytes, bytes]


@dataclass(slots=True)
class Exchange:
    """One request as the routes see it. `arrived_ns` is on the monotonic clock; `held` is memory in bytes."""

    request_id: str
    arrived_ns: int
    headers: Headers
    receive: Receive
    read: Callable[[Exchange], Awaitable[bytes]]
    held: int = 0
    key: bytes = b""

    def body(self) -> Awaitable[bytes]:
        """The whole body within its limits, for routes that take one. Raises a `Problem`, or `ClientGone`."""
        return self.read(self)

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context that the caller sent."""
        value = self.headers.get(b"traceparent")
        return value.decode("latin-1") if value is not None else None


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
        quota_per_minute: int = 0,
    ) -> None:
        self._app = app
        self._admit = admit
        self._key_hashes = key_hashes
        self._max_body = max_body
        self._max_waiting = max_waiting
        self._waiting = 0
        self._quota = Quota(quota_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived_ns = now_ns()
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        exchange = Exchange(request_id, arrived_ns, headers, receive, self._body)
        scope["rewardsvc.exchange"] = exchange
        reply = _Reply(send, request_id)
        try:
            _check_headers(scope, headers)
            exchange.key = self._check_key(scope["path"], headers.get(b"authorization"))
            await self._app(scope, receive, reply)
        except ClientGone:
            return
        except asyncio.CancelledError:  # only the end of the service ends a request
            await self._refuse(reply, Draining("The service has shut down.", retry_after_ms=1000), request_id)
        except Exception as error:  # noqa: BLE001 the boundary of the service: whatever happened, the client gets a problem
            await self._refuse(reply, error, request_id)
        finally:
            self._waiting -= exchange.held

    async def _refuse(self, reply: _Reply, error: Exception, request_id: str) -> None:
        """Once a reply has begun, the server can only break it off; it does so when nothing more is sent."""
        problem = of_framework(error)
        if problem.status == 500:
            observe.failed(request_id, error)
        observe.request_refused(problem.slug, request_id)
        if not reply.started:
            await send_problem(reply, problem, request_id)

    def _check_key(self, path: str, authorization: bytes | None) -> bytes:
        """The key's digest, empty where none is needed.

        Compares with every key, so that the time taken says nothing about which one was nearly right.
        """
        if not self._key_hashes or path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
            return b""
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise Unauthorized("Send `Authorization: Bearer <key>`.")
        digest = sha256(key.strip()).digest()
        if not sum(hmac.compare_digest(digest, known) for known in self._key_hashes):
            raise Forbidden("This key is not one of the service's keys.")
        return digest

    async def _body(self, exchange: Exchange) -> bytes:
        """The whole body, inflated. Raises a `Problem`, or `ClientGone`."""
        self._admit()
        self._quota.take(exchange.key)
        headers = exchange.headers
        if not _JSON.fullmatch(headers.get(b"content-type", b"").strip()):
            raise UnsupportedMediaType("Send `Content-Type: application/json`.")
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b"gzip", b"zstd"):
            raise UnsupportedMediaType("Content-Encoding must be gzip or zstd, once, or absent.")
        if headers.get(b"transfer-encoding", b"chunked").strip().lower() != b"chunked":
            raise UnsupportedMediaType("Transfer-Encoding must be chunked, or absent.")
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max_body:
            raise self._too_large()
        body = await self._read(exchange)
        return body if encoding == b"identity" else self._inflate(exchange, body, encoding)

    async def _read(self, exchange: Exchange) -> bytes:
        message = await exchange.receive()
        chunk: bytes = message.get("body", b"")
        if not message.get("more_body") and message["type"] == "http.request":
            self._hold(exchange, len(chunk), len(chunk))
            return chunk
        chunks: list[bytes] = []
        size = 0
        while message["type"] != "http.disconnect":
            chunks.append(chunk)
            size += len(chunk)
            self._hold(exchange, len(chunk), size)
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await exchange.receive()
            chunk = message.get("body", b"")
        raise ClientGone

    def _hold(self, exchange: Exchange, more: int, size: int) -> None:
        """Sets memory aside for `more` bytes of a body that has `size` so far; given back when the request ends."""
        if size > self._max_body:
            raise self._too_large()
        if self._waiting + more > self._max_waiting:
            raise Overloaded("The bodies that wait already take all the memory set aside.", retry_after_ms=1000)
        exchange.held += more
        self._waiting += more

    def _inflate(self, exchange: Exchange, body: bytes, encoding: bytes) -> bytes:
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
                self._hold(exchange, len(piece), size)
        except (zlib.error, zstd.ZstdError):
            raise NotJson(f"The body is not valid {encoding.decode()}.") from None
        if inflater.unused_data:
            raise NotJson("There is something after the end of the compressed body.")
        return b"".join(pieces)

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


def _check_headers(scope: Scope, headers: Headers) -> None:
    """What RFC 9112 asks of a request (3.2), and no header twice that two readers could read differently."""
    if len(headers) != len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        for name in _ONCE:
            if names.count(name) > 1:
                raise MalformedRequest(f"The header {name.decode()} stands in the request more than once.")
    if b"host" not in headers and scope["http_version"] == "1.1":
        raise MalformedRequest("A request of HTTP/1.1 must have a Host header.")


def _request_id(given: bytes | None) -> str:
    """The caller's id when it is printable and short, else one of ours."""
    return given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    """An id for a request that came without one."""
    return secrets.token_hex(8)


def exchange_of(scope: Any) -> Exchange:
    """The exchange that the guard attached."""
    exchange: Exchange = scope["rewardsvc.exchange"]
    return exchange
