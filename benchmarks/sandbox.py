"""The bars of the sandbox: what a submission, a test, a call and a compilation cost.

Every line has the figure, and the bar that it is held against. CPU time is that of everything below the supervisor,
read from its control group (0 where there is none); compare within one run, as wall time measures the neighbours.

    .venv/bin/python benchmarks/sandbox.py
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rewardsvc.sandbox import plain
from rewardsvc.sandbox.client import Report, Supervisor
from rewardsvc.sandbox.job import Job, Limits

PYTHON = b"n = int(input())\nprint(n * 2)\n"
CPP = """#include <bits/stdc++.h>
using namespace std;
int main() {{
    map<string, vector<int>> m; int n; cin >> n;
    for (int i = 0; i < n; i++) m[to_string(i * {0} % 17)].push_back(i);
    long long s = 0; for (auto& [k, v] : m) s += accumulate(v.begin(), v.end(), 0LL);
    sort(m["1"].begin(), m["1"].end(), greater<int>()); cout << s << endl;
}}
"""
TESTS = [b"%d\n" % number for number in range(10)]


def cpu(pid: int) -> float:
    """CPU seconds of everything in the supervisor's control groups since they were made."""
    for usage in Path("/sys/fs/cgroup").rglob(f"rewardsvc-{pid}/cpuacct.usage"):
        return int(usage.read_text()) / 1e9
    for stat in Path("/sys/fs/cgroup").rglob(f"rewardsvc-{pid}/cpu.stat"):
        return int(stat.read_text().split()[1]) / 1e6
    return 0.0


def measure(supervisor: Supervisor, job: Callable[[int], Job], count: int) -> tuple[float, float, Report]:
    """Median wall and mean CPU milliseconds of a job, done `count` times one after the other; the last report."""
    pid, walls = supervisor.offered().pid, []
    before = cpu(pid)
    for number in range(count):
        began = time.perf_counter()
        report = supervisor.run(job(number))
        walls.append((time.perf_counter() - began) * 1e3)
    return statistics.median(walls), (cpu(pid) - before) / count * 1e3, report


def at_once(supervisor: Supervisor, jobs: list[Job], threads: int) -> float:
    """Wall seconds for all jobs."""
    waiting = list(jobs)

    def work() -> None:
        while waiting:
            supervisor.run(waiting.pop())

    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def show(what: str, figure: str, bar: str) -> None:
    print(f"{what:58} {figure:32} {bar}")


def python_runs(supervisor: Supervisor) -> None:
    wall, used, report = measure(supervisor, lambda _: Job("python", PYTHON, TESTS), 30)
    assert [ended and ended.stdout for ended in report.runs] == [b"%d\n" % (2 * number) for number in range(10)]
    show("python, 10 tests, fresh box", f"p50 {wall:.1f} ms, CPU {used:.1f} ms", "p50 ≤ 30 ms (over HTTP)")
    wall, used, report = measure(supervisor, lambda _: Job("python", PYTHON, TESTS * 5), 10)
    show("python, 50 tests: one test", f"{wall / 50:.2f} ms, CPU {used / 50:.2f} ms", "")
    group = [Job("python", PYTHON + b"#%d" % number, TESTS) for number in range(64)]
    before = cpu(supervisor.offered().pid)
    seconds = at_once(supervisor, group, 8)
    used = cpu(supervisor.offered().pid) - before
    show("python, group of 64 × 10 tests", f"{seconds:.2f} s, CPU {used:.2f} s", "≤ 1.0 s (over HTTP)")
    show("    submissions", f"{64 / seconds:.0f}/s", "≥ 70/s")
    show("    tests, each with namespaces and /tmp of its own", f"{640 / seconds:.0f}/s", "≥ 500/s")


def calls(supervisor: Supervisor) -> None:
    count = 100_000
    lines = [plain.encode_call("f", [number, 2]) for number in range(count)]
    job = Job("python", b"def f(a, b): return a + b", calls=lines, limits=Limits(cpu_ms=20_000))
    before, began = cpu(supervisor.offered().pid) + time.process_time(), time.perf_counter()
    report = supervisor.run(job)
    results = [plain.decode(line) if isinstance(line, bytes) else None for line in report.calls]
    seconds, used = time.perf_counter() - began, cpu(supervisor.offered().pid) + time.process_time() - before
    assert results == [number + 2 for number in range(count)]
    show("calls, decoded outside", f"{count / seconds:,.0f}/s, {count / used:,.0f} per CPU s", "≥ 50,000/s/core")


def cpp(supervisor: Supervisor) -> None:
    if "cpp" not in supervisor.offered().languages:
        return show("C++", supervisor.offered().missing.get("cpp", ""), "")
    while not list(Path(supervisor.offered().precompiled).glob("*/bits/*.gch")):
        time.sleep(0.1)
    wall, used, _ = measure(supervisor, lambda n: Job("cpp", CPP.format(n + 3).encode(), TESTS), 5)
    show("C++ with bits/stdc++.h, 10 tests, cold", f"p50 {wall:.0f} ms, CPU {used:.0f} ms", "CPU ≤ 650 ms")
    wall, used, _ = measure(supervisor, lambda _: Job("cpp", CPP.format(3).encode(), TESTS), 10)
    show("    from the cache", f"p50 {wall:.1f} ms, CPU {used:.1f} ms", "≤ 25 ms")
    return None


def gone(supervisor: Supervisor) -> None:
    bomb = b"import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    limits = Limits(cpu_ms=300, wall_ms=900)
    slowest = max(supervisor.run(Job("python", bomb, [b""], limits=limits)).gone_ms for _ in range(5))
    show("fork bomb: until all processes are gone", f"{slowest:.0f} ms", "≤ 250 ms")


def main() -> None:
    with Supervisor() as supervisor:
        print(f"isolation {supervisor.offered().isolation}, load {Path('/proc/loadavg').read_text().split()[0]}\n")
        for part in (python_runs, calls, cpp, gone):
            part(supervisor)


if __name__ == "__main__":
    main()
