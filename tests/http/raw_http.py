"""HTTP/1.1 byte by byte: requests that no client library would send, and replies as they stand on the wire."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "errors", "retryable", "retry_after_ms"}
RIGHT = {"task": {"reference": "1"}, "rollouts": [{"completion": "1"}]}


@dataclass
class Reply:
    """One reply; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    def problem(self) -> dict[str, Any]:
        """The problem document, which must be one as documented."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.body[:300])
        problem: dict[str, Any] = self.document
        assert set(problem) == PROBLEM_FIELDS
        assert problem["type"].startswith("/problems/")
        assert problem["status"] == self.status
        assert problem["instance"] == self.headers["x-request-id"]
        assert all(set(place) == {"pointer", "detail"} for place in problem["errors"])
        assert "Traceback" not in self.body.decode()
        return problem

    @property
    def slug(self) -> str:
        return str(self.problem()["type"]).removeprefix("/problems/")


class Connection:
    """One TCP connection to a service on this machine."""

    def __init__(self, port: int, timeout: float = 20) -> None:
        self.opened = time.monotonic()
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._incoming = self.sock.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._incoming.close()
        self.sock.close()

    def send(self, *parts: bytes) -> Connection:
        for part in parts:
            self.sock.sendall(part)
        return self

    def reply(self, to: str = "POST") -> Reply:
        """The next reply; status 0 when the connection ends in place of one."""
        line = self._incoming.readline()
        if not line:
            return Reply(0, {}, b"")
        headers = {}
        for field in iter(self._incoming.readline, b"\r\n"):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        status = int(line.split()[1])
        return Reply(status, headers, b"" if to == "HEAD" or status < 200 else self._body(headers))

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return self._incoming.read(int(headers["content-length"]))
        return b"".join(iter(self.chunk, b""))

    def chunk(self) -> bytes:
        """The next chunk of a chunked body, empty at its end."""
        size = int(self._incoming.readline(), 16)
        chunk = self._incoming.read(size)
        assert self._incoming.readline() == b"\r\n"
        return chunk

    def head(self) -> int:
        """The status of a reply whose body is read chunk by chunk."""
        status = int(self._incoming.readline().split()[1])
        for _ in iter(self._incoming.readline, b"\r\n"):
            pass
        return status

    def closed_after(self, patience: float = 20) -> float:
        """Seconds from opening to the end of the connection, whatever is sent before it. Raises TimeoutError."""
        self.sock.settimeout(patience)
        try:
            while self._incoming.read1(1 << 20):
                pass
        except ConnectionError:
            pass
        return time.monotonic() - self.opened


def encoded(document: Any) -> bytes:
    """A document as JSON, bytes as they are."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def head(line: str, *fields: str) -> bytes:
    """A request's head: the request line (without the version), a Host, and these fields."""
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def post(document: Any = RIGHT, *fields: str, reward: str = "exact", length: int | None = None) -> bytes:
    """A scoring request; `length` overrides the true Content-Length."""
    body = encoded(document)
    announced = len(body) if length is None else length
    line = f"POST /v1/rewards/{reward}"
    return head(line, "Content-Type: application/json", f"Content-Length: {announced}", *fields) + body


def chunked(*chunks: bytes) -> bytes:
    """A body in these chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


def ask(port: int, *parts: bytes, to: str = "POST", timeout: float = 20) -> Reply:
    """The reply to one request on a connection of its own."""
    with Connection(port, timeout) as connection:
        return connection.send(*parts).reply(to)
