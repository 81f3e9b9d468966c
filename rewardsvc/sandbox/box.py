"""A box: the first process of a submission's namespaces, and the first process of each test's namespaces.

Both are trusted: forked from the template, they run no program. The box keeps the submission's files in a memory file
system and starts tests on the runner's word; each test gets process, mount and ipc namespaces, a /tmp and a /proc of
its own, and ends with them. Neither ever holds a test's input: that travels in descriptors.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import time
from typing import Any, NoReturn

from rewardsvc.sandbox import kernel, program, rootfs, wire

_TEST_NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC
_TMPFS = kernel.MS_NOSUID | kernel.MS_NODEV
_PROC = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_REPORT = struct.Struct("<idqd")
"""Wait status, processor seconds, peak memory of the largest process in KiB, wall seconds."""
_COPY = 1 << 24
_INTERFACE_UP, _SET_INTERFACE_FLAGS = 1, 0x8914

Spec = dict[str, Any]


def live(control: socket.socket, order: Spec, code: bytes) -> NoReturn:
    """The life of a box, until the runner hangs up."""
    try:
        _furnish(order)
        while (message := wire.receive(control)) is not None:
            _obey(control, message, code)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            wire.send(control, {"broken": f"box: {error}"})
    finally:
        os._exit(0)


def _furnish(order: Spec) -> None:
    rootfs.map_user(rootfs.USER, rootfs.USER)
    program.remember_proc()
    options = f"size={order['work_mb']}m,mode=755,nr_inodes={order['files']}"
    kernel.mount("tmpfs", rootfs.WORK, "tmpfs", _TMPFS, options)
    socket.sethostname("box")
    _raise_loopback()
    kernel.bound_capabilities()


def _raise_loopback() -> None:
    """Programs that talk to themselves over 127.0.0.1 may; there is no other interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SET_INTERFACE_FLAGS, struct.pack("16sH14x", b"lo", _INTERFACE_UP))


def _obey(control: socket.socket, message: wire.Message, code: bytes) -> None:
    fields, descriptors = message
    match fields["do"]:
        case "put":
            _put(fields["name"], fields["mode"], descriptors[0])
            wire.close(descriptors)
        case "take":
            _take(control, fields["name"])
        case "run":
            _run(control, fields, descriptors, code)
        case _:  # the word to kill a test that had already ended
            pass


def _put(name: str, mode: int, source: int) -> None:
    target = os.open(f"{rootfs.WORK}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        offset = 0
        while count := os.sendfile(target, source, offset, _COPY):
            offset += count
    finally:
        os.close(target)


def _take(control: socket.socket, name: str) -> None:
    """Sends the descriptor of a plain file that the compiler has left, or none."""
    try:
        found = os.open(f"{rootfs.WORK}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        wire.send(control, {"taken": False})
        return
    wire.send(control, {"taken": True}, [found])
    os.close(found)


def _run(control: socket.socket, spec: Spec, descriptors: list[int], code: bytes) -> None:
    """Starts a test, waits for its end or for the word to kill it, and reports."""
    report, reporter = os.pipe()
    pid = kernel.fork_into(_TEST_NAMESPACES)
    if pid == 0:
        control.close()
        os.close(report)
        _live_test(spec, descriptors, reporter, code)
    wire.close([*descriptors, reporter])
    _wait_or_kill(control, pid, report)
    _, status, usage = os.wait4(pid, 0)
    told = os.read(report, 4096)
    os.close(report)
    wire.send(control, _ending(told, status, usage))


def _wait_or_kill(control: socket.socket, pid: int, report: int) -> None:
    """Returns when the first process of the test is about to end, with everything below it."""
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(control, select.POLLIN)
    ready = dict(poll.poll())
    if report not in ready:
        message = wire.receive(control)
        os.kill(pid, signal.SIGKILL)
        if message is None:
            os._exit(0)


def _ending(told: bytes, status: int, usage: resource.struct_rusage) -> Spec:
    if told[:1] == b"E":
        status, cpu, peak, wall = _REPORT.unpack(told[1:])
        return {"ended": status, "cpu": cpu, "peak_kb": peak, "wall": wall}
    if told:
        return {"broken": told[1:].partition(b"\n")[0].decode(errors="replace")}
    return {"ended": status, "cpu": usage.ru_utime + usage.ru_stime, "peak_kb": usage.ru_maxrss, "wall": None}


def _live_test(spec: Spec, descriptors: list[int], reporter: int, code: bytes) -> NoReturn:
    """The life of the first process of a test: it starts the program, waits for it, kills the rest and reports."""
    try:
        _furnish_test(spec)
        start = time.monotonic()
        pid = kernel.fork()
        if pid == 0:
            program.start(spec, descriptors, reporter, code)
        wire.close(descriptors)
        status = _wait_for(pid)
        wall = time.monotonic() - start
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = usage.ru_utime + usage.ru_stime
        os.write(reporter, b"E" + _REPORT.pack(status, cpu, usage.ru_maxrss, wall))
    except OSError as error:
        os.write(reporter, f"Ftest: {error}".encode())
    finally:
        os._exit(0)


def _furnish_test(spec: Spec) -> None:
    size, files = spec["disk_mb"], spec["files"]
    kernel.mount("tmpfs", "/tmp", "tmpfs", _TMPFS, f"size={size}m,mode=755,nr_inodes={files}")
    os.mkdir("/tmp/.shm")  # noqa: PTH102 pathlib costs a twentieth of a test here
    kernel.mount("proc", "/proc", "proc", _PROC)
    if not spec["may_write_work"]:
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | _TMPFS | kernel.MS_RDONLY
        kernel.mount("none", rootfs.WORK, None, flags)


def _wait_for(program_pid: int) -> int:
    """The wait status of the program. What it leaves behind is killed and reaped, so that its time is counted."""
    while True:
        pid, status = os.wait4(-1, 0)[:2]
        if pid == program_pid:
            break
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait4(-1, 0)
    return status
