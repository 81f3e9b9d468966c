"""Two pieces written in one turn of the event loop leave together; nothing is lost, delayed or reordered by that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from rewardsvc.http.gathering import Gathering
from tests.http.raw_http import RIGHT, post

if TYPE_CHECKING:
    from tests.conftest import Service


class Wire(asyncio.Transport):
    """What leaves, one entry per system call, and how it ended."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ended = ""

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.sent.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def get_write_buffer_size(self) -> int:
        return 0


def after_a_turn(*steps: Any) -> Wire:
    """What has left after these steps (bytes to write, names of methods) and one turn of the loop."""
    wire = Wire()

    async def run() -> None:
        gathering = Gathering(wire, asyncio.get_running_loop())
        for step in steps:
            gathering.write(step) if isinstance(step, bytes) else getattr(gathering, step)()
        await asyncio.sleep(0)

    asyncio.run(run())
    return wire


@pytest.mark.parametrize(
    ("steps", "sent", "ended"),
    [
        ((b"head", b"body"), [b"headbody"], ""),
        ((b"head",), [b"head"], ""),
        ((b"a", b"b", b"c"), [b"ab", b"c"], ""),
        ((b"head", "close"), [b"head"], "closed"),
        ((b"head", b"body", "close"), [b"headbody"], "closed"),
        ((b"head", "abort"), [], "aborted"),
    ],
)
def test_what_leaves_and_when(steps: tuple[Any, ...], sent: list[bytes], ended: str) -> None:
    wire = after_a_turn(*steps)
    assert (wire.sent, wire.ended) == (sent, ended)


def test_what_is_held_counts_as_not_taken() -> None:
    async def run() -> None:
        gathering = Gathering(Wire(), asyncio.get_running_loop())
        gathering.write(b"head")
        assert gathering.get_write_buffer_size() == 4

    asyncio.run(run())


def test_a_client_gets_a_reply_in_one_piece(service_with_plugins: Service) -> None:
    with socket.create_connection(("127.0.0.1", service_with_plugins.port), timeout=20) as sock:
        for _ in range(50):
            sock.sendall(post(RIGHT))
            head, _, body = sock.recv(1 << 16).partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in head.lower()
