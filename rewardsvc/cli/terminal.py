"""What all commands share: how they speak to a person, how they stop, and how they come by the settings.

Results go to standard output and everything else to standard error, so that a pipe carries results only.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from pydantic import ValidationError

from rewardsvc.errors import SettingsFault

if TYPE_CHECKING:
    from rich.console import Console

    from rewardsvc.settings import Settings

FAILED, BAD_USAGE, UNSCORED, INTERRUPTED = 1, 2, 3, 130
"""Exit codes: it did not work or a promise is broken; the caller's mistake; something got no number; Ctrl-C."""

_WIDE = 240
_SERVICE_LINKS = (
    " Kubernetes sets such variables for a Service named rewardsvc: "
    "give the Service another name, or the pod `enableServiceLinks: false`."
)


def stop(message: str, code: int = BAD_USAGE) -> NoReturn:
    """Ends the command with a message on standard error."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def console(*, stderr: bool = False) -> Console:
    """Where tables go: as wide as the terminal, and into a pipe so wide that no line breaks."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False)


def load_settings(**flags: Any) -> Settings:
    """The settings; flags that were given (not None) take the environment's place. Stops when one is wrong."""
    from rewardsvc.settings import Settings, refuse_misspelt

    with stopping_on_faults():
        refuse_misspelt(os.environ)
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        stop("\n".join(_explain(fault) for fault in error.errors()))


def _explain(fault: Any) -> str:
    from rewardsvc.settings import PREFIX

    name = ".".join(str(part) for part in fault["loc"]).upper()
    hint = _SERVICE_LINKS if str(fault["input"]).startswith("tcp://") else ""
    return f"{PREFIX}{name} is {fault['input']!r}: {fault['msg']}.{hint}"


@contextlib.contextmanager
def stopping_on_faults() -> Iterator[None]:
    """A fault in the settings, however late it is found, is a message and no traceback."""
    try:
        yield
    except SettingsFault as fault:
        stop(str(fault))


@contextlib.contextmanager
def without_log() -> Iterator[None]:
    """Keeps the log of an executor in this process off the terminal: the command itself says what happened."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def folder_of_clone(name: str) -> Path:
    """A folder that only a clone of the project has. Stops when this is an installation without it."""
    import rewardsvc

    folder = Path(rewardsvc.__file__).parents[1] / name
    if not folder.is_dir():
        stop(f"{folder} is not there: run this from a clone of the project, installed with `pip install -e .`.", FAILED)
    return folder
