"""The last steps before a program runs: descriptors, limits, no rights, the filter. After them nothing is trusted."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import struct
import time
from typing import Any, NoReturn

from rewardsvc.sandbox import kernel, python_program, rootfs

_HIGH = 100
_MB = 1 << 20
_TMPFS = kernel.MS_NOSUID | kernel.MS_NODEV
_PROC = _TMPFS | kernel.MS_NOEXEC | kernel.MS_RDONLY
STARTED = struct.Struct("<dd")
"""What the program's process says of itself before it is the program: processor seconds so far, and the time."""
_proc: list[int] = []
"""A descriptor of the /proc that the box's first process sees, in which files can be written."""

Spec = dict[str, Any]


def start(spec: Spec, descriptors: list[int], reporter: int, code: bytes) -> NoReturn:
    """Becomes the program. A fault of ours on the way is told to `reporter`."""
    try:
        _furnish(spec)
        _be_first_to_go()
        reporter = _place(descriptors, reporter)
        _confine(spec, code)
        os.write(reporter, STARTED.pack(time.process_time(), time.monotonic()))
        if spec["argv"]:
            os.execve(spec["argv"][0], spec["argv"], spec["env"])
        os.close(reporter)
    except (OSError, ValueError) as error:
        os.write(reporter, f"Fprogram: {error}\n".encode())
        os._exit(127)
    python_program.run(spec)


def _furnish(spec: Spec) -> None:
    """A /tmp and a /proc of the test's own, and its submission's files to read."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
    options = f"size={spec['disk_mb']}m,mode=755,nr_inodes={spec['files']}"
    kernel.mount("tmpfs", "/tmp", "tmpfs", _TMPFS, options)
    os.mkdir("/tmp/.shm")  # noqa: PTH102 pathlib costs a twentieth of a test here
    kernel.mount("proc", "/proc", "proc", _PROC)
    if not spec["may_write_work"]:
        kernel.mount("none", rootfs.WORK, None, _TMPFS | kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)


def remember_proc() -> None:
    """To be called in a process that will start programs, while it sees the /proc of the template."""
    _proc[:] = [os.open("/proc", os.O_PATH | os.O_DIRECTORY)]


def _place(descriptors: list[int], reporter: int) -> int:
    """Moves `descriptors` to 0, 1, 2 … and `reporter` behind them, where it ends with an exec; closes all others."""
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for descriptor in (*descriptors, reporter)]
    for target, descriptor in enumerate(moved):
        os.dup2(descriptor, target, inheritable=target < len(descriptors))
    kernel.close_from(len(moved))
    return len(descriptors)


def _confine(spec: Spec, code: bytes) -> None:
    os.setsid()
    os.chdir(spec["cwd"])
    _limit(resource.RLIMIT_CPU, spec["cpu_seconds"])
    _limit(resource.RLIMIT_NPROC, spec["processes"])
    if spec["address_space_mb"]:
        _limit(resource.RLIMIT_AS, spec["address_space_mb"] * _MB)
    if spec["argv"]:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
    kernel.unblock_signals()
    kernel.drop_capabilities()
    kernel.filter_calls(code)


def _limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, value))


def _be_first_to_go() -> None:
    """When memory runs out the program is killed, not the processes that watch it. Its own /proc is read-only."""
    kernel.set_dumpable(True)  # or its own files in /proc, /dev/stdin among them, were not its own
    descriptor = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=_proc[0])
    os.write(descriptor, b"1000")
    os.close(descriptor)


def limit_files_and_stack(order: Spec) -> None:
    """Limits that are no burden to the box itself, set once in it: its programs inherit them."""
    os.umask(0o022)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    _limit(resource.RLIMIT_NOFILE, order["open_files"])
    _limit(resource.RLIMIT_STACK, order["stack_mb"] * _MB)
