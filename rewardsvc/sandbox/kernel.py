"""The calls to Linux that the standard library does not offer: namespaces, mounts, capabilities, filters.

Every function raises OSError with what was tried. x86_64 and aarch64, kernel 5.12 or newer.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000
ALL_NAMESPACES = (
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 24, 28, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION = 0x20080522
_NO_ROOT_LOCKED = 0b11_11_11_11 & ~(1 << 4)
"""NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE and all their locks, without KEEP_CAPS."""
_CALLS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "capset": 126, "mount_setattr": 442, "close_range": 436},
    "aarch64": {"clone": 220, "pivot_root": 41, "capset": 91, "mount_setattr": 442, "close_range": 436},
}
MACHINE = platform.machine()

# PyDLL keeps the interpreter's lock: a process that comes out of a bare clone must hold it.
_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_numbers = {name: ctypes.c_long(number) for name, number in _CALLS.get(MACHINE, {}).items()}
_own_capabilities = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
_no_capabilities = (ctypes.c_uint32 * 6)()
_SIG_SETMASK = 2
_no_signals = ctypes.create_string_buffer(128)
_STACK_BYTES = 65_536
_CLONE_VM = 0x100
_idle_stack = ctypes.create_string_buffer(_STACK_BYTES)
_pause = ctypes.cast(_libc.pause, ctypes.c_void_p)
_zero = ctypes.c_long(0)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _SocketFilter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def _check(result: int, tried: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), tried)
    return result


def fork_into(flags: int) -> int:
    """`os.fork` into new namespaces (`CLONE_NEW…`): 0 in the child, its process id in the parent.

    Neither the interpreter nor the C library runs its hooks: they are for processes with threads, and cost more than
    the fork. The child starts no thread, and no program runs in it.
    """
    pid: int = _syscall(_numbers["clone"], ctypes.c_long(flags | signal.SIGCHLD), _zero, _zero, _zero, _zero)
    return _check(pid, "clone into namespaces")


def fork() -> int:
    """`os.fork` without the interpreter's hooks, for a process without threads. `random` is not seeded anew."""
    return _check(_libc.fork(), "fork")


def idle() -> int:
    """A process that sleeps until it is killed. It lives in this process's memory, on a stack of its own.

    There may be one at a time. It takes over what this process does with signals.
    """
    top = ctypes.c_void_p(ctypes.addressof(_idle_stack) + _STACK_BYTES)
    pid: int = _libc.clone(_pause, top, _CLONE_VM | signal.SIGCHLD, None)
    return _check(pid, "clone an idle process")


def enter(namespace: int, kind: int) -> None:
    """Has the children of this process born in the namespace behind a descriptor; `kind` is `CLONE_NEWPID`."""
    _check(_libc.setns(namespace, kind), "setns")


def unshare(flags: int) -> None:
    """Moves this process into namespaces of its own."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2)."""
    told = options and options.encode()
    result = _libc.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), told)
    _check(result, target)


def restrict_mount(target: str, flags: int) -> None:
    """Adds `MS_RDONLY`, `MS_NOSUID`, `MS_NODEV`, `MS_NOEXEC` to a mount and to all below it."""
    attributes = _MountAttributes(attr_set=flags)
    result = _syscall(
        _numbers["mount_setattr"],
        ctypes.c_long(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_long(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_long(ctypes.sizeof(attributes)),
    )
    _check(result, f"restrict the mount {target}")


def change_root(root: str) -> None:
    """Makes `root`, a mount point, the root of this mount namespace, and detaches the old one."""
    os.chdir(root)
    here = ctypes.c_char_p(b".")
    _check(_syscall(_numbers["pivot_root"], here, here), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "detach the old root")
    os.chdir("/")


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with the parent")


def set_dumpable(yes: bool) -> None:
    """A process that is not dumpable cannot be looked into through /proc, nor traced."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, int(yes), 0, 0, 0), "set dumpable")


def bound_capabilities() -> None:
    """No program that this process starts can ever gain a capability."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    _check(_libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT_LOCKED, 0, 0, 0), "lock the secure bits")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")


def drop_capabilities() -> None:
    """Gives every capability up, for good."""
    _check(_syscall(_numbers["capset"], _own_capabilities, _no_capabilities), "drop capabilities")


def filter_calls(code: bytes) -> None:
    """Installs a seccomp filter: classic BPF, eight bytes per instruction. Needs `bound_capabilities` before."""
    program = _SocketFilter(len(code) // 8, code)
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "install the filter")


def unblock_signals() -> None:
    """As `signal.pthread_sigmask` does, which makes an object of every signal that was blocked."""
    _check(_libc.sigprocmask(_SIG_SETMASK, _no_signals, None), "unblock signals")


def close_from(first: int) -> None:
    """Closes every descriptor from `first` on."""
    last = ctypes.c_ulong(0xFFFFFFFF)
    _check(_syscall(_numbers["close_range"], ctypes.c_ulong(first), last, _zero), "close descriptors")
