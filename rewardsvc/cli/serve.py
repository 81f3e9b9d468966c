"""`serve` starts the service; `config` shows the settings that it would start with."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from rewardsvc.cli.terminal import console, load_settings, stop, stopping_on_faults

if TYPE_CHECKING:
    from rewardsvc.settings import Settings

RewardFiles = Annotated[
    list[Path] | None,
    typer.Option("--reward-file", exists=True, dir_okay=False, help="A Python file with a reward; may be repeated."),
]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback only with a key.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Warm worker processes.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond loopback without a key.")] = False,
    reward_files: RewardFiles = None,
) -> None:
    """Start the service. Ctrl-C or SIGTERM ends it, after the groups under way have been answered.

    Everything else is set by environment variables: see `rewardsvc config`. Flags take their place.
    """
    files = tuple(str(file) for file in reward_files) if reward_files else None
    settings = load_settings(host=host, port=port, workers=workers, insecure=insecure or None, reward_files=files)
    for file in settings.reward_files:
        _refuse_bad_syntax(Path(file))
    from rewardsvc.http.app import serve as run

    if sys.stderr.isatty():
        typer.echo(f"Starting on {_address(settings)}, forms to try it at /docs. Ctrl-C ends it.", err=True)
    with stopping_on_faults():
        run(settings)


def _refuse_bad_syntax(file: Path) -> None:
    """Stops for a file that Python cannot read. It is not run here; one that is not there is an unavailable reward."""
    try:
        ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        stop(f"The reward file {file}{place} is not valid Python: {what}. Mend it; `rewardsvc check {file}` tries it.")
    except OSError:
        return


def _address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}" if settings.port else f"a free port of {host}"


def config() -> None:
    """Show the settings in force, secrets masked, each with its environment variable."""
    from rich.markup import escape
    from rich.table import Table

    from rewardsvc.settings import PREFIX

    settings = load_settings()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Variable", "Value", "Set", "What it is for"):
        table.add_column(heading, no_wrap=heading == "Variable", overflow="fold")
    for name, field in type(settings).model_fields.items():
        is_set = name in settings.model_fields_set
        row = (f"{PREFIX}{name.upper()}", masked(getattr(settings, name)), "yes" if is_set else "", _about(field))
        table.add_row(*map(escape, row), style="bold" if is_set else None)
    console().print(table)


def _about(field: FieldInfo) -> str:
    return field.description or ""


def masked(value: object) -> str:
    """A setting as it may be shown: no key, and no password inside an address."""
    if isinstance(value, SecretStr):
        keys = [key for key in value.get_secret_value().split(",") if key.strip()]
        return f"{'*' * 8} ({len(keys)} set)" if keys else "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    text = "none" if value is None else str(value)
    secret = urlsplit(text).netloc.rpartition("@")[0] if "@" in text else ""
    return text.replace(f"{secret}@", "********@") if secret else text
