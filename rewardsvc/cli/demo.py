"""`demo`: the example groups, scored by a service of its own, as a table of verdicts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from rewardsvc.cli.groups import Group, GroupId, parse
from rewardsvc.cli.own_service import own_service
from rewardsvc.cli.score import ask, in_order
from rewardsvc.cli.terminal import FAILED, console, folder_of_clone, stop
from rewardsvc.contract import ScoreReply, Verdict
from rewardsvc.errors import ClientError

if TYPE_CHECKING:
    from rich.table import Table

AT_ONCE = 4
_SHORTEST_ANSWER = 8
_ROOMY = 100
_NUMBERS = ("reward", "run_ms")


def demo() -> None:
    """Score the example groups against a service started for it, and show the verdicts."""
    examples = list(_examples(folder_of_clone("examples")))
    with console(stderr=True).status("Starting a service …"):
        replies = asyncio.run(_score(examples))
    terminal = console()
    terminal.print(_table([row for group, reply in replies for row in _rows(group.id, reply)], terminal.width))
    size, scored = (sum(getattr(reply.group, field) for _, reply in replies) for field in ("size", "scored"))
    typer.echo(f"\n{size - scored} of {size} rollouts have no number: a failure is never a zero.")


def _examples(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            yield parse(number, line)


async def _score(examples: list[Group]) -> list[tuple[Group, ScoreReply]]:
    from rewardsvc.client import AsyncClient

    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(own_service(lambda line: typer.echo(line, err=True)))
        client = await stack.enter_async_context(AsyncClient(address.url, address.key))
        answers = in_order(examples, lambda group: ask(client, group), AT_ONCE)
        await stack.enter_async_context(contextlib.aclosing(answers))
        return [(group, _reply(group, answer)) async for group, answer in answers]


def _reply(group: Group, answer: ScoreReply | ClientError) -> ScoreReply:
    if isinstance(answer, ClientError):
        stop(f"{group.id}: {answer}", FAILED)
    return answer


def _rows(group: GroupId, reply: ScoreReply) -> Iterator[Row]:
    """The rows of one group, after an empty one; its name and its reward's stand at the side."""
    yield Row()
    for side, verdict in zip_longest((str(group), reply.reward), reply.verdicts, fillvalue=None):
        yield Row(side or "", *_cells(verdict)) if verdict else Row(side or "")


def _cells(verdict: Verdict) -> tuple[str, ...]:
    reward = "–" if verdict.reward is None else f"{verdict.reward:g}"
    answer = (verdict.answer or "").replace("\n", " ")
    return verdict.id, reward, verdict.status, verdict.reason, answer, f"{verdict.timing.run_ms:.2f}"


class Row(NamedTuple):
    """One line of the table."""

    group: str = ""
    id: str = ""
    reward: str = ""
    status: str = ""
    reason: str = ""
    answer: str = ""
    run_ms: str = ""

    @property
    def style(self) -> str:
        """Not scored stands out; what earned something is green."""
        return "yellow" if self.reward == "–" else "green" if self.reward not in ("", "0") else ""


def _table(rows: list[Row], room: int) -> Table:
    """As wide as it must be; where `room` characters are too few for that, times are left out and answers cut."""
    from rich.table import Table
    from rich.text import Text

    widths = {name: max(map(len, [name, *cells])) for name, *cells in zip(Row._fields, *rows, strict=True)}
    if room < _ROOMY:
        del widths["run_ms"]
    others = sum(width + 1 for name, width in widths.items() if name != "answer")
    widths["answer"] = min(widths["answer"], max(_SHORTEST_ANSWER, room - others - 1))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name, width in widths.items():
        heading = name.replace("_", " ").capitalize()
        table.add_column(heading, no_wrap=True, justify="right" if name in _NUMBERS else "left", width=width)
    for row in rows:
        table.add_row(*map(Text, row[: len(widths)]), style=row.style)
    return table
