"""The parent of all workers: a process that imports every reward's libraries once and forks workers on command.

Forking a warm parent costs milliseconds where a fresh interpreter with its imports costs seconds. It stays
single-threaded and does nothing else, so that a fork is safe at any time; what a dead minder leaves behind it kills.
Started by `parentage.Parent` as `python -m rewardsvc.executors.parent FD`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from typing import NoReturn

import msgspec

from rewardsvc import registry
from rewardsvc.contract import RewardInfo
from rewardsvc.executors import minder
from rewardsvc.executors.age import Limits
from rewardsvc.executors.coroutines import run_io
from rewardsvc.executors.wire import Bootstrap, Catalogue, Cell, Connection, Fork, Loading
from rewardsvc.executors.worker import run_cpu
from rewardsvc.reward import Reward


def main(descriptor: int) -> None:
    """Serves the front at the other end of `descriptor` until it hangs up."""
    minder.die_with_parent()
    minder.leave_stopping_to_the_front()
    connection = Connection(socket.socket(fileno=descriptor))
    first = connection.receive_with_descriptors(0)
    if first is None:
        return
    bootstrap = msgspec.msgpack.decode(first[0], type=Bootstrap)
    rewards, catalogue = _load(connection, bootstrap)
    nursery = _Nursery(connection, rewards, bootstrap)
    connection.send(Catalogue(catalogue))
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that workers share
    nursery.serve()


def _load(connection: Connection, bootstrap: Bootstrap) -> tuple[dict[str, Reward], list[RewardInfo]]:
    rewards: dict[str, Reward] = {}
    loaded: list[registry.Loaded] = []
    for found in registry.find(bootstrap.files):
        connection.send(Loading(found.label))
        loaded.append(registry.load(found, broken=bootstrap.skip.get(found.label), taken=rewards))
        if loaded[-1].reward is not None:
            rewards[loaded[-1].info.name] = loaded[-1].reward
    return rewards, registry.entries(loaded)


class _Nursery:
    """The minders, and the orphans of those that died. What was there before (somebody's import started it) stays."""

    def __init__(self, connection: Connection, rewards: Mapping[str, Reward], bootstrap: Bootstrap) -> None:
        self._connection = connection
        self._rewards = rewards
        self._limits = Limits(bootstrap.recycle_items, bootstrap.recycle_mb, bootstrap.quiet_workers)
        minder.adopt_orphans()
        self._known = set(minder.children())
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Forks on command, and buries the dead, until the front hangs up."""
        commands = self._connection.sock.fileno()
        poll = select.poll()
        poll.register(commands, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._bury()
            if commands in ready:
                received = self._connection.receive_with_descriptors(3)
                if received is None:
                    return
                self._fork(msgspec.msgpack.decode(received[0], type=Fork), received[1])

    def _bury(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                self._known.discard(child)
        for orphan in set(minder.children()) - self._known:
            with contextlib.suppress(OSError):
                os.kill(orphan, signal.SIGKILL)

    def _fork(self, command: Fork, descriptors: list[int]) -> None:
        """A minder with a worker below it. Without one the front sees the descriptors closed, and asks again later."""
        child = -1
        with contextlib.suppress(OSError):
            child = os.fork()
        if child == 0:
            self._live(command, descriptors)
        self._known.add(child)
        for descriptor in descriptors:
            os.close(descriptor)

    def _live(self, command: Fork, descriptors: list[int]) -> NoReturn:
        """The life of a minder."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for mine in (self._woken, self._waker):
                os.close(mine)
            self._connection.sock.close()
            sock, lifeline = (socket.socket(fileno=descriptor) for descriptor in descriptors[:2])
            cell = Cell(descriptors[2])
            run = run_cpu if command.kind == "cpu" else run_io
            minder.mind(lambda: run(Connection(sock), cell, self._rewards, self._limits), lifeline)
        finally:
            os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
