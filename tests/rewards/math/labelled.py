"""Labelled answers of others, and answers whose label is known by construction. Read from a folder, never copied.

The folder is `REWARDSVC_SHARED_DATA` (default `../shared/data` beside the clone); where it is absent, tests skip and
say so. Its README describes the files.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

FOLDER = Path(os.environ.get("REWARDSVC_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data")) / "math"
PINNED_BUG = ("1-1/e", "1+1/e")
"""A public test that demands a wrong verdict; it is left out of the accuracy."""

PARAMS = {"mathverify_tests": {"preset": "math-verify"}, "simple_evals": {"preset": "prm800k"}}
"""Labels follow the policy of whoever wrote them: these sources are judged by the preset that imitates it."""


class Row(NamedTuple):
    """A completion, what it is judged by and how, and whether it is right."""

    gold: str
    completion: str
    right: bool
    question: str = ""
    params: dict[str, Any] = {}


def lines(name: str) -> list[dict[str, Any]]:
    """The rows of a file, or a skip that names it."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set REWARDSVC_SHARED_DATA")
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def labelled(name: str) -> Iterator[Row]:
    """The rows of a labelled file. In `probes` a leading @ marks a whole completion; the others are bare formulas."""
    for line in lines(name):
        completion = line["pred"]
        if name.startswith("probes"):
            completion = completion[1:] if completion.startswith("@") else f"\\boxed{{{completion}}}"
        if not _is_pinned_bug(line):
            params = PARAMS.get(line.get("source", ""), {})
            yield Row(line["gold"], completion, bool(line["expected"]), params=params)


def _is_pinned_bug(line: dict[str, Any]) -> bool:
    plain = [re.sub(r"[${}\\ ]|mathrm|boxed|d?frac", "", line[side]) for side in ("gold", "pred")]
    return bool(line["expected"]) and plain == ["1-1e", "1+1e"]


def golds() -> Iterator[tuple[str, str]]:
    """(gold, question) pairs."""
    for line in lines("golds.jsonl"):
        yield line["gold"], line["question"]


def itself() -> Iterator[Row]:
    """Each gold as its own answer."""
    for gold, question in golds():
        yield Row(gold, f"\\boxed{{{gold}}}", True, "")


def rewritten() -> Iterator[Row]:
    """Each gold as another hand would typeset it."""
    for gold, question in golds():
        other = re.sub(r"\\frac(?![a-z])", r"\\dfrac", gold)
        if r"\left." not in gold and r"\right." not in gold:
            other = re.sub(r"\\(?:left|right)(?![a-z])\s*", "", other)
        other = re.sub(r"(?<=[0-9a-z)}])\s*\+\s*(?=[0-9a-z(\\])", " + ", other)
        yield Row(gold, f"\\boxed{{ {other} }}", True, "")


def one_digit_changed() -> Iterator[Row]:
    """Each gold that has a digit, with one of them changed."""
    for gold, _ in golds():
        places = [match.start() for match in re.finditer(r"\d", gold)]
        if places:
            chance = random.Random(gold)
            place = chance.choice(places)
            digit = chance.choice([digit for digit in "123456789" if digit != gold[place]])
            yield Row(gold, f"\\boxed{{{gold[:place]}{digit}{gold[place + 1 :]}}}", False)


def false_equation() -> Iterator[Row]:
    """`0=1` against each gold that is an equation."""
    for gold, _ in golds():
        if "=" in gold:
            yield Row(gold, r"\boxed{0=1}", False)


def last_formula() -> Iterator[Row]:
    """The last formula of the question as the answer, where there is one and it is not the gold itself."""
    for gold, question in golds():
        text = re.sub(r"\[asy\].*?\[/asy\]", "", question, flags=re.DOTALL)
        pieces = text.replace("\\$", "").replace("$$", "$").split("$")
        formulas = [piece.strip() for piece in pieces[1::2] if re.search(r"\d|[a-zA-Z]", piece.replace("quad", ""))]
        if len(pieces) % 2 and formulas and formulas[-1] != gold.strip().strip("$"):
            yield Row(gold, f"\\boxed{{{formulas[-1]}}}", False, question)
