"""The file of verdicts: a line per group, written so that whatever ends the program leaves a file to go on from.

While groups are scored the file only grows, by whole lines. A second run keeps what is there, cuts off a line that was
not finished, and scores the rest; groups that failed before are scored again. At the end, lines that a failure or a
second run left out of order are put into the order of the input, by a new file that takes the place of the old one.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec

from rewardsvc.cli.groups import GroupId

_START = b'{"group_id":'
_encode = msgspec.json.Encoder().encode


class NotAJournal(Exception):
    """The file holds something else, or somebody else is writing to it. It has not been changed."""


class Kept(NamedTuple):
    """A group that an earlier run scored: what it was, and the statuses of its rollouts without a number."""

    fingerprint: str
    rollouts: int
    unscored: tuple[str, ...]


class _Verdict(msgspec.Struct):
    status: str


class _Written(msgspec.Struct):
    """What this module must know of a line that it wrote."""

    group_id: GroupId
    input: str
    verdicts: list[_Verdict] | None = None
    problem: dict[str, Any] | None = None


class Output(Protocol):
    """Where lines go. `kept` are the groups that need not be scored."""

    kept: dict[GroupId, Kept]

    def write(self, group_id: GroupId, about: dict[str, Any]) -> None:
        """Adds the line of one group; it is out when this returns."""

    def close(self, order: Iterable[GroupId]) -> None:
        """Puts the lines into this order. Others come first."""


class Stream:
    """Standard output or a pipe: nothing to go on from, nothing to put in order."""

    def __init__(self, file: BinaryIO) -> None:
        self.kept: dict[GroupId, Kept] = {}
        self._file = file

    def write(self, group_id: GroupId, about: dict[str, Any]) -> None:
        """See `Output`."""
        self._file.write(_line(group_id, about))
        self._file.flush()

    def close(self, order: Iterable[GroupId]) -> None:
        """See `Output`."""


class Journal:
    """A regular file. Raises `NotAJournal` or OSError when it cannot be written to."""

    def __init__(self, path: Path, retry_unscored: bool = False) -> None:
        """`retry_unscored`: a group in which a rollout got no number counts as failed."""
        self.kept: dict[GroupId, Kept] = {}
        self._retry_unscored = retry_unscored
        self._path = path.resolve()
        self._places: dict[GroupId, tuple[int, int]] = {}
        self._with_verdicts: set[GroupId] = set()
        self._path.touch()
        self._file = self._path.open("r+b")
        self._lock()
        self._end = self._scan()
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def write(self, group_id: GroupId, about: dict[str, Any]) -> None:
        """See `Output`."""
        line = _line(group_id, about)
        self._file.write(line)
        self._file.flush()
        self._remember(group_id, (self._end, len(line)), "verdicts" in about)
        self._end += len(line)

    def close(self, order: Iterable[GroupId]) -> None:
        """See `Output`."""
        position = {group_id: index for index, group_id in enumerate(order)}
        ordered = sorted(self._places, key=lambda group_id: position.get(group_id, -1))
        places = [self._places[group_id] for group_id in ordered]
        if places != sorted(places) or sum(length for _, length in places) != self._end:
            self._replace(places)
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotAJournal(f"{self._path} is being written by another `rewardsvc score`.") from None

    def _scan(self) -> int:
        """Learns what is in the file; returns where its last whole line ends."""
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                if not (line.startswith(_START) or _START.startswith(line)):
                    raise self._foreign(number)
                break
            self._learn(number, line, end)
            end += len(line)
        return end

    def _learn(self, number: int, line: bytes, start: int) -> None:
        try:
            written = msgspec.json.decode(line, type=_Written)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._foreign(number) from None
        if written.verdicts is None and written.problem is None:
            raise self._foreign(number)
        self._remember(written.group_id, (start, len(line)), written.verdicts is not None)
        if written.verdicts is not None:
            self._keep(written.group_id, written.input, written.verdicts)

    def _remember(self, group_id: GroupId, place: tuple[int, int], has_verdicts: bool) -> None:
        """Which line counts for a group: the last, but never a failure after verdicts."""
        if has_verdicts or group_id not in self._with_verdicts:
            self._places[group_id] = place
        if has_verdicts:
            self._with_verdicts.add(group_id)

    def _keep(self, group_id: GroupId, fingerprint: str, verdicts: list[_Verdict]) -> None:
        unscored = tuple(verdict.status for verdict in verdicts if verdict.status != "scored")
        if not (unscored and self._retry_unscored):
            self.kept[group_id] = Kept(fingerprint, len(verdicts), unscored)

    def _foreign(self, number: int) -> NotAJournal:
        return NotAJournal(
            f"{self._path} has something in line {number} that `rewardsvc score` did not write. It was left as it is; "
            "name another file."
        )

    def _replace(self, places: Iterable[tuple[int, int]]) -> None:
        """Writes these pieces of the file to a new one, which then takes its place."""
        beside = self._path.with_name(f"{self._path.name}.new")
        with beside.open("wb") as ordered:
            for start, length in places:
                self._file.seek(start)
                ordered.write(self._file.read(length))
        shutil.copymode(self._path, beside)
        beside.replace(self._path)


def _line(group_id: GroupId, about: dict[str, Any]) -> bytes:
    return _encode({"group_id": group_id, **about}) + b"\n"


def open_output(name: str, retry_unscored: bool) -> Output:
    """`-` is standard output. Raises `NotAJournal` or OSError."""
    path = Path(name)
    if name == "-":
        return Stream(sys.stdout.buffer)
    if path.exists() and not path.is_file():
        return Stream(path.open("wb"))
    return Journal(path, retry_unscored)
