"""The front's ends of the other processes: `Parent`, which forks workers, and `Link`, one per worker.

Both live on the event loop and never block it. Deaths are noticed here and told to whoever owns the link; what they
mean for a rollout is decided in `cpu` and `io`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from rewardsvc import observe
from rewardsvc.contract import RewardInfo
from rewardsvc.executors.minder import STOP_SIGNALS
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
    decode_from_minder,
    decode_from_parent,
    decode_from_worker,
    frame,
    send_with_descriptors,
)

GARBAGE, RECYCLED = "garbage", "recycled"
IMPORT_SECONDS = 60.0
_BUFFER = bytearray(1 << 18)
_VIEW = memoryview(_BUFFER)
_SOCKET_BYTES = 1 << 21
_LAST_RESORT_SECONDS = 3.0  # longer than a minder's cleaning up
_LEAST_BACKOFF, _MOST_BACKOFF = 0.05, 5.0


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


@contextlib.contextmanager
def _blocked_stop_signals() -> Iterator[None]:
    """A process that is started in here gets none of them before it has said what it makes of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Parent:
    """The process that imports rewards and forks workers, started again whenever it dies.

    `on_catalogue` is called after each start with what the rewards' imports gave.
    """

    def __init__(
        self, bootstrap: Bootstrap, environment: dict[str, str], import_seconds: float = IMPORT_SECONDS
    ) -> None:
        """`import_seconds` is how long the import of one reward may take."""
        self.ready = False
        self.closed = False
        self.import_seconds = import_seconds
        self.on_catalogue: Callable[[list[RewardInfo]], None] = lambda rewards: None
        self._bootstrap = bootstrap
        self._environment = environment
        self._loading: str | None = None
        self._imported: set[str] = set()  # sources that a parent got past, now or in an earlier life
        self._suspect: str | None = None
        self._backoff = _LEAST_BACKOFF
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def launch(self) -> None:
        """Starts the process. May be called before there is an event loop; `attach` then connects it.

        Raises OSError when the machine has no room for it.
        """
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo, _blocked_stop_signals():
            undo.callback(ours.close)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__.replace(".link", ".parent"), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=self._environment,
            )
            undo.pop_all()
        self._control = ours
        self._frames = FrameReader()
        with contextlib.suppress(OSError):  # it is dead already, which `attach` will notice
            ours.sendall(frame(self._bootstrap))

    def attach(self) -> None:
        """Starts to listen to the process, on the running event loop."""
        if self._process is None:
            self.launch()
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._readable)
        self._restart_timer()

    def spawn(self, kind: str) -> Link | None:
        """A new worker, or None when there can be none at the moment."""
        if not self.ready:
            return None
        try:
            link = Link(kind)
        except OSError:
            observe.worker_ended(kind, "no_descriptors")
            return None
        with contextlib.suppress(OSError):  # its death is about to be noticed, and the link's lifeline with it
            link.hand_over(self._control)
        return link

    def _readable(self) -> None:
        try:
            data = self._control.recv(1 << 20)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._died("it ended the process that imported it")
            return
        for body in self._frames.feed(data):
            message = decode_from_parent(body)
            if self._loading is not None:
                self._imported.add(self._loading)
            if isinstance(message, Loading):
                self._loading = message.source
                self._restart_timer()
            else:
                self._loading = self._suspect = None
                self._stop_timer()
                self.ready = True
                self._backoff = _LEAST_BACKOFF
                self.on_catalogue(message.rewards)

    def _restart_timer(self) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(self.import_seconds, self._import_too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _import_too_slow(self) -> None:
        self._suspect = self._loading  # no doubt about this one
        self._died(f"importing it took more than {self.import_seconds:g} s")

    def _died(self, why: str) -> None:
        """Starts another one. A reward during whose import two of them died in a row is left out from now on.

        One death may be somebody else's doing, and a reward that was imported before is not suspected at all.
        """
        loading, self._loading = self._loading, None
        observe.parent_died("it was killed" if loading is None else f"{why}: {loading}")
        if loading is not None and loading == self._suspect and loading not in self._imported:
            self._bootstrap.skip[loading] = why
            self._backoff = _LEAST_BACKOFF  # the next one does without it
        self._suspect = loading
        self.ready = False
        self._end()
        self._start_later()

    def _start_later(self) -> None:
        if not self.closed:
            self._timer = asyncio.get_running_loop().call_later(self._backoff, self._start_again)
            self._backoff = min(2 * self._backoff, _MOST_BACKOFF)

    def _start_again(self) -> None:
        try:
            self.launch()
            self.attach()
        except OSError as error:
            observe.parent_died(f"it could not be started: {error.strerror}")
            self._start_later()

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
