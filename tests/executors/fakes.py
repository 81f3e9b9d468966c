"""Batches, workers and a parent that are only played, so that every order of events can be had."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Raw

from rewardsvc.clock import now_ns
from rewardsvc.contract import ResourceInfo, RewardInfo, Task, Verdict
from rewardsvc.errors import Problem
from rewardsvc.executors.wire import Cell, Ready
from rewardsvc.executors.work import Batch, Row
from rewardsvc.packing import encode_stable

NOW = now_ns()


def info(per_group: bool = False, name: str = "exact", kind: Literal["cpu", "io"] = "cpu") -> RewardInfo:
    resources = ResourceInfo(kind, 1.0, 100, concurrency=2)
    return RewardInfo(name, "1", "", "", (0.0, 1.0), per_group, True, resources, "", {}, {}, [], {}, [])


class Caller:
    """An owner that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.calls = 0
        self.problem: Problem | None = None
        self.gone: set[int] = set()

    def settled(self, batch: Batch, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        self.calls += 1
        self.told += [(index, verdict.reason) for index, verdict in verdicts]

    def refused(self, batch: Batch, problem: Problem) -> None:
        self.problem = problem

    def wanted(self, batch: Batch, index: int) -> bool:
        return index not in self.gone


def batch_of(
    count: int, per_group: bool = False, name: str = "exact", kind: Literal["cpu", "io"] = "cpu"
) -> tuple[Batch, Caller]:
    caller = Caller()
    payload = Raw(encode_stable(("text", None, {})))
    rows: list[Row] = [(index, str(index), payload) for index in range(count)]
    task, params = Raw(encode_stable(Task())), Raw(encode_stable({}))
    return Batch(caller, info(per_group, name, kind), task, params, rows, (NOW, NOW + 10**10)), caller


def good(*indices: int) -> list[tuple[int, Verdict]]:
    return [(index, Verdict.scored(1.0, "good")) for index in indices]


class FakeLink:
    """A link without a process behind it."""

    def __init__(self) -> None:
        self.pid, self.alive, self.killed_because = 0, True, None
        self.cell = Cell(Cell.allocate())
        self.sent: list[Any] = []
        self.on_message: Any = None
        self.on_gone: Any = None

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def drain(self) -> None:
        pass

    def kill(self, because: str) -> None:
        self.alive, self.killed_because = False, because

    def come_to_life(self) -> None:
        self.pid = os.getpid()
        self.cell.weigh(1 << 40)  # what this process weighs is the business of other tests
        self.on_message(Ready(self.pid))


class FakeParent:
    """Gives out fake links."""

    ready = True

    def __init__(self) -> None:
        self.links: list[FakeLink] = []

    def spawn(self, kind: str) -> FakeLink:
        self.links.append(FakeLink())
        return self.links[-1]
