"""Watches one test from outside: takes what it writes, and has it killed when it goes over a limit.

Processor time is the primary limit. It is looked at only when it could have been used up: a test that has used u of l
on n processors cannot be over before (l - u) / n from now.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from rewardsvc.sandbox import wire
from rewardsvc.sandbox.boxes import Box, Broken
from rewardsvc.sandbox.cgroups import Meter
from rewardsvc.sandbox.job import Ended, Outcome

_CHUNK = 1 << 18
_KILLED_SECONDS = 5.0
_OVERHEAD_NS = 15_000_000
"""Of starting a test; the box's own processes are in the same control group."""
_WORKING = 0.05
"""A test that gets less than this part of a processor waits for something else than a processor."""
_MOST_WALL = 4
_EXTENSION = 0.1
_SHORTEST_LOOK = 0.002
_UNMETERED_LOOK = 0.02
_SEVERAL = max(1, len(os.sched_getaffinity(0)))


class Abandoned(Exception):
    """The client has hung up; nobody waits for this any more."""


class Stream:
    """One of the pipes that a program writes to. Beyond `keep` bytes it is dropped, or is over the limit."""

    def __init__(self, keep: int, *, drops: bool = False) -> None:
        self.descriptor, self.theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.descriptor, False)
        self._keep = keep
        self._drops = drops
        self._parts: list[bytes] = []
        self._kept = 0
        self.size = 0
        self.open = True

    def take(self) -> bool:
        """Reads what is there. Whether there may be more later."""
        try:
            part = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return True
        self.open = bool(part)
        self.size += len(part)
        self._parts.append(part[: max(0, self._keep - self._kept)])
        self._kept += len(self._parts[-1])
        return self.open

    @property
    def over(self) -> bool:
        return not self._drops and self.size > self._keep

    def content(self) -> bytes:
        """What was kept."""
        return b"".join(self._parts)

    def drain(self) -> bytes:
        """What was kept, which is forgotten."""
        data = self.content()
        self._parts.clear()
        return data

    def restore(self, data: bytes) -> None:
        """Puts back what was drained too early."""
        self._parts = [data] if data else []

    def close(self) -> None:
        wire.close([self.descriptor])


