"""The front's end of a worker.

It lives on the event loop and never blocks it. A death is noticed here and told to whoever owns the link; what it means
for a rollout is decided in `cpu` and `io`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable

import msgspec

from rewardsvc import observe
from rewardsvc.executors.wire import (
    Cell,
    Exit,
    Fork,
    FrameReader,
    FrameTooLong,
    FromWorker,
    Ready,
    decode_from_minder,
    decode_from_worker,
    frame,
    send_with_descriptors,
)

GARBAGE, RECYCLED = "garbage", "recycled"
_BUFFER = bytearray(1 << 18)
_VIEW = memoryview(_BUFFER)
_SOCKET_BYTES = 1 << 21
_LAST_RESORT_SECONDS = 3.0  # longer than a minder's cleaning up


class Link:
    """One worker as the front sees it. `on_message` gets its frames, `on_gone` its end (None: no report came).

    `on_gone` is called once, unless `kill` was called before.
    """

    def __init__(self, kind: str) -> None:
        """Raises OSError when there are no descriptors left."""
        self.kind = kind
        self.pid = 0
        self.alive = True
        self.killed_because: str | None = None
        self.on_message: Callable[[FromWorker], None] = lambda message: None
        self.on_gone: Callable[[Exit | None], None] = lambda report: None
        with contextlib.ExitStack() as undo:
            self.sock, self._far_sock = _pair(undo)
            self._lifeline, self._far_lifeline = _pair(undo)
            self._far_cell = Cell.allocate()
            undo.callback(os.close, self._far_cell)
            self.cell = Cell(os.dup(self._far_cell))
            undo.pop_all()
        self._frames = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self._pid_descriptors: list[int] = []  # the worker's, the minder's
        self._last_resort: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.sock, self.drain)
        self._loop.add_reader(self._lifeline, self._minder_speaks)

    def hand_over(self, control: socket.socket) -> None:
        """Sends the far ends to the parent, which forks. Raises OSError when the parent is gone."""
        far = [self._far_sock.fileno(), self._far_lifeline.fileno(), self._far_cell]
        try:
            send_with_descriptors(control, Fork(self.kind), far)
        finally:
            self._far_sock.close()
            self._far_lifeline.close()
            os.close(self._far_cell)

    def send(self, message: object) -> None:
        """Sends a frame, or as much of it as fits now; a worker that is gone is noticed elsewhere."""
        data = frame(message)
        if not self._outgoing:
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                return
            if sent == len(data):
                return
            self._loop.add_writer(self.sock, self._flush)
            self._outgoing.append(memoryview(data)[sent:])
        else:
            self._outgoing.append(memoryview(data))

    def _flush(self) -> None:
        while self._outgoing:
            data = self._outgoing[0]
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._outgoing.clear()
                break
            if sent < len(data):
                self._outgoing[0] = data[sent:]
                return
            self._outgoing.popleft()
        self._loop.remove_writer(self.sock)

    def drain(self) -> None:
        """Handles every frame that has arrived."""
        while self.alive:
            try:
                count = self.sock.recv_into(_BUFFER)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                count = 0
            if not count:
                self._loop.remove_reader(self.sock)
                return
            self._handle(_VIEW[:count])
            if count < len(_BUFFER):
                return

    def _handle(self, data: memoryview) -> None:
        try:
            messages = [decode_from_worker(body) for body in self._frames.feed(data)]
        except (FrameTooLong, msgspec.MsgspecError, UnicodeDecodeError):
            self._distrust()
            return
        for message in messages:
            if isinstance(message, Ready):
                if self.pid:  # it says so once
                    self._distrust()
                    return
                self.pid = message.pid
            self.on_message(message)

    def _distrust(self) -> None:
        """What arrived cannot come from an honest worker."""
        self.kill(GARBAGE)
        self.on_gone(None)

    def kill(self, because: str) -> None:
        """Ends the worker and all its descendants at once; nothing that it still sends is read."""
        if self.alive:
            self._part(because)
            self._signal(self._pid_descriptors[:1])
            with contextlib.suppress(OSError):
                self._lifeline.shutdown(socket.SHUT_WR)

    def _part(self, because: str | None) -> None:
        """Nothing more goes to the worker or comes from it. A minder that takes too long to report is killed."""
        self.alive = False
        self.killed_because = because
        self._loop.remove_reader(self.sock)
        self._loop.remove_writer(self.sock)
        self.sock.close()
        self._outgoing.clear()
        self._last_resort = self._loop.call_later(_LAST_RESORT_SECONDS, self._signal, self._pid_descriptors)

    @staticmethod
    def _signal(pid_descriptors: list[int]) -> None:
        for descriptor in pid_descriptors:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def _minder_speaks(self) -> None:
        """It has a worker, reports the worker's end, or is gone itself."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._lifeline, 4096, 2)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._pid_descriptors += descriptors
        said = [decode_from_minder(body) for body in FrameReader().feed(data)]
        report = next((message for message in said if isinstance(message, Exit)), None)
        if report is not None or not data:
            self._ended(report)

    def _ended(self, report: Exit | None) -> None:
        if self.alive:
            self.drain()
        if self.alive:
            self._part(RECYCLED if self.cell.left else None)
            self.on_gone(report)
        self._loop.remove_reader(self._lifeline)
        self._lifeline.close()
        if self._last_resort is not None:
            self._last_resort.cancel()
        for descriptor in self._pid_descriptors:
            os.close(descriptor)
        self._pid_descriptors.clear()
        self.cell.close()
        observe.worker_ended(self.kind, self.killed_because or _cause(report))


def _cause(report: Exit | None) -> str:
    if report is None:
        return "parent_killed"
    return "signal" if report.code < 0 else "exit"


def _pair(undo: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """A socket pair: our end does not block, the far end does."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        undo.callback(end.close)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    ours.setblocking(False)
    return ours, theirs
