"""What the tests of the sandbox share: a supervisor with two runners, and a short way to run one program once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rewardsvc.sandbox.client import Report, SandboxFault, Supervisor
from rewardsvc.sandbox.job import Ended, Job, Limits

# The sandbox is not offered yet: until the reward `code` is registered, `make test-boxes` runs what needs real boxes.
collect_ignore = (
    []
    if os.environ.get("REWARDSVC_TEST_BOXES")
    else [
        "test_calls.py",
        "test_containment.py",
        "test_data.py",
        "test_faults.py",
        "test_limits.py",
        "test_programs.py",
    ]
)

RunOnce = Callable[..., Ended]


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """Skips, with the reason, where programs cannot be isolated."""
    with Supervisor(runners=2) as started:
        try:
            offered = started.offered()
        except SandboxFault as fault:
            pytest.skip(f"no sandbox here: {fault}")
        if "python" not in offered.languages:
            pytest.skip(f"no sandbox here: {offered.missing.get('python')}")
        yield started


@pytest.fixture
def run(supervisor: Supervisor) -> RunOnce:
    """Runs a program once and returns its end."""

    def run_once(source: str, standard_input: bytes = b"", language: str = "python", **limits: int) -> Ended:
        report = run_all(supervisor, source, [standard_input], language, **limits)
        assert report.compiled is None or report.compiled.well, report.compiled
        ended = report.runs[0]
        assert ended is not None
        return ended

    return run_once


def run_all(
    supervisor: Supervisor, source: str, inputs: list[bytes], language: str = "python", **limits: int
) -> Report:
    """Runs a program on every input. Skips where the language is not installed."""
    offered = supervisor.offered()
    if language not in offered.languages:
        pytest.skip(f"{language}: {offered.missing.get(language)}")
    return supervisor.run(Job(language, source.encode(), runs=inputs, limits=Limits(**limits)))


def needs_cgroups(supervisor: Supervisor) -> None:
    """Skips where nothing bounds all processes of a box together."""
    offered = supervisor.offered()
    if offered.isolation != "strong":
        pytest.skip(offered.reason)


def below(pid: int) -> set[int]:
    """All descendants of a process."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        try:
            tasks = list(Path(f"/proc/{waiting.pop()}/task").iterdir())
            children = {int(child) for task in tasks for child in (task / "children").read_text().split()}
        except OSError:
            continue
        waiting.extend(children - found)
        found |= children
    return found
