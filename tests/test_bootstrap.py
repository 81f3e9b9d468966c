"""What a bare machine needs: the locks, tools/bootstrap, .ci/run, and what the image and compose files promise.

The scripts run here in a clone of their own on a machine of stubs: a PATH that holds a `python3` which only writes down
how it was called. The real thing, on a real Debian, is in test_container.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rewardsvc.settings import Settings

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")

# What it can import is a file of that name in $MACHINE; what it makes as a .venv is a copy of itself.
PYTHON = """#!/bin/bash
echo "python $*" >>"$MACHINE/calls"
case "$1 $2" in
    "-c "*)
        [[ $0 != .venv/* ]] || exit 0
        for module in venv ensurepip pip; do
            [[ " ${2//[,;]/ } " != *" $module "* || -e $MACHINE/$module ]] || exit 1
        done ;;
    "-m venv")
        mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "command = $0 -m venv $PWD/.venv" >.venv/pyvenv.cfg ;;
    "-m pip") [[ ! -e $MACHINE/offline ]] ;;
    "--version ") echo Python 3.11.2 ;;
esac
"""
APT_GET = """#!/bin/bash
echo "apt-get $*" >>"$MACHINE/calls"
[[ $1 != install ]] || touch "$MACHINE/venv" "$MACHINE/ensurepip"
"""
SUDO_WITHOUT_PASSWORD = '#!/bin/bash\necho "sudo $*" >>"$MACHINE/calls"; shift; exec "$@"\n'
SUDO_WITH_PASSWORD = "#!/bin/bash\necho 'sudo: a password is required' >&2; exit 1\n"


class Machine:
    """A clone, in a folder with a space in its name, and the few commands that there are."""

    def __init__(self, place: Path) -> None:
        self.state = place / "machine"
        self.bin = place / "bin"
        self.clone = place / "my clone"
        for folder in (self.state, self.bin, self.clone / "tools"):
            folder.mkdir(parents=True)
        for command in (
            "bash",
            "basename",
            "cksum",
            "cp",
            "dirname",
            "env",
            "flock",
            "grep",
            "mkdir",
            "rm",
            "touch",
            "true",
        ):
            if found := shutil.which(command):
                (self.bin / command).symlink_to(found)
        for file in ("tools/bootstrap", "pyproject.toml", *LOCKS):
            shutil.copy(ROOT / file, self.clone / file)
        self.add("python3", PYTHON)
        self.add("id", "#!/bin/bash\necho 1000\n")
        self.can("venv", "ensurepip")

    def add(self, command: str, script: str) -> None:
        (self.bin / command).write_text(script)
        (self.bin / command).chmod(0o755)

    def can(self, *modules: str) -> None:
        for name in ("venv", "ensurepip", "pip"):
            (self.state / name).unlink(missing_ok=True)
        for name in modules:
            (self.state / name).touch()

    def bootstrap(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.state / "calls").write_text("")
        return subprocess.run(
            [self.clone / "tools" / "bootstrap", *arguments],
            env={"PATH": str(self.bin), "MACHINE": str(self.state)},
            cwd="/",
            text=True,
            capture_output=True,
            timeout=30,
        )

    @property
    def calls(self) -> list[str]:
        """What the last run did; the questions that it asked Python are left out."""
        lines = (self.state / "calls").read_text().splitlines()
        return [line for line in lines if not line.startswith(("python -c", "python --version"))]

    @property
    def installed(self) -> list[str]:
        """The locks that the last run installed."""
        return [call.split()[-1] for call in self.calls if "install" in call and call.endswith(".lock")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestBootstrap:
    def test_the_first_run_makes_a_venv_from_the_lock(self, machine: Machine) -> None:
        run = machine.bootstrap()

        assert run.returncode == 0, run.stderr
        assert machine.calls[0] == "python -m venv .venv"
        assert machine.installed == ["requirements-build.lock", "requirements.lock"]
        assert all("--require-hashes" in call for call in machine.calls if call.endswith(".lock"))
        assert "--no-deps --no-build-isolation --editable ." in machine.calls[-1]

    def test_the_second_run_does_nothing_and_says_nothing(self, machine: Machine) -> None:
        machine.bootstrap()
        run = machine.bootstrap()

        assert (run.returncode, run.stdout, run.stderr, machine.calls) == (0, "", "", [])

    def test_dev_brings_what_serve_needs(self, machine: Machine) -> None:
        machine.bootstrap("dev")
        assert machine.installed == ["requirements-build.lock", "requirements-dev.lock"]
        machine.bootstrap()
        assert machine.calls == []

    def test_serve_does_not_bring_what_dev_needs(self, machine: Machine) -> None:
        machine.bootstrap()
        machine.bootstrap("dev")
        assert machine.installed == ["requirements-build.lock", "requirements-dev.lock"]
        assert "python -m venv .venv" not in machine.calls

    @pytest.mark.parametrize("file", ["pyproject.toml", "requirements.lock", "requirements-build.lock"])
    def test_a_changed_file_is_installed_into_the_same_venv(self, machine: Machine, file: str) -> None:
        machine.bootstrap()
        with (machine.clone / file).open("a") as changed:
            changed.write("# changed\n")
        machine.bootstrap()
        assert "python -m venv .venv" not in machine.calls
        assert machine.installed == ["requirements-build.lock", "requirements.lock"]

    def test_what_an_interrupted_run_left_is_made_anew(self, machine: Machine) -> None:
        machine.bootstrap()
        (machine.clone / ".venv" / ".unfinished").touch()
        run = machine.bootstrap()
        assert "making it anew" in run.stderr
        assert machine.calls[0] == "python -m venv .venv"
        assert machine.bootstrap().stderr == ""

    def test_a_venv_without_its_python_is_made_anew(self, machine: Machine) -> None:
        machine.bootstrap()
        (machine.clone / ".venv" / "bin" / "python").unlink()
        machine.bootstrap()
        assert machine.calls[0] == "python -m venv .venv"

    def test_a_copied_clone_does_not_run_the_code_of_the_first(self, machine: Machine) -> None:
        machine.bootstrap()
        machine.clone = machine.clone.rename(machine.clone.with_name("elsewhere"))
        machine.bootstrap()
        assert machine.calls[0] == "python -m venv .venv"

    def test_a_failed_installation_says_so_and_the_next_run_mends_it(self, machine: Machine) -> None:
        (machine.state / "offline").touch()
        run = machine.bootstrap()
        assert run.returncode == 1
        assert "pip failed" in run.stderr

        (machine.state / "offline").unlink()
        assert machine.bootstrap().returncode == 0
        assert machine.bootstrap().stderr == ""


class TestBootstrapWithoutThePackageForVenvs:
    def test_root_installs_it_and_says_so(self, machine: Machine) -> None:
        machine.can("venv")
        machine.add("apt-get", APT_GET)
        machine.add("id", "#!/bin/bash\necho 0\n")
        run = machine.bootstrap()

        assert run.returncode == 0, run.stderr
        assert "apt-get install python3-venv" in run.stderr
        assert machine.calls[1].startswith("apt-get install") and machine.calls[1].endswith(" python3-venv")

    def test_sudo_without_a_password_serves_as_well(self, machine: Machine) -> None:
        machine.can("venv")
        machine.add("apt-get", APT_GET)
        machine.add("sudo", SUDO_WITHOUT_PASSWORD)
        run = machine.bootstrap()

        assert run.returncode == 0, run.stderr
        assert any(call.startswith("apt-get install") for call in machine.calls)
        assert all(call.startswith("sudo -n ") for call in machine.calls if call.startswith("sudo"))

    @pytest.mark.parametrize("sudo", [None, SUDO_WITH_PASSWORD], ids=["no sudo", "sudo with a password"])
    def test_without_either_it_says_what_to_install_and_leaves_nothing(
        self, machine: Machine, sudo: str | None
    ) -> None:
        machine.can("venv")
        machine.add("apt-get", APT_GET)
        if sudo:
            machine.add("sudo", sudo)
        run = machine.bootstrap()

        assert run.returncode == 1
        assert "sudo apt-get install python3-venv\n" in run.stderr
        assert machine.calls == []
        assert not (machine.clone / ".venv").exists()

    def test_a_pip_beside_python_is_enough(self, machine: Machine) -> None:
        machine.can("venv", "pip")
        run = machine.bootstrap()

        assert run.returncode == 0, run.stderr
        assert machine.calls[0] == "python -m venv --without-pip .venv"
        assert machine.calls[1].startswith("python -m pip --python .venv/bin/python install")

    def test_another_python_that_can_is_taken_first(self, machine: Machine) -> None:
        machine.can("venv")
        machine.add("python3.13", PYTHON.replace("exit 1", "exit 0").replace('"python $*"', '"newer $*"'))
        assert machine.bootstrap().returncode == 0
        assert "newer -m venv .venv" in machine.calls

    def test_a_machine_without_python_is_told_so(self, machine: Machine) -> None:
        (machine.bin / "python3").unlink()
        run = machine.bootstrap()
        assert run.returncode == 1
        assert "No Python 3.11 or newer" in run.stderr


def pinned(lock: str) -> dict[str, str]:
    """Name and version of everything in a lock."""
    lines = (ROOT / lock).read_text().splitlines()
    return dict(line.split(";")[0].rstrip(" \\").split("==") for line in lines if line and line[0] not in " #")


def unmet(requirements: list[str], lock: str) -> list[str]:
    """The requirements that a lock holds no fitting version of."""
    pins = pinned(lock)
    wanted = [Requirement(text) for text in requirements]
    return [str(one) for one in wanted if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0"))]


class TestLocks:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

    @pytest.mark.parametrize("lock", LOCKS)
    def test_it_names_packages_and_no_address(self, lock: str) -> None:
        for line in (ROOT / lock).read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9-]+==[\w.+]+( ; [^/\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line

    def test_it_holds_what_the_service_asks_for(self) -> None:
        project = self.project["project"]
        for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
            assert unmet(requirements, "requirements.lock") == []

    def test_it_holds_what_the_tests_ask_for(self) -> None:
        assert unmet(self.project["dependency-groups"]["dev"], "requirements-dev.lock") == []

    def test_it_holds_what_the_build_asks_for(self) -> None:
        assert unmet(self.project["build-system"]["requires"], "requirements-build.lock") == []

    def test_the_tests_run_with_the_versions_that_serve(self) -> None:
        serving, testing = pinned("requirements.lock"), pinned("requirements-dev.lock")
        assert {name: testing.get(name) for name in serving} == serving


class TestImage:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()

    def last(self, instruction: str) -> str:
        return next(line for line in reversed(self.lines) if line.startswith(instruction))

    def test_only_debian_is_its_base(self) -> None:
        stages = [line.split()[1] for line in self.lines if line.startswith("FROM ")]
        assert set(stages) == {"debian:bookworm-slim", "base"}
        assert stages[-1] == "base"

    def test_it_runs_as_a_numbered_user_that_is_not_root(self) -> None:
        user, group = self.last("USER ").split()[1].split(":")
        assert int(user) > 0 and int(group) > 0

    def test_an_init_reaps_orphans_and_signals_reach_the_service(self) -> None:
        assert json.loads(self.last("ENTRYPOINT ").removeprefix("ENTRYPOINT ")) == ["tini", "--"]
        assert json.loads(self.last("CMD ").removeprefix("CMD "))[:2] == ["rewardsvc", "serve"]

    def test_its_health_is_its_readiness(self) -> None:
        command = json.loads(self.last("HEALTHCHECK ").split("CMD ")[1])
        assert command[0] == "python3" and "/readyz" in command[-1]


class TestCompose:
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["rewardsvc"]

    def test_it_gives_the_container_no_rights(self) -> None:
        assert self.service["read_only"] is True
        assert self.service["cap_drop"] == ["ALL"]
        assert self.service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "volumes", "devices", "network_mode", "pid", "user"} & set(self.service)

    def test_it_limits_processes_and_memory(self) -> None:
        assert self.service["pids_limit"] > 0 and self.service["mem_limit"]

    def test_without_a_key_only_this_machine_reaches_it(self) -> None:
        assert "--insecure" in self.service["command"]
        assert all(port.startswith("127.0.0.1:") for port in self.service["ports"])

    def test_groups_in_flight_are_finished_before_it_is_killed(self) -> None:
        seconds = float(self.service["stop_grace_period"].removesuffix("s"))
        assert seconds > Settings.model_fields["drain_seconds"].default + 10


class TestContinuousIntegration:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Any:
        """Runs .ci/run with a `make` that fails at one target; (exit code, the targets that it came to)."""
        make = tmp_path / "make"
        make.write_text('#!/bin/bash\necho "$@" >>"$CALLS"\n[[ ${!#} != "$FAILS" ]] || exit 7\n')
        make.chmod(0o755)
        calls = tmp_path / "calls"

        def run(fails: str) -> tuple[int, list[str]]:
            environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "FAILS": fails}
            done = subprocess.run([ROOT / ".ci" / "run"], env=environment, cwd="/", capture_output=True, timeout=30)
            return done.returncode, [line.split()[-1] for line in calls.read_text().splitlines()]

        return run

    def test_it_runs_every_check_and_the_tests_last(self, run: Any) -> None:
        assert run(fails="none") == (0, ["lint", "types", "layers", "openapi", "docs", "test"])

    def test_it_stops_at_the_first_failure_with_its_exit_code(self, run: Any) -> None:
        assert run(fails="layers") == (7, ["lint", "types", "layers"])
