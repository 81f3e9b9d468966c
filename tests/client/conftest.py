"""A service that follows a script, and both clients behind one blocking face: each promise is tested on both."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import pytest

from rewardsvc.client import AsyncClient, Client
from rewardsvc.contract import RewardInfo, ScoreReply, Verdict, summarise

Step = tuple[int, Any, dict[str, str]] | str
"""Status, body and headers of an answer, or the name of an accident."""


def score_reply(*rewards: float) -> ScoreReply:
    verdicts = [Verdict(id=str(i), reward=reward, reason="equal") for i, reward in enumerate(rewards)]
    return ScoreReply("r", "exact", "1", verdicts, summarise(verdicts))


GOOD: Step = (200, score_reply(1.0), {})


@dataclass
class Seen:
    """A request as it arrived; `connection` counts from 0, `at` is seconds on the monotonic clock."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float = field(default_factory=time.monotonic)

    @property
    def deadline_ms(self) -> int:
        return int(msgspec.json.decode(self.body)["deadline_ms"])


class ScriptedService:
    """Answers each request by the next step of the script, and for ever by the last one."""

    def __init__(self, *script: Step, port: int = 0) -> None:
        self._script = list(script)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.seen: list[Seen] = []
        self.gone = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> list[int]:
        """Which connection each request came on."""
        return [seen.connection for seen in self.seen]

    def hang_up(self) -> None:
        """Close every connection without a word, as a server does with idle ones."""
        for connection in self._open:
            shut_down(connection)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, len(self._open) - 1), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as incoming:
            try:
                while self._one(connection, incoming, number):
                    pass
            except OSError:
                return

    def _one(self, connection: socket.socket, incoming: Any, number: int) -> bool:
        line = incoming.readline().decode().strip()
        if not line:
            return False
        head = [field.decode().strip().partition(": ") for field in iter(incoming.readline, b"\r\n")]
        headers = {name.lower(): value for name, _, value in head}
        body = incoming.read(int(headers.get("content-length", 0)))
        with self._lock:
            self.seen.append(Seen(line, headers, body, number))
            step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        return play(step, connection, self.gone)


def shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def play(step: Step, connection: socket.socket, gone: threading.Event) -> bool:
    """Send what the step says; False when the connection ends with it."""
    if step == "drop":
        return False
    if step == "silence":
        if connection.recv(1) == b"":
            gone.set()
        return False
    if step == "truncate":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        return False
    if step == "drip":
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"-" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
        return False
    assert not isinstance(step, str), step
    status, content, headers = step
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    lines = [f"HTTP/1.1 {status} As-Scripted", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return headers.get("Connection") != "close"


class Asker(Protocol):
    """What both clients look like here."""

    def score(self, reward: str, rollouts: Any, **about: Any) -> ScoreReply: ...
    def rewards(self) -> list[RewardInfo]: ...
    def reward(self, name: str) -> RewardInfo: ...
    def ready(self) -> bool: ...


class Awaiting:
    """An AsyncClient whose methods block, all on one loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.client = AsyncClient(*args, **kwargs)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._runner.run(getattr(self.client, name)(*args, **kwargs))

    def close(self) -> None:
        self._runner.run(self.client.aclose())
        self._runner.close()


@pytest.fixture
def script() -> Iterator[Callable[..., ScriptedService]]:
    """Starts a service that follows the given steps."""
    services: list[ScriptedService] = []

    def start(*steps: Step, port: int = 0) -> ScriptedService:
        services.append(ScriptedService(*steps, port=port))
        return services[-1]

    yield start
    for service in services:
        service.stop()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Asker]]:
    """Makes a client of either kind: `connect(url, api_key=None, timeout=60.0)`."""
    clients: list[Any] = []

    def make(*args: Any, **kwargs: Any) -> Asker:
        clients.append((Client if request.param == "sync" else Awaiting)(*args, **kwargs))
        made: Asker = clients[-1]
        return made

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def good() -> Step:
    """The answer that scores one rollout 1.0."""
    return GOOD
