"""What travels between the front process, the parent and the workers: typed msgpack frames, and one shared cell.

A frame is a 4-byte little-endian length and a msgpack body of at most `MAX_FRAME` bytes. Nothing is pickled. The
shared cell is how the front knows, without asking, which item a worker is on and since when.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from rewardsvc.contract import RewardInfo, Text, Verdict

MAX_FRAME = 256 * 1024 * 1024
_HEADER = 4
_CHUNK = 262_144


class Bootstrap(Struct, array_like=True, tag="bootstrap"):
    """Front → parent, first frame: which rewards to import. Names in `skip` broke an earlier parent."""

    files: list[str]
    skip: dict[str, str]
    quiet_workers: bool
    recycle_items: int
    recycle_mb: int


class Loading(Struct, array_like=True, tag="loading"):
    """Parent → front: this reward's code is about to run; if the parent dies now, it is to blame."""

    name: str


class Catalogue(Struct, array_like=True, tag="catalogue"):
    """Parent → front: imports are done; these rewards exist, and the unavailable ones say why."""

    rewards: list[RewardInfo]


class Fork(Struct, array_like=True, tag="fork"):
    """Front → parent, with three descriptors (socket, lifeline, cell): start a worker of this kind."""

    kind: str


class Exit(Struct, array_like=True, tag="exit"):
    """Minder → front: how the worker ended (`os.waitstatus_to_exitcode`) and its peak memory."""

    code: int
    peak_kb: int


class Ready(Struct, array_like=True, tag=0):
    """Worker → front: waiting for work."""

    pid: int


class Order(Struct, array_like=True, tag=10):
    """Front → worker: judge some rollouts of one group. Times are nanoseconds of the monotonic clock.

    `rows` are (index in the batch, the caller's id, encoded `Sample`); for a reward that judges groups they are the
    whole group.
    """

    number: int
    reward: str
    task: Raw
    params: Raw
    admitted_ns: int
    deadline_ns: int
    rows: list[tuple[int, str, Raw]]


class Cancel(Struct, array_like=True, tag=11):
    """Front → io worker: nobody waits for this order any more. (A cpu worker looks at the shared cell instead.)"""

    number: int


class Sample(Struct, array_like=True):
    """The part of a rollout that a verdict may depend on."""

    completion: Text
    reference: Any
    metadata: dict[str, Any]


class Results(Struct, array_like=True, tag=1):
    """Worker → front: finished verdicts by index. After `done` the worker is idle; `retire` asks to be replaced."""

    number: int
    verdicts: list[tuple[int, Verdict]]
    done: bool = False
    retire: bool = False


class Rejected(Struct, array_like=True, tag=2):
    """Worker → front: the whole group is a mistake of the caller: (JSON pointer, message) pairs."""

    number: int
    errors: list[tuple[str, str]]


FromWorker = Ready | Results | Rejected
ToWorker = Order | Cancel
FromParent = Loading | Catalogue

encode = msgspec.msgpack.Encoder().encode
encode_stable = msgspec.msgpack.Encoder(order="deterministic").encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_parent = msgspec.msgpack.Decoder(FromParent).decode


class FrameTooLong(Exception):
    """The peer announced a frame over `MAX_FRAME`: it is broken or hostile, and its stream cannot be trusted."""


def frame(message: Any) -> bytes:
    """A message with its length in front."""
    body = encode(message)
    return len(body).to_bytes(_HEADER, "little") + body


class FrameReader:
    """Cuts a byte stream into frame bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The frames completed by `data`. Raises `FrameTooLong`."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        while len(buffer) - start >= _HEADER:
            end = start + _HEADER + int.from_bytes(buffer[start : start + _HEADER], "little")
            if end - start > MAX_FRAME:
                raise FrameTooLong
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[start + _HEADER : end]))
            start = end
        if start:
            del buffer[:start]
        return frames


class Connection:
    """The blocking end of a stream, for the parent and the workers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: Any) -> None:
        """Raises OSError when the peer is gone."""
        self.sock.sendall(frame(message))

    def receive(self) -> bytes | None:
        """The next frame body, or None at the end of the stream."""
        received = self.receive_with_descriptors(0)
        return received and received[0]

    def receive_with_descriptors(self, count: int) -> tuple[bytes, list[int]] | None:
        """The next frame body and up to `count` descriptors that came with its first byte."""
        head, descriptors, _, _ = socket.recv_fds(self.sock, _HEADER, count)
        while 0 < len(head) < _HEADER:
            head += self.sock.recv(_HEADER - len(head))
        if not head:
            return None
        length = int.from_bytes(head, "little")
        if length > MAX_FRAME:
            raise FrameTooLong
        body = bytearray(length)
        view = memoryview(body)
        while view:
            got = self.sock.recv_into(view)
            if not got:
                return None
            view = view[got:]
        return bytes(body), list(descriptors)


class Cell:
    """One page shared by the front and a worker: which item the worker is on, since when, and what was called off.

    Each field is one aligned 8-byte store, so a reader never sees half a value. Word 0 holds the item's index (upper
    16 bits) and its start in microseconds of the monotonic clock (lower 48 bits); 0 means idle. Word 1 holds the
    number of an order that nobody waits for any more.
    """

    PREPARING = 0xFFFF
    _TIME = (1 << 48) - 1

    def __init__(self, descriptor: int) -> None:
        """Maps the page behind `descriptor` and closes it."""
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        os.close(descriptor)
        self._words = memoryview(self._page).cast("Q")

    @staticmethod
    def allocate() -> int:
        """A descriptor of a fresh page."""
        descriptor = os.memfd_create("rewardsvc-cell", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, mmap.PAGESIZE)
        return descriptor

    def begin(self, index: int, now_ns: int) -> None:
        """The worker starts on an item."""
        self._words[0] = (index << 48) | (now_ns // 1000 & self._TIME)

    def rest(self) -> None:
        """The worker is between items."""
        self._words[0] = 0

    def current(self) -> tuple[int, int] | None:
        """(index, start in nanoseconds of the monotonic clock) of the item being judged, or None."""
        word = self._words[0]
        return (word >> 48, (word & self._TIME) * 1000) if word else None

    def call_off(self, number: int) -> None:
        """Nobody waits for this order any more."""
        self._words[1] = number

    def called_off(self, number: int) -> bool:
        """Whether the worker may skip the rest of this order."""
        return self._words[1] == number

    def close(self) -> None:
        """Unmaps the page."""
        self._words.release()
        self._page.close()


def send_with_descriptors(sock: socket.socket, message: Any, descriptors: Sequence[int]) -> None:
    """One small frame with descriptors attached to its first byte."""
    socket.send_fds(sock, [frame(message)], list(descriptors))


def now_ns() -> int:
    """The clock that the front and the workers share."""
    return time.monotonic_ns()
