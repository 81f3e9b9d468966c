"""`bench`: runs the scripts in benchmarks/, which say what they measure and print their figures."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import Annotated

import typer

from rewardsvc.cli.terminal import folder_of_clone, stop


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Left out: list what there is.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every one.")] = False,
) -> None:
    """Measure. Each benchmark prints its figures beside the bars of the project."""
    scripts = {path.stem: path for path in sorted(folder_of_clone("benchmarks").glob("[!_]*.py"))}
    unknown = [name for name in names or () if name not in scripts]
    if unknown:
        stop(f"There is no benchmark {unknown[0]!r}; there are {', '.join(scripts)}.")
    chosen = list(scripts) if every else names or []
    if not chosen:
        for name, path in scripts.items():
            about = ast.get_docstring(ast.parse(path.read_bytes())) or ""
            typer.echo(f"{name:12} {about.partition(chr(10))[0]}")
    codes = [subprocess.run([sys.executable, str(scripts[name])], check=False).returncode for name in chosen]
    raise typer.Exit(max(codes, default=0))
