"""A program over a limit is ended, and told by the name of that limit."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from rewardsvc.sandbox.client import Supervisor
from tests.sandbox.conftest import RunOnce, needs_cgroups, run_all


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import signal\nfor n in range(1, 64):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except: pass\nwhile 1: pass",
        "import threading\nfor _ in range(3): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
        "import os\nfor _ in range(3): os.fork()\nwhile True: pass",
        "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile os.fork(): pass\nwhile 1: pass",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
        "(9**9**7) % 7",
    ],
)
def test_processor_time(run: RunOnce, source: str) -> None:
    began = time.monotonic()
    ended = run(source, cpu_ms=300)
    assert ended.outcome == "time_limit" and ended.cpu_ms >= 300
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "source",
    [
        "import time; time.sleep(60)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "input(); import threading; threading.Event().wait()",
        "import os; r, w = os.pipe(); os.read(r, 1)",
    ],
)
def test_wall_time_ends_what_uses_no_processor(run: RunOnce, source: str) -> None:
    ended = run(source, b"\n", cpu_ms=100, wall_ms=300)
    assert ended.outcome == "wall_limit" and 300 <= ended.wall_ms < 1_500


@pytest.mark.parametrize(
    "source",
    [
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "open('/dev/shm/a', 'wb').write(bytes(60 << 20)); x = b'1' * (60 << 20); print(len(x))",
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        x = b'1' * (40 << 20); time.sleep(1); os._exit(0)\n"
        "time.sleep(0.5)",
    ],
)
def test_memory_is_that_of_all_processes_and_files_together(supervisor: Supervisor, run: RunOnce, source: str) -> None:
    needs_cgroups(supervisor)
    assert run(source, memory_mb=96, cpu_ms=4_000).outcome == "memory_limit"


def test_output(run: RunOnce) -> None:
    ended = run("while True: print('x' * 1000)", stdout_kb=100)
    assert ended.outcome == "output_limit" and len(ended.stdout) == 100 << 10


def test_stderr_is_cut_and_ends_nothing(run: RunOnce) -> None:
    ended = run("import sys\nsys.stderr.write('x' * 1_000_000)\nprint('done')", stderr_kb=1)
    assert ended.well and ended.stdout == b"done\n"
    assert ended.stderr == b"x" * 1024 and ended.stderr_bytes == 1_000_000


def test_disk(run: RunOnce) -> None:
    ended = run(
        "f = open('big', 'wb', 0)\nn = 0\ntry:\n    while True: n += f.write(bytes(1 << 20))\n"
        "except OSError as e: print(e.errno, n >> 20)",
        disk_mb=8,
    )
    assert ended.stdout.split()[0] == b"28" and 7 <= int(ended.stdout.split()[1]) <= 8


def test_processes(run: RunOnce) -> None:
    source = (
        "import os, time\nn = 0\ntry:\n    while os.fork(): n += 1\n    time.sleep(9)\n"
        "except OSError as e: print(n < 20, e.errno)"
    )
    assert run(source, processes=16, cpu_ms=2_000).stdout == b"True 11\n"


def test_the_deadline_of_a_job_leaves_the_rest_unrun(supervisor: Supervisor) -> None:
    from rewardsvc.sandbox.job import Job

    deadline = time.monotonic_ns() + 300_000_000
    report = supervisor.run(Job("python", b"import time; time.sleep(0.2)", [b""] * 20, deadline_ns=deadline))
    assert report.runs[0] is not None and report.runs[-1] is None


def test_a_limit_of_one_run_does_not_touch_the_next(supervisor: Supervisor) -> None:
    report = run_all(
        supervisor, "if input() == 'loop':\n    while True: pass\nprint(1)", [b"a", b"loop", b"b"], cpu_ms=200
    )
    assert [ended.outcome for ended in report.runs if ended] == ["exited", "time_limit", "exited"]


def test_a_busy_machine_changes_no_outcome(supervisor: Supervisor, run: RunOnce) -> None:
    """With four times as many busy processes as cores, late is still not idle, and idle is still idle."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * len(os.sched_getaffinity(0)))
    ]
    try:
        busy = "import time\nwhile time.process_time() < 0.4: pass\nprint('done')"
        ended = run(busy, cpu_ms=1_000, wall_ms=500)
        assert (ended.outcome, ended.stdout) == ("exited", b"done\n") and ended.cpu_ms < 600
        assert run("import time; time.sleep(9)", cpu_ms=1_000, wall_ms=500).outcome == "wall_limit"
        assert run("while True: pass", cpu_ms=300, wall_ms=500).outcome == "time_limit"
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_a_large_binary_is_no_memory_of_the_program(supervisor: Supervisor) -> None:
    source = "char a[100 << 20] = {1};\nint main(void) { return 0; }"
    report = run_all(supervisor, source, [b""], "c", memory_mb=64, cpu_ms=4_000)
    assert report.compiled is not None
    assert not report.compiled.well or (report.runs[0] is not None and report.runs[0].outcome == "exited")
