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
import re
import resource
import signal
import traceback
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec

from rewardsvc.contract import MAX_TEXT_BYTES, Model, Rollout, Task, Timing, Verdict, first_error
from rewardsvc.errors import BadReference, NotScored
from rewardsvc.executors.wire import (
    Cell,
    Connection,
    FrameReader,
    Order,
    Ready,
    Rejected,
    Results,
    Sample,
    big_integer,
    decode_order,
    decode_to_worker,
    encode,
    frame,
    io_mark,
    now_ns,
)
from rewardsvc.reward import InvalidTask, PerGroup, PerRollout, Reward

_FLUSH_NS = 2_000_000
_MIB = 1 << 20
_BEAT_SECONDS = 0.25
_PATIENCE_SECONDS = 1.0
_MAX_STUBBORN = 100
_BACKSTOP = 8
_SCORED, _UNNAMED = "scored", ""
_SLUG = re.compile(r"[a-z0-9_]{1,64}")
_MAX_ANSWER = 10_000
_MAX_VERDICT = 4 * _MIB
_replace = msgspec.structs.replace
_decode_task = msgspec.msgpack.Decoder(Task, ext_hook=big_integer).decode
_decode_sample = msgspec.msgpack.Decoder(Sample, ext_hook=big_integer).decode
_decode_verdict = msgspec.msgpack.Decoder(Verdict).decode


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
        task = _decode_task(order.task)
        reward.check_task(task, params)
        return Prepared(order, reward, task, params)
    except msgspec.ValidationError as error:
        return Rejected(order.number, [first_error(error, "/params")])
    except InvalidTask as error:
        return Rejected(order.number, [(str(error.pointer), str(error.message))])
    except BaseException as error:
        return _all_alike(order, _failed(reward, error))


def _all_alike(order: Order, verdict: Verdict) -> Results:
    return Results(order.number, [(index, verdict) for index, _, _ in order.rows], done=True)


def run_cpu(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], limits: Limits) -> None:
    """Judges orders until the front hangs up."""
    _settle_in(limits)
    age = _Age(limits, cell)
    connection.send(Ready(os.getpid()))
    with contextlib.suppress(OSError):  # the front is gone, or a reward has closed what is not its own
        while (body := connection.receive()) is not None:
            cell.begin(Cell.PREPARING, now_ns())
            order = decode_order(body)
            message = _judge_order(prepare(rewards, order), cell, connection, age)
            cell.rest()
            connection.send(message)
            age.count(len(order.rows))
            if age.is_over():
                cell.leave()
                return
            age.weigh()
    cell.rest()


class _Age:
    """Decides when a worker has judged or grown enough, and looks after its memory.

    The front kills at the reward's limit, which a plugin cannot catch. What it was too late for is noticed here, after
    the item; and a backstop keeps one huge allocation from taking the machine. It is far above the limit, so that no
    library meets (and swallows) a MemoryError that would turn a failure into a wrong answer.
    """

    def __init__(self, limits: Limits, cell: Cell) -> None:
        self._limits = limits
        self._cell = cell
        self._judged = 0
        self._memory_mb = 0
        self._born = os.getpid()
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._born_kb = self._peak_kb = _peak_kb()
        self.weigh()

    def weigh(self) -> None:
        """Notes in the cell what the worker has while it does nothing."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            self._cell.weigh(int(os.pread(self._statm, 99, 0).split()[1]))

    def start(self, reward: Reward) -> None:
        """Allows a multiple of the reward's memory on top of what the process has now and may keep until it is old."""
        memory_mb = reward.resources.memory_mb
        if memory_mb != self._memory_mb:
            self._memory_mb = memory_mb
            allowed = _data_bytes() + (self._limits.recycle_mb + _BACKSTOP * memory_mb) * _MIB
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_DATA, (allowed, resource.RLIM_INFINITY))

    def is_overgrown(self) -> bool:
        """Whether what was judged since the last question took more memory than its reward may."""
        before, self._peak_kb = self._peak_kb, _peak_kb()
        weight_kb = self._cell.weight * resource.getpagesize() // 1024
        return self._peak_kb > before and self._peak_kb - weight_kb > self._memory_mb * 1024

    def count(self, items: int) -> None:
        """So many items were judged."""
        self._judged += items

    def is_over(self) -> bool:
        """Whether the worker must be replaced now, because of its age or of a child process that it still has."""
        self._peak_kb = _peak_kb()
        return (
            self._judged >= self._limits.recycle_items
            or self._peak_kb - self._born_kb >= self._limits.recycle_mb * 1024
            or _has_children()
        )

    def end_copies(self) -> None:
        """A reward that forks and returns twice must not answer twice."""
        if os.getpid() != self._born:
            os._exit(0)


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _has_children() -> bool:
    """Whether a child process is alive. The dead ones are buried."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _judge_order(
    prepared: Prepared | Rejected | Results, cell: Cell, connection: Connection, age: _Age
) -> Rejected | Results:
    """Judges an order's items, sending what is finished every two milliseconds; returns what is left to send."""
    if not isinstance(prepared, Prepared):
        return prepared
    age.start(prepared.reward)
    judge_items = _judge_group if isinstance(prepared.reward, PerGroup) else _judge_each
    message = judge_items(prepared, cell, connection, age)
    age.end_copies()
    return message


