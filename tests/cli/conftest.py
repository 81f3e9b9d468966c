"""The command line as a person uses it: real processes in a folder of their own, with none of this one's settings."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
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

    def on_terminal(self, columns: int, *arguments: str, **settings: str) -> list[str]:
        """The lines that the finished command leaves on a terminal of this width, without their colours."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        command = [sys.executable, "-m", "rewardsvc", *arguments]
        own = environment(**settings) | {"TERM": "xterm"}
        own.pop("COLUMNS", None)
        process = subprocess.Popen(
            command, cwd=self.folder, env=own, stdin=its, stdout=its, stderr=subprocess.DEVNULL, process_group=0
        )
        os.close(its)
        written = b""
        with suppress(OSError):  # how a terminal ends when nobody holds its other side
            while piece := os.read(ours, 1 << 16):
                written += piece
        os.close(ours)
        assert process.wait(120) == 0
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode()).splitlines()]

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
