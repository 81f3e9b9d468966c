"""A warm process from which boxes are forked. It never runs a program itself, and holds no test.

It is started by a runner in the runner's control groups, moves into the small world of `rootfs` with all namespaces
new, becomes the first process there, and then opens one box at a time. A box is born in the control groups of the
template, because moving a process between them costs milliseconds. When the runner hangs up or dies, the template dies,
and the kernel kills whatever lives below it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import site
import socket
import sys
from typing import Any, NoReturn

from rewardsvc.sandbox import box, kernel, python_program, rootfs, wire


def main(descriptor: int, configuration: str) -> NoReturn:
    """Serves the runner at the other end of `descriptor`."""
    control = socket.socket(fileno=descriptor)
    try:
        if wire.receive(control) is not None:  # the runner has put this process into its control groups
            _serve(control, json.loads(configuration))
    except OSError as error:
        wire.send(control, {"broken": str(error)})
    finally:
        os._exit(1)


def _serve(control: socket.socket, configuration: dict[str, Any]) -> None:
    kernel.die_with_parent()
    _forget_signals()
    for name in configuration["modules"]:
        importlib.import_module(name)
    for define in (site.setquit, site.setcopyright, site.sethelper):
        define()
    _enter(control, configuration)
    code = bytes.fromhex(configuration["filter"])
    sys.path[:] = [path for path in sys.path if path != configuration["home"]]
    python_program.prepare()
    gc.collect()
    gc.freeze()
    wire.send(control, {"ready": True})
    while (message := wire.receive(control)) is not None:
        _open_box(control, socket.socket(fileno=message.descriptors[0]), message.fields, code)


def _forget_signals() -> None:
    """What the service ignores or blocks is none of a program's business."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _enter(control: socket.socket, configuration: dict[str, Any]) -> None:
    """Returns in the first process of new namespaces, in the small world, as a user without rights outside."""
    outside = configuration["user"]
    others = kernel.ALL_NAMESPACES & ~kernel.CLONE_NEWUSER
    if os.geteuid() == 0:
        kernel.unshare(kernel.CLONE_NEWNS)
        rootfs.build(configuration["place"], configuration["extra"])
        os.setgroups([])
        os.setresgid(outside, outside, outside)
        os.setresuid(outside, outside, outside)
        _continue_as_child(control, others | kernel.CLONE_NEWUSER)
        rootfs.map_user(rootfs.USER, outside)
    else:
        outside = os.geteuid()
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        rootfs.map_user(rootfs.USER, outside)
        rootfs.build(configuration["place"], configuration["extra"])
        _continue_as_child(control, others)
        kernel.set_dumpable(False)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def _continue_as_child(control: socket.socket, flags: int) -> None:
    """Returns in a child of this process's parent, which is told its process id; this process ends."""
    pid = kernel.fork_into(flags | kernel.CLONE_PARENT)
    if pid != 0:
        wire.send(control, {"pid": pid})
        os._exit(0)
    kernel.die_with_parent()


def _open_box(control: socket.socket, to_box: socket.socket, order: dict[str, Any], code: bytes) -> None:
    """Forks a box, tells the runner by which descriptor it can be killed, waits for its end and reports it.

    The end of a box is the end of the first process of its namespace, which the kernel reports after all others'.
    """
    pid = kernel.fork_into(kernel.ALL_NAMESPACES)
    if pid == 0:
        control.close()
        box.live(to_box, order, code)
    to_box.close()
    descriptor = os.pidfd_open(pid)
    wire.send(control, {"opened": pid}, [descriptor])
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    wire.send(control, {"gone": status})
