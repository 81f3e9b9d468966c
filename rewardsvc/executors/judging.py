"""An order as a worker judges it: its reward, its task and params in order, its rollouts one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rewardsvc.clock import now_ns
from rewardsvc.contract import Model, Rollout, Task, Timing, Verdict, first_error
from rewardsvc.errors import BadReference
from rewardsvc.executors.verdicts import failed
from rewardsvc.executors.wire import Order, Rejected, Results, Sample
from rewardsvc.packing import big_integer
from rewardsvc.reward import InvalidTask, Reward, deadline_ns

_replace = msgspec.structs.replace
_decode_task = msgspec.msgpack.Decoder(Task, ext_hook=big_integer).decode
_decode_sample = msgspec.msgpack.Decoder(Sample, ext_hook=big_integer).decode

JudgedRow = tuple[int, Rollout, Task]
"""Index in the batch, the rollout, the task that it is judged by."""


@dataclass(frozen=True)
class Prepared:
    """An order with its reward, decoded task and validated params."""

    order: Order
    reward: Reward
    task: Task
    params: Model

    def rollouts(self) -> Iterator[JudgedRow]:
        """Each item with the task it is judged by: a rollout's own reference takes the place of the task's."""
        task = self.task
        for index, name, payload in self.order.rows:
            sample = _decode_sample(payload)
            reference = sample.reference
            rollout = Rollout(id=name, completion=sample.completion, reference=reference, metadata=sample.metadata)
            yield index, rollout, task if reference is None else _replace(task, reference=reference)


def prepare(rewards: Mapping[str, Reward], order: Order) -> Prepared | Rejected | Results:
    """Validates what the order's rows share.

    Params or a task that spoil the whole group are a rejection; an exception in a plugin's `check_task` becomes a
    verdict on every item.
    """
    reward = rewards.get(order.reward)
    if reward is None:  # it was there when the group was admitted, and could not be imported again
        return _all_alike(order, Verdict.not_scored("unavailable", "reward_gone"))
    try:
        params = msgspec.msgpack.decode(order.params, type=reward.Params, ext_hook=big_integer)
    except msgspec.ValidationError as error:
        return Rejected(order.number, [first_error(error, "/params", reward.Params)])
    task = _decode_task(order.task)
    deadline_ns.set(order.deadline_ns)
    try:
        reward.check_task(task, params)
    except InvalidTask as error:
        return Rejected(order.number, [(str(error.pointer), str(error.message))])
    except BaseException as error:  # the boundary to the plugin's code
        return _all_alike(order, failed(reward, error))
    return Prepared(order, reward, task, params)


def _all_alike(order: Order, verdict: Verdict) -> Results:
    return Results(order.number, [(index, verdict) for index, _, _ in order.rows], done=True)


def check_reference(reward: Reward, reference: Any) -> None:
    """Raises `BadReference` when the reference is not of the type that the reward declares."""
    if reward.Reference is Any or reference is None:
        return
    try:
        msgspec.convert(reference, reward.Reference)
    except msgspec.ValidationError as error:
        raise BadReference("wrong_type", str(error)) from None


def reference_faults(prepared: Prepared, rows: Sequence[JudgedRow]) -> list[Verdict]:
    """The verdicts on a group that cannot be compared because a rollout's reference is not of the declared type.

    Empty when all are in order. Raises `BadReference` when it is the task's own reference that is not.
    """
    check_reference(prepared.reward, prepared.task.reference)
    faults = [_reference_fault(prepared.reward, task.reference) for _, _, task in rows]
    if not any(faults):
        return []
    return [failed(prepared.reward, fault or BadReference("bad_reference_in_group")) for fault in faults]


def _reference_fault(reward: Reward, reference: Any) -> BadReference | None:
    try:
        check_reference(reward, reference)
    except BadReference as fault:
        return fault
    return None


def timed(
    rows: Sequence[JudgedRow], verdicts: Sequence[Verdict], order: Order, started: int
) -> list[tuple[int, Verdict]]:
    """Verdicts that were made together, each with its index, and with the time that all of them took (from `started`,
    in nanoseconds)."""
    timing = Timing(_ms(started - order.admitted_ns), _ms(now_ns() - started))
    for verdict in verdicts:
        verdict.timing = timing
    return [(index, verdict) for (index, _, _), verdict in zip(rows, verdicts, strict=True)]


def _ms(nanoseconds: int) -> float:
    return nanoseconds // 1000 / 1000
