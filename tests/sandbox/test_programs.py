"""Honest programs: what they write, how they end and what they use comes back exactly."""

from __future__ import annotations

import hashlib

import pytest

from rewardsvc.sandbox.client import Compiled, Supervisor
from tests.sandbox.conftest import RunOnce, run_all

DOUBLE = {
    "python": "print(int(input()) * 2)",
    "c": '#include <stdio.h>\nint main(void) { int a; scanf("%d", &a); printf("%d\\n", a * 2); }',
    "cpp": "#include <bits/stdc++.h>\nint main() { int a; std::cin >> a; std::cout << a * 2 << std::endl; }",
    "bash": "read a; echo $((a * 2))",
}


@pytest.mark.parametrize("language", DOUBLE)
def test_every_run_of_a_program_gets_its_own_input(supervisor: Supervisor, language: str) -> None:
    report = run_all(supervisor, DOUBLE[language], [b"1\n", b"20\n", b"-3\n"], language, cpu_ms=4_000)
    assert [ended.stdout for ended in report.runs if ended] == [b"2\n", b"40\n", b"-6\n"]
    assert all(ended and ended.well for ended in report.runs)


@pytest.mark.parametrize("language", ["python", "c", "cpp"])
def test_a_source_is_compiled_once(supervisor: Supervisor, language: str) -> None:
    source = DOUBLE[language] + "\n" * 7
    first, second = (run_all(supervisor, source, [b"4\n"], language, cpu_ms=4_000).compiled for _ in range(2))
    assert isinstance(first, Compiled) and not first.cached and first.ended is not None
    assert second == Compiled(well=True, cached=True, ended=None)


@pytest.mark.parametrize(
    ("language", "source", "told"),
    [("python", "def f(:", b"SyntaxError"), ("c", "int main({", b"error"), ("cpp", "int main() { return x; }", b"'x'")],
)
def test_a_source_that_does_not_compile_is_not_run(
    supervisor: Supervisor, language: str, source: str, told: bytes
) -> None:
    report = run_all(supervisor, source, [b""], language)
    assert report.compiled is not None and not report.compiled.well
    assert report.compiled.ended is not None and told.replace(b"'", b"") in report.compiled.ended.stderr
    assert report.runs == [None]


@pytest.mark.parametrize(
    ("source", "exit_code"),
    [
        ("", 0),
        ("exit(3)", 3),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit('no')", 1),
        ("raise SystemExit(256 + 7)", 7),
        ("import os; os._exit(9)", 9),
        ("1 / 0", 1),
        ("import atexit; atexit.register(print, 'end'); exit(4)", 4),
        ("import os; os.execv('/bin/sh', ['sh', '-c', 'exit 5'])", 5),
    ],
)
def test_exit_codes_are_those_of_the_interpreter(run: RunOnce, source: str, exit_code: int) -> None:
    ended = run(source)
    assert (ended.outcome, ended.exit_code, ended.signal) == ("exited", exit_code, None)


@pytest.mark.parametrize(
    ("source", "language", "signal"),
    [
        ("import os; os.abort()", "python", 6),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "python", 15),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "python", 9),
        ("int main(void) { *(volatile int *)0 = 1; }", "c", 11),
        ("int main(int n, char **v) { volatile int x = 0; return n / x; }", "c", 8),
    ],
)
def test_signals_are_told(run: RunOnce, source: str, language: str, signal: int) -> None:
    ended = run(source, language=language)
    assert (ended.outcome, ended.exit_code, ended.signal) == ("signalled", None, signal)


def test_a_traceback_shows_only_the_program(run: RunOnce) -> None:
    told = run("def f():\n    return 1 / 0\n\nf()\n").stderr.decode()
    assert told.splitlines()[1] == '  File "/work/main.py", line 4, in <module>'
    assert told.endswith("ZeroDivisionError: division by zero\n")
    assert "return 1 / 0" in told


