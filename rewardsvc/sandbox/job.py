"""What a client asks for and what comes back. Sizes and times carry their unit in their name.

A job is one program with all its tests. It travels as a *parcel*: a memory file with a JSON head and, behind it, the
bytes that the head points to, so that nothing big passes through the supervisor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal[
    "exited",
    "signalled",
    "time_limit",
    "wall_limit",
    "memory_limit",
    "output_limit",
    "sandbox_error",
]
"""How a program ended: by itself, by a signal, by the first limit that it went over; or not at all, by our fault."""

Isolation = Literal["strong", "strong-no-cgroup", "unsafe"]

_HEAD = 8
_LONGEST_ARGUMENTS = 8_192


@dataclass(frozen=True, slots=True)
class Limits:
    """What one test may take. Times are stretched by the language's multiplier."""

    cpu_ms: int = 2_000
    """Processor time of all its processes: the primary limit, as it does not depend on what else runs."""
    wall_ms: int = 0
    """0: twice the processor time and a second."""
    memory_mb: int = 256
    """All its processes together, with what it writes to /tmp."""
    stack_mb: int = 64
    stdout_kb: int = 65_536
    stderr_kb: int = 64
    """What stderr holds beyond this is dropped, and does not end the program."""
    processes: int = 64
    """Processes and threads."""
    disk_mb: int = 64
    """What it may write to /tmp."""


@dataclass(frozen=True, slots=True)
class Job:
    """A program, and its runs or its calls, never both.

    `runs` are the bytes of standard input, one run of the whole program for each. `calls` are lines of JSON made by
    `plain.encode_call`; they are all made by one process, one after the other, until one fails.
    """

    language: str
    source: bytes
    runs: Sequence[bytes] = ()
    calls: Sequence[bytes] = ()
    arguments: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    deadline_ns: int = 0
    """Of the monotonic clock; 0: none. What has not begun by then is not run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one test, or the compilation, ended."""

    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    cpu_ms: float = 0.0
    wall_ms: float = 0.0
    memory_kb: int = 0
    """The peak of all processes together; of the largest process where there is no cgroup."""
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    """How much was written, as far as it was read."""
    stderr_bytes: int = 0
    detail: str = ""
    """What went wrong, when it was our fault."""

    @property
    def well(self) -> bool:
        """Whether the program ended by itself with exit code 0."""
        return self.outcome == "exited" and self.exit_code == 0


def pack(job: Job) -> int:
    """The descriptor of a new parcel, to be closed by the caller. Raises ValueError for what no box can be told."""
    if sum(map(len, job.arguments)) > _LONGEST_ARGUMENTS or any("\0" in argument for argument in job.arguments):
        raise ValueError(f"arguments are at most {_LONGEST_ARGUMENTS} characters, none of them NUL")
    blobs = [job.source, *job.runs, *job.calls]
    head = json.dumps(
        {
            "language": job.language,
            "arguments": list(job.arguments),
            "limits": asdict(job.limits),
            "deadline_ns": job.deadline_ns,
            "source": len(job.source),
            "runs": [len(run) for run in job.runs],
            "calls": [len(call) for call in job.calls],
        }
    ).encode()
    parcel = os.memfd_create("parcel", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(parcel), "wb") as file:
            file.write(len(head).to_bytes(_HEAD, "little"))
            file.write(head)
            file.writelines(blobs)
    except OSError:
        os.close(parcel)
        raise
    return parcel


class Parcel:
    """A job as the runner sees it: the head is read at once, a test's bytes when its turn comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        length = int.from_bytes(os.pread(descriptor, _HEAD, 0), "little")
        head: dict[str, Any] = json.loads(os.pread(descriptor, length, _HEAD))
        self.language: str = head["language"]
        self.arguments: list[str] = head["arguments"]
        self.limits = Limits(**head["limits"])
        self.deadline_ns: int = head["deadline_ns"]
        self.runs: list[int] = head["runs"]
        self.calls: list[int] = head["calls"]
        self._source: int = head["source"]
        self._body = _HEAD + length

    def source(self) -> bytes:
        return _read(self._descriptor, self._body, self._source)

    def standard_input(self, index: int) -> int:
        """A new descriptor at the start of a memory file with one run's standard input."""
        return self._file(self._body + self._source + sum(self.runs[:index]), self.runs[index])

    def calls_from(self, index: int) -> int:
        """A new descriptor at the start of a memory file with the calls from `index` on."""
        start = self._body + self._source + sum(self.calls[:index])
        return self._file(start, sum(self.calls[index:]))

    def _file(self, start: int, length: int) -> int:
        descriptor = os.memfd_create("input", os.MFD_CLOEXEC)
        while length:
            sent = os.sendfile(descriptor, self._descriptor, start, length)
            if not sent:
                break
            start, length = start + sent, length - sent
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor


def _read(descriptor: int, start: int, length: int) -> bytes:
    parts = []
    while length and (part := os.pread(descriptor, length, start)):
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return b"".join(parts)