class Watch:
    """One test in a box, from its start to its end."""

    def __init__(self, box: Box, meter: Meter, client: socket.socket, cpu_ms: float, wall_ms: float) -> None:
        self._box, self._meter, self._client = box, meter, client
        self._cpu_limit_ns = int(cpu_ms * 1e6)
        self._wall_limit = wall_ms / 1e3
        self._over: Outcome | None = None
        self._ending: dict[str, Any] | None = None

    def run(
        self,
        spec: dict[str, Any],
        standard_input: Sequence[int],
        streams: Sequence[Stream],
        progress: Callable[[], bool] | None = None,
    ) -> Ended:
        """Starts a test and returns its end. Takes possession of the descriptors in `standard_input`.

        The program's descriptors are the first of them, the streams' ends, and the others. `progress` is asked after
        every read whether a part of the work is done, so that the limits begin anew. Raises `Abandoned` and `Broken`.
        """
        first, *rest = standard_input
        theirs = [first, streams[0].theirs, streams[1].theirs, *rest, *(stream.theirs for stream in streams[2:])]
        try:
            self._meter.begin()
            kills = self._meter.kills()
            self._begin()
            self._box.send({"do": "run", **spec}, theirs)
            wire.close(theirs)
            ending = self._until_the_end(streams, progress)
            return self._ended(ending, streams, self._meter.kills() > kills)
        finally:
            for stream in streams:
                stream.close()

    def _begin(self) -> None:
        self._cpu_start = self._meter.cpu_ns()
        self._cpu_seen = 0
        self._wall_start = time.monotonic()
        self._wall_end = self._wall_start + self._wall_limit
        self._marked_at, self._marked_ns = self._wall_start, self._cpu_start
        self._look_at = 0.0

    def _until_the_end(self, streams: Sequence[Stream], progress: Callable[[], bool] | None) -> dict[str, Any]:
        """Reads until the box has reported and every pipe is at its end, which follows at once."""
        poll = select.poll()
        for descriptor in (self._box.control.fileno(), *(stream.descriptor for stream in streams)):
            poll.register(descriptor, select.POLLIN)
        poll.register(self._client, select.POLLIN | select.POLLRDHUP)
        while self._ending is None or any(stream.open for stream in streams):
            self._read(poll, streams)
            if progress is not None and progress():
                self._begin()
            if self._ending is None:
                self._judge(streams)
        return self._ending

    def _read(self, poll: select.poll, streams: Sequence[Stream]) -> None:
        """Waits for something to read or to look at, and reads it."""
        ready = dict(poll.poll(self._patience() * 1e3))
        if self._client.fileno() in ready:
            raise Abandoned
        for stream in streams:
            if stream.open and stream.descriptor in ready and not stream.take():
                poll.unregister(stream.descriptor)
        if self._ending is None and self._box.control.fileno() in ready:
            self._ending = self._box.receive().fields
            poll.unregister(self._box.control)

    def _patience(self) -> float:
        """Seconds until there is something to look at."""
        if self._over is not None:
            return _KILLED_SECONDS
        return max(0.0, min(self._wall_end, self._next_look()) - time.monotonic())

    def _next_look(self) -> float:
        if not self._look_at:
            wait = self._cpu_limit_ns / 1e9 / _SEVERAL
            self._look_at = time.monotonic() + (wait if self._meter.complete else min(wait, _UNMETERED_LOOK))
        return self._look_at

    def _judge(self, streams: Sequence[Stream]) -> None:
        """Has the test killed when it is over a limit."""
        now = time.monotonic()
        if self._over is not None:
            if now > self._wall_end:
                raise Broken("a test did not end when it was killed")
            return
        if any(stream.over for stream in streams):
            self._kill("output_limit")
        elif now >= self._next_look() and self._cpu_left() <= 0:
            self._kill("time_limit")
        elif self._meter.over():
            self._kill("memory_limit")
        elif now >= self._wall_end and not self._starves(now):
            self._kill("wall_limit")

    def _starves(self, now: float) -> bool:
        """Whether the test is late only because others use the processors: it is given more time, up to a bound.

        Without this a verdict would depend on what else the machine does.
        """
        used = self._meter.cpu_ns()
        works = used - self._marked_ns > _WORKING * (now - self._marked_at) * 1e9
        self._marked_at, self._marked_ns = now, used
        if not works or now > self._wall_start + _MOST_WALL * self._wall_limit:
            return False
        self._wall_end = now + max(_EXTENSION, self._wall_limit / 8)
        return True

    def _cpu_left(self) -> int:
        self._cpu_seen = self._meter.cpu_ns() - self._cpu_start
        left = self._cpu_limit_ns + _OVERHEAD_NS - self._cpu_seen
        wait = max(_SHORTEST_LOOK, left / 1e9 / _SEVERAL)
        self._look_at = time.monotonic() + (wait if self._meter.complete else min(wait, _UNMETERED_LOOK))
        return left

    def _kill(self, outcome: Outcome) -> None:
        self._over = outcome
        self._box.send({"do": "kill"})
        self._wall_end = time.monotonic() + _KILLED_SECONDS

    def _cpu_ms(self, reaped: float) -> float:
        """What was reaped, in seconds, or what the group counted, when that is more than the cost of starting a test.

        It is more when the test was killed, and when a program let its children go unreaped.
        """
        counted = (self._meter.cpu_ns() - self._cpu_start) if self._meter.complete else self._cpu_seen
        return max(reaped * 1e3, (counted - _OVERHEAD_NS) / 1e6)

    def _ended(self, ending: dict[str, Any], streams: Sequence[Stream], ran_out_of_memory: bool) -> Ended:
        """The end as the job tells it: the limit that was enforced first, and else what the program did itself."""
        code = os.waitstatus_to_exitcode(ending["ended"])
        wall = ending["wall"] or time.monotonic() - self._wall_start
        cpu_ms = self._cpu_ms(ending["cpu"])
        if self._over == "wall_limit":
            wall = max(wall, self._wall_limit)
        output, errors = streams[0], streams[1]
        over: Outcome | None = self._over
        if over is None and ran_out_of_memory:
            over = "memory_limit"
        if over is None and (cpu_ms * 1e6 > self._cpu_limit_ns or code == -signal.SIGXCPU):
            over = "time_limit"
        if over is None and any(stream.over for stream in streams):
            over = "output_limit"
        return Ended(
            outcome=over or ("exited" if code >= 0 else "signalled"),
            exit_code=code if code >= 0 and over is None else None,
            signal=-code if code < 0 and over is None else None,
            cpu_ms=round(cpu_ms, 3),
            wall_ms=round(wall * 1e3, 3),
            memory_kb=max(self._meter.peak() >> 10, ending["peak_kb"]),
            stdout=output.content(),
            stderr=errors.content(),
            stdout_bytes=output.size,
            stderr_bytes=errors.size,
        )