def test_large_and_binary_data_pass_unchanged(run: RunOnce) -> None:
    data = hashlib.shake_256(b"seed").digest(1 << 20) * 50
    copy = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    ended = run(copy, data, cpu_ms=8_000, memory_mb=512)
    assert ended.well and ended.stdout == data and ended.stdout_bytes == len(data)


def test_output_just_over_a_pipe_is_whole(run: RunOnce) -> None:
    assert run("print('x' * 300_000)").stdout == b"x" * 300_000 + b"\n"


def test_output_of_children_that_outlive_the_program_is_not_waited_for(run: RunOnce) -> None:
    ended = run("import os, time\nprint('a', flush=True)\nif os.fork() == 0:\n    time.sleep(60)\n")
    assert ended.well and ended.stdout == b"a\n" and ended.wall_ms < 1_000


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("import sys; print(sys.argv, __name__, __file__)", "['/work/main.py'] __main__ /work/main.py"),
        ("import os; print(os.getcwd(), os.getuid(), os.path.exists('/etc/shadow'))", "/tmp 1000 False"),
        ("print(open(0).read(), end='')", "given"),
        ("print(open('/dev/stdin').read(), end='')", "given"),
        ("import sys; print(sys.stdin.buffer.read().decode(), end='')", "given"),
        ("import sys; print(sys.stdin.readline(), end='')", "given"),
        ("import threading\nt = threading.Thread(target=print, args=('t',))\nt.start()", "t"),
        ("import asyncio\nasync def main():\n    print('a')\nasyncio.run(main())", "a"),
        ("import multiprocessing as m\nif __name__ == '__main__':\n    print(m.Pool(2).map(abs, [-1]))", "[1]"),
        ("import subprocess; subprocess.run(['echo', 'sub'])", "sub"),
        ("import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(10**5))", "100000"),
        ("import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'abc'))", "3"),
        ("open('a', 'w').write('x'); print(open('a').read())", "x"),
        ("import dataclasses, pickle, inspect, decimal, socket, ctypes, sqlite3; print(1)", "1"),
        ("import sys; print([m for m in sys.modules if m.startswith('rewardsvc')])", "[]"),
        ("import socket; a, b = socket.socketpair(); a.send(b'z'); print(b.recv(1))", "b'z'"),
        (
            "import socket\ns = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(s.getsockname())\n"
            "print(1)",
            "1",
        ),
        ("import random; print(0 <= random.random() < 1)", "True"),
        ("print(hash('a') == hash('a'), 'é')", "True é"),
        ("import os; print(sorted(os.environ))", "['HOME', 'LANG', 'PATH', 'PYTHONHASHSEED']"),
    ],
)
def test_python_behaves_as_python_does(run: RunOnce, source: str, output: str) -> None:
    ended = run(source, b"given", cpu_ms=4_000)
    assert (ended.stdout.decode().rstrip("\n"), ended.well) == (output, True), ended.stderr


def test_the_recursion_limit_is_that_of_a_fresh_interpreter(run: RunOnce) -> None:
    source = "def f(n):\n    try:\n        return f(n + 1)\n    except RecursionError:\n        return n\nprint(f(1))"
    assert 985 <= int(run(source).stdout) <= 1_000


def test_processor_time_and_memory_are_counted(run: RunOnce) -> None:
    busy = run("import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass")
    assert 290 <= busy.cpu_ms <= 400
    idle = run("import time; time.sleep(0.3)")
    assert idle.cpu_ms < 100 and idle.wall_ms >= 300
    large = run("x = bytearray(100 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1")
    assert 100 << 10 <= large.memory_kb <= 140 << 10


def test_time_of_children_is_counted(run: RunOnce) -> None:
    child = "import os, time\nif os.fork() == 0:\n    while time.process_time() < 0.3: pass\n    os._exit(0)\n"
    assert run(child + "os.wait()").cpu_ms >= 290
