"""`math audit`: what the references of a data set are, and what the reward `math` will do with each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import typer

from rewardsvc.cli.progress import Meter
from rewardsvc.cli.terminal import FAILED, UNSCORED, console, stop

if TYPE_CHECKING:
    from rewardsvc.rewards.math.audit import Audited
    from rewardsvc.rewards.math.policy import Policy

app = typer.Typer(help="Tools around the reward `math`.", no_args_is_help=True)

GOLDS = (
    "gold", "reference", "ground_truth", "answer", "target", "final_answer", "expected_answer", "solution",
    "task.reference", "reward_model.ground_truth",
)  # fmt: skip
PROMPTS = ("prompt", "question", "problem", "input", "task.prompt")
"""Where references and questions are looked for, the first that is there; a dot leads into an object."""

_WIDTH = 70


@app.callback()
def tools() -> None:
    """Keeps `audit` a command of its own although it is the only one."""


class Row(NamedTuple):
    """One reference: the line it stands in, from 1, and its question."""

    line: int
    gold: str
    prompt: str


class Entry(NamedTuple):
    """A reference and what was found."""

    row: Row
    audited: Audited


@app.command()
def audit(
    file: Annotated[
        Path, typer.Argument(metavar="GOLDS.jsonl", exists=True, dir_okay=False, help="One JSON object per line.")
    ],
    gold: Annotated[
        str | None, typer.Option(help=f"The field of the reference; left out: {', '.join(GOLDS[:4])}, …")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help=f"The field of the question; left out: {', '.join(PROMPTS[:3])}, …")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="The policy: house, math-verify, dapo, prm800k, gsm8k, olympiad.")
    ] = "house",
    show: Annotated[int, typer.Option(min=0, help="So many examples of each finding.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document: a summary, and every reference.")] = False,
) -> None:
    """Check the references of a data set before training on it.

    A list as reference is several accepted references, each of which is checked.

    Exit code: 0 every reference can be used · 3 some cannot · 2 bad usage · 1 the extra `math` is not installed.
    """
    policy = _policy(preset)
    rows = list(_rows(file, gold, prompt))
    if not rows:
        stop(f"{file} has no references.")
    entries = _audited(rows, policy)
    if as_json:
        typer.echo(msgspec.json.encode(_document(entries)).decode())
    else:
        _show(entries, show)
    unusable = {entry.row.line for entry in entries if entry.audited.treatment == "refused"}
    raise typer.Exit(UNSCORED if unusable else 0)


def _policy(name: str) -> Policy:
    try:
        from rewardsvc.rewards.math import policy
    except ImportError:
        stop("The reward `math` is an extra: pip install 'rewardsvc[math]'", FAILED)
    presets: Mapping[Any, Any] = policy.PRESETS
    if name not in presets:
        stop(f"There is no preset {name!r}; there are {', '.join(presets)}.")
    return msgspec.convert(presets[name], policy.Policy)


def _rows(file: Path, gold: str | None, prompt: str | None) -> Iterator[Row]:
    """The references of a file. Stops at the first line that is no JSON object, or that has none."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield from _of_line(file, number, line, gold, prompt)


def _of_line(file: Path, number: int, line: bytes, gold: str | None, prompt: str | None) -> Iterator[Row]:
    try:
        record = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        stop(f"{file}, line {number}: {error}")
    names = (gold,) if gold else GOLDS
    found = _field(record, names)
    if found is None and not any(name in record for name in names):
        wanted = repr(gold) if gold else "reference; name its field with --gold"
        stop(f"{file}, line {number}: there is no {wanted}. It has {', '.join(record)}.")
    question = _words(_field(record, (prompt,) if prompt else PROMPTS))
    for one in found if isinstance(found, list) and found else ["" if found in (None, []) else found]:
        yield Row(number, _words(one), question)


def _field(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these fields that is there and not null."""
    for name in names:
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _words(value: Any) -> str:
    """A text; of a conversation, all that was said in it."""
    if isinstance(value, list):
        return "\n".join(_words(item.get("content") if isinstance(item, dict) else item) for item in value)
    return "" if value is None else str(value)


def _audited(rows: list[Row], policy: Policy) -> list[Entry]:
    from rewardsvc.rewards.math.audit import audit as examine

    entries: list[Entry] = []
    refused = 0
    with Meter(len(rows), "references", "of no use") as meter:
        for row in rows:
            entries.append(Entry(row, examine(row.gold, row.prompt, policy)))
            refused += entries[-1].audited.treatment == "refused"
            meter.show(len(entries), refused)
    return entries


def _document(entries: list[Entry]) -> dict[str, Any]:
    golds = [{"line": row.line, "gold": row.gold} | msgspec.to_builtins(audited) for row, audited in entries]
    return {
        "summary": {
            "references": len(entries),
            "findings": Counter(finding for _, audited in entries for finding in audited.findings),
            "treatments": Counter(audited.treatment for _, audited in entries),
            "types": Counter(audited.type or "unparsable" for _, audited in entries),
        },
        "references": golds,
    }


def _show(entries: list[Entry], examples: int) -> None:
    from rewardsvc.rewards.math.audit import FINDINGS, TREATMENTS

    treated = Counter(audited.treatment for _, audited in entries)
    found = Counter(finding for _, audited in entries for finding in audited.findings)
    _table("What will be done", [(name, treated[name], TREATMENTS[name]) for name in TREATMENTS if treated[name]])
    _table("What was found", [(name, found[name], FINDINGS[name]) for name in FINDINGS if found[name]])
    silent = sum(not entry.audited.findings for entry in entries)
    typer.echo(f"{len(entries):,} references, {silent:,} with nothing to say about them.")
    for name in FINDINGS:
        for entry in [entry for entry in entries if name in entry.audited.findings][:examples]:
            typer.echo(f"{name:13} line {entry.row.line}: {_brief(entry)}")


def _table(title: str, rows: list[tuple[str, int, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    table.add_column("References", justify="right")
    table.add_column("", overflow="fold")
    for name, count, about in rows:
        table.add_row(Text(name), f"{count:,}", Text(about))
    console().print(table)


def _brief(entry: Entry) -> str:
    """The reference in one line, with why it cannot be read or the ways in which it can."""
    text = ascii(entry.audited.text)[1:-1] if not entry.audited.text.isprintable() else entry.audited.text
    text = text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
    why = entry.audited.reason or " or ".join(entry.audited.readings)
    return f"{text}  ({why})" if why else text
