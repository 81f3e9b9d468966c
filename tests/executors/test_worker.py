"""The inside of a worker, by itself: what it says of an order, and what stands in the cell meanwhile."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from rewardsvc.clock import now_ns
from rewardsvc.contract import Task, Verdict
from rewardsvc.executors import worker
from rewardsvc.executors.age import Age, Limits
from rewardsvc.executors.judging import prepare
from rewardsvc.executors.verdicts import failed
from rewardsvc.executors.wire import Cell, Connection, Order, Rejected, Results, decode_from_worker, frame
from rewardsvc.packing import encode, encode_stable
from rewardsvc.reward import InvalidTask, PerGroup, PerRollout, Reward, seconds_left

LIMITS = Limits(1_000, 1_000, quiet=False)


class Slow(PerRollout):
    """Takes three milliseconds, after which a worker sends what it has."""

    name, version = "slow", "1"

    def score(self, rollout: Any, task: Any, params: Any) -> Verdict:
        time.sleep(0.003)
        return Verdict.scored(1.0, "fine")


class Forker(PerRollout):
    """Forks where it should only look, and refuses the task in both processes."""

    name, version = "forker", "1"

    def check_task(self, task: Task, params: Any) -> None:
        os.fork()
        raise InvalidTask("/task", "refused")


class Misled(PerRollout):
    """Meets an error of the library that also checks params."""

    name, version = "misled", "1"

    def check_task(self, task: Task, params: Any) -> None:
        msgspec.convert("five", int)


class Hurried(PerRollout):
    """Says how much time there is."""

    name, version = "hurried", "1"

    def score(self, rollout: Any, task: Any, params: Any) -> Verdict:
        return Verdict.scored(1.0, "fine", answer=str(round(seconds_left())))


class Choosy(PerGroup):
    """Compares rollouts whose references are numbers."""

    name, version = "choosy", "1"
    Reference = int

    def score_group(self, rollouts: Sequence[Any], task: Any, params: Any) -> list[Verdict]:
        return [Verdict.scored(1.0, "fine") for _ in rollouts]


REWARDS: dict[str, Reward] = {each.name: each() for each in (Slow, Forker, Misled, Hurried, Choosy)}


def order_for(reward: str, references: Sequence[Any], reference: Any = None) -> Order:
    rows = [(index, str(index), Raw(encode(("text", each, {})))) for index, each in enumerate(references)]
    task = Raw(encode_stable(Task(reference=reference)))
    return Order(1, reward, task, Raw(encode({})), now_ns(), now_ns() + 60 * 10**9, rows)


@pytest.fixture
def cell() -> Iterator[Cell]:
    cell = Cell(Cell.allocate())
    yield cell
    cell.close()


class SlowFront:
    """A connection to a front that takes a tenth of a second to read what it is sent."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.marks: list[Any] = []
        self.sent: list[Results] = []

    def send(self, message: Results) -> None:
        self.marks.append(self.cell.current())
        time.sleep(0.1)
        self.sent.append(message)


def judged(cell: Cell, order: Order) -> tuple[SlowFront, dict[int, Verdict]]:
    """What a worker says to an order in all."""
    front = SlowFront(cell)
    last = worker._judge_order(prepare(REWARDS, order), cell, front, Age(LIMITS, cell))  # type: ignore[arg-type]
    assert isinstance(last, Results)
    return front, dict(row for message in [*front.sent, last] for row in message.verdicts)


def test_the_time_that_sending_takes_is_charged_to_no_item(cell: Cell) -> None:
    front, verdicts = judged(cell, order_for("slow", [None] * 3))
    assert front.marks == [None] * 3, "nobody is to blame for a slow reader"
    assert sorted(verdicts) == [0, 1, 2]
    assert max(verdict.timing.run_ms for verdict in verdicts.values()) < 100


def test_a_worker_that_sends_has_begun_with_its_order(cell: Cell) -> None:
    """Its death is then put down to one of the rows, and not to nobody for ever."""
    before = cell.orders
    cell.take(now_ns())
    assert cell.current() is not None
    cell.rest()
    assert (cell.orders, cell.current()) == (before + 1, None)


def test_each_rollouts_own_reference_must_be_of_the_type_that_a_group_reward_declares(cell: Cell) -> None:
    _, verdicts = judged(cell, order_for("choosy", [1, "one", None], reference=1))
    outcomes = [(verdicts[index].status, verdicts[index].reason) for index in range(3)]
    alone, company = ("bad_reference", "wrong_type"), ("bad_reference", "bad_reference_in_group")
    assert outcomes == [company, alone, company]
    assert {verdict.status for verdict in judged(cell, order_for("choosy", [1, 2]))[1].values()} == {"scored"}


def test_a_group_whose_task_has_a_reference_of_the_wrong_type_gets_no_number(cell: Cell) -> None:
    _, verdicts = judged(cell, order_for("choosy", [1, None], reference="one"))
    assert [verdict.reason for verdict in verdicts.values()] == ["wrong_type"] * 2


@pytest.mark.parametrize("error", [TimeoutError(), asyncio.CancelledError()])
def test_a_plugins_own_timeout_error_is_not_the_items_limit(error: BaseException) -> None:
    verdict = failed(REWARDS["slow"], error)
    assert (verdict.status, verdict.reason) == ("plugin_error", "exception")
    assert verdict.evidence["error"] == type(error).__name__


def test_a_check_that_fails_in_the_library_of_params_is_the_plugins_fault_not_the_callers() -> None:
    said = prepare(REWARDS, order_for("misled", [None]))
    assert isinstance(said, Results)
    assert (said.verdicts[0][1].status, said.verdicts[0][1].reason) == ("plugin_error", "exception")


def test_a_reward_knows_how_much_time_its_group_has(cell: Cell) -> None:
    _, verdicts = judged(cell, order_for("hurried", [None]))
    assert verdicts[0].answer == "60"


def test_a_check_that_forks_and_refuses_answers_once(cell: Cell) -> None:
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        ours.close()
        worker.run_cpu(Connection(theirs), cell, REWARDS, LIMITS)
        os._exit(0)
    theirs.close()
    with ours:
        ours.settimeout(20)
        front = Connection(ours)
        ours.sendall(frame(order_for("forker", [None])))
        ours.shutdown(socket.SHUT_WR)
        said = []
        while (body := front.receive()) is not None:
            said.append(decode_from_worker(body))
    os.waitpid(process, 0)
    assert [type(message) for message in said[1:]] == [Rejected]
