"""`doctor`: what this machine has of what the service needs, and how to get the rest.

A probe is one row of `PROBES`: a small function that returns what it found and raises `Missing` saying how to get it.
A reward or an executor that needs more of a machine adds a row.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import resource
import shutil
import sys
import textwrap
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import typer

from rewardsvc.cli.terminal import FAILED, console

_PR_GET_CHILD_SUBREAPER = 37
_ENOUGH_FILES = 4096
_ENOUGH_MB = 512
_INDENT, _SHORTEST_LINE = 32, 30


class Missing(Exception):
    """It is not there; the message says how to get it."""


class Probe(NamedTuple):
    """One thing to look for. `needed_for` is what does not work without it; None: nothing does."""

    what: str
    look: Callable[[], str]
    needed_for: str | None = None


def doctor() -> None:
    """Check this machine: what is there, what is missing, how to get it. Exit code 1 when the service cannot run."""
    missing = [probe for probe in (*PROBES, *sandbox_probes()) if not _shown(probe)]
    if any(probe.needed_for is None for probe in missing):
        raise typer.Exit(FAILED)


def _shown(probe: Probe) -> bool:
    try:
        found, mark, colour = probe.look(), "ok", "green"
    except Missing as missing:
        purpose = f"needed for {probe.needed_for}; " if probe.needed_for else ""
        found, mark, colour = f"{purpose}{missing}", "missing", "yellow" if probe.needed_for else "red"
    typer.echo(f"{typer.style(f'{mark:8}', fg=colour)} {probe.what:22} {_wrapped(found)}")
    return mark == "ok"


def _wrapped(found: str) -> str:
    """On as many lines as the terminal needs, below each other; commands and addresses stay whole."""
    room = max(console().width - _INDENT, _SHORTEST_LINE)
    lines = textwrap.wrap(found, room, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * _INDENT}".join(lines)


def _python() -> str:
    return platform.python_version()


def _settings() -> str:
    from pydantic import ValidationError

    from rewardsvc.errors import SettingsFault
    from rewardsvc.settings import Settings, refuse_misspelt, unread_variables

    try:
        refuse_misspelt(os.environ)
        Settings().refuse_if_exposed()
    except SettingsFault as fault:
        raise Missing(str(fault).replace("\n", " ")) from None
    except ValidationError:
        raise Missing("one is wrong; `rewardsvc config` says which") from None
    unread = ", ".join(unread_variables(os.environ))
    return f"valid; nothing reads {unread}" if unread else "valid"


def _kernel() -> str:
    if sys.platform != "linux":
        raise Missing("the executors need Linux; use the container image")
    return platform.release()


def _pidfd() -> str:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        raise Missing(f"pidfd_open: {error}; Linux 5.3 or newer, and a seccomp profile that allows it") from None
    return "watches workers"


def _memfd() -> str:
    try:
        os.close(os.memfd_create("rewardsvc-doctor"))
    except (AttributeError, OSError) as error:
        raise Missing(f"memfd_create: {error}; Linux 3.17 or newer, and a seccomp profile that allows it") from None
    return "shares a cell with each worker"


def _subreaper() -> str:
    answer = ctypes.c_int()
    if ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0):
        raise Missing("prctl is not allowed; use a seccomp profile that allows it")
    return "adopts what workers leave behind"


def _proc() -> str:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.exists():
        raise Missing(f"{children} is not there; mount /proc, on a kernel with CONFIG_PROC_CHILDREN")
    return "finds it"


def _open_files() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _ENOUGH_FILES:
        raise Missing(f"at most {hard} open files; raise it with `ulimit -Hn {_ENOUGH_FILES}` or LimitNOFILE=")
    return "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"


def _memory() -> str:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    if total < _ENOUGH_MB:
        raise Missing(f"{total:,} MB in all; {_ENOUGH_MB} MB and more are better")
    return f"{free:,} of {total:,} MB free"


def _processors() -> str:
    return f"{len(os.sched_getaffinity(0))} usable"


def _installed(module: str, wheel: str, extra: str) -> Callable[[], str]:
    """A probe for an optional library."""

    def look() -> str:
        if importlib.util.find_spec(module) is None:
            raise Missing(f"pip install 'rewardsvc[{extra}]'")
        return f"{wheel} {metadata.version(wheel)}"

    return look


def sandbox_probes() -> list[Probe]:
    """What untrusted programs need. Nothing else does, so that no part of it is essential to the service."""
    if sys.platform != "linux":
        return []
    from rewardsvc.sandbox.probe import probe

    return [Probe(found.what, _told(found.there, found.told), "running programs") for found in probe()]


def _told(there: bool, text: str) -> Callable[[], str]:
    def look() -> str:
        if not there:
            raise Missing(text)
        return text

    return look


def _docker() -> str:
    found = shutil.which("docker")
    if found is None:
        raise Missing("https://docs.docker.com/engine/install")
    return found


PROBES = (
    Probe("Python", _python),
    Probe("settings", _settings),
    Probe("Linux", _kernel),
    Probe("pidfd_open", _pidfd),
    Probe("memfd_create", _memfd),
    Probe("prctl subreaper", _subreaper),
    Probe("/proc children", _proc),
    Probe("open files", _open_files, "thousands of connections at once"),
    Probe("memory", _memory, "more than a few workers"),
    Probe("processors", _processors),
    Probe("math-verify", _installed("math_verify", "math-verify", "math"), "the reward math"),
    Probe("OpenTelemetry", _installed("opentelemetry", "opentelemetry-sdk", "otel"), "traces"),
    Probe("docker", _docker, "`docker compose up`, not for the service itself"),
)
