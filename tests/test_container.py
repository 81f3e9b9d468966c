"""The image and the compose file on a real Docker engine, and the README's first command on a bare Debian.

Skipped where there is no engine, no compose or no local debian:bookworm-slim: nothing here pulls from a registry.
Building takes what any installation takes, Debian's packages and the Python packages of the lock.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BASE = "debian:bookworm-slim"
# The classic builder takes a local base as it is; BuildKit may ask a registry about it first.
ENVIRONMENT = os.environ | {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
GROUP = {"task": {"reference": "42"}, "rollouts": [{"completion": "\\boxed{42}"}, {"completion": "\\boxed{41}"}]}
BARE = "apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 git make"
# What a clone has: no local .venv, no caches.
NOT_CLONED = {".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}

pytestmark = pytest.mark.timeout(900)  # the first build of an image takes a minute or two


def run(*command: str, input: bytes | None = None, timeout: float = 600, **environment: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT | environment, input=input, capture_output=True, timeout=timeout
    )
    output = done.stdout.decode()
    assert done.returncode == 0, f"{' '.join(command)}\n{output[-4000:]}\n{done.stderr.decode()[-4000:]}"
    return output


def succeeds(*command: str) -> bool:
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60).returncode == 0


def compose_command() -> list[str] | None:
    """`docker compose`, or the older program of its own."""
    if succeeds("docker", "compose", "version"):
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    """Skips this file where it cannot run."""
    if not shutil.which("docker") or not succeeds("docker", "info"):
        pytest.skip("no Docker engine")
    if not succeeds("docker", "image", "inspect", BASE):
        pytest.skip(f"no local image {BASE}, and no test pulls one")


@contextmanager
def built(*arguments: str, input: bytes | None = None) -> Iterator[str]:
    """The tag of an image built from here. Its layers stay as a cache when the tag goes."""
    tag = f"rewardsvc-test:{uuid.uuid4().hex[:12]}"
    run("docker", "build", "--network", "host", "--tag", tag, *arguments, input=input)
    try:
        yield tag
    finally:
        run("docker", "rmi", "--no-prune", tag)


def call(port: int, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
    """(status, document) of one request to a published port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def rewards(port: int, key: str | None = None) -> list[float | None]:
    status, reply = call(port, "POST", "/v1/rewards/math", GROUP, key)
    assert status == 200, reply
    return [verdict["reward"] for verdict in reply["verdicts"]]


def clone() -> bytes:
    """The tree as a clone would have it, as a tar file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(ROOT.iterdir()):
            tar.add(path, path.name, filter=lambda member: None if Path(member.name).name in NOT_CLONED else member)
    return archive.getvalue()


class Deployment:
    """A container that compose started."""

    def __init__(self, project: str, container: str) -> None:
        self.project = project
        self.container = container
        self.published = self.inspect("{{json .NetworkSettings.Ports}}")["8000/tcp"]
        self.port = int(self.published[0]["HostPort"])

    def inspect(self, template: str) -> Any:
        return json.loads(run("docker", "inspect", "--format", template, self.container))

    def sh(self, script: str) -> str:
        return run("docker", "exec", self.container, "sh", "-c", script)

    def wait_until_healthy(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while (health := self.inspect("{{json .State.Health.Status}}")) != "healthy":
            assert time.monotonic() < end, f"{health}:\n{run('docker', 'logs', self.container)}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with built(".") as tag:
        yield tag


@pytest.fixture(scope="module")
def start(image: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Starts docker-compose.yml as it is, with the image that is built already."""
    compose = compose_command()
    if compose is None:
        pytest.skip("no docker compose")
    override = tmp_path_factory.mktemp("compose") / "image.yml"
    override.write_text(f"services: {{rewardsvc: {{image: '{image}'}}}}\n")

    @contextmanager
    def start(**environment: str) -> Iterator[Deployment]:
        project = f"rewardsvc-test-{uuid.uuid4().hex[:12]}"
        command = [*compose, "-p", project, "-f", str(ROOT / "docker-compose.yml"), "-f", str(override)]
        # Port 0: the engine takes a free one.
        environment = {"REWARDSVC_PORT": "0", "REWARDSVC_API_KEYS": ""} | environment
        try:
            run(*command, "up", "-d", "--no-build", **environment)
            deployment = Deployment(project, run(*command, "ps", "-q", **environment).strip())
            deployment.wait_until_healthy()
            yield deployment
        finally:
            run(*command, "down", **environment)

    return start


