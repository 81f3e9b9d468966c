"""The process between the service and the boxes: it knows no test, only which runner is idle and which job is next.

Started by `client.Supervisor` with an empty environment; it and everything below it use the standard library alone. It
forks a runner for each core, hands them jobs in the order in which they came, and forks another when one dies: the
client of that job sees its socket closed before the last frame, and sends the job again. When the last client hangs
up, all ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import shutil
import signal
import socket
import sys
import time
import tomllib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardsvc.sandbox import cgroups, languages, seccomp, wire
from rewardsvc.sandbox.job import Isolation, Job, pack
from rewardsvc.sandbox.runner import Offer, Runner, World
from rewardsvc.sandbox.store import Store
from rewardsvc.sandbox.submission import Bench

_LINGER_SECONDS = 5.0
_STORE_BYTES = 512 << 20
_SELF_TEST_SECONDS = 60.0


@dataclass
class _Line:
    """A job that waits, or is being done."""

    parcel: int
    reply: int
    work: str = "results"

    def close(self) -> None:
        wire.close([self.parcel, self.reply])


@dataclass
class _Hand:
    """A runner as the supervisor sees it."""

    number: int
    control: socket.socket
    pid: int
    busy: bool = False


class Supervisor:
    """Serves clients that connect to `listener`. `directory` is private to it."""

    def __init__(self, listener: socket.socket, directory: Path, configuration: dict[str, Any]) -> None:
        self._listener = listener
        self._directory = directory
        self._queue_length: int = configuration["queue"]
        self._clients: set[socket.socket] = set()
        self._waiting: deque[_Line] = deque()
        self._poll = select.poll()
        self._sockets: dict[int, socket.socket] = {}
        self._last_client = time.monotonic()
        self._linger = _LINGER_SECONDS
        self._headers: list[socket.socket] = []
        self._nursery, self.reason = _nursery()
        self.isolation: Isolation = "strong" if self._nursery else "strong-no-cgroup"
        self._offers, self._missing = _offers(configuration["languages"])
        self._precompiled = _precompiled(Path(configuration["cache"]), directory)
        shows = {path for offer in self._offers.values() for path in offer.language.shows}
        self._world = _world(directory, {"/precompiled": str(self._precompiled), **{path: path for path in shows}})
        self._hands = [self._hire(number) for number in range(configuration["runners"])]
        self._test_languages()
        self._order_headers()
        self._watch(listener)

    def _hire(self, number: int) -> _Hand:
        ours, theirs = wire.pair()
        store = self._directory / "store"
        store.mkdir(exist_ok=True)
        meter = self._nursery.group(f"runner-{number}") if self._nursery else cgroups.Processes()
        bench = Bench(meter, self.isolation, Store(store, _STORE_BYTES), self._precompiled)
        pid = os.fork()
        if pid == 0:
            for sock in (ours, self._listener, *self._sockets.values()):
                sock.close()
            for line in self._waiting:
                line.close()
            Runner(number, theirs, bench, self._world, self._offers).serve()
        theirs.close()
        self._watch(ours)
        return _Hand(number, ours, pid)

    def _watch(self, sock: socket.socket) -> None:
        self._sockets[sock.fileno()] = sock
        self._poll.register(sock, select.POLLIN)

    def _unwatch(self, sock: socket.socket) -> None:
        del self._sockets[sock.fileno()]
        self._poll.unregister(sock)
        sock.close()

    def serve(self) -> None:
        """Until no client has been connected for a while."""
        while self._clients or time.monotonic() < self._last_client + self._linger:
            for descriptor, _ in self._poll.poll(_LINGER_SECONDS * 1e3):
                sock = self._sockets.get(descriptor)
                hand = next((hand for hand in self._hands if hand.control is sock), None)
                if sock is None:
                    continue
                if sock is self._listener:
                    self._welcome()
                elif hand is not None:
                    self._hear(hand)
                else:
                    self._serve_client(sock)
            self._hand_out()

    def _welcome(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            self._clients.add(client)
            self._watch(client)
            offered = {
                name: {"aliases": offer.language.aliases, "file": offer.language.file}
                for name, offer in self._offers.items()
            }
            wire.send(
                client,
                {
                    "isolation": self.isolation,
                    "reason": self.reason,
                    "languages": offered,
                    "missing": self._missing,
                    "pid": os.getpid(),
                    "precompiled": str(self._precompiled),
                },
            )

    def _serve_client(self, client: socket.socket) -> None:
        try:
            message = wire.receive(client)
        except (OSError, ValueError):
            message = None
        if message is None:
            self._clients.discard(client)
            self._unwatch(client)
            self._last_client = time.monotonic()
            return
        if len(message.descriptors) != 2:
            wire.close(message.descriptors)
            self._linger = 0.0 if message.fields.get("last") else self._linger
            return
        parcel, reply = message.descriptors
        self._enqueue(_Line(parcel, reply))

    def _enqueue(self, line: _Line) -> None:
        """Takes a job in, or refuses it at once: a queue that grows only makes everybody late."""
        if len(self._waiting) >= self._queue_length:
            with socket.socket(fileno=os.dup(line.reply)) as sock, contextlib.suppress(OSError):
                wire.send_frame(sock, {"refused": "queue_full"})
            line.close()
        else:
            self._waiting.append(line)

    def _hand_out(self) -> None:
        for hand in self._hands:
            while not hand.busy and self._waiting:
                line = self._waiting.popleft()
                if not _hung_up(line.reply):
                    hand.busy = self._give(hand, line)
                line.close()

    def _give(self, hand: _Hand, line: _Line) -> bool:
        with contextlib.suppress(OSError):
            wire.send(hand.control, {"work": line.work}, [line.parcel, line.reply])
            return True
        return False

    def _hear(self, hand: _Hand) -> None:
        """A runner is idle again, or has died and is replaced, with all that lived below it."""
        try:
            message = wire.receive(hand.control)
        except (OSError, ValueError):
            message = None
        if message is not None:
            hand.busy = False
            return
        self._unwatch(hand.control)
        with contextlib.suppress(OSError):
            os.kill(hand.pid, signal.SIGKILL)
        os.waitpid(hand.pid, 0)
        self._hands[self._hands.index(hand)] = self._hire(hand.number)

    def _test_languages(self) -> None:
        """Runs every language's own small program; one that fails it is not offered."""
        for name in list(self._offers):
            fault = self._self_test(self._offers[name].language)
            if fault:
                del self._offers[name]
                self._missing[name] = fault

    def _self_test(self, language: languages.Language) -> str:
        test = language.self_test
        job = Job(language.name, test["source"].encode(), runs=[test["stdin"].encode()])
        ours, theirs = socket.socketpair()
        ours.settimeout(_SELF_TEST_SECONDS)
        hand = self._hands[0]
        line = _Line(pack(job), theirs.detach())
        self._give(hand, line)
        line.close()
        told = ""
        output: bytes | None = None
        with ours:
            while (frame := wire.receive_frame(ours)) is not None:
                if frame.fields.get("run") == 0:
                    output = frame.raw[: frame.fields["stdout"]]
                if (
                    "run" not in frame.fields
                    and "done" not in frame.fields
                    and frame.fields.get("compiled") is not True
                ):
                    told = f"{frame.fields} {frame.raw.decode(errors='replace')}"
        self._hear(hand)
        if output == test["stdout"].encode():
            return ""
        return f"its self-test failed: {told or output!r}"[:500]

    def _order_headers(self) -> None:
        """What makes compilers faster is made by the first runner that is idle; until then they are slower."""
        for offer in self._offers.values():
            if offer.language.compiler is not None and offer.language.compiler.header:
                ours, theirs = socket.socketpair()
                self._headers.append(ours)
                self._waiting.append(_Line(pack(Job(offer.language.name, b"")), theirs.detach(), "header"))

    def close(self) -> None:
        """Ends all runners, and with them everything below, and removes the control groups."""
        for hand in self._hands:
            os.kill(hand.pid, signal.SIGKILL)
            os.waitpid(hand.pid, 0)
        if self._nursery is not None:
            self._nursery.remove()


