"""The front's ends of the other processes: `Parent`, which forks workers, and `Link`, one per worker.

Both live on the event loop and never block it. Deaths are noticed here and told to whoever owns the link; what they
mean for a rollout is decided in `cpu` and `io`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable

import msgspec

from rewardsvc import observe
from rewardsvc.contract import RewardInfo
from rewardsvc.executors.wire import (
    Bootstrap,
    Cell,
    Exit,
    Fork,
    FrameReader,
    FrameTooLong,
    FromWorker,
    Loading,
    Ready,
    decode_from_parent,
    decode_from_worker,
    frame,
    send_with_descriptors,
)

_BUFFER = bytearray(1 << 18)
_VIEW = memoryview(_BUFFER)
_SOCKET_BYTES = 1 << 21
IMPORT_SECONDS = 60.0
_MAX_BACKOFF = 5.0


class Link:
    """One worker as the front sees it. `on_message` gets its frames, `on_gone` its end (None: no report came)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pid = 0
        self.alive = True
        self.killed_because: str | None = None
        self.on_message: Callable[[FromWorker], None] = lambda message: None
        self.on_gone: Callable[[Exit | None], None] = lambda report: None
        self.sock, self._far_sock = _pair()
        self._lifeline, self._far_lifeline = _pair()
        descriptor = Cell.allocate()
        self._far_cell = os.dup(descriptor)
        self.cell = Cell(descriptor)
        self._frames = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.sock, self.drain)
        self._loop.add_reader(self._lifeline, self._ended)

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
        """Queues a frame; a worker that is gone is noticed elsewhere."""
        self._outgoing.append(memoryview(frame(message)))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outgoing:
            data = self._outgoing[0]
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._outgoing.clear()
                break
            if sent < len(data):
                self._outgoing[0] = data[sent:]
                self._loop.add_writer(self.sock, self._flush)
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
            self.kill("garbage")
            self._loop.call_soon(self.on_gone, None)
            return
        for message in messages:
            if isinstance(message, Ready):
                self.pid = message.pid
            self.on_message(message)

    def kill(self, because: str) -> None:
        """Ends the worker and all its descendants at once; nothing that it still sends is read."""
        if not self.alive:
            return
        self.alive = False
        self.killed_because = because
        self._close_socket()
        with contextlib.suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)

    def retire(self, because: str) -> None:
        """Lets an idle worker end by itself."""
        self.alive = False
        self.killed_because = because
        self._close_socket()

    def _close_socket(self) -> None:
        self._loop.remove_reader(self.sock)
        self._loop.remove_writer(self.sock)
        self.sock.close()
        self._outgoing.clear()

    def _ended(self) -> None:
        """The minder reports, or is gone itself."""
        try:
            data = self._lifeline.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._loop.remove_reader(self._lifeline)
        self._lifeline.close()
        bodies = FrameReader().feed(data)
        report = msgspec.msgpack.decode(bodies[0], type=Exit) if bodies else None
        observe.worker_ended(self.kind, self.killed_because or _cause(report))
        if self.alive:
            self.drain()
            self.alive = False
            self._close_socket()
            self.on_gone(report)
        self.cell.close()


def _cause(report: Exit | None) -> str:
    if report is None:
        return "parent_killed"
    return "signal" if report.code < 0 else "exit"


def _pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair: our end does not block, the far end does."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    ours.setblocking(False)
    return ours, theirs


class Parent:
    """The process that imports rewards and forks workers, started again whenever it dies.

    `on_catalogue` is called after each start with what the rewards' imports gave.
    """

    def __init__(self, bootstrap: Bootstrap, environment: dict[str, str]) -> None:
        self.ready = False
        self.closed = False
        self.on_catalogue: Callable[[list[RewardInfo]], None] = lambda rewards: None
        self._bootstrap = bootstrap
        self._environment = environment
        self._loading: str | None = None
        self._backoff = 0.05
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def launch(self) -> None:
        """Starts the process. May be called before there is an event loop; `attach` then connects it."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__.replace(".link", ".parent"), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=self._environment,
            )
        self._control = ours
        self._frames = FrameReader()
        ours.sendall(frame(self._bootstrap))

    def attach(self) -> None:
        """Starts to listen to the process, on the running event loop."""
        if self._process is None:
            self.launch()
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control, self._readable)
        self._timer = loop.call_later(IMPORT_SECONDS, self._import_too_slow)

    def spawn(self, kind: str) -> Link | None:
        """A new worker, or None while the parent is not ready."""
        if not self.ready:
            return None
        link = Link(kind)
        with contextlib.suppress(OSError):  # its death is about to be noticed, and the link's lifeline with it
            link.hand_over(self._control)
        return link

    def _readable(self) -> None:
        try:
            data = self._control.recv(1 << 20)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE):
                raise
            data = b""
        if not data:
            self._died("it ended while this was imported")
            return
        for body in self._frames.feed(data):
            message = decode_from_parent(body)
            if isinstance(message, Loading):
                self._loading = message.name
                self._reset_timer()
            else:
                self._loading = None
                self._stop_timer()
                self.ready = True
                self._backoff = 0.05
                self.on_catalogue(message.rewards)

    def _reset_timer(self) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(IMPORT_SECONDS, self._import_too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _import_too_slow(self) -> None:
        self._died(f"importing it took more than {IMPORT_SECONDS:g} s")

    def _died(self, why: str) -> None:
        """Starts another one; a reward that was being imported is left out from now on."""
        if self._loading is not None:
            self._bootstrap.skip[self._loading] = why
            self._loading = None
        self.ready = False
        self._end()
        if not self.closed:
            observe.parent_died(why)
            asyncio.get_running_loop().call_later(self._backoff, self._again)
            self._backoff = min(2 * self._backoff, _MAX_BACKOFF)

    def _again(self) -> None:
        if not self.closed:
            self.launch()
            self.attach()

    def _end(self) -> None:
        self._stop_timer()
        if self._process is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """Ends the process. Workers end with their links."""
        self.closed = True
        self.ready = False
        self._end()
