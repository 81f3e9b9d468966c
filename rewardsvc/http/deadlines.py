"""The limits that must be kept below ASGI: a client that is slow to send its request, or slow to take the reply.

uvicorn times idle connections only. This protocol closes a connection whose request head or body does not arrive in
time, whose head is too long, or whose reader does not read; and it answers a broken request with a problem document.
It also keeps to RFC 9112 where uvicorn does not: trailers are no headers, a reply that is owed is sent before the
connection closes over what came after it, and a wish to upgrade is ignored without losing the body.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any, NamedTuple, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rewardsvc import observe
from rewardsvc.errors import MalformedRequest, MethodNotAllowed, Problem, RequestTimeout, TooLarge
from rewardsvc.http.gathering import Gathering
from rewardsvc.http.guard import new_request_id
from rewardsvc.http.problem import MEDIA_TYPE, document
from rewardsvc.http.problem import headers as problem_headers

_MAX_HEAD_BYTES = 65_536
_MAX_UNREAD_BYTES = 256 << 20
_MAX_PIPELINED = 100
_PIECE_BYTES = 256 << 10


class _Nowhere(list[tuple[bytes, bytes]]):
    """Where trailers go: merged into the headers they could forge some, and kept they would take memory without end."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Forgets it."""


_NOWHERE = _Nowhere()


class Times(NamedTuple):
    """How many seconds a client has to send a request's head, to send its body, and to take the reply."""

    header: float
    body: float
    reply: float


def protocol(times: Times) -> type[asyncio.Protocol]:
    """What `uvicorn.Config(http=…)` calls for every connection, as it would call a class."""
    return cast(type[asyncio.Protocol], functools.partial(Deadlines, times))


class Deadlines(HttpToolsProtocol):
    """One connection. `_in_head` is true from the end of one request to the end of the next one's head."""

    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None
    _head_bytes = 0
    _unread_bytes = 0
    _in_head = True
    _begun = False
    _deaf = False

    def __init__(self, times: Times, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._times = times

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Gathering(transport, self.loop))
        self._expect(self._times.header)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self._stop_watching_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """In place of uvicorn's, which lets empty lines keep a connection open and drops the body of an upgrade."""
        if self._deaf:
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._give_up(MalformedRequest("What arrived here is not a valid HTTP/1.1 request."))
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES:
            self._give_up(TooLarge("The head of the request is longer than 64 KiB."))

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._begun = self._in_head = True
        self._unread_bytes = 0
        self._expect(self._times.header)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_head, self._head_bytes = False, 0
        self._expect(self._times.body)
        if len(self.pipeline) == _MAX_PIPELINED:
            raise ValueError("more requests than are queued behind one that is not answered yet")
        super().on_headers_complete()
        self.headers = _NOWHERE

    def on_body(self, body: bytes) -> None:
        """In place of uvicorn's, which wakes the application for every piece and stops reading after 64 KiB."""
        cycle = self.cycle
        if cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > _MAX_UNREAD_BYTES:
                self.transport.abort()
            return
        cycle.body += body
        if len(cycle.body) > _PIECE_BYTES:
            self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._expect(None)
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._abort_if_closing_lasts()

    def shutdown(self) -> None:
        super().shutdown()
        self._abort_if_closing_lasts()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._stop_watching_reader()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _abort_if_closing_lasts(self) -> None:
        """A connection that closes waits for its reader to take what is left, and for ever if nobody stops it."""
        if self.transport.is_closing():
            self._watch_reader()

    def _watch_reader(self) -> None:
        if self._writing is None:
            self._writing = self.loop.call_later(self._times.reply, self.transport.abort)

    def _stop_watching_reader(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _expect(self, seconds: float | None) -> None:
        """The next part of the request must be complete in so many seconds."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._begun:
            self._give_up(RequestTimeout("The request did not arrive in time.", retry_after_ms=0))
        else:
            self.transport.close()

    def _give_up(self, problem: Problem) -> None:
        """Nothing more can be read: answers, and closes. A reply owed for an earlier request goes first, alone."""
        if self.transport.is_closing():
            return
        self._deaf = True
        self._expect(None)
        owed = self._answering
        if owed is not None and not owed.response_complete and (self._in_head or owed is not self.cycle):
            self.pipeline.clear()
            owed.keep_alive = False
        elif not self._in_head and self.cycle.response_started:
            self.transport.abort()
        else:
            self._answer_and_close(problem)

    def _answer_and_close(self, problem: Problem) -> None:
        request_id = new_request_id()
        observe.request_refused(problem.slug, request_id)
        body = msgspec.json.encode(document(problem, request_id))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            *problem_headers(problem),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + body)
        self.transport.close()

    def _decline_upgrade(self, rest: bytes) -> None:
        """Reads the request again without its `Upgrade` header, which a server may ignore (RFC 9110, 7.8)."""
        if self.parser.get_method() == b"CONNECT":
            self._give_up(MethodNotAllowed("This service is no proxy."))
            return
        line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self.data_received(line + b"".join(kept) + b"\r\n" + rest)
