"""The command line as a person uses it: real processes in a folder of their own, with none of this one's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

PLUGINS = Path(__file__).parents[1] / "plugins"


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings (names without the prefix) and no others."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REWARDSVC_")}
    return own | {f"REWARDSVC_{name.upper()}": value for name, value in settings.items()}


class Shell:
    """Runs `rewardsvc` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        """The finished command."""
        command = [sys.executable, "-m", "rewardsvc", *arguments]
        own = environment(**settings)
        return subprocess.run(
            command, cwd=self.folder, env=own, input=stdin, text=True, capture_output=True, timeout=120
        )

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """The running command, in a process group of its own as a terminal would have it."""
        return subprocess.Popen(
            [sys.executable, "-m", "rewardsvc", *arguments],
            cwd=self.folder,
            env=environment(**settings),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )

    def write(self, name: str, *lines: Any) -> Path:
        """A file of JSON lines; strings stand as they are."""
        path = self.folder / name
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    def read(self, name: str) -> list[Any]:
        """The documents in a file of JSON lines."""
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def rewardsvc(tmp_path: Path) -> Shell:
    """`rewardsvc(*arguments)`, run in an empty folder."""
    return Shell(tmp_path)


@pytest.fixture
def plugin() -> Callable[[str], str]:
    """The path of one of the tests' plugins."""
    return lambda name: str(PLUGINS / f"{name}.py")


@pytest.fixture
def all_gone() -> Callable[[list[psutil.Process]], bool]:
    """Whether these processes have ended, or do so in a moment."""

    def wait(processes: list[psutil.Process]) -> bool:
        _, alive = psutil.wait_procs(processes, timeout=15)
        return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]

    return wait
