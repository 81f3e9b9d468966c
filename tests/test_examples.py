"""The examples do what they show, against a service as it comes out of the box."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(*command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REWARDSVC_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_blocking_client(service: str) -> None:
    lines = output_of(sys.executable, EXAMPLES / "score.py", service).splitlines()
    assert lines[0] == "fraction [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, None] mean 0.33"
    assert len(lines) == len((EXAMPLES / "math.jsonl").read_text().splitlines())


def test_the_asyncio_client(service: str) -> None:
    output = output_of(sys.executable, EXAMPLES / "score_async.py", service)
    assert "capital: 5 of 6 scored\n  bad-gold has no number: bad_reference, empty_reference" in output


def test_curl(service: str) -> None:
    output = output_of("bash", EXAMPLES / "curl.sh", service)
    assert '{"ready":true,"reasons":[]}' in output
    assert '"id":"a","reward":1.0' in output
    assert '"group":{"size":2' in output


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_example_groups_show_what_can_happen(path: Path) -> None:
    groups = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(groups) >= 2
    for group in groups:
        names = [rollout["id"] for rollout in group["rollouts"]]
        assert group["reward"] == path.stem
        assert 4 <= len(names) <= 8
        assert {"right", "attack"} <= set(names)