def _judge_each(prepared: Prepared, cell: Cell, connection: Connection, age: _Age) -> Results:
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
            _check_reference(reward, task.reference)
            verdict = checked(reward, rollout.id, reward.score(rollout, task, params))
        except BaseException as error:  # the boundary to the plugin's code
            verdict = _failed(reward, error)
        ended = now_ns()
        verdict.timing = Timing((started - admitted) // 1000 / 1000, (ended - started) // 1000 / 1000)
        finished.append((index, verdict))
        started = ended
        if ended - flushed > _FLUSH_NS:
            age.end_copies()
            if age.is_overgrown():
                finished[-1] = (index, Verdict.not_scored("resource_limit", "memory_limit"))
            connection.send(Results(number, finished))
            finished, flushed = [], ended
    return Results(number, finished, done=True)


def _judge_group(prepared: Prepared, cell: Cell, connection: Connection, age: _Age) -> Results:
    order, reward = prepared.order, prepared.reward
    assert isinstance(reward, PerGroup)
    rows = list(prepared.rollouts())
    if not rows:
        return Results(order.number, [], done=True)
    started = now_ns()
    cell.begin(rows[0][0], started)
    rollouts = [rollout for _, rollout, _ in rows]
    try:
        _check_reference(reward, prepared.task.reference)
        verdicts = checked_group(reward, rollouts, reward.score_group(rollouts, prepared.task, prepared.params))
    except BaseException as error:
        verdicts = [_failed(reward, error) for _ in rows]
    if age.is_overgrown():
        verdicts = [Verdict.not_scored("resource_limit", "memory_limit") for _ in rows]
    return Results(order.number, _timed(rows, verdicts, order, started), done=True)


def _timed(
    rows: Sequence[tuple[int, Rollout, Task]], verdicts: Sequence[Verdict], order: Order, started: int
) -> list[tuple[int, Verdict]]:
    timing = Timing(_ms(started - order.admitted_ns), _ms(now_ns() - started))
    for verdict in verdicts:
        verdict.timing = timing
    return [(index, verdict) for (index, _, _), verdict in zip(rows, verdicts, strict=True)]


def _failed(reward: Reward, error: BaseException) -> Verdict:
    """The verdict that an exception stands for. The message is left out: it may quote the rollout."""
    if isinstance(error, NotScored):
        return _said(reward, error)
    evidence = {"plugin": reward.name, "error": type(error).__name__, "at": _place(error)}
    if isinstance(error, MemoryError):
        return Verdict.not_scored("resource_limit", "memory_limit", evidence=evidence)
    if isinstance(error, (TimeoutError, asyncio.CancelledError)):
        return Verdict.not_scored("timeout", "item_limit", evidence=evidence)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return Verdict.not_scored("crashed", "exited", evidence=evidence)
    return Verdict.not_scored("plugin_error", "exception", evidence=evidence)


def _said(reward: Reward, error: NotScored) -> Verdict:
    """What the reward itself says about a rollout that it cannot judge; its own subclass may lack the attributes."""
    reason, feedback = getattr(error, "reason", None), getattr(error, "feedback", None)
    return checked(reward, "", Verdict(status=error.status, reason=reason, feedback=feedback))  # type: ignore[arg-type]


def _place(error: BaseException) -> str:
    """`file.py:line` of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _check_reference(reward: Reward, reference: Any) -> None:
    """Raises `BadReference` when the reference is not of the type that the reward declares."""
    if reward.Reference is Any or reference is None:
        return
    try:
        msgspec.convert(reference, reward.Reference)
    except msgspec.ValidationError as error:
        raise BadReference("wrong_type", str(error)) from None


def checked(reward: Reward, rollout_id: str | None, returned: Any) -> Verdict:
    """The verdict that a plugin returned, or `plugin_error` saying in what way it is none."""
    if type(returned) is Verdict and _is_plain(reward, returned):
        verdict: Verdict = returned
    else:
        try:
            verdict = _as_sent(returned)
            fault = _fault(reward, rollout_id, verdict)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            fault = f"the verdict is not plain data: {error}"[:200]
        if fault:
            evidence = {"plugin": reward.name, "error": fault}
            return Verdict.not_scored("plugin_error", "invalid_verdict", evidence=evidence)
        verdict.id = ""
    verdict.cached = False
    return verdict


def _is_plain(reward: Reward, verdict: Any) -> bool:
    """Whether a verdict is clearly in order: most are, and need no second look."""
    low, high = reward.range
    return (
        verdict.status is _SCORED
        and type(verdict.reward) is float
        and low <= verdict.reward <= high
        and type(verdict.reason) is str
        and _is_slug(verdict.reason)
        and (verdict.answer is None or _is_short(verdict.answer))
        and verdict.feedback is None
        and verdict.parts == {}
        and not reward.parts
        and verdict.evidence == {}
        and verdict.id is _UNNAMED
    )


@lru_cache(maxsize=1024)
def _is_slug(reason: str) -> bool:
    """A reason becomes a metric label, so it must not be made of a candidate's text."""
    return _SLUG.fullmatch(reason) is not None


def _as_sent(returned: Any) -> Verdict:
    """A verdict as other processes will see it. Raises TypeError or ValueError when it cannot be sent."""
    if not isinstance(returned, Verdict):
        raise TypeError(f"it is a {type(returned).__name__}, not a Verdict")
    if isinstance(returned.answer, str):
        returned.answer = returned.answer[:_MAX_ANSWER]
    if isinstance(returned.feedback, str):
        returned.feedback = returned.feedback[:MAX_TEXT_BYTES]
    encoded = encode(returned)
    if len(encoded) > _MAX_VERDICT:
        raise ValueError(f"it has more than {_MAX_VERDICT} bytes")
    verdict = _decode_verdict(encoded)
    msgspec.json.encode(verdict)
    return verdict


def _is_short(answer: Any) -> bool:
    return type(answer) is str and len(answer) <= _MAX_ANSWER and answer.isascii()


def checked_group(reward: PerGroup, rollouts: Sequence[Rollout], verdicts: Any) -> list[Verdict]:
    """The verdicts of a group reward, one per rollout; anything else is `plugin_error` for all of them."""
    if not isinstance(verdicts, Sequence) or isinstance(verdicts, (str, bytes)) or len(verdicts) != len(rollouts):
        fault = f"score_group must return {len(rollouts)} verdicts in the order of the rollouts"
        evidence = {"plugin": reward.name, "error": fault}
        return [Verdict.not_scored("plugin_error", "invalid_verdict", evidence=evidence) for _ in rollouts]
    return [checked(reward, rollout.id, verdict) for rollout, verdict in zip(rollouts, verdicts, strict=True)]


def _fault(reward: Reward, rollout_id: str | None, verdict: Verdict) -> str | None:
    """What makes this no verdict, or None."""
    if verdict.id and verdict.id != rollout_id:
        return "the verdict names another rollout"
    if not _is_slug(verdict.reason):
        return "the reason is not a slug of up to 64 lower-case letters, digits and underscores"
    if verdict.status != "scored":
        return None if verdict.reward is None else "a verdict that is not scored has a reward"
    low, high = reward.range
    if verdict.reward is None or not low <= verdict.reward <= high:
        return f"the reward is {verdict.reward!r}, not a number in [{low}, {high}]"
    if (verdict.parts or reward.parts) and set(verdict.parts) != set(reward.parts):
        return f"the parts are {sorted(verdict.parts)}, declared are {sorted(reward.parts)}"
    if not all(part is not None and math.isfinite(part) for part in verdict.parts.values()):
        return "a part is not a finite number"
    return None


def run_io(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], limits: Limits) -> None:
    """Judges orders of coroutine rewards, many at once, until the front hangs up."""
    _settle_in(limits)
    with contextlib.suppress(OSError):
        asyncio.run(_serve_io(connection, cell, rewards, _Age(limits, cell)))
    cell.rest()


