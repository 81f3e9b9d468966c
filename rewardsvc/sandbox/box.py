"""A box: the first process of a submission's namespaces. It is trusted: forked from the template, it runs no program.

It keeps the submission's files in a memory file system and starts tests on the runner's word. Each test gets process,
mount and ipc namespaces, a /tmp and a /proc of its own, and ends with them: its program is a fork of the box, and the
first process of its namespace is an idle one, which costs little and is killed when the program has ended. The box
never holds a test's input: that travels in descriptors.
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

_TMPFS = kernel.MS_NOSUID | kernel.MS_NODEV
_own_processes: list[int] = []
"""A descriptor of the box's own process namespace."""
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
    _own_processes[:] = [os.open("/proc/self/ns/pid", os.O_RDONLY)]
    program.limit_files_and_stack(order)
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
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
    kernel.unshare(kernel.CLONE_NEWPID)
    first = _first_process()
    pid = kernel.fork()
    if pid == 0:
        program.start(spec, descriptors, reporter, code)
    kernel.enter(_own_processes[0], kernel.CLONE_NEWPID)
    wire.close([*descriptors, reporter])
    _wait_or_kill(control, pid, first)
    _, status, usage = os.wait4(pid, 0)
    end = time.monotonic()
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    told = os.read(report, 4096)
    os.close(report)
    wire.send(control, _ending(told, status, usage, end))


def _first_process() -> int:
    """The first process of the test's namespace, with which all others die. It adopts orphans, and forgets them."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    first = kernel.idle()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return first


def _wait_or_kill(control: socket.socket, pid: int, first: int) -> None:
    """Returns when the program has ended; on the runner's word it is killed, with all that it has started."""
    program_end = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(program_end, select.POLLIN)
    poll.register(control, select.POLLIN)
    ready = dict(poll.poll())
    os.close(program_end)
    if control.fileno() in ready and wire.receive(control) is None:
        os._exit(0)
    if control.fileno() in ready:
        os.kill(first, signal.SIGKILL)


def _ending(told: bytes, status: int, usage: resource.struct_rusage, end: float) -> Spec:
    """What a test used is counted from the moment at which the program itself began."""
    if len(told) != program.STARTED.size:
        return {"broken": told.partition(b"\n")[0].decode(errors="replace") or "a program was killed before it began"}
    cpu_before, began = program.STARTED.unpack(told)
    cpu = max(0.0, usage.ru_utime + usage.ru_stime - cpu_before)
    return {"ended": status, "cpu": cpu, "peak_kb": usage.ru_maxrss, "wall": end - began}
