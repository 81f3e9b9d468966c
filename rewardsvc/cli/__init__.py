"""The command line: one module per concern, put together here.

    serve      start the service                     own_service   a service for the length of one command
    score      a file of groups                      groups, journal, progress
    rewards    what can be scored here
    math       the references of a data set, examined
    author     write a reward, check its promises    templates/
    demo · bench · doctor · openapi                  for those who try it, measure it, install it, document it

Modules that take long to import (the server, the executors) are imported by the commands that need them.
"""

from __future__ import annotations

import sys
from typing import Annotated

from rewardsvc import __version__

try:
    import typer
except ImportError:
    sys.exit("The command line and the server are an extra: pip install 'rewardsvc[server]'")

from rewardsvc.cli import author, bench, demo, doctor, math, openapi, rewards, score, serve

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rewardsvc {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The reward service for RL post-training: rollout groups in, honest verdicts out."""


for command in (
    serve.serve,
    score.score,
    rewards.rewards,
    author.new,
    author.check,
    demo.demo,
    serve.config,
    doctor.doctor,
    openapi.openapi,
    bench.bench,
):
    app.command()(command)
app.add_typer(math.app, name="math")
