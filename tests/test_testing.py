"""`rewardsvc.testing`: what the author of a reward relies on says yes only when the promises hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rewardsvc import testing
from rewardsvc.errors import RewardFault, WrongShape
from rewardsvc.registry import import_file, reward_class
from rewardsvc.rewards.exact import Exact
from rewardsvc.testing import Bench, check_reward, judge

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(autouse=True, scope="module")
def executors_end() -> Iterator[None]:
    yield
    for bench in testing._kept.values():
        bench.close()
    testing._kept.clear()


def changed(tmp_path: Path, plugin: str, *changes: tuple[str, str]) -> Path:
    source = (PLUGINS / f"{plugin}.py").read_text()
    for before, after in changes:
        assert before in source
        source = source.replace(before, after)
    path = tmp_path / f"{plugin}.py"
    path.write_text(source)
    return path


@pytest.mark.parametrize("reward", [Exact, "exact", PLUGINS / "rank.py", str(PLUGINS / "remote.py")])
def test_a_reward_that_keeps_its_promises_passes(reward: testing.Target) -> None:
    check_reward(reward)


def test_a_class_that_is_not_installed_is_found_by_its_file() -> None:
    check_reward(reward_class(import_file(PLUGINS / "rank.py")))


def test_a_broken_promise_is_a_readable_failure(tmp_path: Path) -> None:
    wrong = changed(tmp_path, "rank", ("[0.0, 1.0, 0.5]", "[0.0, 1.0, 1.0]"))
    with pytest.raises(AssertionError) as failure:
        check_reward(wrong)
    assert str(failure.value).splitlines()[0] == "rank broke 1 of 1 promises:"
    assert "promised 1.0, got 0.5 (scored, ranked)" in str(failure.value)


def test_a_reward_without_cases_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="rank has no cases"):
        check_reward(changed(tmp_path, "rank", ("cases = ", "others = ")))


def test_cases_of_a_file_count_too(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").write_text('{"completion": "41", "reference": "42", "reward": 1.0, "why": "not so"}\n')
    with pytest.raises(AssertionError, match="full case 'not so': promised"):
        check_reward("exact", tmp_path / "cases.jsonl")


def test_a_reward_that_cannot_be_offered_says_why(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("raise KeyError('x')")
    for reward, why in ((tmp_path / "odd.py", "importing it failed"), ("nobody", "there is no reward 'nobody'")):
        with pytest.raises(RewardFault, match=why):
            check_reward(reward)


def test_judge_gives_the_verdict_of_the_executor() -> None:
    right = judge(Exact, r"\boxed{42}", reference="42")
    strict = judge(Exact, "PARIS", "Paris", params={"ignore_case": False})
    assert (right.reward, right.reason, right.answer) == (1.0, "equal", "42")
    assert (strict.reward, strict.reason) == (0.0, "not_equal")
    assert judge(Exact, [{"role": "assistant", "content": "42"}], "42").reward == 1.0
    assert judge(Exact, "42").status == "bad_reference"


def test_judge_survives_what_it_judges() -> None:
    trouble = PLUGINS / "trouble.py"
    assert judge(trouble, "spin").status == "timeout"
    assert judge(trouble, "segfault").status == "crashed"
    assert judge(trouble, "raise").evidence["error"] == "IndexError"
    assert judge(trouble, "fine", "fine").reward == 1.0


def test_judge_raises_what_the_service_would_refuse() -> None:
    with pytest.raises(WrongShape):
        judge(Exact, "42", "42", params={"no_such_parameter": 1})


def test_one_bench_judges_several_rewards_and_runs_the_code_every_time(tmp_path: Path) -> None:
    patient, log = PLUGINS / "patient.py", tmp_path / "log"
    with Bench(patient, "exact") as bench:
        task = testing.Task(metadata={"log": str(log)})
        for _ in range(3):
            assert bench.judge(patient, ["0"], task)[0].cached is False
        assert [each.fault for each in bench.check("exact")] == [None] * len(Exact.cases)
    assert log.read_text() == "run\n" * 3
