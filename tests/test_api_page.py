"""docs/api.md: its examples are run against a service, and its tables leave no field out."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewardsvc.contract import GroupSummary, Rollout, ScoreRequest, Task, Timing, Verdict

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```bash\n(.*?)```\s*```json\n(.*?)```", PAGE, re.DOTALL)
ANYTHING = "…"


def documents(text: str) -> list[Any]:
    """The JSON documents that stand in a text, one after the other."""
    found, at = [], 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = json.JSONDecoder().raw_decode(text, at)
        found.append(document)
    return found


def same(got: Any, shown: Any) -> bool:
    """Whether a value is as the page shows it: `…` is any value, and as a name it stands for the other fields."""
    if shown == ANYTHING:
        return True
    if isinstance(shown, dict):
        named = shown.keys() - {ANYTHING}
        complete = ANYTHING in shown or got.keys() == named
        return complete and all(name in got and same(got[name], shown[name]) for name in named)
    if isinstance(shown, list):
        return len(got) == len(shown) and all(map(same, got, shown))
    return bool(got == (pytest.approx(shown, abs=1e-3) if type(shown) is float else shown))


@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_an_example_gets_the_reply_that_is_shown(service: str, command: str, shown: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8000", service)], capture_output=True, check=True, text=True
    )
    got = documents(done.stdout)
    assert same(got, documents(shown)), json.dumps(got)


def test_every_example_has_a_reply_beside_it() -> None:
    assert len(EXAMPLES) == PAGE.count("```bash") == 4


@pytest.mark.parametrize(
    "model", [ScoreRequest, Task, Rollout, Verdict, Timing, GroupSummary], ids=lambda m: m.__name__
)
def test_every_field_is_explained(model: type[msgspec.Struct]) -> None:
    for name in model.__struct_fields__:
        assert re.search(rf"`(?:[a-z\[\]]+\.)?{name}`", PAGE), name
