"""How many groups each key may send: a quota per minute, counted exactly, whatever was refused left out.

The generic cell rate algorithm (ITU-T I.371, 5.4.1.2): one moment is kept for each key, at which all that it has sent
would have been sent at the even pace of its quota. It may run ahead of the clock by as much as a minute, so the
minute's groups may also come all at once, which is how a trainer sends them. Keys are few: only accepted ones are
counted, and callers of a service without keys count as one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rewardsvc.errors import OverQuota

_MINUTE = 60.0


class Quota:
    """`per_minute` groups for each key; 0 sets no limit. `clock` gives seconds that never run backwards."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._paced: dict[bytes, float] = {}

    def take(self, key: bytes) -> None:
        """Counts one group. Raises `OverQuota`, which says when there is room for one again, and counts nothing."""
        if not self._per_minute:
            return
        now = self._clock()
        paced = max(self._paced.get(key, now), now) + _MINUTE / self._per_minute
        early = paced - now - _MINUTE
        if early > _MINUTE * 1e-9:  # rounding must not refuse the last group of a minute
            raise OverQuota(
                f"This key may send {self._per_minute:,} groups in a minute, and has.",
                retry_after_ms=math.ceil(early * 1000),
            )
        self._paced[key] = paced
