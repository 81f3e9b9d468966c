"""Verdicts that were computed before, by the hash of everything they may depend on. Bounded in bytes.

Only what a deterministic reward scored is kept: a verdict without a number is a failure of the moment. Joining a twin
that is still under way is the scheduler's work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from rewardsvc.contract import Timing, Verdict
from rewardsvc.packing import encode, encode_stable

_OVERHEAD = 320  # bytes of one entry beyond its value: the key, two object headers, the place in the table
_decode = msgspec.msgpack.Decoder(list[Verdict]).decode


def context_hash(*parts: Any) -> bytes:
    """32 bytes that stand for what all rollouts of a group share."""
    return sha256(encode_stable(parts)).digest()


def key(context: bytes, payload: bytes) -> bytes:
    """32 bytes that stand for a context and one encoded rollout."""
    return sha256(context + payload).digest()


class Cache:
    """Least recently used verdicts, at most `limit_bytes` of them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """What the entries take, keys and overhead included."""
        return self._size

    def get(self, name: bytes) -> list[Verdict] | None:
        """Fresh copies of the verdicts stored under a key, marked as cached and having taken no time."""
        value = self._entries.get(name)
        if value is None:
            return None
        self._entries.move_to_end(name)
        verdicts = _decode(value)
        for verdict in verdicts:
            verdict.cached, verdict.timing = True, Timing()
        return verdicts

    def put(self, name: bytes, verdicts: Sequence[Verdict]) -> None:
        """Keeps verdicts if all of them are scored; the oldest entries make room."""
        for verdict in verdicts:
            if verdict.status != "scored":
                return
        if name in self._entries:
            return
        value = encode(verdicts)
        if len(value) + _OVERHEAD > self._limit:
            return
        self._entries[name] = value
        self._size += len(value) + _OVERHEAD
        while self._size > self._limit:
            _, dropped = self._entries.popitem(last=False)
            self._size -= len(dropped) + _OVERHEAD
