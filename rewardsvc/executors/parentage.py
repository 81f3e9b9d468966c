"""The front's end of the parent process: started, told what to import, and started again whenever it dies.

Lives on the event loop and never blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

from rewardsvc import observe
from rewardsvc.contract import RewardInfo
from rewardsvc.executors.link import Link
from rewardsvc.executors.minder import STOP_SIGNALS
from rewardsvc.executors.wire import Bootstrap, FrameReader, Loading, decode_from_parent, frame

IMPORT_SECONDS = 60.0
_PROCESS = "rewardsvc.executors.parent"
_LEAST_BACKOFF, _MOST_BACKOFF = 0.05, 5.0


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
                [sys.executable, "-m", _PROCESS, str(theirs.fileno())],
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