async def _serve_io(connection: Connection, cell: Cell, rewards: Mapping[str, Reward], age: _Age) -> None:
    host = _IoHost(connection, cell, rewards, age)
    await host.reply(Ready(os.getpid()))
    await host.serve()


_order: ContextVar[int | None] = ContextVar("order", default=None)


class _IoHost:
    """Keeps the orders of coroutine rewards under way. Each is one unit: one rollout, or one whole group.

    It keeps no time: the front calls off what takes too long.
    """

    def __init__(self, connection: Connection, cell: Cell, rewards: Mapping[str, Reward], age: _Age) -> None:
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
        if not self._under_way and self._age.is_over():
            self._leave()

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
        return Results(order.number, _timed(rows, verdicts, order, started), done=True)


async def _score_io(prepared: Prepared, rows: Sequence[tuple[int, Rollout, Task]]) -> list[Verdict]:
    reward, params = prepared.reward, prepared.params
    rollouts = [rollout for _, rollout, _ in rows]
    try:
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
            self._cell.pause()

    def throw(self, *error: Any) -> Any:
        """One step that begins with an exception: a cancellation, say."""
        self._cell.begin(self._mark, now_ns())
        try:
            return self._work.throw(*error)
        finally:
            self._cell.pause()

    def close(self) -> None:
        """The end of one that was never finished."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()


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
    return int(Path("/proc/self/statm").read_bytes().split()[5]) * resource.getpagesize()


def _ms(nanoseconds: int) -> float:
    return nanoseconds // 1000 / 1000
