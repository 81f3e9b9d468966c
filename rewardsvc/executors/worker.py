"""Inside a worker: orders in, verdicts out. This is the only place where a reward's own code judges anything.

`run_cpu` judges one item after the other; `run_io` keeps many coroutines under way. Either marks in the shared cell
which item holds the process, so that the front can name the guilty one after a hang or a crash. Whatever a reward
returns or raises becomes a well-formed verdict here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import resource
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rewardsvc.contract import MAX_TEXT_BYTES, Model, Rollout, Task, Timing, Verdict, first_error
from rewardsvc.errors import BadReference, NotScored
from rewardsvc.executors.wire import (
    Cancel,
    Cell,
    Connection,
    FrameReader,
    Order,
    Ready,
    Rejected,
    Results,
    Sample,
    decode_to_worker,
    frame,
    now_ns,
)
from rewardsvc.reward import InvalidTask, PerGroup, PerRollout, Reward

_FLUSH_NS = 2_000_000
_MIB = 1 << 20
_BACKSTOP = 8
_MAX_ANSWER = 10_000
_decode_task = msgspec.msgpack.Decoder(Task).decode
_decode_sample = msgspec.msgpack.Decoder(Sample).decode


@dataclass(frozen=True)
class Limits:
    """When a worker asks to be replaced: after so many items, or so many MiB above its size at birth."""

    recycle_items: int
    recycle_mb: int
    quiet: bool


@dataclass(frozen=True)
class Prepared:
    """An order with its reward, decoded task and validated params."""

    order: Order
    reward: Reward
    task: Task
    params: Model

    def rollouts(self) -> Iterator[tuple[int, Rollout, Task]]:
        """Each item with the task it is judged by: a rollout's own reference takes the place of the task's."""
        for index, name, payload in self.order.rows:
            sample = _decode_sample(payload)
            rollout = Rollout(
                id=name, completion=sample.completion, reference=sample.reference, metadata=sample.metadata
            )
            own = sample.reference is not None
            yield index, rollout, msgspec.structs.replace(self.task, reference=sample.reference) if own else self.task


def prepare(rewards: Mapping[str, Reward], order: Order) -> Prepared | Rejected:
    """Validates what the order's rows share; params or a task that spoil the whole group are a rejection."""
    reward = rewards[order.reward]
    try:
        params = msgspec.msgpack.decode(order.params, type=reward.Params)
        task = _decode_task(order.task)
        reward.check_task(task, params)
    except msgspec.ValidationError as error:
        return Rejected(order.number, [first_error(error, "/params")])
    except InvalidTask as error:
        return Rejected(order.number, [(error.pointer, error.message)])
    return Prepared(order, reward, task, params)


def run_cpu(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], limits: Limits) -> None:
    """Judges orders until the front hangs up."""
    _settle_in(limits)
    connection.send(Ready(os.getpid()))
    age = _Age(limits)
    while (body := connection.receive()) is not None:
        order = decode_to_worker(body)
        if isinstance(order, Cancel):
            continue
        cell.begin(Cell.PREPARING, now_ns())
        prepared = _guarded_prepare(rewards, order)
        if isinstance(prepared, Prepared):
            age.limit_memory(prepared.reward.resources.memory_mb)
            message: Results | Rejected = _judge_order(prepared, cell, connection)
        else:
            message = prepared
        cell.rest()
        if isinstance(message, Results):
            message.retire = age.is_over(len(order.rows))
        connection.send(message)


class _Age:
    """Decides when a worker has judged or grown enough, and keeps a backstop on its memory.

    The front kills at the reward's limit, which a plugin cannot catch. The backstop is far above it, so that no library
    meets (and swallows) a MemoryError that would turn a failure into a wrong answer, and yet the machine is safe from
    one huge allocation.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._judged = 0
        self._born_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._memory_mb = 0

    def limit_memory(self, memory_mb: int) -> None:
        """Allows a multiple of `memory_mb` on top of what the process has now."""
        if memory_mb == self._memory_mb:
            return
        self._memory_mb = memory_mb
        allowed = _data_bytes() + _BACKSTOP * memory_mb * _MIB
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (allowed, resource.RLIM_INFINITY))

    def is_over(self, items: int) -> bool:
        """Counts `items`; whether the worker should be replaced now."""
        self._judged += items
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._born_kb) // 1024
        return self._judged >= self._limits.recycle_items or grown_mb >= self._limits.recycle_mb


def _guarded_prepare(rewards: Mapping[str, Reward], order: Order) -> Prepared | Rejected | Results:
    """`prepare`, where an exception in a plugin's `check_task` becomes a verdict on every item."""
    try:
        return prepare(rewards, order)
    except BaseException as error:
        verdict = _failed(rewards[order.reward], error)
        return Results(order.number, [(index, verdict) for index, _, _ in order.rows], done=True)


