"""Our own processes die in the middle of things: nothing is lost, nothing is made up, nothing stays."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from rewardsvc.sandbox.client import Refused, Report, SandboxFault, Supervisor
from rewardsvc.sandbox.job import Job, Limits
from tests.sandbox.conftest import below

SLOW = Job("python", b"import time\ntime.sleep(0.15)\nprint(input())", [b"%d\n" % n for n in range(8)])


@pytest.fixture
def own() -> Supervisor:
    """A supervisor to kill."""
    with Supervisor(runners=2, only=["python"]) as started:
        started.offered()
        yield started


def in_background(supervisor: Supervisor, job: Job) -> tuple[threading.Thread, list[Report | Exception]]:
    """Starts a job in a thread; its report, or the exception, will be in the list."""
    found: list[Report | Exception] = []

    def work() -> None:
        try:
            found.append(supervisor.run(job))
        except SandboxFault as fault:
            found.append(fault)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def expected(report: Report | Exception) -> bool:
    """Whether every run has its own output."""
    return isinstance(report, Report) and [e and e.stdout for e in report.runs] == [b"%d\n" % n for n in range(8)]


@pytest.mark.parametrize("victim", ["supervisor", "runner", "template"])
def test_killing_one_of_ours_in_the_middle_loses_nothing(own: Supervisor, victim: str) -> None:
    thread, found = in_background(own, SLOW)
    time.sleep(0.4)
    os.kill(_victim(own.offered().pid, victim), signal.SIGKILL)
    thread.join(30)
    assert found and (expected(found[0]) or (victim == "template" and isinstance(found[0], SandboxFault)))
    assert expected(own.run(SLOW))


def _victim(supervisor: int, kind: str) -> int:
    """The runner is the child that is busy, the template its first child."""
    if kind == "supervisor":
        return supervisor
    runners = [pid for pid in below(supervisor) if _parent(pid) == supervisor]
    busy = max(runners, key=lambda pid: len(below(pid)))
    return busy if kind == "runner" else next(pid for pid in below(busy) if _parent(pid) == busy)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_nothing_lives_on_when_the_supervisor_is_killed(own: Supervisor) -> None:
    thread, found = in_background(own, SLOW)
    time.sleep(0.3)
    pid = own.offered().pid
    family = below(pid)
    assert len(family) >= 4
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 2
    while time.monotonic() < end and any(_alive(member) for member in family):
        time.sleep(0.01)
    assert not [member for member in family if _alive(member)]
    thread.join(30)
    assert expected(found[0])


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_closing_leaves_no_process_no_group_and_no_file() -> None:
    supervisor = Supervisor(runners=1, only=["python"])
    pid = supervisor.offered().pid
    supervisor.run(Job("python", b"print(1)", [b""]))
    family = {pid, *below(pid)}
    supervisor.close()
    assert not [member for member in family if _alive(member)]
    assert not supervisor.directory.exists()
    assert not list(Path("/sys/fs/cgroup").rglob(f"rewardsvc-{pid}"))


def test_a_job_that_nobody_waits_for_is_stopped(own: Supervisor) -> None:
    events = own.stream(
        Job("python", b"print(input(), flush=True)\nwhile True: pass", [b"a", b"b"], limits=Limits(60_000))
    )
    assert next(events)[0] == "compiled"
    events.close()
    began = time.monotonic()
    assert own.run(Job("python", b"print(1)", [b""])).runs[0] is not None
    time.sleep(0.2)
    assert sum(_parent(pid) != 0 and _busy(pid) for pid in below(own.offered().pid)) == 0
    assert time.monotonic() - began < 5


def _busy(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:
        return False


def test_a_full_queue_refuses_at_once() -> None:
    with Supervisor(runners=1, queue=1, only=["python"]) as supervisor:
        supervisor.offered()
        jobs = [in_background(supervisor, SLOW) for _ in range(5)]
        for thread, _ in jobs:
            thread.join(60)
        reports = [found[0] for _, found in jobs]
    assert sum(isinstance(report, Refused) for report in reports) >= 2
    assert all(isinstance(report, Refused) or expected(report) for report in reports)


def test_processes_share_one_supervisor(own: Supervisor) -> None:
    pid = own.offered().pid
    child = os.fork()
    if child == 0:
        os._exit(0 if own.offered().pid == pid and expected(own.run(SLOW)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert expected(own.run(SLOW))
