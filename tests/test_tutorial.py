"""The tutorial is run as it stands: its files are written, its commands executed, its output compared.

It gets a virtual environment of its own on top of this one, so that nobody else ever sees what it installs.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
MARK = "=== end of block ==="


class Block(NamedTuple):
    """A fenced block: its language, the file that it is (or nothing), and what is in it."""

    language: str
    file: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(*parts) for parts in found]


def script_of(blocks: list[Block]) -> str:
    """All commands as one shell session, with a mark after each block; files are written where they stand."""
    lines = ["set -e"]
    for block in blocks:
        if block.language == "bash":
            lines += [block.text, f"echo '{MARK}'"]
        elif block.file:
            lines += [f"cat > {block.file} <<'END OF FILE'", f"{block.text}END OF FILE"]
    return "\n".join(lines)


def pattern(line: str) -> re.Pattern[str]:
    """What an expected line matches: `…` is anything, and the width of white space does not count."""
    words = [re.escape(word).replace("…", ".*") for word in line.split()]
    return re.compile(r"\s*".join(words))


def first_missing(expected: str, output: str) -> str | None:
    """The first expected line that is not in the output below the one before."""
    lines = iter(output.splitlines())
    for wanted in filter(str.strip, expected.splitlines()):
        if not any(pattern(wanted).search(line) for line in lines):
            return wanted
    return None


def overlay(folder: Path) -> Path:
    """A virtual environment on top of this one; its folder of commands."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    below = sysconfig.get_paths()["purelib"]
    (packages / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
    for module in ("rewardsvc", "pip"):
        command = folder / "bin" / module
        command.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {module} "$@"\n')
        command.chmod(0o755)
    return folder / "bin"


def environment(commands: Path, port: int) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("REWARDSVC_")}
    own |= {"PATH": f"{commands}:{os.environ['PATH']}", "REWARDSVC_PORT": str(port)}
    return own | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    told, port = blocks(), free_port()
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", "-c", script_of(told).replace(":8000", f":{port}")],
        cwd=work,
        env=environment(overlay(tmp_path / "venv"), port),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    outputs = iter(done.stdout.split(f"{MARK}\n"))
    output = ""
    for block in told:
        if block.language == "bash":
            output = next(outputs)
        elif block.language == "text":
            missing = first_missing(block.text, output)
            assert missing is None, f"the tutorial promises\n  {missing}\nbut what came out is\n{output}"


def test_a_missing_line_is_noticed() -> None:
    assert first_missing("a … c\nd  e\n", "x\na b c\nd e\n") is None
    assert first_missing("a\nb\n", "b\na\n") == "b"
