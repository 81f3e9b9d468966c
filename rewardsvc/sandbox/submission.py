"""One job on a runner: compile once, then every run or call in a box of its own, results sent as they come."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rewardsvc.sandbox import rootfs, wire
from rewardsvc.sandbox.boxes import Box, Template
from rewardsvc.sandbox.cgroups import Meter
from rewardsvc.sandbox.job import Ended, Isolation, Parcel
from rewardsvc.sandbox.languages import SEARCH_PATH, Compiler, Language
from rewardsvc.sandbox.returning import Lines
from rewardsvc.sandbox.store import Store, publish
from rewardsvc.sandbox.watching import Stream, Watch

_MB, _KB = 1 << 20, 1 << 10
_FILES = 16_384
_OPEN_FILES = 256
_OWN_PROCESSES = 4
"""The template, the box, a test's first process, and one to spare."""
_COMPILE_OUTPUT_KB = 64
_CODE = "main.code"
ENVIRONMENT = {"PATH": SEARCH_PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
_PYTHON_COMPILER = Compiler(command=[], leaves=[_CODE], cpu_ms=10_000, memory_mb=512)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a runner works with."""

    meter: Meter
    isolation: Isolation
    store: Store
    precompiled: Path
    """Headers that were compiled ahead, in a directory for each fingerprint; the boxes see it as /precompiled."""


class Submission:
    """The job of one client. `run` is called once."""

    def __init__(
        self, bench: Bench, language: Language, fingerprint: str, parcel: Parcel, client: socket.socket
    ) -> None:
        self._bench, self._language, self._parcel, self._client = bench, language, parcel, client
        self._fingerprint = fingerprint
        self._limits = parcel.limits
        self._file = f"{rootfs.WORK}/{language.file}"
        self._box: Box

    def run(self, template: Template, work: Callable[[], None]) -> None:
        """Does `work`, `make_results` or `make_header`, in a new box, and tells the client when the box is gone.

        Raises `Abandoned`, `Broken`, OSError.
        """
        meter = self._bench.meter
        order = {
            "work_mb": self._compiler.disk_mb if self._compiler else 64,
            "files": _FILES,
            "open_files": _OPEN_FILES,
            "stack_mb": self._limits.stack_mb,
        }
        with Box(template, order, meter.admit) as box:
            self._box = box
            meter.watch(box.pid)
            work()
            closing = time.monotonic()
        gone_ms = (time.monotonic() - closing) * 1e3
        self._tell({"done": True, "isolation": self._bench.isolation, "gone_ms": round(gone_ms, 2)})

    @property
    def _compiler(self) -> Compiler | None:
        return _PYTHON_COMPILER if self._language.runtime == "python" else self._language.compiler

    @property
    def _processes(self) -> int:
        return self._limits.processes + self._language.more_processes

    def _tell(self, fields: dict[str, Any], raw: bytes = b"") -> None:
        wire.send_frame(self._client, fields, raw)

    def _bound(self, memory_mb: int, processes: int) -> None:
        self._bench.meter.limit(memory_mb * _MB, processes + _OWN_PROCESSES)

    def make_results(self) -> None:
        """Compiles, and does the runs or calls."""
        if self._compiled():
            self._bound(self._limits.memory_mb + self._language.more_memory_mb, self._processes)
            self._run_all()

    # compiling

    def make_header(self) -> None:
        """Compiles the language's big header ahead, where later compilations will find it."""
        compiler = self._language.compiler
        if compiler is None or not compiler.header:
            return
        target = self._bench.precompiled / self._fingerprint / f"{compiler.header}.gch"
        if target.exists():
            return
        self._put("header.hpp", f"#include <{compiler.header}>\n".encode())
        self._bound(compiler.memory_mb, 64)
        streams = [Stream(_MB), Stream(_COMPILE_OUTPUT_KB * _KB, drops=True)]
        spec = {**self._compile_spec(compiler), "argv": compiler.header_command}
        ended = self._watch(compiler.cpu_ms, 5 * compiler.cpu_ms).run(spec, [_nothing()], streams)
        descriptor = self._box.take("header.gch") if ended.well else None
        if descriptor is not None:
            with os.fdopen(descriptor, "rb") as file:
                publish(file, target)

    def _compiled(self) -> bool:
        """Whether the box now holds all that a run needs."""
        source = self._parcel.source()
        self._put(self._language.file, source)
        if self._compiler is None:
            return True
        key = hashlib.sha256(self._fingerprint.encode() + b"\0" + source).hexdigest()
        leaves = self._bench.store.get(key)
        if leaves is None:
            return self._compile(self._compiler, key)
        for name, path in leaves.items():
            with path.open("rb") as file:
                self._box.put(name, file.fileno(), executable=True)
        self._tell({"compiled": True, "cached": True})
        return True

    def _put(self, name: str, content: bytes) -> None:
        descriptor = os.memfd_create("file", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "w+b") as file:
            file.write(content)
            file.flush()
            self._box.put(name, descriptor)

    def _compile(self, compiler: Compiler, key: str) -> bool:
        """The compiler is as much in a box as the program that it makes."""
        self._bound(compiler.memory_mb, 64)
        ended = self._watch(compiler.cpu_ms, 2 * compiler.cpu_ms + 1_000).run(
            self._compile_spec(compiler),
            [_nothing()],
            [Stream(_MB if compiler.command else 64 * _MB), Stream(_COMPILE_OUTPUT_KB * _KB, drops=True)],
        )
        if compiler is _PYTHON_COMPILER and ended.well:
            self._put(_CODE, ended.stdout)
            self._bench.store.put(key, {_CODE: ended.stdout})
            ended = replace(ended, stdout=b"")
        elif ended.well:
            self._keep(compiler, key)
        fields = _fields(ended)
        self._tell({"compiled": ended.well, "cached": False, **fields}, ended.stdout + ended.stderr)
        return ended.well

    def _compile_spec(self, compiler: Compiler) -> dict[str, Any]:
        return {
            **self._spec([part.replace("@", self._fingerprint) for part in compiler.command], compiler.cpu_ms),
            "python": "compile",
            "cwd": rootfs.WORK,
            "may_write_work": True,
            "disk_mb": compiler.disk_mb,
            "address_space_mb": self._address_space(compiler.memory_mb),
            "processes": 64,
        }

    def _keep(self, compiler: Compiler, key: str) -> None:
        """Without leaves, or with one that is not there, nothing is kept: what the box has is enough for this job."""
        leaves = {}
        for name in compiler.leaves:
            descriptor = self._box.take(name)
            if descriptor is None:
                return
            with os.fdopen(descriptor, "rb") as file:
                leaves[name] = file.read(compiler.disk_mb * _MB)
        if leaves:
            self._bench.store.put(key, leaves)

    # running

    def _run_all(self) -> None:
        if self._parcel.calls:
            self._make_calls()
        for index in range(len(self._parcel.runs)):
            if self._late():
                return
            ended = self._run(index)
            self._tell({"run": index, **_fields(ended)}, ended.stdout + ended.stderr)

    def _late(self) -> bool:
        return bool(self._parcel.deadline_ns) and time.monotonic_ns() > self._parcel.deadline_ns

    def _run(self, index: int) -> Ended:
        streams = [Stream(self._limits.stdout_kb * _KB), Stream(self._limits.stderr_kb * _KB, drops=True)]
        cpu_ms, wall_ms = self._times()
        watch = self._watch(cpu_ms, wall_ms)
        return watch.run(self._run_spec("main"), [self._parcel.standard_input(index)], streams)

    def _times(self) -> tuple[float, float]:
        cpu_ms = self._limits.cpu_ms * self._language.time_factor
        wall_ms = self._limits.wall_ms * self._language.time_factor
        return cpu_ms, wall_ms or 2 * cpu_ms + 1_000

    def _watch(self, cpu_ms: float, wall_ms: float) -> Watch:
        return Watch(self._box, self._bench.meter, self._client, cpu_ms, wall_ms)

    def _run_spec(self, python: str) -> dict[str, Any]:
        run = [part.replace("@memory", str(self._limits.memory_mb)) for part in self._language.run]
        argv = [*run, *self._parcel.arguments] if run else []
        return {
            **self._spec(argv, self._times()[0]),
            "python": python,
            "cwd": "/tmp",
            "may_write_work": False,
            "disk_mb": self._limits.disk_mb,
            "address_space_mb": self._address_space(self._limits.memory_mb),
            "processes": self._processes,
        }

    def _spec(self, argv: list[str], cpu_ms: float) -> dict[str, Any]:
        return {
            "argv": argv,
            "env": {**ENVIRONMENT, **self._language.environment},
            "file": self._file,
            "code": f"{rootfs.WORK}/{_CODE}",
            "arguments": self._parcel.arguments,
            "files": _FILES,
            "cpu_seconds": int(cpu_ms / 1e3) + 2,
        }

    def _address_space(self, memory_mb: int) -> int:
        """0 where the control group bounds memory: a limit on addresses misjudges programs that only reserve them."""
        if self._bench.meter.complete or not self._language.bounds_address_space:
            return 0
        return memory_mb + self._language.more_memory_mb

    # calling

    def _make_calls(self) -> None:
        """A process makes all calls; when one of them ends it, the next one goes on behind that call."""
        done, total = 0, len(self._parcel.calls)
        while done < total and not self._late():
            lines = Lines(self._limits.stdout_kb * _KB, done, self._tell)
            streams = [Stream(_MB, drops=True), Stream(self._limits.stderr_kb * _KB, drops=True), lines]
            given = [_nothing(), self._parcel.calls_from(done)]
            ended = self._watch(*self._times()).run(self._run_spec("calls"), given, streams, lines.progress)
            fields, raw = _fields(ended), ended.stdout + ended.stderr
            if not lines.loaded:
                self._tell({"unloaded": True, **fields}, raw)
                return
            done += lines.count
            if done < total:
                self._tell({"call": done, **fields}, raw)
                done += 1


def _nothing() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _fields(ended: Ended) -> dict[str, Any]:
    fields = asdict(ended)
    fields["stdout"], fields["stderr"] = len(ended.stdout), len(ended.stderr)
    return fields
