"""`rewards`: what can be scored on this machine, and what cannot, with the reason."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from rewardsvc.cli.terminal import console, load_settings, stopping_on_faults, without_log
from rewardsvc.contract import ResourceInfo, RewardInfo
from rewardsvc.settings import Settings

if TYPE_CHECKING:
    from rich.text import Text

_ROOMY = 120
_HEADINGS = ("Reward", "Version", "Judges", "Runs as", "From", "State", "What it gives")


def rewards(
    as_json: Annotated[bool, typer.Option("--json", help="The whole catalogue, as GET /v1/rewards gives it.")] = False,
) -> None:
    """List every reward. Each one's self-test is run for real, in worker processes as the service has them."""
    settings = load_settings()
    with stopping_on_faults(), without_log():
        catalogue = asyncio.run(_tested(settings))
    if as_json:
        typer.echo(msgspec.json.encode({"rewards": catalogue}).decode())
    else:
        _show(catalogue)


async def _tested(settings: Settings) -> list[RewardInfo]:
    """Every reward, by name, after its self-test."""
    from rewardsvc.http.app import limits_of
    from rewardsvc.scheduler import Scheduler

    async with Scheduler(limits_of(settings)) as scheduler:
        return sorted(scheduler.catalogue.values(), key=lambda info: info.name)


def _show(catalogue: list[RewardInfo]) -> None:
    """One line for each where there is room, else what it gives stands on lines of its own."""
    from rich.padding import Padding
    from rich.table import Column, Table
    from rich.text import Text

    terminal = console()
    table = Table(
        *(Column(heading, overflow="fold") for heading in _HEADINGS), box=None, pad_edge=False, header_style="bold"
    )
    for info in catalogue:
        cells, about = _cells(info), Text(info.summary if info.available else info.unavailable_because or "")
        table.add_row(*cells, about)
        if terminal.width < _ROOMY:
            terminal.print(Text("  ").join(cell for cell in cells if cell))
            terminal.print(Padding(about, (0, 0, 0, 4)))
    if terminal.width >= _ROOMY:
        terminal.print(table)


def _cells(info: RewardInfo) -> list[Text]:
    """What is short about a reward, in the order of the headings."""
    from rich.text import Text

    state = Text("available", "green") if info.available else Text("unavailable", "red")
    judges = "" if not info.version else "groups" if info.per_group else "rollouts"
    short = (info.version, judges, _where(info.resources), info.wheel)
    return [Text(info.name, "bold"), *map(Text, short), state]


def _where(resources: ResourceInfo) -> str:
    """Such as `cpu, 5 s`: the executor and the time that one item may take."""
    if not resources.item_timeout:
        return ""
    many = f" × {resources.concurrency}" if resources.concurrency > 1 else ""
    return f"{resources.kind}{many}, {resources.item_timeout:g} s"
