"""Inside a cpu worker: orders in, verdicts out, one item after the other.

The shared cell says which item the worker is on, so that the front can name the guilty one after a hang or a crash.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
from collections.abc import Mapping

from rewardsvc.clock import now_ns
from rewardsvc.contract import Timing, Verdict
from rewardsvc.executors.age import Age, Limits
from rewardsvc.executors.judging import Prepared, check_reference, prepare, reference_faults, timed
from rewardsvc.executors.verdicts import checked, checked_group, failed
from rewardsvc.executors.wire import Cell, Connection, Ready, Rejected, Results, decode_order
from rewardsvc.reward import PerGroup, PerRollout, Reward

_FLUSH_NS = 2_000_000


def run_cpu(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], limits: Limits) -> None:
    """Judges orders until the front hangs up."""
    settle_in(limits)
    age = Age(limits, cell)
    connection.send(Ready(os.getpid()))
    with contextlib.suppress(OSError):  # the front is gone, or a reward has closed what is not its own
        while (body := connection.receive()) is not None:
            cell.take(now_ns())
            order = decode_order(body)
            message = _judge_order(prepare(rewards, order), cell, connection, age)
            age.end_copies()
            cell.rest()
            connection.send(message)
            age.count(len(order.rows))
            if isinstance(message, Results):
                age.heed(message.verdicts)
            if age.is_over():
                cell.leave()
                return
            age.weigh()
    cell.rest()


def _judge_order(
    prepared: Prepared | Rejected | Results, cell: Cell, connection: Connection, age: Age
) -> Rejected | Results:
    """Judges an order's items, sending what is finished every two milliseconds; returns what is left to send."""
    if not isinstance(prepared, Prepared):
        return prepared
    age.start(prepared.reward)
    if isinstance(prepared.reward, PerGroup):
        return _judge_group(prepared, cell, age)
    return _judge_each(prepared, cell, connection, age)


def _judge_each(prepared: Prepared, cell: Cell, connection: Connection, age: Age) -> Results:
    """The loop that every rollout goes through; a call less in it is worth more than its looks."""
    order, reward, params = prepared.order, prepared.reward, prepared.params
    number, admitted = order.number, order.admitted_ns
    assert isinstance(reward, PerRollout)
    finished: list[tuple[int, Verdict]] = []
    flushed = started = now_ns()
    for index, rollout, task in prepared.rollouts():
        if cell.begin(index, started) == number:
            break
        try:
            check_reference(reward, task.reference)
            verdict = checked(reward, rollout.id, reward.score(rollout, task, params))
        except BaseException as error:  # the boundary to the plugin's code
            verdict = failed(reward, error)
        ended = now_ns()
        verdict.timing = Timing((started - admitted) // 1000 / 1000, (ended - started) // 1000 / 1000)
        finished.append((index, verdict))
        started = ended
        if ended - flushed > _FLUSH_NS:
            age.end_copies()
            if age.is_overgrown():
                finished[-1] = (index, Verdict.not_scored("resource_limit", "memory_limit"))
            cell.rest()
            connection.send(Results(number, finished))
            age.heed(finished)
            finished, flushed = [], now_ns()
            started = flushed
    return Results(number, finished, done=True)


def _judge_group(prepared: Prepared, cell: Cell, age: Age) -> Results:
    order, reward = prepared.order, prepared.reward
    assert isinstance(reward, PerGroup)
    rows = list(prepared.rollouts())
    if not rows:
        return Results(order.number, [], done=True)
    started = now_ns()
    cell.begin(rows[0][0], started)
    rollouts = [rollout for _, rollout, _ in rows]
    try:
        verdicts = reference_faults(prepared, rows) or checked_group(
            reward, rollouts, reward.score_group(rollouts, prepared.task, prepared.params)
        )
    except BaseException as error:
        verdicts = [failed(reward, error) for _ in rows]
    if age.is_overgrown():
        verdicts = [Verdict.not_scored("resource_limit", "memory_limit") for _ in rows]
    return Results(order.number, timed(rows, verdicts, order, started), done=True)


def settle_in(limits: Limits) -> None:
    """What a fresh worker does first."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.quiet:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
    gc.enable()
