"""The lines that come back from calls of a function: counted and passed on, never read: they are the program's word."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rewardsvc.sandbox.python_calls import LOADED
from rewardsvc.sandbox.watching import Stream

_PAUSE = 0.0003
"""Seconds between reads while lines come in, because waking up for every line would cost more than the call."""


class Lines(Stream):
    """The pipe for results. `tell` is given the number of the first call and the lines, whole."""

    def __init__(self, keep: int, first: int, tell: Callable[[dict[str, Any], bytes], None]) -> None:
        super().__init__(keep)
        self.loaded = False
        """Whether the program was run to its end, so that its functions can be called."""
        self.count = 0
        self._first, self._tell = first, tell

    def progress(self) -> bool:
        """Passes whole lines on. Whether there were any."""
        data = self.drain()
        whole = data.rfind(b"\n") + 1
        self.restore(data[whole:])
        lines = data[:whole]
        if lines and not self.loaded:
            self.loaded = lines.startswith(LOADED)
            lines = lines[len(LOADED) :] if self.loaded else b""
        if lines:
            self._tell({"returned": self._first + self.count}, lines)
            self.count += lines.count(b"\n")
            time.sleep(_PAUSE)
        return whole > 0
