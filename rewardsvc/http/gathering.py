"""A reply in one piece. uvicorn writes its head and its body one after the other: two system calls, maybe two packets
and two wake-ups of the client. Here the first of two pieces written in one turn of the event loop waits for the second,
and never longer than that turn.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Gathering(asyncio.Transport):
    """A transport in front of another one; every method that the HTTP protocol uses."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop
        self._held: bytes | None = None

    def write(self, data: Any) -> None:
        """The first piece is held, the second takes it along."""
        held = self._held
        if held is None:
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._held = None
            self._inner.writelines((held, data))

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._inner.is_closing():
            self._inner.write(held)

    def close(self) -> None:
        """What was written is still sent."""
        self._flush()
        self._inner.close()

    def abort(self) -> None:
        """What was not sent never will be."""
        self._held = None
        self._inner.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._inner.get_write_buffer_size() + len(self._held or b"")

    def is_closing(self) -> bool:
        """As the inner one."""
        return self._inner.is_closing()

    def pause_reading(self) -> None:
        """As the inner one."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """As the inner one."""
        self._inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the inner one."""
        return self._inner.get_extra_info(name, default)
