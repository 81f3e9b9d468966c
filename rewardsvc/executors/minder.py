"""The process between the parent and one worker. It waits; that is all it does until something goes wrong.

Because every worker has a minder of its own, a worker that kills its parent process hurts only itself, the front
never signals a process id that may have been given to somebody else, and nothing survives: when the front hangs up
the lifeline (or dies), the minder kills the worker and every descendant that it left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from rewardsvc.executors.wire import Exit, Minding, frame, send_with_descriptors

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLEANUP_SECONDS = 2.0
_CLEANUP_PAUSE = 0.002

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def leave_stopping_to_the_front() -> None:
    """Whoever signals the whole service (Ctrl-C, `timeout`, systemd) is answered by the front, which may drain first.

    Everything that is forked inherits this. The handler does nothing, because a signal that is ignored would be ignored
    by every program that a reward starts. The front has blocked these signals until this is in place.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def adopt_orphans() -> None:
    """Asks the kernel to make this process the parent of every descendant that loses its own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """Process ids of this process's children, zombies included."""
    try:
        return [int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def mind(work: Callable[[], None], lifeline: socket.socket) -> None:
    """Forks a worker that runs `work`, waits for its end, and reports it on the lifeline. Returns when all is gone."""
    os.setsid()
    adopt_orphans()
    minder = os.getpid()
    worker = os.fork()
    if worker == 0:
        die_with_parent()
        adopt_orphans()  # so that it can see that a reward has left something behind
        if os.getppid() == minder:
            lifeline.close()
            work()
        os._exit(0)
    with contextlib.suppress(OSError):  # the front is gone: there is nobody left to tell
        code = os.waitstatus_to_exitcode(_wait(worker, lifeline))
        lifeline.sendall(frame(Exit(code)))
    _clean_up()


def _wait(worker: int, lifeline: socket.socket) -> int:
    """The wait status of the worker, which is killed as soon as the lifeline is hung up."""
    descriptor = os.pidfd_open(worker)
    with contextlib.suppress(OSError):
        send_with_descriptors(lifeline, Minding(), [descriptor, os.pidfd_open(os.getpid())])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    if all(ready != descriptor for ready, _ in poll.poll()):
        os.kill(worker, signal.SIGKILL)
    return os.waitpid(worker, 0)[1]


def _clean_up() -> None:
    """Kills what the worker left behind; as adopter this process has become the parent of all of it."""
    end = time.monotonic() + _CLEANUP_SECONDS
    while time.monotonic() < end:
        for child in children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(_CLEANUP_PAUSE)
        except ChildProcessError:
            return
