"""Languages are data: one file each in `sandboxes/languages`. This module reads them and finds what is installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent
_COMMANDS = ("command", "header_command")
_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
SEARCH_PATH = ":".join(_PATH)
HOME = str(_PACKAGE.parent)
"""From where the sandbox's processes import this package."""


def data_directory() -> Path:
    """`sandboxes/`: beside the package in a clone, inside it in a wheel."""
    beside = _PACKAGE.parent / "sandboxes"
    return beside if beside.is_dir() else _PACKAGE / "sandboxes"


class NotInstalled(Exception):
    """The language cannot be offered; the message says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """How a source becomes `leaves`, the files that a run needs."""

    command: list[str]
    leaves: list[str]
    version: list[str] = field(default_factory=list)
    cpu_ms: int = 20_000
    memory_mb: int = 1_024
    disk_mb: int = 256
    header: str = ""
    """A header that is compiled once, ahead of all sources that include it first."""
    header_command: list[str] = field(default_factory=list)
    """Makes header.gch of header.hpp, with the options of `command`."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language as its file tells it. Commands begin with a program that is looked for in `SEARCH_PATH`."""

    name: str
    file: str
    packages: str
    """Debian packages that bring it."""
    run: list[str]
    """`@memory` stands for the limit of memory, in MB."""
    runtime: str = "command"
    """"python": run by the warm template itself."""
    compiler: Compiler | None = None
    aliases: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    """What a warm template has imported."""
    environment: Mapping[str, str] = field(default_factory=dict)
    time_factor: float = 1.0
    more_memory_mb: int = 0
    """What the language's runtime needs by itself."""
    more_processes: int = 0
    bounds_address_space: bool = True
    """Whether a limit on addresses may stand in for one on memory, where there are no control groups."""
    shows: list[str] = field(default_factory=list)
    """Directories outside /usr that it reads, configuration for the most part."""
    self_test: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Changes with the compiler and its options, so that a cached binary is used only where it belongs."""
        if self.compiler is None or not self.compiler.version:
            return self.name
        told = subprocess.run(self.compiler.version, capture_output=True, check=False, env={"PATH": SEARCH_PATH})
        return hashlib.sha256(repr((self.name, self.compiler.command, told.stdout)).encode()).hexdigest()


def read(path: Path) -> Language:
    """Raises OSError, `tomllib.TOMLDecodeError`, TypeError for an unknown field, and `NotInstalled`."""
    fields: dict[str, Any] = tomllib.loads(path.read_text())
    compiler = fields.pop("compile", None)
    packages = fields["packages"]
    if compiler is not None:
        commands = {name: _found(compiler[name], packages) for name in _COMMANDS if name in compiler}
        fields["compiler"] = Compiler(**{**compiler, **commands})
    fields["run"] = _found(fields["run"], packages) if fields.get("run") else []
    return Language(**fields)


def _found(command: list[str], packages: str) -> list[str]:
    program = command[0]
    if program.startswith("/work/"):
        return command
    for directory in _PATH:
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return [path, *command[1:]]
    raise NotInstalled(f"{program} is not there; apt-get install {packages}")


def files() -> Iterator[Path]:
    """The file of every language that we know."""
    return iter(sorted((data_directory() / "languages").glob("*.toml")))
