"""What travels between the front process, the parent and the workers: typed msgpack frames, and one shared cell.

A frame is a 4-byte little-endian length and a msgpack body of at most `MAX_FRAME` bytes. Nothing is pickled. The
shared cell is how the front knows, without asking, which item a worker is on and since when.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from rewardsvc.contract import RewardInfo, Text, Verdict

MAX_FRAME = 256 * 1024 * 1024
_HEADER = 4
_CHUNK = 262_144


class Bootstrap(Struct, array_like=True, tag="bootstrap"):
    """Front → parent, first frame: which rewards to import. Sources in `skip` broke an earlier parent, and how."""

    files: list[str]
    skip: dict[str, str]
    quiet_workers: bool
    recycle_items: int
    recycle_mb: int


class Loading(Struct, array_like=True, tag="loading"):
    """Parent → front: this reward's code is about to run; if the parent dies now, it is to blame."""

    source: str


class Catalogue(Struct, array_like=True, tag="catalogue"):
    """Parent → front: imports are done; these rewards exist, and the unavailable ones say why."""

    rewards: list[RewardInfo]


class Fork(Struct, array_like=True, tag="fork"):
    """Front → parent, with three descriptors (socket, lifeline, cell): start a worker of this kind."""

    kind: str


class Minding(Struct, array_like=True, tag="minding"):
    """Minder → front, with two pid descriptors (the worker's, its own): the worker runs and can be killed."""


class Exit(Struct, array_like=True, tag="exit"):
    """Minder → front: how the worker ended (`os.waitstatus_to_exitcode`)."""

    code: int


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
    """Worker → front: finished verdicts by index. After `done` the worker is idle."""

    number: int
    verdicts: list[tuple[int, Verdict]]
    done: bool = False


class Rejected(Struct, array_like=True, tag=2):
    """Worker → front: the whole group is a mistake of the caller: (JSON pointer, message) pairs."""

    number: int
    errors: list[tuple[str, str]]


FromWorker = Ready | Results | Rejected
ToWorker = Order | Cancel
FromParent = Loading | Catalogue
FromMinder = Minding | Exit

decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_parent = msgspec.msgpack.Decoder(FromParent).decode
decode_from_minder = msgspec.msgpack.Decoder(FromMinder).decode
_encode_into = msgspec.msgpack.Encoder().encode_into


class FrameTooLong(Exception):
    """The peer announced a frame over `MAX_FRAME`: it is broken or hostile, and its stream cannot be trusted."""


def frame(message: Any) -> bytearray:
    """A message with its length in front."""
    data = bytearray(_HEADER)
    _encode_into(message, data, _HEADER)
    data[:_HEADER] = (len(data) - _HEADER).to_bytes(_HEADER, "little")
    return data


class FrameReader:
    """Cuts a byte stream into frame bodies."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes | memoryview) -> list[memoryview]:
        """The bodies of the frames completed by `data`, to be decoded before its buffer is used again.

        Raises `FrameTooLong`.
        """
        kept = self._kept
        if kept:
            kept += data
            if not _begins_with_frame(kept):
                return []
            data = bytes(kept)
            kept.clear()
        stream = memoryview(data)
        frames, used = _cut(stream)
        kept += stream[used:]
        return frames


def _begins_with_frame(kept: bytearray) -> bool:
    """Whether the first frame is complete; asked before anything is copied, so that a long frame is copied once."""
    return len(kept) >= _HEADER and len(kept) >= _HEADER + _length(kept)


def _length(head: bytearray | memoryview) -> int:
    """The length of the body that a header announces. Raises `FrameTooLong`."""
    length = int.from_bytes(head[:_HEADER], "little")
    if length > MAX_FRAME:
        raise FrameTooLong
    return length


def _cut(stream: memoryview) -> tuple[list[memoryview], int]:
    """The whole frames at the start of a stream, and how many bytes they take."""
    frames: list[memoryview] = []
    start, length = 0, len(stream)
    while length - start >= _HEADER:
        end = start + _HEADER + _length(stream[start : start + _HEADER])
        if end > length:
            break
        frames.append(stream[start + _HEADER : end])
        start = end
    return frames, start


class Connection:
    """The blocking end of a stream, for the parent and the workers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = memoryview(bytearray(_CHUNK))
        self._got = self._used = 0

    def send(self, message: Any) -> None:
        """Raises OSError when the peer is gone."""
        self.sock.sendall(frame(message))

    def receive(self) -> memoryview | None:
        """The next frame body, valid until the next call, or None at the end of the stream.

        One read usually brings one whole frame, because the peer waits for the answer before it sends the next.
        """
        self._drop_used()
        if not self._fill(_HEADER):
            return None
        self._used = _HEADER + _length(self._buffer[:_HEADER])
        if self._used > len(self._buffer):
            longer = memoryview(bytearray(self._used))
            longer[: self._got] = self._buffer[: self._got]
            self._buffer = longer
        return self._buffer[_HEADER : self._used] if self._fill(self._used) else None

    def _drop_used(self) -> None:
        rest = self._got - self._used
        if rest:
            self._buffer[:rest] = bytes(self._buffer[self._used : self._got])
        elif len(self._buffer) > _CHUNK:
            self._buffer = memoryview(bytearray(_CHUNK))
        self._got, self._used = rest, 0

    def _fill(self, enough: int) -> bool:
        """Reads until so many bytes are there; False when the stream ends before."""
        while self._got < enough:
            count = self.sock.recv_into(self._buffer[self._got :])
            if not count:
                return False
            self._got += count
        return True

    def receive_with_descriptors(self, count: int) -> tuple[bytes, list[int]] | None:
        """The next frame body and up to `count` descriptors that came with its first byte; not after `receive`."""
        head, descriptors, _, _ = socket.recv_fds(self.sock, _HEADER, count)
        while len(head) < _HEADER:
            more = self.sock.recv(_HEADER - len(head))
            if not more:
                return None
            head += more
        body = memoryview(bytearray(_length(memoryview(head))))
        got = 0
        while got < len(body):
            count = self.sock.recv_into(body[got:])
            if not count:
                return None
            got += count
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        return bytes(body), list(descriptors)