def _judge_order(prepared: Prepared, cell: Cell, connection: Connection) -> Results:
    """Judges item after item, sending what is finished every two milliseconds; returns what is left to send."""
    number = prepared.order.number
    finished: list[tuple[int, Verdict]] = []
    if isinstance(prepared.reward, PerGroup):
        if prepared.order.rows:
            finished = _judge_group(prepared, prepared.reward, cell)
        return Results(number, finished, done=True)
    flushed = started = now_ns()
    for index, rollout, task in prepared.rollouts():
        if cell.called_off(number):
            break
        cell.begin(index, started)
        verdict = judge(prepared.reward, rollout, task, prepared.params)
        ended = now_ns()
        verdict.timing = Timing(_ms(started - prepared.order.admitted_ns), _ms(ended - started))
        finished.append((index, verdict))
        started = ended
        if ended - flushed > _FLUSH_NS:
            connection.send(Results(number, finished))
            finished, flushed = [], ended
    return Results(number, finished, done=True)


def _judge_group(prepared: Prepared, reward: PerGroup, cell: Cell) -> list[tuple[int, Verdict]]:
    rows = list(prepared.rollouts())
    started = now_ns()
    cell.begin(rows[0][0], started)
    rollouts = [rollout for _, rollout, _ in rows]
    verdicts = _guard(reward, len(rows), lambda: _group_verdicts(reward, rollouts, prepared))
    return _timed(rows, verdicts, prepared.order, started)


def _timed(
    rows: Sequence[tuple[int, Rollout, Task]], verdicts: Sequence[Verdict], order: Order, started: int
) -> list[tuple[int, Verdict]]:
    timing = Timing(_ms(started - order.admitted_ns), _ms(now_ns() - started))
    for verdict in verdicts:
        verdict.timing = timing
    return [(index, verdict) for (index, _, _), verdict in zip(rows, verdicts, strict=True)]


def _group_verdicts(reward: PerGroup, rollouts: Sequence[Rollout], prepared: Prepared) -> list[Verdict]:
    _check_reference(reward, prepared.task.reference)
    return checked_group(reward, rollouts, reward.score_group(rollouts, prepared.task, prepared.params))


def judge(reward: Reward, rollout: Rollout, task: Task, params: Model) -> Verdict:
    """One verdict, whatever the reward does short of ending the process."""

    def score() -> list[Verdict]:
        assert isinstance(reward, PerRollout)
        _check_reference(reward, task.reference)
        return [checked(reward, rollout.id, reward.score(rollout, task, params))]

    return _guard(reward, 1, score)[0]


def _guard(reward: Reward, count: int, score: Callable[[], list[Verdict]]) -> list[Verdict]:
    """Runs `score`; an exception becomes `count` verdicts. This is the boundary to the plugin's code."""
    try:
        return score()
    except BaseException as error:
        return [_failed(reward, error) for _ in range(count)]


def _failed(reward: Reward, error: BaseException) -> Verdict:
    """The verdict that an exception stands for. The message is left out: it may quote the rollout."""
    if isinstance(error, NotScored):
        said = Verdict(status=error.status, reason=error.reason, feedback=error.feedback)  # type: ignore[arg-type]
        return checked(reward, "", said)
    evidence = {"plugin": reward.name, "error": type(error).__name__, "at": _place(error)}
    if isinstance(error, MemoryError):
        return Verdict.not_scored("resource_limit", "memory_limit", evidence=evidence)
    if isinstance(error, (TimeoutError, asyncio.CancelledError)):
        return Verdict.not_scored("timeout", "item_limit", evidence=evidence)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return Verdict.not_scored("crashed", "exited", evidence=evidence)
    return Verdict.not_scored("plugin_error", "exception", evidence=evidence)


