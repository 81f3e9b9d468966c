"""The service's end of the sandbox: starts the supervisor, again when it has died, and runs jobs on it.

A `Supervisor` lives in a private directory; whoever has the object, or was forked from a process that had it, can run
jobs, from any thread. The first to need the process starts it, under a lock that all share. A job whose runner or
supervisor dies under it is sent once more, and then fails: no result is made up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardsvc.sandbox import languages, wire
from rewardsvc.sandbox.job import Ended, Isolation, Job, pack

_START_SECONDS = 120.0
_END_SECONDS = 15.0
_PATIENCE_SECONDS = 600.0
_ATTEMPTS = 2
_LAUNCH = "import sys; sys.path.insert(0, sys.argv[1]); from rewardsvc.sandbox import supervisor; "
_MAIN = "supervisor.main(int(sys.argv[2]), sys.argv[3], sys.argv[4])"


class SandboxFault(Exception):
    """The sandbox failed, and no program is to blame. The message says how."""


class Refused(SandboxFault):
    """More jobs wait than the queue holds, or the deadline has passed."""


class _Lost(Exception):
    """The job's runner went away in the middle."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What a running supervisor offers. `missing` says of every other language why it is not offered."""

    isolation: Isolation
    reason: str
    """What the isolation lacks, and how to get it."""
    languages: dict[str, dict[str, Any]]
    missing: dict[str, str]
    pid: int
    precompiled: str
    """Where headers that are compiled ahead will be found."""

    def find(self, name: str) -> str | None:
        """The language of a name or alias."""
        name = name.lower()
        if name in self.languages:
            return name
        return next((known for known, told in self.languages.items() if name in told["aliases"]), None)


@dataclass(slots=True)
class Compiled:
    """What became of the source before the first test."""

    well: bool
    cached: bool
    ended: Ended | None


@dataclass(slots=True)
class Report:
    """All that came back from a job. A run or call that was not made, because it was too late, is None."""

    isolation: Isolation
    compiled: Compiled | None = None
    runs: list[Ended | None] = field(default_factory=list)
    calls: list[bytes | Ended | None] = field(default_factory=list)
    """A line of JSON for `plain.decode`, or how the process ended that made the call."""
    gone_ms: float = 0.0
    """How long it took until every process of the job was gone."""


Event = tuple[str, int, Any]
"""("compiled", 0, Compiled), ("run", index, Ended), ("call", index, bytes or Ended), ("done", 0, frame)."""