class Cell:
    """One page shared by the front and a worker: which item the worker is on, since when, and what was called off.

    Each field is one aligned 8-byte store, so a reader never sees half a value. Word 0 holds the item's index (upper
    16 bits) and its start in microseconds of the monotonic clock (lower 48 bits); 0 means idle. Word 1 holds the
    number of an order that nobody waits for any more, word 2 the worker's memory in pages when it last rested,
    word 3 whether it has ended of age, word 4 how many orders it has begun with, word 5 when its event
    loop turned last, word 6 whether it asks for a successor.
    """

    PREPARING = 0xFFFF
    _TIME = (1 << 48) - 1  # microseconds in 48 bits last for nine years

    def __init__(self, descriptor: int) -> None:
        """Maps the page behind `descriptor` and closes it."""
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        os.close(descriptor)
        self._words = memoryview(self._page).cast("Q")

    @staticmethod
    def allocate() -> int:
        """A descriptor of a fresh page."""
        descriptor = os.memfd_create("rewardsvc-cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, mmap.PAGESIZE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)  # no SIGBUS for the front
        return descriptor

    def begin(self, index: int, now_ns: int) -> int:
        """The worker starts on an item; the number of the order that was called off last."""
        words = self._words
        words[0] = index << 48 | now_ns // 1000
        return words[1]

    def take(self, now_ns: int) -> None:
        """The worker takes the next order, and looks at what its rows share."""
        self._words[4] += 1
        self.begin(self.PREPARING, now_ns)

    def rest(self) -> None:
        """No item is being judged: the worker sends, or waits for work; no coroutine holds the event loop."""
        self._words[0] = 0

    def beat(self, now_ns: int) -> None:
        """The event loop of an io worker turns."""
        self._words[5] = now_ns

    @property
    def beat_ns(self) -> int:
        """When the event loop turned last."""
        return self._words[5]

    @property
    def orders(self) -> int:
        """How many orders the worker has begun with."""
        return self._words[4]

    def current(self) -> tuple[int, int] | None:
        """(index, start in nanoseconds of the monotonic clock) of the item being judged, or None."""
        word = self._words[0]
        return (word >> 48, (word & self._TIME) * 1000) if word else None

    def call_off(self, number: int) -> None:
        """Nobody waits for this order any more: the worker may skip the rest of it."""
        self._words[1] = number

    def leave(self) -> None:
        """The worker is about to end because it is old: nothing that it has not done is its fault, or anybody's."""
        self._words[3] = 1

    @property
    def left(self) -> bool:
        """Whether the worker has ended of age."""
        return self._words[3] != 0

    def grow_old(self) -> None:
        """The worker asks for a successor, and will end when it has finished what it has."""
        self._words[6] = 1

    @property
    def is_old(self) -> bool:
        """Whether the worker has asked for a successor."""
        return self._words[6] != 0

    def weigh(self, pages: int) -> None:
        """The worker's memory while it does nothing: what an item takes counts from here."""
        self._words[2] = pages

    @property
    def weight(self) -> int:
        """Pages that the worker had when it last rested."""
        return self._words[2]

    def close(self) -> None:
        """Unmaps the page."""
        self._words.release()
        self._page.close()


_MARKS = 0x7FFF
_PREPARING = 0x8000


def io_mark(number: int, preparing: bool = False) -> int:
    """What stands in the cell for an order whose coroutine holds the event loop of an io worker."""
    return number % _MARKS | (_PREPARING if preparing else 0)


def is_mark_of(mark: int | None, number: int) -> bool:
    """Whether a mark stands for this order."""
    return mark is not None and mark & ~_PREPARING == number % _MARKS


def is_preparing(mark: int | None) -> bool:
    """Whether a mark says that the order's task was being checked, before any rollout."""
    return mark is not None and mark & _PREPARING > 0


def send_with_descriptors(sock: socket.socket, message: Any, descriptors: Sequence[int]) -> None:
    """One small frame with descriptors attached to its first byte."""
    socket.send_fds(sock, [frame(message)], list(descriptors))
