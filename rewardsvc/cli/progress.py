"""How far a long command is, on standard error: a bar on a terminal, and a plain line now and then elsewhere."""

from __future__ import annotations

import time

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rewardsvc.cli.terminal import console

PLAIN_LINE_SECONDS = 10.0


class Meter:
    """Shows how many of `total` things are done, and how many `faults` there were. Use it in a `with`."""

    def __init__(self, total: int, things: str = "groups", faults: str = "rollouts without a number") -> None:
        self._total, self._things, self._faults = total, things, faults
        self._console = console(stderr=True)
        self._said = time.monotonic()
        self._bar = _bar(self._console) if self._console.is_terminal else None
        self._task = self._bar.add_task(things.capitalize(), total=total, note="") if self._bar else None

    def __enter__(self) -> Meter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, done: int, faults: int) -> None:
        """So many things are `done`, and there were so many `faults` among them."""
        if self._bar and self._task is not None:
            note = f"{self._faults}: {faults:,}" if faults else ""
            self._bar.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._said > PLAIN_LINE_SECONDS:
            self._said = time.monotonic()
            self.tell(f"{done:,} of {self._total:,} {self._things}, {faults:,} {self._faults} so far")

    def tell(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._bar:
            self._bar.console.print(line, markup=False, style="yellow")
        else:
            typer.echo(line, err=True)


def _bar(terminal: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("[yellow]{task.fields[note]}"), console=terminal)
