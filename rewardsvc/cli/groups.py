"""A file of groups: one request per line, with the reward that it is for and a name.

    {"group_id": "q1", "reward": "math", "task": {"reference": "42"}, "rollouts": [{"completion": "…"}]}

A line that the service would refuse for its shape is found before anything is scored, with its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import BinaryIO

import msgspec

from rewardsvc import strict_json
from rewardsvc.contract import ScoreRequest, first_error, unique_ids
from rewardsvc.errors import Problem

GroupId = str | int
_OTHER_FORMS = {
    b"\x1f\x8b": ("is compressed", "`gunzip -c FILE | rewardsvc score - …` reads it"),
    b"\x28\xb5\x2f\xfd": ("is compressed", "`zstd -dc FILE | rewardsvc score - …` reads it"),
    b"PK\x03\x04": ("is a zip file", "unpack it first"),
    b"PAR1": ("is a Parquet file", "write it as JSON, one group per line"),
    b"\xef\xbb\xbf": ("begins with a byte order mark", "`tail -c +4 FILE` leaves that out"),
    b"\xff\xfe": ("is UTF-16", "`iconv -f UTF-16 -t UTF-8 FILE` makes it UTF-8"),
    b"\xfe\xff": ("is UTF-16", "`iconv -f UTF-16 -t UTF-8 FILE` makes it UTF-8"),
}


class Line(ScoreRequest, kw_only=True):
    """A native request and what a file must say besides."""

    reward: str | None = None
    group_id: GroupId | None = None


@dataclass(frozen=True)
class Group:
    """One line that is in order. `id` is the number of the line, from 1, unless the line has one of its own."""

    number: int
    id: GroupId
    reward: str
    request: ScoreRequest

    def fingerprint(self) -> str:
        """The same for equal groups: 16 hexadecimal digits over the reward and all of the request but its deadline."""
        request = self.request
        judged = (self.reward, request.task, request.params, request.rollouts)
        return sha256(msgspec.json.encode(judged, order="deterministic")).hexdigest()[:16]


class NotLines(Exception):
    """A file that is not one JSON object per line; the message says how to make it one."""


class BadLine(Exception):
    """A line that is no group; the message names it."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"line {number}: {message}")


@dataclass
class Survey:
    """What is in a file of groups. `order` is the ids in their order, `rewards` the first line of each reward."""

    order: dict[GroupId, int] = field(default_factory=dict)
    rewards: dict[str, int] = field(default_factory=dict)
    longest_ms: int = 1
    bad: list[str] = field(default_factory=list)

    def add(self, group: Group) -> None:
        """Counts a group in. Raises `BadLine` for an id that occurred before."""
        before = self.order.setdefault(group.id, group.number)
        if before != group.number:
            raise BadLine(group.number, f"line {before} has the group_id {group.id!r} already")
        self.rewards.setdefault(group.reward, group.number)
        self.longest_ms = max(self.longest_ms, group.request.deadline_ms)


def survey(file: BinaryIO, default_reward: str | None) -> Survey:
    """Reads a whole file; what is wrong with its lines is in `bad`. Raises `NotLines`."""
    _refuse_other_forms(file)
    found = Survey()
    for number, line in _lines(file):
        try:
            found.add(parse(number, line, default_reward))
        except BadLine as error:
            found.bad.append(str(error))
    return found


def _refuse_other_forms(file: BinaryIO) -> None:
    """Raises `NotLines` for the forms in which such files come out of other programs."""
    start = file.read(4)
    for mark, (what, remedy) in _OTHER_FORMS.items():
        if start.startswith(mark):
            raise NotLines(f"it {what}; {remedy}.")
    first = next((line.strip() for _, line in _lines(file)), b"")
    if first == b"{":
        raise NotLines("a group takes more than one line; `jq -c . FILE` puts each on a line of its own.")
    if first.startswith(b"["):
        raise NotLines("it is a list; `jq -c '.[]' FILE` puts each group on a line of its own.")


def read(file: BinaryIO, default_reward: str | None) -> Iterator[Group]:
    """The groups of a file from its beginning. Raises `BadLine`."""
    return (parse(number, line, default_reward) for number, line in _lines(file))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers."""
    file.seek(0)
    return ((number, line) for number, line in enumerate(file, 1) if line.strip())


def parse(number: int, line: bytes, default_reward: str | None = None) -> Group:
    """Raises `BadLine` saying what to change."""
    try:
        request = msgspec.convert(strict_json.decode(line), Line)
        unique_ids(request.rollouts)
    except Problem as problem:
        raise BadLine(number, problem.detail) from None
    except msgspec.ValidationError as error:
        place, message = first_error(error, model=Line)
        raise BadLine(number, f"{message}{f' (at {place})' if place else ''}") from None
    except ValueError as error:
        raise BadLine(number, f"two rollouts have the same id (at {error})") from None
    reward = request.reward or default_reward
    if reward is None:
        raise BadLine(number, 'it names no reward; add "reward" to it, or pass --reward')
    return Group(number, number if request.group_id is None else request.group_id, reward, request)
