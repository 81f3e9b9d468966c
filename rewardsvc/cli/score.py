"""`score`: a file of groups in, a file of verdicts out, in the same order; an interrupted run can be taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn, TypeVar

import msgspec
import typer

from rewardsvc.cli import groups
from rewardsvc.cli.groups import Group, Survey
from rewardsvc.cli.journal import NotAJournal, Output, open_output
from rewardsvc.cli.own_service import Address, own_service
from rewardsvc.cli.progress import Meter
from rewardsvc.cli.terminal import FAILED, INTERRUPTED, UNSCORED, stop
from rewardsvc.contract import ScoreReply
from rewardsvc.errors import ClientError, DeadlineExceeded, ServiceRefused, ServiceUnreachable

PATIENCE_S = 60.0
"""A group may wait so long beyond its deadline for a service that is full or away."""
GREETING_S = 5.0
AHEAD = 8
"""So many times the groups in flight may be finished and wait for an earlier one to be written."""
_SHOWN_FAULTS = 10

if TYPE_CHECKING:
    from rewardsvc.client import AsyncClient

T = TypeVar("T")
S = TypeVar("S")


def score(
    file: Annotated[str, typer.Argument(metavar="GROUPS.jsonl", help="One group per line; `-` is standard input.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="VERDICTS.jsonl", help="`-` is standard output.")],
    url: Annotated[str | None, typer.Option(help="A running service; left out, one is started for this.")] = None,
    reward: Annotated[str | None, typer.Option(help="The reward for lines that name none.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Groups in flight at once.")] = 16,
    api_key: Annotated[str | None, typer.Option(envvar="REWARDSVC_API_KEY", help="The service's key.")] = None,
    retry_unscored: Annotated[
        bool, typer.Option("--retry-unscored", help="Score groups again in which a rollout got no number.")
    ] = False,
) -> None:
    """Score a file of groups and write one line of verdicts per group, in the same order.

    A line is a request as the API takes it, with "reward" and, if you like, "group_id" (else its line number is used).
    Run the same command again to go on after an interruption: what was scored is kept, groups that failed are retried.

    Exit code: 0 everything scored · 3 some rollouts or groups were not · 2 bad usage · 1 no service.
    """
    with _opened(file) as source:
        try:
            survey = groups.survey(source, reward)
        except groups.NotLines as error:
            stop(f"{file}: {str(error).replace('FILE', file)}\nNothing was scored.")
        if survey.bad:
            _stop_for(file, survey.bad)
        try:
            sink = open_output(output, retry_unscored)
        except (NotAJournal, OSError) as error:
            stop(str(error))
        run = Run(source, reward, survey, sink, concurrency)
        _finish(run, url, api_key or None)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """The file of groups, which is read twice; standard input is copied first."""
    try:
        with tempfile.TemporaryFile() if name == "-" else Path(name).open("rb") as source:
            if name == "-":
                shutil.copyfileobj(sys.stdin.buffer, source)
            yield source
    except OSError as error:
        stop(f"{name}: {error.strerror}")


def _stop_for(file: str, faults: list[str]) -> NoReturn:
    more = len(faults) - _SHOWN_FAULTS
    lines = [f"{file}, {fault}" for fault in faults[:_SHOWN_FAULTS]]
    stop("\n".join([*lines, *([f"and {more} more lines"] if more > 0 else []), "Nothing was scored."]))


@dataclass
class Tally:
    """What came of the groups so far."""

    groups: int = 0
    scored: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, rollouts: int, unscored: Iterable[str]) -> None:
        """A group with its verdicts; `unscored` are the statuses of those without a number."""
        before = self.unscored.total()
        self.unscored.update(unscored)
        self.scored += rollouts - (self.unscored.total() - before)
        self.groups += 1

    @property
    def complete(self) -> bool:
        """Whether every rollout has a number."""
        return not self.unscored and not self.refused

    def __str__(self) -> str:
        rollouts = self.scored + self.unscored.total()
        lines = [f"Scored {self.scored:,} of {rollouts:,} rollouts in {self.groups:,} groups."]
        if self.unscored:
            lines.append(f"Without a number: {_counts(self.unscored)}.")
        if self.refused:
            lines.append(f"Groups that failed: {_counts(self.refused)}. The same command tries them again.")
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common())


@dataclass
class Run:
    """One run of the command: what to score, where the verdicts go, and how it is going."""

    source: BinaryIO
    default_reward: str | None
    survey: Survey
    output: Output
    concurrency: int
    tally: Tally = field(default_factory=Tally)

    def groups_left(self) -> Iterator[Group]:
        """The groups that no earlier run has scored; those it has are counted. Stops when they are other groups."""
        for group in groups.read(self.source, self.default_reward):
            kept = self.output.kept.get(group.id)
            if kept is None:
                yield group
            elif kept.fingerprint != group.fingerprint():
                stop(
                    f"The output already has verdicts for group_id {group.id!r}, but they are the verdicts on "
                    "another request. It belongs to another input; name another file, or remove it."
                )
            else:
                self.tally.add(kept.rollouts, kept.unscored)

    def nothing_is_left(self) -> bool:
        """Whether earlier runs have scored everything; it is counted, then. Stops when they scored something else."""
        strange = next(iter(self.output.kept.keys() - self.survey.order.keys()), None)
        if strange is not None:
            stop(f"The output has verdicts for group_id {strange!r}, which is not in the input; name another file.")
        return self.output.kept.keys() >= self.survey.order.keys() and not list(self.groups_left())

    async def score(self, address: Address, meter: Meter) -> None:
        """Asks the service for every group that is left and writes the answers down, in order."""
        from rewardsvc.client import AsyncClient

        timeout = self.survey.longest_ms / 1e3 + PATIENCE_S
        async with AsyncClient(address.url, address.key, timeout, absent=PATIENCE_S) as client:
            answers = in_order(self.groups_left(), lambda group: ask(client, group), self.concurrency)
            async with contextlib.aclosing(answers):
                async for group, answer in answers:
                    self._write(group, answer)
                    meter.show(self.tally.groups + self.tally.refused.total(), self.tally.unscored.total())

    def _write(self, group: Group, answer: ScoreReply | ClientError) -> None:
        if isinstance(answer, ScoreReply):
            self.output.write(group.id, {"input": group.fingerprint(), **msgspec.structs.asdict(answer)})
            statuses = [verdict.status for verdict in answer.verdicts]
            self.tally.add(len(statuses), [status for status in statuses if status != "scored"])
        else:
            problem = problem_of(answer)
            about = {"input": group.fingerprint(), "reward": group.reward, "problem": problem}
            self.output.write(group.id, about)
            self.tally.refused[problem["type"]] += 1


def _finish(run: Run, url: str | None, api_key: str | None) -> None:
    """Scores what is left and ends with the exit code that says how it went."""
    meter = Meter(len(run.survey.order))
    code = 0
    try:
        with meter:
            asyncio.run(_score_all(run, url, api_key, meter))
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command goes on from here.", err=True)
        code = INTERRUPTED
    except ServiceUnreachable as error:
        typer.echo(f"{error}\nThe service is gone. The same command goes on from here.", err=True)
        code = FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        code = FAILED
    finally:
        run.output.close(run.survey.order)
    typer.echo(str(run.tally), err=True)
    raise typer.Exit(code or (0 if run.tally.complete else UNSCORED))


async def _score_all(run: Run, url: str | None, api_key: str | None, meter: Meter) -> None:
    if run.nothing_is_left():
        meter.show(run.tally.groups, run.tally.unscored.total())
        return
    async with contextlib.AsyncExitStack() as stack:
        if url is None:
            address = await stack.enter_async_context(own_service(meter.tell))
        else:
            address = Address(url, api_key)
        await greet(address, run.survey.rewards)
        await run.score(address, meter)


async def greet(address: Address, rewards: Mapping[str, int]) -> None:
    """Stops at once when the service is not there, does not take the key, or lacks a reward (given with its line)."""
    from rewardsvc.client import AsyncClient

    try:
        async with AsyncClient(address.url, address.key, GREETING_S) as client:
            offered = {info.name for info in await client.rewards()}
    except ServiceRefused as error:
        hint = " Set REWARDSVC_API_KEY." if error.status in (401, 403) else ""
        stop(f"{address.url} refuses: {error.detail}{hint}", FAILED)
    except ClientError as error:
        stop(str(error) if address.url in str(error) else f"{error}\nNo service answers on {address.url}.", FAILED)
    except ValueError as error:
        stop(f"{address.url}: {error}")
    for name, number in rewards.items():
        if name not in offered:
            stop(f"line {number}: the service has no reward {name!r}; it has {', '.join(sorted(offered))}.")


async def ask(client: AsyncClient, group: Group) -> tuple[Group, ScoreReply | ClientError]:
    """The answer to one group, or why there is none. Raises `ServiceUnreachable` when the service itself is gone."""
    request = group.request
    try:
        reply = await client.score(
            group.reward,
            request.rollouts,
            task=request.task,
            params=request.params,
            deadline_ms=request.deadline_ms,
        )
    except ClientError as error:
        if isinstance(error, ServiceUnreachable) and not await client.ready():
            raise
        return group, error
    return group, reply


def problem_of(error: ClientError) -> dict[str, Any]:
    """A failed call as it stands in the output: what the service said, or that it said nothing."""
    if not isinstance(error, ServiceRefused):
        slug = "deadline-exceeded" if isinstance(error, DeadlineExceeded) else "unreachable"
        return {"type": slug, "status": None, "detail": str(error), "errors": [], "retryable": True}
    errors = [{"pointer": pointer, "detail": message} for pointer, message in error.errors]
    about = {"status": error.status, "detail": error.detail, "errors": errors, "retryable": error.retryable}
    return {"type": error.slug, **about}


async def in_order(items: Iterable[T], work: Callable[[T], Awaitable[S]], at_once: int) -> AsyncGenerator[S]:
    """The results in the order of the items, at most `at_once` under way, and not too many kept waiting."""
    slots = asyncio.Semaphore(at_once)
    waiting: deque[asyncio.Task[S]] = deque()

    async def one(item: T) -> S:
        async with slots:
            return await work(item)

    try:
        for item in items:
            waiting.append(asyncio.create_task(one(item)))
            if len(waiting) >= AHEAD * at_once:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
