"""A service of the command's own: on a free port of this machine, and stopped when the command ends, however it ends.

It gets a key made up on the spot, so that nobody else on the machine can use it, and is told by the kernel to go when
the command is killed. It has a session of its own: Ctrl-C reaches the command, which then stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from rewardsvc.cli.terminal import FAILED, stop
from rewardsvc.executors.minder import die_with_parent
from rewardsvc.settings import PREFIX, worker_environment

START_SECONDS = 120.0
STOP_SECONDS = 10.0
_SHOWN_LINES = 12
_LONGEST_LINE = 1 << 20


class Address(NamedTuple):
    """Where a service is and the key that it wants."""

    url: str
    key: str | None


@contextlib.asynccontextmanager
async def own_service(tell: Callable[[str], None]) -> AsyncIterator[Address]:
    """A service with the environment's settings. `tell` gets the errors that it logs, a line at a time.

    Stops the command when the service does not come up, or ends before its time.
    """
    key = secrets.token_urlsafe(32)
    process = await _launch(key)
    log = _Log(process, tell)
    try:
        yield Address(await log.address(), key)
    except asyncio.CancelledError:
        if log.ended:
            stop(f"The service ended before its time. Its last words:\n{log.last_words()}", FAILED)
        raise
    finally:
        log.close()
        await _end(process)


async def _launch(key: str) -> asyncio.subprocess.Process:
    environment = worker_environment() | {f"{PREFIX}API_KEYS": key, f"{PREFIX}LOG_LEVEL": "info"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rewardsvc", "serve", "--host", "127.0.0.1", "--port", "0"),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends it as an operator would, and without regret when it does not listen."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), patience)
            return


class _Log:
    """Reads the service's log: where it listens, what goes wrong, and that it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, tell: Callable[[str], None]) -> None:
        self.ended = False
        self._process = process
        self._tell = tell
        self._lines: deque[str] = deque(maxlen=_SHOWN_LINES)
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._user = asyncio.current_task()
        self._reading = asyncio.ensure_future(self._read())

    async def address(self) -> str:
        """Its URL, once it is ready."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), START_SECONDS)
        except TimeoutError:
            stop(f"The service was not ready after {START_SECONDS:g} s. It said:\n{self.last_words()}", FAILED)

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(f"  {line}" for line in self._lines)

    def close(self) -> None:
        """Stops reading; the end of the service is no surprise any more."""
        self._reading.cancel()
        self._ready.cancel()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._take(line.decode("utf-8", "replace").rstrip())
        self.ended = True
        if self._user is not None:
            self._user.cancel()

    def _take(self, line: str) -> None:
        event = _event(line)
        if event.get("event") == "ready" and not self._ready.done():
            self._ready.set_result(event["address"])
        if event.get("event") not in ("group_scored", "ready"):
            self._lines.append(line)
        if event.get("level") == "error":
            self._tell(_readable(event))


def _event(line: str) -> dict[str, Any]:
    """A line of the log as an object; empty for a line that somebody else's code wrote."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _readable(event: dict[str, Any]) -> str:
    about = " ".join(f"{name}={value}" for name, value in event.items() if name not in ("time", "level", "event"))
    return f"service: {event.get('event')} {about}"
