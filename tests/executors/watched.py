"""A service whose every process can be found again, whoever its parent is by then, and what it must not keep."""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ALL_PLUGINS, PLUGINS, Service, running_service

HERE = Path(__file__).parent
MORE_PLUGINS = ",".join(str(path) for path in sorted((HERE / "plugins").glob("*.py")))
MARK = "LEFTOVERS"
SLACK = 2.0  # seconds that a loaded machine may add to any reply; the strict figure is for benchmarks/handover.py


@dataclass(frozen=True)
class Belongings:
    """What a service has: processes by what they are, and descriptors of its front by kind."""

    processes: tuple[str, ...]
    sockets: int
    cells: int
    pid_descriptors: int


def marked(mark: str) -> list[psutil.Process]:
    """Every process with this mark in its environment, whoever its parent is by now."""
    found = []
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(psutil.Process(int(entry.name)))
        except (OSError, psutil.Error):
            continue
    return found


@dataclass
class Watched:
    """A service with the means to look at its processes. Its pid is the front's."""

    service: Service
    mark: str
    usual: Belongings | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)

    @property
    def front(self) -> psutil.Process:
        return psutil.Process(self.service.process.pid)

    @property
    def parent(self) -> psutil.Process:
        """The parent of the workers."""
        (parent,) = self.front.children()
        return parent

    def _forked(self) -> list[psutil.Process]:
        parents = {self.front.pid, *(child.pid for child in self.front.children())}
        return [process for process in marked(self.mark) if process.pid not in parents]

    @property
    def minders(self) -> list[psutil.Process]:
        return [process for process in self._forked() if is_minder(process)]

    @property
    def workers(self) -> list[psutil.Process]:
        return [child for minder in self.minders for child in minder.children()]

    def belongings(self) -> Belongings:
        """What the service has at this moment."""
        links = [_target(link) for link in Path(f"/proc/{self.front.pid}/fd").iterdir()]
        processes = [process for member in marked(self.mark) for process in [member, *_dead_children(member)]]
        return Belongings(
            tuple(sorted({process.pid: _what(process) for process in processes}.values())),
            sum(link.startswith("socket:") for link in links),
            sum(link.startswith("/memfd:") for link in links),
            sum("pidfd" in link for link in links),
        )

    def survivors(self) -> list[psutil.Process]:
        """What is left when there should be nothing."""
        return marked(self.mark)

    def wait_until_all_have_started(self, workers: int) -> None:
        """The service is ready with one worker; this waits for the others and for the io process."""
        wait_until(lambda: len(self.workers) == workers + 1 and self.belongings().pid_descriptors == 2 * (workers + 1))
        self.usual = self.belongings()

    @contextmanager
    def keeping_its_belongings(self, seconds: float = 8) -> Iterator[None]:
        """Whatever happens inside: in the end the service has what it had at first, no process or descriptor more."""
        yield
        end = time.monotonic() + seconds
        while (after := self.belongings()) != self.usual and time.monotonic() < end:
            time.sleep(0.02)
        assert after == self.usual, f"\nat first {self.usual}\nnow      {after}"


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _what(process: psutil.Process) -> str:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return "zombie"
        return re.sub(r"\d+", "N", " ".join(process.cmdline()))
    except psutil.Error:
        return "gone"


def _dead_children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []


def is_minder(process: psutil.Process) -> bool:
    """A minder leads a session of its own."""
    try:
        return os.getsid(process.pid) == process.pid and "rewardsvc.executors.parent" in process.cmdline()
    except (OSError, psutil.Error):
        return False


def wait_until(holds: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true answer; fails when there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = holds()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError("it did not come true in time")


@contextmanager
def watched_service(log: Path, wait: bool = True, **settings: str) -> Iterator[Watched]:
    """A service with its own mark; when it has ended, so has every process that carries the mark."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    settings = {"reward_files": f"{ALL_PLUGINS},{MORE_PLUGINS}", "workers": "2"} | settings
    with running_service(log, wait=wait, **settings) as service:
        watched = Watched(service, mark)
        if wait and "remote" in settings["reward_files"]:
            watched.wait_until_all_have_started(int(settings["workers"]))
        yield watched
    wait_until(lambda: not marked(mark))


def tell_lateness(deed: str, seconds: float, limit: float) -> None:
    """Shows by how much a reply came after an item's limit (with `pytest -s`)."""
    sys.stdout.write(f"{deed}: {1e3 * (seconds - limit):+.0f} ms of the item limit\n")


def plugin(name: str) -> str:
    """The file of a plugin in tests/plugins."""
    return str(PLUGINS / f"{name}.py")