@pytest.fixture(scope="module")
def deployment(start: Any) -> Iterator[Deployment]:
    with start() as deployment:
        yield deployment


class TestCompose:
    """docker-compose.yml as it is."""

    def test_it_becomes_healthy_and_scores_on_the_loopback_port(self, deployment: Deployment) -> None:
        assert rewards(deployment.port) == [1.0, 0.0]
        assert [binding["HostIp"] for binding in deployment.published] == ["127.0.0.1"]

    def test_its_process_has_no_rights(self, deployment: Deployment) -> None:
        status = deployment.sh("id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/1/status | cut -f2")
        assert status.split() == ["10001", "0" * 16, "0" * 16, "1"]

    def test_only_tmp_can_be_written(self, deployment: Deployment) -> None:
        tries = "for place in / /opt/rewardsvc /var/tmp /tmp; do touch $place/x 2>/dev/null && echo $place; done; true"
        assert deployment.sh(tries).split() == ["/tmp"]

    def test_it_carries_nothing_that_only_building_took(self, deployment: Deployment) -> None:
        found = deployment.sh("ls -d /src /opt/build /opt/code /opt/wheels; ls /var/lib/apt/lists; true")
        assert found.split() == []
        assert "hatchling" not in deployment.sh("pip list")

    def test_a_key_is_asked_for_and_down_leaves_nothing(self, start: Any) -> None:
        with start(REWARDSVC_API_KEYS="open-sesame") as deployment:
            assert call(deployment.port, "POST", "/v1/rewards/math", GROUP)[0] == 401
            assert rewards(deployment.port, key="open-sesame") == [1.0, 0.0]
            run("docker", "stop", "--time", "60", deployment.container)
            assert deployment.inspect("{{json .State.ExitCode}}") == 0
        for kind in ("container", "network", "volume"):
            everything = ("--all",) if kind == "container" else ()
            mine = f"label=com.docker.compose.project={deployment.project}"
            assert run("docker", kind, "ls", *everything, "--quiet", "--filter", mine) == ""

    def test_beyond_loopback_it_does_not_start_without_a_key(self, image: str) -> None:
        done = subprocess.run(["docker", "run", "--rm", image], env=ENVIRONMENT, capture_output=True, timeout=60)
        assert done.returncode != 0
        assert b"without a key" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def machine() -> Iterator[str]:
    file = f"FROM {BASE}\nRUN {BARE}\nRUN useradd --create-home user\n"
    with built("-", input=file.encode()) as tag:
        yield tag


class TestBareDebian:
    """Python, git and make, and nothing else."""

    def test_make_serve_installs_what_is_missing_and_serves(self, machine: str, tmp_path: Path) -> None:
        name = f"rewardsvc-test-{uuid.uuid4().hex[:12]}"
        script = "mkdir '/root/a clone' && cd '/root/a clone' && tar x && exec make serve ARGS='--port 0'"
        command = ["docker", "run", "--rm", "--init", "--interactive", "--network", "host", "--name", name, machine]
        (tmp_path / "clone.tar").write_bytes(clone())
        log = tmp_path / "log"
        with (tmp_path / "clone.tar").open("rb") as tar, log.open("wb") as output:
            process = subprocess.Popen([*command, "sh", "-c", script], stdin=tar, stdout=output, stderr=output)
        try:
            end = time.monotonic() + 600
            while not (listening := re.search(r'"http://127\.0\.0\.1:(\d+)"', log.read_text())):
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.5)
            assert rewards(int(listening[1])) == [1.0, 0.0]
            assert "bootstrap: apt-get install python3-venv" in log.read_text()
        finally:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, timeout=60)
            process.wait(60)

    def test_a_user_who_may_not_install_is_told_what_to_ask_for(self, machine: str) -> None:
        script = "mkdir clone && cd clone && tar x --no-same-owner && make serve"
        command = ["docker", "run", "--rm", "--interactive", "--user", "user", "--workdir", "/home/user", machine]
        done = subprocess.run([*command, "sh", "-c", script], input=clone(), capture_output=True, timeout=120)
        assert done.returncode != 0
        assert b"    sudo apt-get install python3-venv\n" in done.stderr
