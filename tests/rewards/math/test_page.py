"""docs/math.md says what is true: its verdict is a real one, and every flag that cases bring up is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from rewardsvc.contract import Rollout, Task
from rewardsvc.errors import NotScored
from rewardsvc.rewards.math import Math
from tests.rewards.conftest import written_cases

PAGE = (Path(__file__).parents[3] / "docs" / "math.md").read_text(encoding="utf-8")
FLAGS = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| `.*?\|", PAGE, re.MULTILINE))))


def test_the_verdict_on_the_page_is_a_real_one() -> None:
    shown = msgspec.json.decode(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    verdict = Math().score(Rollout(completion=r"\boxed{\frac{2}{4}}"), Task(reference="1/2"), Math.Params())
    assert {name: msgspec.to_builtins(getattr(verdict, name)) for name in shown} == shown


def test_the_parameters_of_the_page_do_what_it_says() -> None:
    params: dict[str, Any] = msgspec.json.decode(re.findall(r'"params": (\{.*?\})', PAGE)[0])
    completions = [text.replace("\\\\", "\\") for text in re.findall(r'"completion": "(.*?)"', PAGE)]
    rewards = [
        Math().score(Rollout(completion=text), Task(reference="1/3"), Math.Params(**params)).reward
        for text in completions
    ]
    assert rewards == [0.0, 1.0]


def test_every_flag_that_a_case_brings_up_is_explained() -> None:
    seen: set[str] = set()
    for case in [*Math.cases, *written_cases("math")]:
        task = Task(reference=case.reference, prompt=case.prompt)
        try:
            verdict = Math().score(Rollout(completion=case.completions[0]), task, Math.Params(**case.params or {}))
        except NotScored:
            continue
        seen |= set(verdict.evidence["flags"])
    assert seen <= FLAGS
    assert len(seen) >= 8
