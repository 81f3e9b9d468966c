"""`new` writes a reward to start from, `check` runs a reward's cases: what the author of a reward needs."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from rewardsvc import registry
from rewardsvc.cli.terminal import FAILED, load_settings, stop, without_log
from rewardsvc.contract import CaseInfo, Verdict
from rewardsvc.errors import RewardFault

if TYPE_CHECKING:
    from rewardsvc.testing import Bench, Checked

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PACKAGE = {"reward.py": "$name.py", "test.py": "test_$name.py", "pyproject.toml": "pyproject.toml"}
_AFTER_FILE = {
    "rewardsvc check $path": "run its cases",
    "rewardsvc serve --reward-file $path": "offer it",
    "rewardsvc new $name --package": "make a folder for pip, with an entry point",
}
_AFTER_PACKAGE = {
    "rewardsvc check $path/$name.py": "run its cases",
    "pip install $place": "install it",
    "rewardsvc rewards": "there it is",
}


def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and underscores.")],
    directory: Annotated[Path, typer.Option(file_okay=False, exists=True, help="Where to put it.")] = Path(),
    package: Annotated[bool, typer.Option("--package", help="A folder that pip can install, with a test.")] = False,
) -> None:
    """Write a small reward that works, to be changed into yours."""
    _refuse_bad_name(name)
    words = {"name": name, "folder": name.replace("_", "-"), "cls": name.title().replace("_", "")}
    if package:
        path = directory / words["folder"]
        files = {path / Template(target).substitute(words): source for source, target in _PACKAGE.items()}
    else:
        path = directory / f"{name}.py"
        files = {path: "reward.py"}
    for file, source in files.items():
        _write(file, Template(_template(source)).substitute(words))
    _show_next(_AFTER_PACKAGE if package else _AFTER_FILE, words | {"path": str(path), "place": _for_pip(path)})


def _for_pip(folder: Path) -> str:
    """A path that pip cannot take for the name of a package on an index."""
    return str(folder) if folder.is_absolute() else f"./{folder}"


def _show_next(commands: Mapping[str, str], words: Mapping[str, str]) -> None:
    filled = {Template(command).substitute(words): meaning for command, meaning in commands.items()}
    width = max(map(len, filled))
    typer.echo("\n".join(["Next:", *(f"  {command:{width}}   {meaning}" for command, meaning in filled.items())]))


def _refuse_bad_name(name: str) -> None:
    """The name becomes part of a URL, a class and a module."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        stop(f"{name!r} is no name for a reward: take lower-case letters, digits and underscores, a letter first.")
    if name in {found.name for found in registry.find(())}:
        stop(f"A reward {name!r} is installed already; choose another name.")
    if name in sys.stdlib_module_names:
        stop(f"Python has a module {name!r} of its own, which a file of this name would hide; choose another name.")


def _template(source: str) -> str:
    return (resources.files("rewardsvc.cli") / "templates" / f"{source}.txt").read_text(encoding="utf-8")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as fresh:
            fresh.write(text)
    except FileExistsError:
        stop(f"{file} is there already; nothing was overwritten.")
    typer.echo(f"Wrote {file}")


def check(
    rewards: Annotated[list[str], typer.Argument(metavar="NAME_OR_FILE...", help="Installed rewards, or files.")],
    cases: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="More cases for each, one JSON object per line.")
    ] = None,
) -> None:
    """Run the cases of rewards where the service would run them. Exit code 1 when one breaks a promise.

    What a reward's code prints is shown. A line of --cases has completion, reward (null: must not be scored), and if
    needed reference, params, prompt, status, reason, why.
    """
    from rewardsvc.testing import Bench, case_lines

    targets = [_target(reward) for reward in rewards]
    try:
        more = list(case_lines(cases)) if cases else []
        with without_log(), Bench(*targets) as bench:
            all_hold = [_check(bench, target, more) for target in targets]
    except RewardFault as fault:
        stop(str(fault), FAILED)
    if not all(all_hold):
        raise typer.Exit(FAILED)


def _target(reward: str) -> str:
    """A name that the settings give a file to means that file."""
    files = {Path(file).stem: file for file in load_settings().reward_files}
    return files.get(reward, reward)


def _check(bench: Bench, target: str, more: Sequence[CaseInfo]) -> bool:
    """Shows every case of one reward; whether all promises hold."""
    try:
        info = bench.info(target)
    except RewardFault as fault:
        typer.secho(f"✗ {fault}", fg="red")
        return False
    typer.secho(f"{info.name} {info.version}  {info.wheel}", bold=True)
    checked = [_shown(each) for each in bench.check(target, more)]
    broken = sum(each.fault is not None for each in checked)
    typer.echo(f"{broken} of {len(checked)} cases broken" if broken else f"{len(checked)} cases, all as promised")
    if not checked:
        typer.secho("✗ A reward without cases promises nothing: give it some.", fg="red")
    return bool(checked) and not broken


def _shown(checked: Checked) -> Checked:
    """Prints the line of one case as soon as it is judged."""
    case = checked.case
    if checked.fault:
        typer.secho(f"  ✗ {checked.fault}", fg="red")
        return checked
    got = ", ".join(_got(verdict) for verdict in checked.verdicts[:4])
    what = case.why or "".join(case.rollouts[:1])[:60]
    typer.echo(f"  {typer.style('✓', fg='green')} {case.kind} case {what!r}: {got}")
    return checked


def _got(verdict: Verdict) -> str:
    return f"{verdict.status}, {verdict.reason}" if verdict.reward is None else f"{verdict.reward:g}, {verdict.reason}"
