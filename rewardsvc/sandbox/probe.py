"""What of the sandbox's needs this machine has: one line for each, with the way to get what is missing.

Every feature is really used, in a child that ends at once, because settings and versions tell only half: a container's
own filter, an apparmor profile or a masked /proc forbid what the kernel could do.
"""

from __future__ import annotations

import os
import platform
import tempfile
import tomllib
from collections.abc import Callable
from typing import NamedTuple

from rewardsvc.sandbox import cgroups, kernel, languages, rootfs, seccomp
from rewardsvc.sandbox.client import SandboxFault, Supervisor

_CONTAINER = "in a container: --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
_USER_NAMESPACES = (
    "sysctl user.max_user_namespaces=10000, and where they exist kernel.unprivileged_userns_clone=1 and "
    f"kernel.apparmor_restrict_unprivileged_userns=0; {_CONTAINER}"
)
_PROC = "something of /proc is masked; in a container: --security-opt systempaths=unconfined"
_NAMES = {
    kernel.CLONE_NEWNS: "mount",
    kernel.CLONE_NEWPID: "pid",
    kernel.CLONE_NEWNET: "net",
    kernel.CLONE_NEWIPC: "ipc",
    kernel.CLONE_NEWUTS: "uts",
    kernel.CLONE_NEWCGROUP: "cgroup",
}


class Finding(NamedTuple):
    """`told` is what was found, or what is missing and how to get it. Without an `essential` one no program is run."""

    what: str
    there: bool
    told: str
    essential: bool = True


class _Missing(Exception):
    """The message says what is missing and how to get it."""


def probe() -> list[Finding]:
    """Looks at everything. Takes a second, as it starts a supervisor; changes nothing that stays."""
    found = [_find(what, look) for what, look in _FEATURES]
    groups = _find("control groups", _control_groups)._replace(essential=False)
    return [*found, groups, *(_languages() if all(finding.there for finding in found) else [])]


def _find(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except _Missing as missing:
        return Finding(what, False, str(missing))


def _in_child(work: Callable[[], None], hint: str) -> None:
    """Does `work` in a child of its own. Raises `_Missing` with what went wrong there and `hint`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except OSError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read().decode(errors="replace")
    status = os.waitpid(pid, 0)[1]
    if told or status:
        raise _Missing(f"{told or 'it was killed'}; {hint}")


def _machine() -> str:
    if kernel.MACHINE not in ("x86_64", "aarch64"):
        raise _Missing(f"{kernel.MACHINE}: there is a filter for x86_64 and aarch64 only; use the docker backend")
    return kernel.MACHINE


def _kernel() -> str:
    release = platform.release()
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < (5, 12):
        raise _Missing(f"Linux {release}: 5.12 or newer is needed, for mount_setattr")
    return release


def _enter_user_namespace() -> None:
    """As a template does it, so that what it could do can be tried."""
    outside = os.geteuid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    rootfs.map_user(rootfs.USER, outside)


def _user_namespace() -> str:
    _in_child(_enter_user_namespace, _USER_NAMESPACES)
    return "can be made" + ("" if os.geteuid() == 0 else ", without root")


def _namespaces() -> str:
    def work() -> None:
        _enter_user_namespace()
        for flag in _NAMES:
            kernel.unshare(flag)

    _in_child(work, _CONTAINER)
    return ", ".join(_NAMES.values())


def _world() -> str:
    with tempfile.TemporaryDirectory() as place:

        def work() -> None:
            if os.geteuid() != 0:
                _enter_user_namespace()
            kernel.unshare(kernel.CLONE_NEWNS)
            rootfs.build(place, {})

        _in_child(work, _CONTAINER)
    return "a small read-only root, with pivot_root"


def _proc() -> str:
    def work() -> None:
        _enter_user_namespace()
        pid = kernel.fork_into(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
        if pid == 0:
            try:
                kernel.mount("proc", "/proc", "proc")
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1]:
            raise OSError("a /proc of its own cannot be mounted")

    _in_child(work, _PROC)
    return "can be mounted anew"


def _filter() -> str:
    def work() -> None:
        if os.geteuid() != 0:
            _enter_user_namespace()
        kernel.bound_capabilities()
        kernel.drop_capabilities()
        policy = tomllib.loads((languages.data_directory() / "seccomp.toml").read_text())
        kernel.filter_calls(seccomp.compile_filter(policy, kernel.MACHINE))
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
        except PermissionError:
            return
        raise OSError("the filter does not filter")

    _in_child(work, f"a kernel with CONFIG_SECCOMP_FILTER; {_CONTAINER}")
    return "filters"


def _control_groups() -> str:
    try:
        nursery = cgroups.Nursery()
    except cgroups.Unwritable as fault:
        raise _Missing(f"isolation is strong-no-cgroup: {fault}") from None
    nursery.remove()
    return "memory, processes and processor time of a box are bounded together"


_FEATURES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("machine", _machine),
    ("kernel", _kernel),
    ("user namespaces", _user_namespace),
    ("other namespaces", _namespaces),
    ("a root of its own", _world),
    ("a /proc of its own", _proc),
    ("system call filter", _filter),
)


def _languages() -> list[Finding]:
    """Every language that we know, after its self-test in a real box."""
    try:
        with Supervisor(runners=1) as supervisor:
            offered = supervisor.offered()
    except SandboxFault as fault:
        return [Finding("boxes", False, str(fault))]
    there = [Finding(f"language {name}", True, f"isolation {offered.isolation}") for name in offered.languages]
    missing = [Finding(f"language {name}", False, told, essential=False) for name, told in offered.missing.items()]
    return [*there, *missing]
