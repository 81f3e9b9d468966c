"""The reward `code`: its cases, what it tells and keeps to itself, and that a fault of ours is never a zero."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rewardsvc import registry
from rewardsvc.reward import InvalidTask, deadline_ns
from rewardsvc.rewards.code import Code, reward
from rewardsvc.rewards.code.reward import _supervisor
from rewardsvc.sandbox.client import Refused, SandboxFault

REWARD = Code
PLUGIN = """from rewardsvc.rewards.code import Code

class Offered(Code):
    __doc__ = Code.__doc__
    name = "code_in_a_file"
"""


def stdio(expected: str, stdin: str = "", **about: Any) -> dict[str, Any]:
    return {"kind": "stdio", "stdin": stdin, "expected": expected, **about}


@pytest.mark.usefixtures("_warm")
def test_every_case_gets_the_reward_and_the_reason_it_promises(judge: Any, case: Any) -> None:
    judged = judge(Code, case)
    assert judged.reward == case.rewards[0]
    assert case.status in (None, judged.status)
    assert case.reason in (None, judged.reason)


def test_the_evidence_of_a_test_has_figures_and_no_contents(score: Any) -> None:
    verdict = score("print('k7Qz')", [stdio("k7Qz"), stdio("m3Xw")])
    assert verdict.reason == "wrong_answer" and verdict.evidence["isolation"] in ("strong", "strong-no-cgroup")
    assert verdict.evidence["language"] == "python" and len(verdict.evidence["code"]["sha256"]) == 64
    first, second = verdict.evidence["tests"]
    assert (first["verdict"], second["verdict"]) == ("accepted", "wrong_answer")
    assert first["cpu_ms"] > 0 and first["wall_ms"] > 0 and first["memory_kb"] > 0
    assert (first["exit_code"], first["signal"], first["stdout_bytes"]) == (0, None, 5)
    assert "m3Xw" not in json.dumps(verdict.evidence) + verdict.feedback


@pytest.mark.parametrize(
    "test",
    [
        stdio("S3CRET", "the input"),
        {"kind": "call", "function": "f", "args": ["the input"], "expected": "S3CRET"},
        {"kind": "assert", "code": "assert f('the input') == 'S3CRET'"},
        {"kind": "assert", "code": "y = 'the input'\nassert f(y) == 'S3CRET', 'S3CRET'"},
    ],
)
def test_feedback_tells_what_was_expected_only_of_a_visible_test(score: Any, test: Any) -> None:
    source = "def f(x): return 'mine'\nif __name__ == '__main__': print('mine')"
    hidden = score(source, [test])
    assert hidden.reward == 0.0 and hidden.feedback.startswith("Test 1 of 1") and "S3CRET" not in hidden.feedback
    if test["kind"] != "assert":
        assert "mine" in hidden.feedback and "the input" in hidden.feedback
    assert "S3CRET" in score(source, [test | {"visible": True}]).feedback


def test_a_result_that_is_dear_to_read_is_not_read(score: Any) -> None:
    forged = "b'{\"r\":{\"s\":[' + b','.join(b'%d' % (k * 61681) + b'e0' for k in range(400000)) + b']}}\\n'"
    source = (
        f"import os\ndef f():\n    data = {forged}\n    while data: data = data[os.write(4, data):]\n    os._exit(0)"
    )
    verdict = score(source, [{"kind": "call", "function": "f", "expected": 1}])
    assert (verdict.reward, verdict.reason) == (0.0, "output_limit"), verdict
    large = score("def f(): return list(range(50000))", [{"kind": "assert", "code": "assert len(f()) == 50000"}])
    assert large.reason == "accepted"


def test_a_compiler_message_is_the_feedback(score: Any) -> None:
    verdict = score("def f(:\n    pass", [stdio("")])
    assert verdict.reason == "compile_error" and "SyntaxError" in verdict.feedback and "line 1" in verdict.feedback


def test_nothing_runs_behind_the_first_failure_unless_the_score_asks(score: Any) -> None:
    tests = [stdio("1"), stdio("2"), stdio("1")]
    assert [t["index"] for t in score("print(1)", tests).evidence["tests"]] == [0, 1]
    assert [t["index"] for t in score("print(1)", tests, scoring="first_failure").evidence["tests"]] == [0, 1]
    assert [t["index"] for t in score("print(1)", tests, scoring="fraction").evidence["tests"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("c", '#include <stdio.h>\nint main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }'),
        ("cpp", "#include <bits/stdc++.h>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b; }"),
        ("bash", "read a b\necho $((a + b))"),
        ("javascript", "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' '); console.log(+a + +b)"),
        ("java", "import java.util.*; public class Main { public static void main(String[] x) { "
                 "Scanner s = new Scanner(System.in); System.out.println(s.nextInt() + s.nextInt()); } }"),
    ],
)  # fmt: skip
def test_other_languages(score: Any, language: str, source: str) -> None:
    tests = [stdio("42", "40 2"), stdio("3", "1 2")]
    limits = {"memory_mb": 1024, "cpu_ms": 10_000}
    right = score(source, tests, language, limits=limits)
    assert right.reason == "accepted", (right.reason, right.feedback, right.evidence)
    assert score(source, [stdio("43", "40 2")], language, limits=limits).reason == "wrong_answer"


def test_a_source_that_a_compiler_refuses_earns_nothing(score: Any) -> None:
    verdict = score("int main( { }", [stdio("")], "c")
    assert verdict.reason == "compile_error" and "error" in verdict.feedback


def test_memory_and_output_have_reasons_of_their_own(score: Any) -> None:
    limits = {"memory_mb": 64, "cpu_ms": 5_000, "stdout_kb": 8}
    assert score("x = bytearray(1 << 30)\nprint(len(x))", [stdio("")], limits=limits).reason in (
        "memory_limit",
        "runtime_error",
    )
    assert score("print('x' * 100000)", [stdio("")], limits=limits).reason == "output_limit"


@pytest.mark.parametrize(
    ("language", "tests", "params", "pointer"),
    [
        ("python", [], {}, "/task/reference/tests"),
        ("python", [stdio("", weight=0)], {"scoring": "weighted"}, "/task/reference/tests"),
        ("c", [{"kind": "call", "function": "f", "expected": 1}], {}, "/task/reference/tests"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(
    score: Any, language: str, tests: Any, params: Any, pointer: str
) -> None:
    with pytest.raises(InvalidTask) as refused:
        score("", tests, language, **params)
    assert refused.value.pointer == pointer


@pytest.mark.usefixtures("_warm")
def test_a_language_that_is_not_offered_is_refused_by_name() -> None:
    with pytest.raises(InvalidTask, match="brainfog") as refused:
        reward._language("brainfog")
    assert refused.value.pointer == "/params/language"


@pytest.mark.parametrize("fault", [SandboxFault("gone"), Refused("queue_full")])
def test_a_fault_of_ours_is_never_a_zero(score: Any, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def broken(*_: object) -> Any:
        raise fault

    monkeypatch.setattr(_supervisor(), "stream", broken)
    verdict = score("print(1)", [stdio("1")])
    assert (verdict.status, verdict.reward) == ("sandbox_error", None)


def test_a_supervisor_that_dies_in_the_middle_costs_no_number(score: Any) -> None:
    os.kill(_supervisor().offered().pid, signal.SIGKILL)
    verdict = score("print(1)", [stdio("1")])
    assert (verdict.status, verdict.reward) in [("scored", 1.0), ("sandbox_error", None)]
    assert score("print(1)", [stdio("1")]).reward == 1.0


def test_tests_that_the_deadline_forbids_are_a_timeout(score: Any) -> None:
    token = deadline_ns.set(time.monotonic_ns() - 1)
    try:
        verdict = score("print(1)", [stdio("1")])
    finally:
        deadline_ns.reset(token)
    assert (verdict.status, verdict.reward) == ("timeout", None)


def test_where_programs_cannot_be_isolated_the_reward_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere:
        def offered(self) -> Any:
            raise SandboxFault("no namespaces")

    lacking = [reward.probe.__globals__["Finding"]("user namespaces", False, "sysctl user.max_user_namespaces=10000")]
    monkeypatch.setattr(reward, "_supervisor", Nowhere)
    monkeypatch.setattr(reward, "probe", lambda: lacking)
    file = tmp_path / "code_in_a_file.py"
    file.write_text(PLUGIN)
    (found,) = [found for found in registry.find([str(file)]) if found.name == "code_in_a_file"]
    info = registry.load(found).info
    assert not info.available and info.unavailable_because == "user namespaces: sysctl user.max_user_namespaces=10000"


@pytest.mark.usefixtures("_warm")
def test_over_http(start_service: Any, tmp_path: Path) -> None:
    file = tmp_path / "code_in_a_file.py"
    file.write_text(PLUGIN)
    programs = ["print(sum(map(int, input().split())))", "print(1)", "1 / 0", "import os; os._exit(0)"] * 4
    completions = [f"```python\n{source}\n```" for source in programs]
    with start_service(reward_files=str(file), workers="2") as service:
        reference = {"tests": [stdio("42", "40 2"), stdio("3", "1 2")]}
        verdicts = service.score("code_in_a_file", completions, reference)
        assert [verdict["reward"] for verdict in verdicts] == [1.0, 0.0, 0.0, 0.0] * 4
        assert {verdict["evidence"]["trust"] for verdict in verdicts} == {"full"}
        rollouts = [{"completion": completions[0]}]
        status, problem = service.post("code_in_a_file", {"task": {"reference": {"tests": []}}, "rollouts": rollouts})
        assert (status, problem["errors"][0]["pointer"]) == (422, "/task/reference/tests")
