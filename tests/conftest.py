"""What the tests share: a real service in its own process, a real scheduler in this one, and where plugins lie."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings as hypothesis_settings

from rewardsvc.reward import deadline_ns

hypothesis_settings.register_profile("any machine", deadline=None)  # a busy machine is no fault of the code
hypothesis_settings.load_profile("any machine")

HERE = Path(__file__).parent
PLUGINS = HERE / "plugins"
ALL_PLUGINS = ",".join(str(path) for path in sorted(PLUGINS.glob("*.py")))


class Service:
    """A running `rewardsvc serve`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def call(
        self, method: str, path: str, body: bytes | str | None = None, timeout: float = 60, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of one request on a connection of its own; `_` in header names stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()

    def post(self, reward: str, request: Any, **headers: str) -> tuple[int, Any]:
        """(status, document) of a scored group; `request` is a document, or a body as it is."""
        body = request if isinstance(request, (bytes, str)) else json.dumps(request)
        given = {"content_type": "application/json"} | headers
        status, _, reply = self.call("POST", f"/v1/rewards/{reward}", body, **given)
        return status, json.loads(reply)

    def score(self, reward: str, completions: list[Any], reference: Any = None, **request: Any) -> list[Any]:
        """The verdicts on a group that must be accepted."""
        task = {"reference": reference} | request.pop("task", {})
        rollouts = [{"completion": completion} for completion in completions]
        status, reply = self.post(reward, {"task": task, "rollouts": rollouts, **request})
        assert status == 200, reply
        return list(reply["verdicts"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a metric that carry these labels."""
        total = 0.0
        for line in self.call("GET", "/metrics")[2].decode().splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    @property
    def tree(self) -> list[psutil.Process]:
        """The front process and everything below it."""
        front = psutil.Process(self.process.pid)
        return [front, *front.children(recursive=True)]

    def stop(self) -> int:
        """Ends the service as an operator would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running_service(
    log: Path, wait: bool = True, arguments: tuple[str, ...] = (), **settings: str
) -> Iterator[Service]:
    """A service with these settings (names without the prefix); killed at the end if it is still there."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REWARDSVC_")}
    environment |= {f"REWARDSVC_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "rewardsvc", "serve", "--port", str(port), *arguments]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, env=environment, stderr=errors, stdout=errors, stdin=subprocess.DEVNULL)
    service = Service(process, port, log)
    try:
        if wait:
            wait_until_ready(service)
        yield service
    finally:
        with suppress(psutil.NoSuchProcess):
            for member in service.tree if process.poll() is None else []:
                member.kill()
        process.wait()


def wait_until_ready(service: Service, seconds: float = 30) -> None:
    """Returns when `/readyz` is green."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and service.process.poll() is None:
        try:
            if service.call("GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"the service did not become ready:\n{service.log.read_text()[-3000:]}")


StartService = Callable[..., AbstractContextManager[Service]]


@pytest.fixture(autouse=True)
def _no_deadline() -> Iterator[None]:
    """A deadline that a test of the workers sets is not the next test's."""
    token = deadline_ns.set(None)
    yield
    deadline_ns.reset(token)


@pytest.fixture
def start_service(tmp_path: Path) -> StartService:
    """Starts services with settings of the test's own."""

    def start(**options: Any) -> AbstractContextManager[Service]:
        return running_service(tmp_path / f"service-{time.monotonic_ns()}.log", **options)

    return start


@pytest.fixture(scope="module")
def service_with_plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that also offers the rewards in tests/plugins."""
    log = tmp_path_factory.mktemp("service") / "log"
    with running_service(log, reward_files=ALL_PLUGINS, workers="2") as service:
        yield service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service as it comes out of the box."""
    with running_service(tmp_path_factory.mktemp("service") / "log") as running:
        yield running.url
