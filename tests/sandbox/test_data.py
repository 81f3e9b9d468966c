"""What the sandbox knows as data, and what it makes of the machine: languages, the filter, groups, the probe."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rewardsvc.sandbox import cgroups, languages, probe, seccomp
from rewardsvc.sandbox.client import Supervisor

FILES = {path.stem: path for path in languages.files()}
POLICY = tomllib.loads((languages.data_directory() / "seccomp.toml").read_text())
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


@pytest.mark.parametrize("name", FILES)
def test_a_language_that_is_installed_passes_its_self_test(supervisor: Supervisor, name: str) -> None:
    offered = supervisor.offered()
    if name in offered.missing and "is not there" in offered.missing[name]:
        pytest.skip(f"{name}: {offered.missing[name]}")
    assert name in offered.languages, offered.missing[name]
    assert offered.find(name.upper()) == name


@pytest.mark.parametrize("name", FILES)
def test_every_language_file_is_complete(name: str) -> None:
    fields = tomllib.loads(FILES[name].read_text())
    assert fields["name"] == name and fields["packages"]
    assert set(fields["self_test"]) == {"source", "stdin", "stdout"}


def answer(code: bytes, number: int, arguments: tuple[int, ...] = (), architecture: int = 0xC000003E) -> int:
    """What a filter answers to a call: a small interpreter of the instructions that we use."""
    memory = {0: number, 4: architecture, **{16 + 8 * at: value for at, value in enumerate(arguments)}}
    accumulator = at = 0
    while True:
        operation, yes, no, operand = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        match operation:
            case 0x20:
                accumulator = memory.get(operand, 0)
            case 0x05:
                at += operand
            case 0x15:
                at += yes if accumulator == operand else no
            case 0x35:
                at += yes if accumulator >= operand else no
            case 0x45:
                at += yes if accumulator & operand else no
            case 0x06:
                return int(operand)


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filter_answers_every_call_as_the_policy_says(machine: str, architecture: int) -> None:
    code = seccomp.compile_filter(POLICY, machine)
    numbers: dict[str, int] = POLICY["numbers"][machine]
    named = {number: name for name, number in numbers.items()}
    for number in range(600):
        name = named.get(number)
        wanted = ENOSYS if name in (None, "clone3") else EPERM if name in POLICY["refuse"] else ALLOW
        given = (2, 0) if name == "socket" else (0, 0)
        assert answer(code, number, given, architecture) == wanted, (number, name)
    assert answer(code, numbers["read"], architecture=1) == KILL
    assert answer(code, 0x40000000 + numbers["read"], architecture=architecture) == ENOSYS


def test_the_filter_looks_at_arguments() -> None:
    code = seccomp.compile_filter(POLICY, "x86_64")
    assert answer(code, 56, (0x003D0F00,)) == ALLOW  # the flags of a thread
    assert all(answer(code, 56, (1 << bit,)) == EPERM for bit in (7, 17, 25, 26, 27, 28, 29, 30))
    assert all(answer(code, 41, (family,)) == ALLOW for family in (1, 2, 10))
    assert all(answer(code, 41, (family,)) not in (ALLOW, EPERM) for family in (0, 3, 16, 17, 38, 40))
    assert [answer(code, 16, (0, request)) for request in (0x5412, 0x541C, 0x5401)] == [EPERM, EPERM, ALLOW]


def unified(place: Path, **files: str) -> Path:
    """A directory with the files of a cgroup v2."""
    place.mkdir()
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)
    return place


def test_a_group_of_version_two_is_limited_and_counted(tmp_path: Path) -> None:
    """On files that look like the kernel's: version two of the controllers is not on every machine."""
    place = unified(
        tmp_path / "group",
        memory__max="max",
        memory__swap__max="max",
        memory__current="1000",
        memory__peak="5000",
        memory__stat="anon 10\nshmem 500\n",
        memory__events="low 0\nhigh 0\noom 2\noom_kill 3\noom_group_kill 0\n",
        pids__max="max",
        cpu__stat="usage_usec 123\nuser_usec 100\n",
    )
    group = cgroups.GroupV2([place])
    group.limit(1 << 20, 7)
    assert (place / "memory.max").read_text() == str((1 << 20) + 1_500)
    assert (place / "pids.max").read_text()[:1] == "7"
    assert (group.cpu_ns(), group.kills(), group.peak()) == (123_000, 3, 5_000)


def test_the_probe_tells_of_every_feature() -> None:
    found = probe.probe()
    assert {finding.what for finding in found} >= {"kernel", "user namespaces", "system call filter", "control groups"}
    assert all(finding.told for finding in found)


def test_a_missing_feature_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted", "unshare")

    monkeypatch.setattr("rewardsvc.sandbox.kernel.unshare", refuse)
    told = {finding.what: finding for finding in probe.probe()}
    assert not told["user namespaces"].there and "user.max_user_namespaces" in told["user namespaces"].told
    assert "language python" not in told
