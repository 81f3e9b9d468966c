"""Control groups, v1 and v2: what bounds all processes of a box together, and counts what they used.

Each runner has one group, in which its templates live and its boxes are born. Where the groups cannot be written, as
in most containers, `Processes` takes their place: limits per process, and counting by looking at /proc.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

_MB = 1 << 20
_PREFIX = "rewardsvc-"
_UNLIMITED_V1 = "-1"
_CONTROLLERS = ("memory", "pids", "cpu")
_TICK = os.sysconf("SC_CLK_TCK")


class Meter(Protocol):
    """Bounds and counts one runner's box. Memory is in bytes, processor time in nanoseconds since some moment."""

    complete: bool
    """Whether memory and processes are bounded for all processes together."""

    def admit(self, pid: int) -> None: ...
    def limit(self, memory: int, processes: int) -> None: ...
    def begin(self) -> None: ...
    def watch(self, pid: int) -> None: ...
    def cpu_ns(self) -> int: ...
    def over(self) -> bool: ...
    def peak(self) -> int: ...
    def kills(self) -> int: ...
    def remove(self) -> None: ...


class _Group:
    """What both versions share: files that are kept open, because they are read many times for each test."""

    complete = True

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories
        self._open: dict[str, int] = {}
        self._start = 0
        self._own = 0

    def _write(self, name: str, text: str) -> None:
        os.pwrite(self._descriptor(name), text.encode(), 0)

    def _read(self, name: str) -> str:
        return os.pread(self._descriptor(name), 16_384, 0).decode()

    def _descriptor(self, name: str) -> int:
        if name not in self._open:
            path = next(path for directory in self._directories if (path := directory / name).exists())
            writable = os.access(path, os.W_OK)
            self._open[name] = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        return self._open[name]

    def _counter(self, name: str, key: str) -> int:
        for line in self._read(name).splitlines():
            word, _, value = line.partition(" ")
            if word == key:
                return int(value)
        return 0

    def admit(self, pid: int) -> None:
        """Puts a process, and whatever it will start, into the group."""
        for directory in self._directories:
            (directory / "cgroup.procs").write_text(str(pid))

    def watch(self, pid: int) -> None:
        """A group needs no list of processes."""

    def over(self) -> bool:
        """The kernel enforces the limit on memory."""
        return False

    def members(self) -> set[int]:
        """The processes in the group."""
        return {int(pid) for path in self._directories for pid in (path / "cgroup.procs").read_text().split()}

    def remove(self) -> None:
        """Returns when the group is gone; its processes have been killed before."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        for directory in self._directories:
            _remove(directory)


class GroupV1(_Group):
    """Separate hierarchies for memory, processes and processor time."""

    def limit(self, memory: int, processes: int) -> None:
        """`memory` is for the programs; what the templates take, and the files of the submission, is added."""
        self._own = self._own or int(self._read("memory.usage_in_bytes"))
        limit = str(memory + self._own + self._counter("memory.stat", "shmem"))
        with contextlib.suppress(StopIteration):
            self._write("memory.memsw.limit_in_bytes", _UNLIMITED_V1)
        self._write("memory.limit_in_bytes", limit)
        with contextlib.suppress(StopIteration):
            self._write("memory.memsw.limit_in_bytes", limit)
        self._write("pids.max", str(processes))

    def begin(self) -> None:
        """A test begins: the peak is counted anew."""
        self._write("memory.max_usage_in_bytes", "0")
        self._start = int(self._read("memory.usage_in_bytes"))

    def cpu_ns(self) -> int:
        return int(self._read("cpuacct.usage"))

    def peak(self) -> int:
        return max(0, int(self._read("memory.max_usage_in_bytes")) - self._start)

    def kills(self) -> int:
        """How many processes were killed for memory."""
        return self._counter("memory.oom_control", "oom_kill")


class GroupV2(_Group):
    """The unified hierarchy."""

    def limit(self, memory: int, processes: int) -> None:
        """`memory` is for the programs; what the templates take, and the files of the submission, is added."""
        self._own = self._own or int(self._read("memory.current"))
        with contextlib.suppress(StopIteration, OSError):
            self._write("memory.swap.max", "0")
        self._write("memory.max", str(memory + self._own + self._counter("memory.stat", "shmem")))
        self._write("pids.max", str(processes))

    def begin(self) -> None:
        """A test begins. Before Linux 6.12 the peak cannot be counted anew, and is that of all tests so far."""
        with contextlib.suppress(StopIteration, OSError):
            self._write("memory.peak", "0")
        self._start = int(self._read("memory.current"))

    def cpu_ns(self) -> int:
        return self._counter("cpu.stat", "usage_usec") * 1_000

    def peak(self) -> int:
        with contextlib.suppress(StopIteration):
            return max(0, int(self._read("memory.peak")) - self._start)
        return 0

    def kills(self) -> int:
        """How many processes were killed for memory."""
        return self._counter("memory.events", "oom_kill")


class Processes:
    """Counting without groups: everything that lives below the box's first process, as /proc shows it."""

    complete = False

    def __init__(self) -> None:
        self._root = 0
        self._peak = 0
        self._memory = 0

    def admit(self, pid: int) -> None:
        """There is no group to put it in."""

    def limit(self, memory: int, processes: int) -> None:
        """The limit on processes is one for each user, set in the box, and a box has a user of its own."""
        self._memory = memory

    def watch(self, pid: int) -> None:
        """`pid` is the box's first process."""
        self._root = pid

    def begin(self) -> None:
        self._peak = 0

    def cpu_ns(self) -> int:
        """Also looks at memory, as this is what the runner asks for again and again."""
        ticks = resident = 0
        for pid in _descendants(self._root):
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
                resident += int(fields[21])
        self._peak = max(self._peak, resident * os.sysconf("SC_PAGE_SIZE"))
        return ticks * (1_000_000_000 // _TICK)

    def over(self) -> bool:
        """Whether more memory is in use than allowed. What processes share is divided among them."""
        return self._peak > self._memory and sum(map(_share, _descendants(self._root))) > self._memory

    def peak(self) -> int:
        return self._peak

    def kills(self) -> int:
        """Nothing is killed for memory: allocations fail instead."""
        return 0

    def remove(self) -> None:
        """There is nothing to remove."""


def _share(pid: int) -> int:
    """The bytes that a process has to itself, and its part of what it shares. The box's own processes hide theirs."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _descendants(root: int) -> Iterator[int]:
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting.extend(map(int, (task / "children").read_text().split()))


class Unwritable(Exception):
    """Control groups cannot be used; the message says why and what would help."""


class Nursery:
    """Where a supervisor makes the groups of its runners. Raises `Unwritable`."""

    def __init__(self) -> None:
        self._name = f"{_PREFIX}{os.getpid()}"
        hierarchies = _hierarchies()
        self._unified = "" in hierarchies and _offers(hierarchies[""])
        wanted = [""] if self._unified else ["memory", "pids", "cpuacct"]
        missing = [name for name in wanted if name not in hierarchies]
        if missing:
            raise Unwritable(f"no control group for {', '.join(missing)}; mount them, or delegate a cgroup v2 subtree")
        self._parents = list(dict.fromkeys(hierarchies[name] / self._name for name in wanted))
        self._make()

    def _make(self) -> None:
        try:
            for parent in self._parents:
                _sweep(parent.parent)
                if self._unified:
                    _delegate(parent.parent)
                parent.mkdir(exist_ok=True)
                if self._unified:
                    _enable(parent)
        except OSError as error:
            self.remove()
            raise Unwritable(f"{error}; run as root, or in a delegated cgroup (systemd: Delegate=yes)") from None

    def group(self, name: str) -> Meter:
        """A new group. Raises OSError."""
        directories = [parent / name for parent in self._parents]
        for directory in directories:
            directory.mkdir(exist_ok=True)
        return GroupV2(directories) if self._unified else GroupV1(directories)

    def remove(self) -> None:
        for parent in self._parents:
            if parent.exists():
                for child in parent.iterdir():
                    if child.is_dir():
                        _remove(child)
                _remove(parent)


def _hierarchies() -> dict[str, Path]:
    """This process's group in each hierarchy, by controller; the unified one has the name ""."""
    mounted: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, place = fields.split(" ")[3:5]
        if kind in ("cgroup", "cgroup2"):
            controllers = [""] if kind == "cgroup2" else options.split(" ")[-1].split(",")
            mounted.update((name, (root, Path(place))) for name in controllers)
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, own = line.split(":", 2)
        for name in names.split(","):
            if name in mounted:
                top, mount_point = mounted[name]
                found[name] = mount_point / os.path.relpath(own, top)
    return found


def _offers(group: Path) -> bool:
    """Whether a group of the unified hierarchy has the controllers that we need."""
    try:
        return set(_CONTROLLERS) <= set((group / "cgroup.controllers").read_text().split())
    except OSError:
        return False


def _delegate(group: Path) -> None:
    """Lets `group` have children with controllers: its own processes move into a leaf, as v2 demands."""
    leaf = group / f"{_PREFIX}service"
    if (group / "cgroup.type").exists():  # the root of the hierarchy may hold processes
        leaf.mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
    _enable(group)


def _enable(group: Path) -> None:
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in _CONTROLLERS))


def _sweep(place: Path) -> None:
    """Removes what a supervisor that was killed has left behind."""
    for left in place.glob(f"{_PREFIX}[0-9]*"):
        owner = left.name.removeprefix(_PREFIX)
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            for child in left.iterdir():
                if child.is_dir():
                    _remove(child)
            _remove(left)


def _remove(directory: Path, patience: float = 2.0) -> None:
    """A group is busy for a moment after its last process has ended. What stays is swept by the next supervisor."""
    end = time.monotonic() + patience
    while directory.exists():
        try:
            directory.rmdir()
        except OSError:
            if time.monotonic() > end:
                return
            time.sleep(0.005)