class Supervisor:
    """`runners`: jobs at a time, one for each core if 0. `queue`: jobs that may wait. `only`: languages, all if empty.

    `cache` is a directory for what is worth keeping between runs: compiled headers.
    """

    def __init__(
        self, *, runners: int = 0, queue: int = 1_024, only: Sequence[str] = (), cache: Path | None = None
    ) -> None:
        self._configuration = {
            "runners": runners or len(os.sched_getaffinity(0)),
            "queue": queue,
            "owner": os.getpid(),
            "languages": list(only),
            "cache": str(cache or Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".cache" / "rewardsvc" / "sandbox"),
        }
        self.directory = Path(tempfile.mkdtemp(prefix="rewardsvc-sandbox-"))
        self._path = str(self.directory / "socket")
        self._owner = os.getpid()
        self._connection: tuple[int, socket.socket, Offered] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def offered(self) -> Offered:
        """What can be run. Starts the supervisor if need be. Raises `SandboxFault`."""
        return self._connected()[1]

    def run(self, job: Job) -> Report:
        """Does a whole job. Raises `SandboxFault`; `Refused` when it may be tried again later."""
        offered = self.offered()
        report = Report(offered.isolation, runs=[None] * len(job.runs), calls=[None] * len(job.calls))
        for kind, index, value in self.stream(job):
            match kind:
                case "compiled":
                    report.compiled = value
                case "run":
                    report.runs[index] = value
                case "call":
                    report.calls[index] = value
                case _:
                    report.isolation, report.gone_ms = value["isolation"], value["gone_ms"]
        return report

    def stream(self, job: Job) -> Iterator[Event]:
        """Results as they come. Closing the iterator stops the job. Raises as `run` does."""
        parcel = pack(job)
        try:
            seen: set[tuple[str, int]] = set()
            for _ in range(_ATTEMPTS):
                try:
                    yield from self._attempt(parcel, len(job.calls), seen)
                    return
                except _Lost:
                    continue
            raise SandboxFault("the sandbox was lost in the middle of this job, twice")
        finally:
            os.close(parcel)

    def _attempt(self, parcel: int, calls: int, seen: set[tuple[str, int]]) -> Iterator[Event]:
        """One attempt; what an earlier one has already told is not told again."""
        reply = self._submit(parcel)
        with reply:
            reply.settimeout(_PATIENCE_SECONDS)
            while True:
                frame = _receive(reply)
                for event in _events(frame, calls):
                    if event[:2] not in seen:
                        seen.add(event[:2])
                        yield event
                    if event[0] == "done":
                        return

    def _submit(self, parcel: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            for attempt in range(_ATTEMPTS):
                sock, _ = self._connected()
                try:
                    wire.send(sock, {"job": True}, [parcel, theirs.fileno()])
                    return ours
                except OSError as error:
                    self._forget()
                    if attempt:
                        ours.close()
                        raise SandboxFault(f"the supervisor cannot be reached: {error}") from None
        raise AssertionError

    def _connected(self) -> tuple[socket.socket, Offered]:
        """A connection of this process's own. Raises `SandboxFault`."""
        if self._connection is None or self._connection[0] != os.getpid() or _closed(self._connection[1]):
            self._connection = (os.getpid(), *self._connect())
        return self._connection[1:]

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    def _connect(self) -> tuple[socket.socket, Offered]:
        connection = self._call()
        if connection is None:
            with open(self.directory / "lock", "w") as lock:  # noqa: PTH123 held open for as long as the lock is needed
                fcntl.flock(lock, fcntl.LOCK_EX)
                connection = self._call() or self._start()
        sock, message = connection
        sock.settimeout(None)
        return sock, Offered(**message)

    def _call(self) -> tuple[socket.socket, dict[str, Any]] | None:
        """A connection to the supervisor that runs, or None."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(_START_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            sock.connect(self._path)
            message = wire.receive(sock)
            if message is not None:
                return sock, message.fields
        sock.close()
        return None

    def _start(self) -> tuple[socket.socket, dict[str, Any]]:
        """A new supervisor; it is told of the socket by descriptor, so that callers wait in its backlog."""
        with contextlib.suppress(FileNotFoundError):
            Path(self._path).unlink()
        command = [sys.executable, "-s", "-S", "-P", "-B", "-c", _LAUNCH + _MAIN, languages.HOME]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self._path)
            listener.listen(64)
            arguments = [str(listener.fileno()), str(self.directory), json.dumps(self._configuration)]
            self._reap()
            self._process = subprocess.Popen(
                [*command, *arguments],
                env={"LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )
        connection = self._call()
        if connection is None:
            raise SandboxFault("the supervisor does not start; `rewardsvc doctor` says what it lacks")
        return connection

    def close(self) -> None:
        """Hangs up; the supervisor ends with its last client. The process that made this object cleans up."""
        if self._connection is not None and self._connection[0] == os.getpid():
            with contextlib.suppress(OSError):
                wire.send(self._connection[1], {"last": os.getpid() == self._owner})
        self._forget()
        if os.getpid() == self._owner:
            self._reap()
            shutil.rmtree(self.directory, ignore_errors=True)

    def _reap(self) -> None:
        """Waits for a supervisor that has died or was hung up on, when it is this process's child."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self._process = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _closed(sock: socket.socket) -> bool:
    """Whether the other end has hung up."""
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _receive(reply: socket.socket) -> wire.Frame:
    try:
        frame = wire.receive_frame(reply)
    except TimeoutError:
        raise SandboxFault("the sandbox has not answered in time") from None
    except OSError:
        frame = None
    if frame is None:
        raise _Lost
    if "refused" in frame.fields:
        raise Refused(frame.fields["refused"])
    if "broken" in frame.fields:
        raise SandboxFault(frame.fields["broken"])
    return frame


def _events(frame: wire.Frame, calls: int) -> Iterator[Event]:
    fields, raw = frame
    if "compiled" in fields:
        ended = None if fields["cached"] else _ended(fields, raw)
        yield "compiled", 0, Compiled(fields["compiled"], fields["cached"], ended)
    elif "run" in fields:
        yield "run", fields["run"], _ended(fields, raw)
    elif "returned" in fields:
        first = fields["returned"]
        yield from (("call", first + i, line) for i, line in enumerate(raw.splitlines()) if first + i < calls)
    elif "call" in fields:
        yield "call", fields["call"], _ended(fields, raw)
    elif "unloaded" in fields:
        ended = _ended(fields, raw)
        yield from (("call", index, ended) for index in range(calls))
    elif "done" in fields:
        yield "done", 0, fields


def _ended(fields: dict[str, Any], raw: bytes) -> Ended:
    known = {name: fields[name] for name in Ended.__slots__ if name in fields}
    output = known["stdout"]
    return Ended(**{**known, "stdout": raw[:output], "stderr": raw[output:]})
