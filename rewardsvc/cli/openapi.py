"""`openapi`: the document that describes the HTTP API, for our own rewards alone and the same on every machine."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rewardsvc.cli.terminal import FAILED, stop, without_log

OUR_WHEEL = "rewardsvc"
_SHOWN_LINES = 40


def openapi(
    check: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Compare with this file; exit code 1 on drift.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
) -> None:
    """Print, write or compare the OpenAPI document. Rewards of other packages and files are left out."""
    document = serialised(own_document())
    if check is not None:
        _stop_on_drift(check, document)
    elif output is not None:
        output.write_text(document, encoding="utf-8")
    else:
        typer.echo(document, nl=False)


def own_document() -> dict[str, Any]:
    """The document for the rewards that come with rewardsvc. Stops when one of them cannot be offered here."""
    from rewardsvc.http.openapi import build
    from rewardsvc.testing import Bench

    with without_log(), Bench() as bench:
        ours = {info.name: info for info in bench.catalogue if info.wheel.split()[0] == OUR_WHEEL}
    for info in ours.values():
        if not info.available:
            stop(f"The document would lack {info.name}, which is unavailable: {info.unavailable_because}", FAILED)
    return build(ours)


def serialised(document: dict[str, Any]) -> str:
    """JSON in one form: components by name; paths, fields and examples in the order that a reader wants."""
    components = {kind: dict(sorted(members.items())) for kind, members in document["components"].items()}
    return json.dumps(document | {"components": components}, indent=2, ensure_ascii=False) + "\n"


def _stop_on_drift(path: Path, document: str) -> None:
    written = path.read_text(encoding="utf-8")
    if written == document:
        typer.echo(f"{path} is up to date.")
        return
    names = (str(path), "what the service serves")
    lines = list(difflib.unified_diff(written.splitlines(), document.splitlines(), *names, lineterm="", n=1))
    more = [f"… and {len(lines) - _SHOWN_LINES} more lines"] if len(lines) > _SHOWN_LINES else []
    typer.echo("\n".join([*lines[:_SHOWN_LINES], *more]))
    stop(f"{path} is out of date: run `rewardsvc openapi -o {path}` and commit it.", FAILED)
