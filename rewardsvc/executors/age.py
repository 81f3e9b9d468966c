"""How a worker ages: what it may take of memory, and when another one has to take its place."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rewardsvc.contract import Verdict
from rewardsvc.executors.wire import Cell
from rewardsvc.reward import Reward

_MIB = 1 << 20
_BACKSTOP = 8
_BROKEN_OFF = ("plugin_error", "crashed")  # a reward may say the other statuses on purpose


@dataclass(frozen=True)
class Limits:
    """When a worker asks to be replaced: after so many items, or so many MiB above its size at birth."""

    recycle_items: int
    recycle_mb: int
    quiet: bool


class Age:
    """Decides when a worker has judged or grown enough, and looks after its memory.

    The front kills at the reward's limit, which a plugin cannot catch. What it was too late for is noticed here, after
    the item; and a backstop keeps one huge allocation from taking the machine. It is far above the limit, so that no
    library meets (and swallows) a MemoryError that would turn a failure into a wrong answer.
    """

    def __init__(self, limits: Limits, cell: Cell) -> None:
        self._limits = limits
        self._cell = cell
        self._judged = 0
        self._memory_mb = 0
        self._spoilt = False
        self._born = os.getpid()
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._born_kb = self._peak_kb = _peak_kb()
        self.weigh()

    def weigh(self) -> None:
        """Notes in the cell what the worker has while it does nothing."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            self._cell.weigh(int(os.pread(self._statm, 99, 0).split()[1]))

    def start(self, reward: Reward) -> None:
        """Allows a multiple of the reward's memory on top of what the process has now and may keep until it is old."""
        memory_mb = reward.resources.memory_mb
        if memory_mb != self._memory_mb:
            self._memory_mb = memory_mb
            allowed = _data_bytes() + (self._limits.recycle_mb + _BACKSTOP * memory_mb) * _MIB
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_DATA, (allowed, resource.RLIM_INFINITY))

    def is_overgrown(self) -> bool:
        """Whether what was judged since the last question took more memory than its reward may."""
        before, self._peak_kb = self._peak_kb, _peak_kb()
        weight_kb = self._cell.weight * resource.getpagesize() // 1024
        return self._peak_kb > before and self._peak_kb - weight_kb > self._memory_mb * 1024

    def count(self, items: int) -> None:
        """So many items were judged."""
        self._judged += items

    def heed(self, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        """A reward that broke off where it did not mean to may have left behind what other rewards would trip over."""
        self._spoilt = self._spoilt or any(verdict.status in _BROKEN_OFF for _, verdict in verdicts)

    def is_worn(self) -> bool:
        """Whether the worker has judged or grown enough."""
        self._peak_kb = _peak_kb()
        return (
            self._judged >= self._limits.recycle_items
            or self._peak_kb - self._born_kb >= self._limits.recycle_mb * 1024
        )

    def is_over(self) -> bool:
        """Whether the worker must be replaced now that it is idle: worn, spoilt, or with a child process left."""
        return self._spoilt or self.is_worn() or _has_children()

    def end_copies(self) -> None:
        """A reward that forks and returns twice must not answer twice."""
        if os.getpid() != self._born:
            os._exit(0)


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _has_children() -> bool:
    """Whether a child process is alive. The dead ones are buried."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _data_bytes() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[5]) * resource.getpagesize()
