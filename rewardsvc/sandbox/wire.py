"""What travels between the processes of the sandbox: messages with descriptors, and frames with results.

A message is one packet of a SOCK_SEQPACKET socket: JSON of at most `MAX_MESSAGE` bytes, and up to eight descriptors. A
frame, on the stream from a runner to a client, is two little-endian lengths (JSON: four bytes, raw bytes: eight), the
JSON and the raw bytes.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
from typing import Any, NamedTuple

MAX_MESSAGE = 64 * 1024
_MAX_DESCRIPTORS = 8
_LENGTHS = struct.Struct("<IQ")

Fields = dict[str, Any]


class Message(NamedTuple):
    """`descriptors` belong to the receiver."""

    fields: Fields
    descriptors: list[int]


class Frame(NamedTuple):
    fields: Fields
    raw: bytes


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends for messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, fields: Fields, descriptors: list[int] | None = None) -> None:
    """Raises OSError when the peer is gone or, on a socket that does not block, too slow."""
    data = json.dumps(fields).encode()
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sock.sendmsg([data], rights)
    else:
        sock.send(data)


def receive(sock: socket.socket) -> Message | None:
    """The next message, or None when the peer has gone. Raises OSError, and ValueError for what is no message."""
    try:
        data, rights, flags, _ = sock.recvmsg(
            MAX_MESSAGE, socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    descriptors = _descriptors(rights)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close(descriptors)
        raise ValueError("a message was cut off")
    return Message(json.loads(data), descriptors) if data else None


def _descriptors(rights: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def close(descriptors: list[int]) -> None:
    """Closes what is open of them."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def send_frame(sock: socket.socket, fields: Fields, raw: bytes = b"") -> None:
    """Raises OSError when the peer is gone."""
    head = json.dumps(fields).encode()
    sock.sendall(_LENGTHS.pack(len(head), len(raw)) + head)
    if raw:
        sock.sendall(raw)


def receive_frame(sock: socket.socket) -> Frame | None:
    """The next frame, or None when the stream ends before or within it. Raises OSError (TimeoutError)."""
    lengths = _receive_exactly(sock, _LENGTHS.size)
    if lengths is None:
        return None
    head_length, raw_length = _LENGTHS.unpack(lengths)
    head, raw = _receive_exactly(sock, head_length), _receive_exactly(sock, raw_length)
    return None if head is None or raw is None else Frame(json.loads(head), bytes(raw))


def _receive_exactly(sock: socket.socket, length: int) -> bytearray | None:
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = sock.recv_into(view[got:])
        if not count:
            return None
        got += count
    return data
