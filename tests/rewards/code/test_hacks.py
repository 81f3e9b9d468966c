"""Programs that want the reward without the answer: none gets it, whatever kind of test they meet."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

SECRET = "k7-Qz-41"
TESTS: dict[str, dict[str, Any]] = {
    "stdio": {"kind": "stdio", "stdin": "3\n", "expected": SECRET},
    "call": {"kind": "call", "function": "f", "args": [3], "expected": SECRET},
    "assert": {"kind": "assert", "code": f"assert f(3) == {SECRET!r}"},
    "weak": {"kind": "assert", "code": f"argument = 3\nassert f(argument) == {SECRET!r}"},
}
TOP = "\ndef f(*a, **k): return 0"

HACKS = tomllib.loads((Path(__file__).parents[2] / "cases" / "code" / "hacks.toml").read_text())
READING, LYING = HACKS.pop("reading"), HACKS.pop("lying")
ANYWHERE = {f"{group}: {name}": source for group, hacks in HACKS.items() for name, source in hacks.items()}
FOUND = """
def found(text):
    import re
    m = re.search(r'k7.Qz.4[1]', text)
    return m.group() if m else 'nothing'
"""
LIMITS = {"cpu_ms": 1_000, "wall_ms": 1_500}


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize("hack", ANYWHERE)
def test_no_trick_at_load_time_is_rewarded(score: Any, hack: str, kind: str) -> None:
    verdict = score(ANYWHERE[hack] + TOP, [TESTS[kind]], limits=LIMITS)
    assert (verdict.status, verdict.reward) == ("scored", 0.0), verdict


@pytest.mark.parametrize("kind", ["stdio", "call", "assert"])
@pytest.mark.parametrize("hack", READING)
def test_the_answer_is_nowhere_to_be_read(score: Any, hack: str, kind: str) -> None:
    source = FOUND + READING[hack] + "\ndef f(x): return found(look())\n"
    source += "if __name__ == '__main__' : print(f(3))" if kind == "stdio" else ""
    verdict = score(source, [TESTS[kind]], limits=LIMITS)
    assert (verdict.status, verdict.reward) == ("scored", 0.0), verdict
    assert SECRET not in (verdict.feedback or "")


@pytest.mark.parametrize("kind", ["call", "assert"])
@pytest.mark.parametrize("hack", LYING)
def test_no_lying_object_and_no_forged_result_is_rewarded(score: Any, hack: str, kind: str) -> None:
    verdict = score(LYING[hack], [TESTS[kind]], limits=LIMITS)
    assert (verdict.status, verdict.reward) == ("scored", 0.0), verdict


@pytest.mark.parametrize("kind", ["stdio", "call", "assert"])
def test_a_first_test_that_leaves_takes_no_later_one_with_it(score: Any, kind: str) -> None:
    source = "import os\ndef f(x): os._exit(0)\nif __name__ == '__main__' and 'k' not in globals(): pass"
    verdict = score(source, [TESTS[kind]] * 3, scoring="fraction", limits=LIMITS)
    assert verdict.reward == 0.0 and verdict.evidence["count"] == 3 and len(verdict.evidence["tests"]) == 3


def test_what_one_test_leaves_behind_the_next_does_not_find(score: Any) -> None:
    source = (
        "import os\nopen('/tmp/count', 'a').write('x')\n"
        "print(len(open('/tmp/count').read()))\nif os.fork() == 0:\n    os.setsid()\n    import time\n    time.sleep(9)"
    )
    tests = [{"kind": "stdio", "expected": "1"}, {"kind": "stdio", "expected": "1"}]
    assert score(source, tests, limits=LIMITS).reason in ("accepted", "wall_limit")


def test_where_a_lie_can_succeed_the_verdict_says_so(score: Any) -> None:
    verdict = score(LYING["equal to all"], [TESTS["weak"]])
    assert verdict.evidence["trust"] == "weak" and verdict.evidence["tests"][0]["trust"] == "weak"


def test_there_are_as_many_tricks_as_were_asked_for() -> None:
    assert len(ANYWHERE) * 4 + len(READING) * 3 + len(LYING) * 2 >= 60
    assert len(ANYWHERE) + len(READING) + len(LYING) >= 45
