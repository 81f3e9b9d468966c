"""The blocking client: threads, plain scripts, rollout workers.

It stands on `http.client`, because a trainer calls for every group, often for every rollout, and httpx costs twice the
CPU (`benchmarks/client.py` measures it). Proxies from the environment and redirects are not followed.

Threads may share one `Client`: each call takes an idle connection or opens one. A forked child opens its own.
"""

from __future__ import annotations

import functools
import io
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from math import inf
from typing import Any, Concatenate, ParamSpec, cast

from rewardsvc.client import core
from rewardsvc.client.core import Answer, Call, Outcome, Service, T

P = ParamSpec("P")


def _blocking(calls: Callable[Concatenate[Service, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @functools.wraps(calls)
    def ask(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._run(calls(client._service, *args, **kwargs))

    return ask


class Client:
    """Calls a reward service. Every call raises ServiceRefused, ServiceUnreachable or DeadlineExceeded (`ClientError`).

    `timeout` is the total number of seconds of one call, all its tries and waits included. An address at which nobody
    listens is given up after `absent` seconds; set it higher where the service may be started later than its caller.
    """

    def __init__(
        self,
        base_url: str = core.URL,
        api_key: str | None = None,
        timeout: float = core.TIMEOUT_S,
        absent: float = core.ABSENT_S,
    ) -> None:
        self._service = Service(base_url, api_key, timeout, absent)
        self._http: Callable[..., HTTPConnection] = HTTPConnection
        if self._service.tls:
            self._http = functools.partial(HTTPSConnection, context=ssl.create_default_context())
        self._idle = _IdleConnections()

    score = _blocking(Service.score)
    rewards = _blocking(Service.rewards)
    reward = _blocking(Service.reward)
    ready = _blocking(Service.ready)

    def close(self) -> None:
        """Close the idle connections. A later call opens new ones."""
        self._idle.close_older_than(inf)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        until = time.monotonic() + self._service.timeout
        while True:
            outcome = self._try(call, until)
            wait = call.wait(outcome, until - time.monotonic())
            if wait is None:
                return call.read(outcome)
            time.sleep(wait)

    def _try(self, call: Call[T], until: float) -> Outcome:
        connection = self._idle.take() or _Connection(self._http(self._service.host, self._service.port))
        try:
            return connection.exchange(call, until)
        except (OSError, HTTPException) as error:
            self._idle.close_older_than(inf)  # they are as old as this one
            return error
        finally:
            if connection.reusable:
                self._idle.put(connection)
            else:
                connection.close()


class _Connection:
    """One connection to the service, for one thread at a time. `reusable` after a reply that leaves it open."""

    def __init__(self, http: HTTPConnection) -> None:
        self._http = http
        self._socket: _DeadlineSocket | None = None
        self.reusable = False

    def exchange(self, call: Call[T], until: float) -> Answer:
        """Send and receive before `until` on the monotonic clock. Raises OSError or HTTPException."""
        self.reusable = False
        timed = self._socket or self._connect(until)
        timed.until = until
        self._http.request(call.method, call.target, call.body(_left(until)), call.headers)
        response = self._http.getresponse()
        answer = Answer(response.status, response.read(), response.getheader("Retry-After"))
        self.reusable = self._http.sock is not None
        return answer

    def close(self) -> None:
        self._http.close()
        if self._socket:
            self._socket.inner.close()

    def _connect(self, until: float) -> _DeadlineSocket:
        self._http.timeout = min(core.CONNECT_S, _left(until))
        self._http.connect()
        self._socket = _DeadlineSocket(self._http.sock)
        self._http.sock = cast(socket.socket, self._socket)
        return self._socket


class _DeadlineSocket(io.RawIOBase):
    """The part of a socket that `http.client` uses, with one deadline for all operations together.

    A socket's own timeout starts anew with every byte received, so a service that drips could hold a call for ever.
    """

    def __init__(self, inner: socket.socket) -> None:
        self.inner = inner
        self.until = 0.0

    def sendall(self, payload: bytes) -> None:
        self.inner.settimeout(_left(self.until))
        self.inner.sendall(payload)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.inner.settimeout(_left(self.until))
        return self.inner.recv_into(buffer)

    def close(self) -> None:
        """Nothing: `http.client` closes its file after every reply. The connection closes `inner`."""


class _IdleConnections:
    """Connections that no call uses at the moment, the freshest last; each process sees only its own.

    There is no lock that a fork could copy while it is held: a deque's own operations are atomic.
    """

    def __init__(self) -> None:
        self._owned = (os.getpid(), deque[tuple[float, _Connection]]())

    def take(self) -> _Connection | None:
        """The freshest connection, or None when there is none that the service can be trusted to have kept."""
        self.close_older_than(time.monotonic() - core.KEEP_IDLE_S)
        with suppress(IndexError):
            return self._mine().pop()[1]
        return None

    def put(self, connection: _Connection) -> None:
        self._mine().append((time.monotonic(), connection))

    def close_older_than(self, moment: float) -> None:
        """Close what has been idle since before `moment` on the monotonic clock."""
        mine = self._mine()
        with suppress(IndexError):  # none is left, or another thread took it
            while mine[0][0] < moment:
                mine.popleft()[1].close()

    def _mine(self) -> deque[tuple[float, _Connection]]:
        owner, connections = self._owned
        if owner == os.getpid():
            return connections
        for _, connection in connections:
            connection.close()  # this process's copy of the descriptor; the parent's connection goes on
        self._owned = (os.getpid(), deque())
        return self._owned[1]


def _left(until: float) -> float:
    """Seconds until a moment on the monotonic clock, never so few that a socket would stop blocking."""
    return max(until - time.monotonic(), 0.001)
