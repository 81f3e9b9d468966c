"""Inside the io worker: many coroutine rewards under way at once, each marked in the cell while it holds the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

from rewardsvc.clock import now_ns
from rewardsvc.contract import Verdict
from rewardsvc.executors.age import Age, Limits
from rewardsvc.executors.judging import JudgedRow, Prepared, check_reference, prepare, reference_faults, timed
from rewardsvc.executors.verdicts import checked, checked_group, failed
from rewardsvc.executors.wire import (
    Cell,
    Connection,
    FrameReader,
    Order,
    Ready,
    Rejected,
    Results,
    decode_to_worker,
    frame,
    io_mark,
)
from rewardsvc.executors.worker import settle_in
from rewardsvc.reward import PerGroup, PerRollout, Reward

_BEAT_SECONDS = 0.25
_PATIENCE_SECONDS = 1.0
_MAX_STUBBORN = 100


def run_io(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], limits: Limits) -> None:
    """Judges orders of coroutine rewards, many at once, until the front hangs up."""
    settle_in(limits)
    with contextlib.suppress(OSError):
        asyncio.run(_serve_io(connection, cell, rewards, Age(limits, cell)))
    cell.rest()


async def _serve_io(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], age: Age) -> None:
    host = _IoHost(connection, cell, rewards, age)
    await host.reply(Ready(os.getpid()))
    await host.serve()


_order: ContextVar[int | None] = ContextVar("order", default=None)


class _IoHost:
    """Keeps the orders of coroutine rewards under way. Each is one unit: one rollout, or one whole group.

    It keeps no time: the front calls off what takes too long.
    """

    def __init__(self, connection: Connection, cell: Cell, rewards: Mapping[str, Reward], age: Age) -> None:
        self._sock = connection.sock
        self._sock.setblocking(False)
        self._cell = cell
        self._rewards = rewards
        self._age = age
        self._sending = asyncio.Lock()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._stubborn: set[int] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.set_task_factory(self._make_task)

    async def reply(self, message: Results | Rejected | Ready) -> None:
        """One whole frame at a time, which no cancellation cuts in half."""
        await asyncio.shield(self._loop.create_task(self._send(message)))

    async def _send(self, message: Results | Rejected | Ready) -> None:
        async with self._sending:
            await self._loop.sock_sendall(self._sock, frame(message))

    async def serve(self) -> None:
        """Until the front hangs up."""
        reader = FrameReader()
        while data := await self._loop.sock_recv(self._sock, 262_144):
            for body in reader.feed(data):
                command = decode_to_worker(body)
                if isinstance(command, Order):
                    self._start(command)
                else:
                    self._call_off(command.number)

    def _start(self, order: Order) -> None:
        if not self._under_way:
            self._beat()
        context = copy_context()
        context.run(_order.set, order.number)
        task = self._loop.create_task(self._judge(order), context=context)
        self._under_way[order.number] = task
        task.add_done_callback(partial(self._end, order.number))

    def _end(self, number: int, _: asyncio.Task[None]) -> None:
        del self._under_way[number]
        self._stubborn.discard(number)
        if not self._under_way and (self._cell.is_old or self._age.is_over()):
            self._leave()
        elif self._age.is_worn():
            self._cell.grow_old()

    def _call_off(self, number: int) -> None:
        """Cancels; what does not let itself be cancelled ends with the process, when that costs nobody else."""
        task = self._under_way.get(number)
        if task is None:
            return
        if task.cancelling():
            self._stubborn.add(number)
            if len(self._stubborn) in (len(self._under_way), _MAX_STUBBORN):
                self._leave()
        task.cancel()
        self._loop.call_later(_PATIENCE_SECONDS, self._call_off, number)

    def _leave(self) -> None:
        """Ends; an order that comes all the same goes to the next process."""
        self._cell.leave()
        os._exit(0)

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        """A task that a reward starts belongs to the order that the reward works on."""
        number = options["context"][_order] if options.get("context") else _order.get()
        held = work if number is None else _Held(work, self._cell, io_mark(number))
        return asyncio.Task(held, loop=loop, **options)

    def _beat(self) -> None:
        self._cell.beat(now_ns())
        if self._under_way:
            self._loop.call_later(_BEAT_SECONDS, self._beat)

    async def _judge(self, order: Order) -> None:
        message = await self._verdicts(order)
        self._age.end_copies()
        await self.reply(message)
        self._age.count(len(order.rows))

    async def _verdicts(self, order: Order) -> Results | Rejected:
        self._cell.begin(io_mark(order.number, preparing=True), now_ns())
        prepared = prepare(self._rewards, order)
        self._cell.begin(io_mark(order.number), now_ns())
        if not isinstance(prepared, Prepared):
            return prepared
        self._age.start(prepared.reward)
        rows = list(prepared.rollouts())
        started = now_ns()
        verdicts = await _score_io(prepared, rows) if rows else []
        return Results(order.number, timed(rows, verdicts, order, started), done=True)


async def _score_io(prepared: Prepared, rows: Sequence[JudgedRow]) -> list[Verdict]:
    reward, params = prepared.reward, prepared.params
    rollouts = [rollout for _, rollout, _ in rows]
    try:
        if isinstance(reward, PerGroup):
            faults = reference_faults(prepared, rows)
            if faults:
                return faults
            returned: Any = reward.score_group(rollouts, prepared.task, params)
            return checked_group(reward, rollouts, await returned)
        assert isinstance(reward, PerRollout)
        _, rollout, task = rows[0]
        check_reference(reward, task.reference)
        returned = reward.score(rollout, task, params)
        return [checked(reward, rollout.id, await returned)]
    except BaseException as error:
        return [failed(reward, error) for _ in rows]


class _Held(Coroutine[Any, Any, Any]):
    """A coroutine that marks the cell whenever it holds the event loop, so that one that blocks it can be named."""

    def __init__(self, work: Coroutine[Any, Any, Any], cell: Cell, mark: int) -> None:
        self._work = work
        self._cell = cell
        self._mark = mark

    def send(self, value: Any) -> Any:
        """One step."""
        self._cell.begin(self._mark, now_ns())
        try:
            return self._work.send(value)
        finally:
            self._cell.rest()

    def throw(self, *error: Any) -> Any:
        """One step that begins with an exception: a cancellation, say."""
        self._cell.begin(self._mark, now_ns())
        try:
            return self._work.throw(*error)
        finally:
            self._cell.rest()

    def close(self) -> None:
        """The end of one that was never finished."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()
