"""`rewards`: what can be scored on this machine, and what cannot, with the reason."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from rewardsvc.cli.terminal import console, load_settings, stopping_on_faults, without_log
from rewardsvc.contract import ResourceInfo, RewardInfo
from rewardsvc.settings import Settings


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
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Reward", "Version", "Judges", "Runs as", "From", "State", "What it gives"):
        table.add_column(heading, overflow="fold")
    for info in catalogue:
        state = Text("available", "green") if info.available else Text("unavailable", "red")
        about = info.summary if info.available else info.unavailable_because or ""
        judges = "" if not info.version else "groups" if info.per_group else "rollouts"
        row = (info.name, info.version, judges, _where(info.resources), info.wheel)
        table.add_row(*map(Text, row), state, Text(about))
    console().print(table)


def _where(resources: ResourceInfo) -> str:
    """Such as `cpu, 5 s`: the executor and the time that one item may take."""
    if not resources.item_timeout:
        return ""
    many = f" × {resources.concurrency}" if resources.concurrency > 1 else ""
    return f"{resources.kind}{many}, {resources.item_timeout:g} s"