def _hung_up(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))


def _nursery() -> tuple[cgroups.Nursery | None, str]:
    try:
        return cgroups.Nursery(), ""
    except cgroups.Unwritable as fault:
        return None, str(fault)


def _precompiled(cache: Path, directory: Path) -> Path:
    """A directory that outlives this process, if there can be one; it is ours alone to write."""
    for place in (cache / "precompiled", directory / "precompiled"):
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
            told = place.stat()
            if told.st_uid == os.geteuid() and not told.st_mode & 0o022 and os.access(place, os.W_OK):
                return place
    raise OSError(f"{directory} cannot be written")


def _world(directory: Path, extra: dict[str, str]) -> World:
    (directory / "root").mkdir(exist_ok=True)
    policy = tomllib.loads((languages.data_directory() / "seccomp.toml").read_text())
    if not sys.base_prefix.startswith("/usr"):
        extra[sys.base_prefix] = sys.base_prefix
    return World(seccomp.compile_filter(policy, platform.machine()), str(directory / "root"), extra)


def _offers(wanted: list[str]) -> tuple[dict[str, Offer], dict[str, str]]:
    """The languages that are installed, and what the others lack. `wanted` empty: all."""
    offers: dict[str, Offer] = {}
    missing: dict[str, str] = {}
    for path in languages.files():
        if wanted and path.stem not in wanted:
            continue
        try:
            language = languages.read(path)
            offers[language.name] = Offer(language, language.fingerprint())
        except languages.NotInstalled as fault:
            missing[path.stem] = str(fault)
    return offers, missing


def main(listener: int, directory: str, configuration: str) -> None:
    """Serves until the last client has gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # whoever stops the service stops its client, and so this process
    os.setsid()
    supervisor = Supervisor(socket.socket(fileno=listener), Path(directory), json.loads(configuration))
    try:
        supervisor.serve()
    finally:
        supervisor.close()
        if not Path(f"/proc/{json.loads(configuration)['owner']}").exists():
            shutil.rmtree(directory, ignore_errors=True)
