"""Hostile programs: each gets nothing that it should not have, and leaves nothing behind.

An attack prints `contained` when it was kept out, or is ended by a limit. Whatever it does, the program after it runs
as if nothing had been.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rewardsvc.sandbox.client import Supervisor
from rewardsvc.sandbox.job import Job, Limits
from tests.sandbox.conftest import RunOnce, below, run_all

TRY = """
import os, sys, socket, signal, ctypes, time, subprocess, mmap
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what):
    try:
        result = what()
    except (OSError, PermissionError, ValueError) as error:
        return
    if not (isinstance(result, int) and result < 0):
        print("reached", repr(result)[:200]); sys.exit(1)
"""

REFUSED = {
    "a user namespace": "attempt(lambda: libc.unshare(0x10000000))",
    "a mount namespace": "attempt(lambda: libc.unshare(0x00020000))",
    "a clone into a user namespace": "attempt(lambda: libc.syscall(56, 0x10000011, 0, 0, 0, 0))",
    "clone3": "attempt(lambda: libc.syscall(435, 0, 0))",
    "joining a namespace": "attempt(lambda: libc.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY), 0))",
    "mount": "attempt(lambda: libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None))",
    "umount": "attempt(lambda: libc.umount2(b'/proc', 2))",
    "remounting the work directory": "attempt(lambda: libc.mount(None, b'/work', None, 32, None))",
    "chroot": "attempt(lambda: os.chroot('/tmp'))",
    "ptrace": "attempt(lambda: libc.ptrace(16, 1, 0, 0))",
    "memory of the first process": "attempt(lambda: open('/proc/1/mem', 'rb').read(1))",
    "environment of the first process": "attempt(lambda: open('/proc/1/environ', 'rb').read())",
    "descriptors of the first process": "attempt(lambda: os.listdir('/proc/1/fd'))",
    "the root of the first process": "attempt(lambda: os.listdir('/proc/1/root/'))",
    "reading another process's memory": "attempt(lambda: libc.process_vm_readv(1, 0, 0, 0, 0, 0))",
    "io_uring": "attempt(lambda: libc.syscall(425, 1, 0))",
    "bpf": "attempt(lambda: libc.syscall(321, 0, 0, 0))",
    "keyrings": "attempt(lambda: libc.syscall(250, 0, -3, 0, 0, 0))",
    "userfaultfd": "attempt(lambda: libc.syscall(323, 0))",
    "perf events": "attempt(lambda: libc.syscall(298, 0, 0, -1, -1, 0))",
    "file handles": "attempt(lambda: libc.syscall(304, 0, 0, 0))",
    "another machine's system calls": "attempt(lambda: libc.syscall(0x40000000 + 39))",
    "the host's name": "attempt(lambda: socket.sethostname('x'))",
    "raw sockets": "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno())",
    "packet sockets": "attempt(lambda: socket.socket(17, socket.SOCK_RAW).fileno())",
    "netlink": "attempt(lambda: socket.socket(16, socket.SOCK_RAW).fileno())",
    "vsock": "attempt(lambda: socket.socket(40, socket.SOCK_STREAM).fileno())",
    "the network": "attempt(lambda: socket.create_connection(('1.1.1.1', 53), 2).fileno())",
    "names on the network": "attempt(lambda: socket.gethostbyname('example.com'))",
    "shadow": "attempt(lambda: open('/etc/shadow').read())",
    "home directories": "attempt(lambda: os.listdir('/home'))",
    "sysfs": "attempt(lambda: os.listdir('/sys'))",
    "cgroups": "attempt(lambda: os.listdir('/sys/fs/cgroup'))",
    "the disk": "attempt(lambda: os.mknod('/tmp/d', 0o60660, os.makedev(254, 0)))",
    "kernel memory": "attempt(lambda: open('/proc/kcore', 'rb').read(1))",
    "sysrq": "attempt(lambda: open('/proc/sysrq-trigger', 'w').write('b'))",
    "kernel settings": "attempt(lambda: open('/proc/sys/kernel/core_pattern', 'w').write('x'))",
    "its own order of going": "attempt(lambda: open('/proc/self/oom_score_adj', 'w').write('-1000'))",
    "writing beside its source": "attempt(lambda: open('/work/sitecustomize.py', 'w').write('x'))",
    "changing its source": "attempt(lambda: open('/work/main.py', 'w').write('x'))",
    "poisoning the library": "attempt(lambda: open(os.path.dirname(os.__file__) + '/re.pth', 'w').write('x'))",
    "writing to the root": "attempt(lambda: os.mkdir('/x'))",
    "another user": "attempt(lambda: os.setuid(0))",
    "a set-user-id program": (
        "import shutil\nshutil.copy('/bin/true', '/tmp/t'); os.chmod('/tmp/t', 0o4755)\n"
        "attempt(lambda: -1 if os.geteuid() == 1000 else os.geteuid())"
    ),
    "a symlink out": "os.symlink('/proc/1/root/etc/shadow', '/tmp/l'); attempt(lambda: open('/tmp/l').read())",
    "real-time priority": "attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))",
    "a higher priority": "attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))",
    "higher limits": "import resource; attempt(lambda: resource.setrlimit(resource.RLIMIT_CPU, (-1, -1)))",
    "any other descriptor": (
        "[os.close(f) for f in ()]\n"
        "attempt(lambda: -1 if {int(f) for f in os.listdir('/proc/self/fd')} <= {0, 1, 2, 3} else 1)"
    ),
    "other processes": "attempt(lambda: -1 if [p for p in os.listdir('/proc') if p.isdigit()] == ['1', '2'] else 1)",
    "capabilities": (
        "attempt(lambda: -1 if all(int(l.split()[1], 16) == 0 for l in open('/proc/self/status')"
        " if l.startswith('Cap')) else 1)"
    ),
    "secrets in the environment": "attempt(lambda: -1 if len(os.environ) == 4 else 1)",
    "traces of the supervisor": (
        "import gc\nleft = [o for o in gc.get_objects() if isinstance(o, socket.socket)]\n"
        "[attempt(lambda: os.fstat(o.fileno()).st_mode) for o in left if o.fileno() > 3]"
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_program_does_not_reach(run: RunOnce, what: str) -> None:
    ended = run(TRY + REFUSED[what] + "\nprint('contained')", cpu_ms=4_000)
    assert ended.stdout == b"contained\n", (ended.stdout, ended.stderr)


MISCHIEF = {
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "a fork bomb in a shell": "import os; os.system(':(){ :|:& };:')",
    "a thread bomb": (
        "import threading, time\nwhile True:\n"
        "    try: threading.Thread(target=time.sleep, args=(99,)).start()\n"
        "    except RuntimeError: pass"
    ),
    "a memory bomb": "x = []\nwhile True: x.append(bytearray(1 << 22))",
    "a memory bomb of children": (
        "import os\nfor _ in range(30):\n    if os.fork() == 0:\n"
        "        x = b'1' * (80 << 20)\n"
        "        while True: pass\nos.wait()"
    ),
    "a daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        time.sleep(99)\n    os._exit(0)"
    ),
    "killing everybody": "import os\nos.kill(-1, 9)",
    "killing the parent": "import os\nfor s in (9, 19, 15, 6): os.kill(os.getppid(), s)\nos.kill(1, 9)",
    "stopping everybody": "import os, time\nos.kill(-1, 19); os.kill(os.getppid(), 19); time.sleep(99)",
    "endless output": "while True: print('x' * 4096)",
    "a gigabyte of output": "import os\nfor _ in range(1024): os.write(1, bytes(1 << 20))",
    "endless errors": "import os\nwhile True: os.write(2, bytes(4096))",
    "a full disk": "f = open('/tmp/f', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "a million files": "n = 0\nwhile True:\n    n += 1\n    open(f'/tmp/{n}', 'w').close()",
    "deep directories": "import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')",
    "a fifo that nobody writes": "import os\nos.mkfifo('/tmp/f'); open('/tmp/f')",
    "all descriptors": "import os\nk = []\nwhile True: k.append(os.dup(1))",
    "shared memory": "import mmap\nk = []\nwhile True: k.append(mmap.mmap(-1, 1 << 24)); k[-1].write(bytes(1 << 24))",
    "memory files": "import os\nwhile True: os.write(os.memfd_create('x'), bytes(1 << 24))",
    "a pipe held open": "import os, time\nif os.fork() == 0: time.sleep(99)\nos._exit(0)",
    "closing its streams": "import os, time\nos.close(0); os.close(1); os.close(2); time.sleep(99)",
    "recursion without end": "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(): f()\nf()",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "ignoring everything": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except: pass\n"
        "while True: pass"
    ),
    "a file as large as can be": "f = open('/tmp/f', 'wb'); f.truncate(1 << 40); f.seek(1 << 39); f.write(b'x')",
    "many sockets": "import socket\nk = []\nwhile True: k.append(socket.socketpair())",
    "message queues": "import ctypes\nl = ctypes.CDLL(None)\nwhile l.msgget(0, 0o1600) >= 0: pass",
    "locks on what is shared": "import fcntl, os, time\nfcntl.flock(os.open(os.__file__, 0), 2); time.sleep(99)",
    "an ever new session": "import os\nwhile True:\n    if os.fork() == 0: os.setsid()",
    "a vfork that never returns": "import subprocess\nwhile True: subprocess.Popen(['/bin/sleep', '99'])",
}
LIMITS = {"cpu_ms": 600, "wall_ms": 1_200, "memory_mb": 128, "stdout_kb": 1_024, "disk_mb": 16}


@pytest.mark.parametrize("what", MISCHIEF)
def test_mischief_ends_and_the_next_program_does_not_notice(supervisor: Supervisor, what: str) -> None:
    report = run_all(supervisor, MISCHIEF[what], [b""], **LIMITS)
    assert report.gone_ms < 250
    assert report.runs[0] is not None and report.runs[0].outcome != "sandbox_error"
    honest = run_all(supervisor, "import os\nprint(input(), os.listdir('/tmp'))", [b"next\n"])
    assert honest.runs[0] is not None and honest.runs[0].stdout == b"next ['.shm']\n"


COMPILE_TIME = {
    "including a secret": '#include "/etc/shadow"\nint main(void) {}',
    "including without end": '#include "main.c"\nint main(void) {}',
    "including a device": '#include "/dev/zero"\nint main(void) {}',
    "a huge array": "char a[1ull << 40] = {1}; int main(void) {}",
    "macros that double": (
        "#define A(x) x x x x x x x x x x\n#define B(x) A(A(A(x)))\nint a[] = { B(B(B(1,))) };\nint main(void) {}"
    ),
    "an assembler that reads": '__asm__(".incbin \\"/proc/1/environ\\""); int main(void) {}',
}


@pytest.mark.parametrize("what", COMPILE_TIME)
def test_attacks_at_compile_time_do_not_compile(supervisor: Supervisor, what: str) -> None:
    report = run_all(supervisor, COMPILE_TIME[what], [b""], "c")
    assert report.compiled is not None and not report.compiled.well
    assert report.gone_ms < 250


def test_nothing_passes_from_one_run_to_the_next(supervisor: Supervisor) -> None:
    source = (
        "import os\nprint(os.path.exists('/tmp/a'), os.path.exists('/dev/shm/a'))\n"
        "open('/tmp/a', 'w'); open('/dev/shm/a', 'w')\nimport ctypes\n"
        "l = ctypes.CDLL(None)\nprint(l.shmget(77, 64, 0o600) >= 0, l.shmget(77, 64, 0o1600) >= 0)"
    )
    report = run_all(supervisor, source, [b"", b""])
    assert [ended.stdout for ended in report.runs if ended] == [b"False False\nFalse True\n"] * 2


def test_inputs_of_other_runs_are_nowhere_in_memory(supervisor: Supervisor) -> None:
    """The words are put together in the program, so that its own text does not hold what it looks for."""
    source = (
        "import re\nword = b'needle-' + b'in-the-hay'\nfound = 0\n"
        "for line in open('/proc/self/maps'):\n    if ' r' not in line or '[v' in line: continue\n"
        "    low, high = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "    with open('/proc/self/mem', 'rb') as memory:\n"
        "        try: memory.seek(low); data = memory.read(high - low)\n"
        "        except OSError: continue\n        found += len(re.findall(word + b'[0-9]{8}', data))\nprint(found)"
    )
    inputs = [b"needle-in-the-hay%08d" % number for number in range(4)]
    report = run_all(supervisor, source, inputs, cpu_ms=8_000, memory_mb=512)
    assert [ended.stdout for ended in report.runs if ended] == [b"0\n"] * 4


def test_many_mixed_attacks_leave_nothing(supervisor: Supervisor) -> None:
    """Processes, mounts and descriptors after many attacks are what they were before."""
    run_all(supervisor, "print(1)", [b""])
    pid = supervisor.offered().pid
    before = len(below(pid))
    mounts = Path("/proc/self/mountinfo").read_text()
    limits = Limits(cpu_ms=60, wall_ms=120, memory_mb=64, stdout_kb=64)
    for number in range(60):
        source = list(MISCHIEF.values())[number % len(MISCHIEF)]
        supervisor.run(Job("python", source.encode(), [b""], limits=limits))
    time.sleep(0.1)
    assert len(below(pid)) <= before + 2
    assert Path("/proc/self/mountinfo").read_text() == mounts
