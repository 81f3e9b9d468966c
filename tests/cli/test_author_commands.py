"""`rewardsvc new` and `rewardsvc check`: a reward that works in one command, and promises that are really checked."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewardsvc.cli import app

BROKEN = '''
import os
from rewardsvc.reward import Case, Cpu, PerRollout, Verdict

class Broken(PerRollout):
    """Right about one case of four."""

    name, version = "broken", "7"
    resources = Cpu(item_timeout=0.3)
    reasons = {"known": "A reason."}
    cases = [
        Case.full("right", reason="known"),
        Case.zero("wrong", why="a wrong promise"),
        Case.full("exit", why="it ends the worker"),
        Case.full("slug", why="a reason that is not listed"),
    ]

    def score(self, rollout, task, params):
        print("judging", rollout.text)
        if rollout.text == "exit":
            os._exit(3)
        return Verdict.scored(1.0, "unknown" if rollout.text == "slug" else "known")
'''


def lines_of_code(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    source = path.read_text()
    strings = [
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    ]
    no_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in no_code for line in range(token.start[0], token.end[0] + 1)}
    return len(code - set(strings))


def test_a_new_reward_works_as_it_is(rewardsvc: Any) -> None:
    made, checked = rewardsvc("new", "my_reward"), rewardsvc("check", "my_reward")
    assert (made.returncode, checked.returncode) == (0, 0), made.stderr + checked.stderr
    assert "rewardsvc check my_reward.py" in made.stdout
    assert "rewardsvc serve --reward-file my_reward.py" in made.stdout
    assert "my_reward 1  my_reward.py" in checked.stdout
    assert checked.stdout.count("✓") == 5
    assert "5 cases, all as promised" in checked.stdout
    for kind in ("full", "zero", "malformed", "attack", "not_scored"):
        assert f"✓ {kind} case" in checked.stdout


def test_a_new_reward_has_at_most_25_lines_of_code(rewardsvc: Any) -> None:
    rewardsvc("new", "my_reward")
    assert lines_of_code(rewardsvc.folder / "my_reward.py") <= 25


def test_a_new_reward_is_served(rewardsvc: Any, start_service: Any) -> None:
    rewardsvc("new", "my_reward")
    file = str(rewardsvc.folder / "my_reward.py")
    with start_service(arguments=("--reward-file", file)) as service:
        verdicts = service.score("my_reward", ["The answer is PARIS.", "Paris"], "Paris", params={"ignore_case": True})
    assert [verdict["reason"] for verdict in verdicts] == ["equal", "no_answer"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("9lives", "is no name"),
        ("My_reward", "is no name"),
        ("my-reward", "is no name"),
        ("../escape", "is no name"),
        ("class", "is no name"),
        ("math", "is installed already"),
        ("json", "Python has a module 'json'"),
    ],
)
def test_a_bad_name_is_refused(tmp_path: Path, name: str, why: str) -> None:
    done = CliRunner().invoke(app, ["new", name, "--directory", str(tmp_path)])
    assert done.exit_code == 2
    assert why in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(rewardsvc: Any) -> None:
    (rewardsvc.folder / "my_reward.py").write_text("precious")
    done = rewardsvc("new", "my_reward")
    assert done.returncode == 2
    assert "nothing was overwritten" in done.stderr
    assert (rewardsvc.folder / "my_reward.py").read_text() == "precious"


def test_a_new_package_declares_its_entry_point(rewardsvc: Any) -> None:
    done = rewardsvc("new", "my_reward", "--package", "--directory", ".")
    folder = rewardsvc.folder / "my-reward"
    assert done.returncode == 0, done.stderr
    assert "pip install ./my-reward " in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["my_reward.py", "pyproject.toml", "test_my_reward.py"]
    assert 'my_reward = "my_reward:MyReward"' in (folder / "pyproject.toml").read_text()


def test_every_broken_promise_is_told(rewardsvc: Any) -> None:
    (rewardsvc.folder / "broken.py").write_text(BROKEN)
    done = rewardsvc("check", "broken.py")
    assert done.returncode == 1
    assert "✓ full case 'right': 1, known" in done.stdout
    assert "✗ zero case 'a wrong promise': promised 0.0, got 1.0 (scored, known)" in done.stdout
    assert "✗ full case 'it ends the worker': promised 1.0, got None (crashed" in done.stdout
    assert "✗ full case 'a reason that is not listed': its reason 'unknown' is missing from `reasons`" in done.stdout
    assert "3 of 4 cases broken" in done.stdout


def test_what_a_reward_prints_is_shown(rewardsvc: Any) -> None:
    (rewardsvc.folder / "broken.py").write_text(BROKEN)
    assert "judging wrong" in rewardsvc("check", "broken.py").stdout


def test_installed_rewards_are_checked_by_name_and_the_log_is_not_shown(rewardsvc: Any) -> None:
    done = rewardsvc("check", "exact", "format")
    assert done.returncode == 0, done.stdout
    assert "exact 1  rewardsvc" in done.stdout
    assert "format 1  rewardsvc" in done.stdout
    assert "✗" not in done.stdout
    assert done.stderr == ""


def test_a_file_of_the_settings_is_checked_by_name(rewardsvc: Any, plugin: Any) -> None:
    done = rewardsvc("check", "rank", reward_files=plugin("rank"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ group case" in done.stdout


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise KeyError('x')", "importing it failed: KeyError"),
        ("import os; os._exit(1)", "is unavailable: it ended"),
        ("x = 1", "exactly one reward class"),
    ],
)
def test_a_reward_that_cannot_be_offered_says_why(rewardsvc: Any, source: str, why: str) -> None:
    (rewardsvc.folder / "odd.py").write_text(source)
    done = rewardsvc("check", "odd.py")
    assert done.returncode == 1
    assert why in done.stdout


def test_a_reward_that_is_not_there(rewardsvc: Any) -> None:
    name, file = rewardsvc("check", "nobody"), rewardsvc("check", "nobody.py")
    assert (name.returncode, file.returncode) == (1, 1)
    assert "there is no reward 'nobody': installed are exact, format, math; a file is named nobody.py" in name.stdout
    assert "there is no file nobody.py" in file.stderr


def test_a_reward_without_cases_fails(rewardsvc: Any) -> None:
    (rewardsvc.folder / "broken.py").write_text(BROKEN.replace("cases = [", "others = ["))
    done = rewardsvc("check", "broken.py")
    assert done.returncode == 1
    assert "without cases promises nothing" in done.stdout


def test_more_cases_come_from_a_file(rewardsvc: Any) -> None:
    right = {"completion": "42", "reference": "42", "reward": 1, "why": "the same"}
    refused = {"completion": "42", "reward": None, "status": "bad_reference"}
    wrong = {"completion": "41", "reference": "42", "reward": 1}
    unusable = {"completion": "41", "reference": "42", "reward": 1, "params": {"no_such": 1}}
    good = rewardsvc.write("good.jsonl", right, refused, {"completions": ["4"], "rewards": [0], "reference": "5"})
    bad = rewardsvc.write("bad.jsonl", wrong, unusable)
    holds, broken = rewardsvc("check", "exact", "--cases", str(good)), rewardsvc("check", "exact", "--cases", str(bad))
    assert (holds.returncode, broken.returncode) == (0, 1), holds.stdout
    assert "✓ full case 'the same': 1, equal" in holds.stdout
    assert "✗ full case '41': promised 1.0, got 0.0" in broken.stdout
    assert "✗ full case '41': refused, /params" in broken.stdout


@pytest.mark.parametrize("line", ["{", '{"completion": "a"', '{"rewards": [1]}', '{"completion": "a", "rewart": 1}'])
def test_a_line_that_is_no_case_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "cases.jsonl").write_text(line)
    done = CliRunner().invoke(app, ["check", "exact", "--cases", str(tmp_path / "cases.jsonl")])
    assert done.exit_code == 1
    assert "cases.jsonl, line 1 is not a case" in done.stderr
