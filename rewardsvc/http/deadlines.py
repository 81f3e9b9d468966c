"""The limits that must be kept below ASGI: a client that is slow to send its request, or slow to take the reply.

uvicorn times idle connections only. This protocol closes a connection whose request head or body does not arrive in
time, whose head is too long, or whose reader does not read; and it answers a broken request with a problem document.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rewardsvc.errors import NotJson, Problem, RequestTimeout, TooLarge
from rewardsvc.http.problem import MEDIA_TYPE, document

_MAX_HEAD_BYTES = 65_536
_MAX_UNREAD_BYTES = 256 << 20


def protocol(header_seconds: float, body_seconds: float, reply_seconds: float) -> type[HttpToolsProtocol]:
    """A protocol class for `uvicorn.Config(http=…)` with these limits, in seconds."""

    class Deadlines(HttpToolsProtocol):
        """One connection."""

        _timer: asyncio.TimerHandle | None = None
        _writing: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _unread_bytes = 0
        _in_head = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect(header_seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect(None)
            self.resume_writing()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                self._head_bytes += len(data)
            super().data_received(data)
            if self._in_head and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
                self._answer_and_close(TooLarge("The head of the request is longer than 64 KiB."))

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self._unread_bytes = True, 0
            self._expect(header_seconds)

        def on_headers_complete(self) -> None:
            self._in_head, self._head_bytes = False, 0
            self._expect(body_seconds)
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if self.cycle.response_complete:
                self._unread_bytes += len(body)
                if self._unread_bytes > _MAX_UNREAD_BYTES:
                    self.transport.abort()
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._expect(None)
            self._in_head = True
            super().on_message_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._writing = self.loop.call_later(reply_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._writing is not None:
                self._writing.cancel()
                self._writing = None
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()
            super().timeout_keep_alive_handler()

        def send_400_response(self, msg: str) -> None:
            self._answer_and_close(NotJson("This is not a valid HTTP request."))

        def _expect(self, seconds: float | None) -> None:
            """The next part of the request must be complete in so many seconds."""
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

        def _too_slow(self) -> None:
            if self.transport.is_closing():
                return
            if self._in_head or not self.cycle.response_started:
                self._answer_and_close(RequestTimeout("The request did not arrive in time.", retry_after_ms=0))
            else:
                self.transport.abort()

        def _answer_and_close(self, problem: Problem) -> None:
            body = msgspec.json.encode(document(problem, ""))
            head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[problem.status] + head % (MEDIA_TYPE.encode(), len(body)) + body)
            self.transport.close()

    return Deadlines