def _place(error: BaseException) -> str:
    """`file.py:line` of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _check_reference(reward: Reward, reference: Any) -> None:
    """Raises `BadReference` when the reference is not of the type that the reward declares."""
    if reference is None or reward.Reference is Any:
        return
    try:
        msgspec.convert(reference, reward.Reference)
    except msgspec.ValidationError as error:
        raise BadReference("wrong_type", str(error)) from None


def checked(reward: Reward, rollout_id: str | None, verdict: Any) -> Verdict:
    """The verdict that a plugin returned, or `plugin_error` saying in what way it is none."""
    fault = _fault(reward, rollout_id, verdict)
    if fault:
        return Verdict.not_scored("plugin_error", "invalid_verdict", evidence={"plugin": reward.name, "error": fault})
    assert isinstance(verdict, Verdict)
    if verdict.answer is not None and len(verdict.answer) > _MAX_ANSWER:
        verdict.answer = verdict.answer[:_MAX_ANSWER]
    if verdict.feedback is not None and len(verdict.feedback) > MAX_TEXT_BYTES:
        verdict.feedback = verdict.feedback[:MAX_TEXT_BYTES]
    verdict.id, verdict.cached = "", False
    return verdict


def checked_group(reward: PerGroup, rollouts: Sequence[Rollout], verdicts: Any) -> list[Verdict]:
    """The verdicts of a group reward, one per rollout; anything else is `plugin_error` for all of them."""
    if not isinstance(verdicts, Sequence) or isinstance(verdicts, (str, bytes)) or len(verdicts) != len(rollouts):
        fault = f"score_group must return {len(rollouts)} verdicts in the order of the rollouts"
        evidence = {"plugin": reward.name, "error": fault}
        return [Verdict.not_scored("plugin_error", "invalid_verdict", evidence=evidence) for _ in rollouts]
    return [checked(reward, rollout.id, verdict) for rollout, verdict in zip(rollouts, verdicts, strict=True)]


def _fault(reward: Reward, rollout_id: str | None, verdict: Any) -> str | None:
    """What makes this no verdict, or None."""
    if not isinstance(verdict, Verdict):
        return f"returned {type(verdict).__name__}, not a Verdict"
    if verdict.id and verdict.id != rollout_id:
        return "the verdict names another rollout"
    try:
        msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        return f"the verdict is not plain data: {error}"[:200]
    if verdict.status != "scored":
        return None if verdict.reward is None else "a verdict that is not scored has a reward"
    low, high = reward.range
    if verdict.reward is None or not low <= verdict.reward <= high:
        return f"the reward is {verdict.reward!r}, not a number in [{low}, {high}]"
    if set(verdict.parts) != set(reward.parts):
        return f"the parts are {sorted(verdict.parts)}, declared are {sorted(reward.parts)}"
    if not all(part is not None and math.isfinite(part) for part in verdict.parts.values()):
        return "a part is not a finite number"
    return None


def run_io(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], limits: Limits) -> None:
    """Judges orders of coroutine rewards, many at once, until the front hangs up."""
    _settle_in(limits)
    asyncio.run(_serve_io(connection, cell, rewards))


async def _serve_io(connection: Connection, cell: Cell, rewards: Mapping[str, Reward]) -> None:
    host = _IoHost(connection, cell, rewards)
    await host.reply(Ready(os.getpid()))
    await host.serve()


class _IoHost:
    """Keeps the orders of coroutine rewards under way. Each is one unit: one rollout, or one whole group."""

    def __init__(self, connection: Connection, cell: Cell, rewards: Mapping[str, Reward]) -> None:
        self._sock = connection.sock
        self._sock.setblocking(False)
        self._cell = cell
        self._rewards = rewards
        self._sending = asyncio.Lock()
        self._under_way: dict[int, asyncio.Task[None]] = {}

    async def reply(self, message: Results | Rejected | Ready) -> None:
        """One whole frame at a time."""
        async with self._sending:
            await asyncio.get_running_loop().sock_sendall(self._sock, frame(message))

    async def serve(self) -> None:
        """Until the front hangs up."""
        loop = asyncio.get_running_loop()
        reader = FrameReader()
        while data := await loop.sock_recv(self._sock, 262_144):
            for body in reader.feed(data):
                command = decode_to_worker(body)
                if isinstance(command, Order):
                    task = loop.create_task(self._judge(command))
                    self._under_way[command.number] = task
                    task.add_done_callback(lambda _, number=command.number: self._under_way.pop(number, None))
                elif command.number in self._under_way:
                    self._under_way[command.number].cancel()

    async def _judge(self, order: Order) -> None:
        await self.reply(await _Held(self._verdicts(order), self._cell, order.number))

    async def _verdicts(self, order: Order) -> Results | Rejected:
        prepared = _guarded_prepare(self._rewards, order)
        if not isinstance(prepared, Prepared):
            return prepared
        rows = list(prepared.rollouts())
        started = now_ns()
        verdicts = await _score_io(prepared, rows) if rows else []
        return Results(order.number, _timed(rows, verdicts, order, started), done=True)


async def _score_io(prepared: Prepared, rows: Sequence[tuple[int, Rollout, Task]]) -> list[Verdict]:
    reward, params = prepared.reward, prepared.params
    rollouts = [rollout for _, rollout, _ in rows]
    try:
        async with asyncio.timeout(reward.resources.item_timeout):
            if isinstance(reward, PerGroup):
                _check_reference(reward, prepared.task.reference)
                returned: Any = reward.score_group(rollouts, prepared.task, params)
                return checked_group(reward, rollouts, await returned)
            assert isinstance(reward, PerRollout)
            _, rollout, task = rows[0]
            _check_reference(reward, task.reference)
            returned = reward.score(rollout, task, params)
            return [checked(reward, rollout.id, await returned)]
    except BaseException as error:
        return [_failed(reward, error) for _ in rows]


class _Held:
    """A coroutine that marks the cell whenever it holds the event loop, so that one that blocks it can be named."""

    def __init__(self, work: Any, cell: Cell, number: int) -> None:
        self._work = work
        self._cell = cell
        self._number = number

    def __await__(self) -> Generator[Any, Any, Results | Rejected]:
        steps = self._work.__await__()
        send: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            self._cell.begin(self._number % Cell.PREPARING, now_ns())
            try:
                waiting_for = send()
            except StopIteration as end:
                result: Results | Rejected = end.value
                return result
            finally:
                self._cell.rest()
            try:
                received = yield waiting_for
            except BaseException as error:  # cancellation and the like are handed to the coroutine
                send = lambda error=error: steps.throw(error)  # noqa: E731
            else:
                send = lambda received=received: steps.send(received)  # noqa: E731


def _settle_in(limits: Limits) -> None:
    """What a fresh worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.quiet:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
    gc.enable()


def _data_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
