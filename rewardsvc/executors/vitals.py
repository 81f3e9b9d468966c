"""What the kernel says about a worker: its memory, its share of a processor, and how it died. Linux's /proc only."""

from __future__ import annotations

import signal
from mmap import PAGESIZE
from pathlib import Path

from rewardsvc.clock import now_ns
from rewardsvc.errors import Crashed, NotScored, ResourceLimit
from rewardsvc.executors.link import GARBAGE
from rewardsvc.executors.wire import Cell, Exit

_PAGE_MB = PAGESIZE / (1 << 20)


class Stopwatch:
    """How long a worker has been at what it does. Time that it was ready to run but had no processor does not count."""

    def __init__(self) -> None:
        self._started_ns = 0
        self._waited_ns = 0

    def seconds(self, pid: int, started_ns: int) -> float:
        """Since `started_ns`, less the waiting that was seen since this was first asked about it."""
        waited_ns = _read_number(f"/proc/{pid}/schedstat", 1)
        if started_ns != self._started_ns:
            self._started_ns, self._waited_ns = started_ns, waited_ns
        return (now_ns() - started_ns - (waited_ns - self._waited_ns)) / 1e9


def grown_mb(pid: int, cell: Cell) -> float:
    """Memory in MiB that a worker has taken since it last rested."""
    return (_read_number(f"/proc/{pid}/statm", 1) - cell.weight) * _PAGE_MB


def death(report: Exit | None, killed_because: str | None) -> tuple[NotScored, dict[str, object]]:
    """What the end of a worker means for the item that it was on."""
    if killed_because == GARBAGE:
        return Crashed("broken_stream"), {}
    if report is None:
        return Crashed("parent_killed"), {}
    if report.code >= 0:
        return Crashed("exited"), {"exit_code": report.code}
    if report.code == -signal.SIGKILL and _kernel_ran_out_of_memory():
        return ResourceLimit("out_of_memory"), {}
    return Crashed("killed_by_signal"), {"signal": _signal_name(-report.code)}


def _signal_name(number: int) -> str:
    """Real-time signals have no name but their number."""
    return signal.Signals(number).name if number in {known.value for known in signal.Signals} else str(number)


def _out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    try:
        lines = Path("/proc/vmstat").read_bytes().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(b"oom_kill ")), 0)
    except OSError:
        return 0


_seen_kills = _out_of_memory_kills()


def _kernel_ran_out_of_memory() -> bool:
    """Whether the kernel has killed for want of memory since the last time somebody asked."""
    global _seen_kills
    before, _seen_kills = _seen_kills, _out_of_memory_kills()
    return _seen_kills > before


def _read_number(path: str, field: int) -> int:
    """A field of a file in /proc; 0 when the process is gone or the kernel does not say."""
    try:
        return int(Path(path).read_bytes().split()[field])
    except (OSError, IndexError, ValueError):
        return 0
