"""What compilers have made, by the hash of source, options and compiler: a directory of the supervisor's own.

All runners share it. A binary is as hostile as its source, and is only ever copied back into a box.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO


class Store:
    """At most `keep_bytes`; what was used least recently goes first."""

    def __init__(self, directory: Path, keep_bytes: int) -> None:
        self._directory = directory
        self._keep_bytes = keep_bytes
        self._written = 0

    def get(self, key: str) -> dict[str, Path] | None:
        """The files of an entry by name."""
        entry = self._directory / key
        try:
            os.utime(entry)
            return {path.name: path for path in entry.iterdir()}
        except OSError:
            return None

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Two runners may put the same entry; the second is dropped. A full disk is no reason to fail a job."""
        with contextlib.suppress(OSError):
            fresh = Path(tempfile.mkdtemp(dir=self._directory, prefix="."))
            for name, content in files.items():
                (fresh / name).write_bytes(content)
            with contextlib.suppress(OSError):
                fresh.rename(self._directory / key)
            shutil.rmtree(fresh, ignore_errors=True)
        self._written += sum(map(len, files.values()))
        if self._written > self._keep_bytes // 16:
            self._written = 0
            self._shrink()

    def _shrink(self) -> None:
        entries = [(entry.stat().st_mtime, entry) for entry in self._directory.iterdir() if entry.name[0] != "."]
        sizes = {entry: sum(path.stat().st_size for path in entry.iterdir()) for _, entry in entries}
        excess = sum(sizes.values()) - self._keep_bytes
        for _, entry in sorted(entries):
            if excess <= 0:
                return
            shutil.rmtree(entry, ignore_errors=True)
            excess -= sizes[entry]


def publish(content: BinaryIO, target: Path) -> None:
    """Writes a file that others may look for at any time: they find it whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as fresh:
        shutil.copyfileobj(content, fresh)
    Path(fresh.name).chmod(0o644)
    Path(fresh.name).rename(target)
