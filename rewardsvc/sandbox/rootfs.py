"""The small read-only world in which a template and its boxes live, and how a process gets into it.

Only system directories of programs and libraries are seen, never /etc, /home, /sys or /var as they are outside. As
root the mounts are made before the process gives up its identity; as another user, after it has a user namespace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rewardsvc.sandbox import kernel

USER = 1000
"""The only user and group in a box."""
WORK = "/work"
"""Where a program's files are."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_LINKER_CACHE = "/etc/ld.so.cache"
_ALTERNATIVES = "/etc/alternatives"
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/shm": "/tmp/.shm",
}
_FILES = {
    "/etc/passwd": f"box:x:{USER}:{USER}::/tmp:/bin/sh\n",
    "/etc/group": f"box:x:{USER}:\n",
    "/etc/hosts": "127.0.0.1 localhost box\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_DIRECTORIES = ("etc", "dev", "proc", "tmp", "work")
_SEALED = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV


def build(place: str, extra: Mapping[str, str]) -> None:
    """Mounts the world at `place`, an existing directory, and moves in. `extra` are more directories to show, by the
    path that they have there.

    This process has a mount namespace of its own and may mount in it. /proc is the old one, to be mounted over.
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", place, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for name in _DIRECTORIES:
        (Path(place) / name).mkdir()
    for path, source in {**{path: path for path in (*_SYSTEM, _ALTERNATIVES)}, **extra}.items():
        _show(source, path, place)
    _show_file(_LINKER_CACHE, place, _SEALED)
    for device in _DEVICES:
        _show_file(f"/dev/{device}", place, kernel.MS_NOSUID | kernel.MS_NOEXEC)
    for path, target in _LINKS.items():
        Path(place + path).symlink_to(target)
    for path, text in _FILES.items():
        Path(place + path).write_text(text)
    kernel.mount("/proc", f"{place}/proc", None, kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("none", place, None, kernel.MS_REMOUNT | kernel.MS_BIND | _SEALED)
    kernel.change_root(place)


def _show(source: str, path: str, place: str) -> None:
    target = Path(place + path)
    if Path(source).is_symlink() and path in _SYSTEM:
        target.symlink_to(Path(source).readlink())
    elif Path(source).is_dir():
        target.mkdir(parents=True, exist_ok=True)
        kernel.mount(source, str(target), None, kernel.MS_BIND | kernel.MS_REC)
        kernel.restrict_mount(str(target), _SEALED)


def _show_file(path: str, place: str, flags: int) -> None:
    if Path(path).exists():
        target = Path(place + path)
        target.touch()
        kernel.mount(path, str(target), None, kernel.MS_BIND)
        kernel.restrict_mount(str(target), flags)


def map_user(inside: int, outside: int) -> None:
    """Gives a process that is alone in a new user namespace its only user and group."""
    kernel.set_dumpable(True)  # the files below belong to root otherwise
    _tell("/proc/self/setgroups", "deny")
    _tell("/proc/self/uid_map", f"{inside} {outside} 1")
    _tell("/proc/self/gid_map", f"{inside} {outside} 1")
    kernel.set_dumpable(False)


def _tell(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
