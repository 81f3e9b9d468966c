"""The parent of all workers: a process that imports every reward's libraries once and forks workers on command.

Forking a warm parent costs milliseconds where a fresh interpreter with its imports costs seconds. It stays
single-threaded and does nothing else, so that a fork is safe at any time. Started by `link.Parent` as
`python -m rewardsvc.executors.parent FD`.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping

import msgspec

from rewardsvc import registry
from rewardsvc.contract import RewardInfo
from rewardsvc.executors import minder, worker
from rewardsvc.executors.wire import Bootstrap, Catalogue, Cell, Connection, Fork, Loading
from rewardsvc.reward import Reward


def main(descriptor: int) -> None:
    """Serves the front at the other end of `descriptor` until it hangs up."""
    minder.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # minders are reaped by the kernel
    connection = Connection(socket.socket(fileno=descriptor))
    first = connection.receive()
    if first is None:
        return
    bootstrap = msgspec.msgpack.decode(first, type=Bootstrap)
    rewards, catalogue = _load(connection, bootstrap)
    connection.send(Catalogue(catalogue))
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that workers share
    while (received := connection.receive_with_descriptors(3)) is not None:
        command = msgspec.msgpack.decode(received[0], type=Fork)
        _fork(command, received[1], connection, rewards, bootstrap)


def _load(connection: Connection, bootstrap: Bootstrap) -> tuple[dict[str, Reward], list[RewardInfo]]:
    rewards: dict[str, Reward] = {}
    catalogue: list[RewardInfo] = []
    for found in registry.find(bootstrap.files):
        connection.send(Loading(found.name))
        loaded = registry.load(found, broken=bootstrap.skip.get(found.name), taken=rewards)
        catalogue.append(loaded.info)
        if loaded.reward is not None:
            rewards[loaded.info.name] = loaded.reward
    return rewards, catalogue


def _fork(
    command: Fork,
    descriptors: list[int],
    connection: Connection,
    rewards: Mapping[str, Reward],
    bootstrap: Bootstrap,
) -> None:
    if os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        return
    try:
        connection.sock.close()
        sock, lifeline = (socket.socket(fileno=descriptor) for descriptor in descriptors[:2])
        cell = Cell(descriptors[2])
        limits = worker.Limits(bootstrap.recycle_items, bootstrap.recycle_mb, bootstrap.quiet_workers)
        run = worker.run_cpu if command.kind == "cpu" else worker.run_io
        minder.mind(lambda: run(Connection(sock), cell, rewards, limits), lifeline)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
