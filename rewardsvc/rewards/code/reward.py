"""The reward `code`: a completion's program is run on the tests of the task, in a box of its own.

`program` finds the program, `suite` reads the tests, `running` has them run and compares, `scoring` makes one number.
Here is what a caller sees: params, verdict, and the supervisor that all workers share.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from rewardsvc.contract import Model
from rewardsvc.errors import RewardFault
from rewardsvc.reward import Case, Cpu, InvalidTask, PerRollout, Rollout, Task, Verdict, deadline_ns
from rewardsvc.rewards.code import scoring, suite
from rewardsvc.rewards.code.comparing import Comparison
from rewardsvc.rewards.code.program import Program, Where, find
from rewardsvc.rewards.code.running import Course, Ordered, Outcome, TooLate, outcomes
from rewardsvc.rewards.code.scoring import Scoring
from rewardsvc.rewards.code.suite import Stdio, Suite
from rewardsvc.sandbox import job
from rewardsvc.sandbox.client import Offered, Refused, SandboxFault, Supervisor
from rewardsvc.sandbox.probe import probe

_CALLS = ("python",)
"""Languages whose functions can be called."""


class Limits(Model):
    """What one test may take, before the language's own multiplier of time."""

    cpu_ms: Annotated[int, Meta(ge=10, le=60_000, description="Processor time of all its processes.")] = 2_000
    wall_ms: Annotated[int, Meta(ge=0, le=180_000, description="0: twice the processor time and a second.")] = 0
    memory_mb: Annotated[int, Meta(ge=16, le=4_096, description="All its processes together, with /tmp.")] = 256
    stack_mb: Annotated[int, Meta(ge=1, le=1_024)] = 64
    stdout_kb: Annotated[int, Meta(ge=1, le=131_072)] = 65_536
    stderr_kb: Annotated[int, Meta(ge=1, le=1_024, description="What is beyond is dropped.")] = 64
    processes: Annotated[int, Meta(ge=1, le=256, description="Processes and threads.")] = 64
    disk_mb: Annotated[int, Meta(ge=1, le=1_024)] = 64

    def of_a_job(self) -> job.Limits:
        """As the sandbox takes them."""
        return job.Limits(**{name: getattr(self, name) for name in self.__struct_fields__})


class Params(Model):
    """The language, what counts as right, and what a program may take."""

    language: Annotated[str, Meta(description="One of the languages that are offered, by name or alias.")] = "python"
    extract: Annotated[
        Where,
        Meta(description="The last complete fenced block of the language (`block`), or the completion as it is."),
    ] = "block"
    compare: Annotated[
        Comparison, Meta(description="How outputs are compared by `stdio` tests that do not say it themselves.")
    ] = msgspec.field(default_factory=Comparison)
    scoring: Annotated[
        Scoring,
        Meta(
            description="1 if all tests are accepted; the fraction of accepted tests; the same by weight; or the "
            "fraction of tests before the first failure. All but the two in the middle stop at the first failure."
        ),
    ] = "all"
    limits: Limits = msgspec.field(default_factory=Limits)


_ADDER = {"tests": [{"kind": "stdio", "stdin": "40 2\n", "expected": "42\n"}]}
_TWICE = {"tests": [{"kind": "call", "function": "twice", "args": [3], "expected": 6}]}
_THREE = {"tests": [{"kind": "call", "function": "twice", "args": [x], "expected": 2 * x} for x in (0, 1, 2)]}
_ASSERT = {"tests": [{"kind": "assert", "code": "assert twice(3) == 6"}]}


_SHORT = {"limits": {"cpu_ms": 100}}


def _python(source: str) -> str:
    return f"```python\n{source}\n```"


class Code(PerRollout):
    """1.0 when the program passes all tests, each run in a sandbox.

    The program is the last complete fenced block of the language after the reasoning. Tests are of kind `stdio` (the
    whole program, its output compared), `call` (a function, its result compared as plain data) and `assert` (taken
    apart into a call). Expected values never enter the sandbox, and an exit code alone passes nothing. An assertion
    that cannot be taken apart runs beside the program, and the evidence then says `trust: weak`.

    A fault of the sandbox gets no number (`sandbox_error`), nor does a deadline that comes before the last test.
    """

    name, version = "code", "1"
    resources = Cpu(item_timeout=600.0, memory_mb=1_024)
    deterministic = False
    Reference = Suite
    Params = Params  # type: ignore[assignment]  # stands above, to be named in other signatures
    reasons = {
        "accepted": "All tests are passed.",
        "wrong_answer": "The first test that failed got another output or result.",
        "compile_error": "The program does not compile.",
        "runtime_error": "The program ended with an error, by a signal, or without a result.",
        "time_limit": "The program took too much processor time.",
        "wall_limit": "The program took too long without using the processor.",
        "memory_limit": "The program took too much memory.",
        "output_limit": "The program wrote too much.",
        "no_code": "There is no complete fenced block of the language after the reasoning.",
        "security_violation": "The program did what no program may do, or wrote to where results are reported.",
    }
    cases = [
        Case.full(_python("print(sum(map(int, input().split())))"), reference=_ADDER, reason="accepted"),
        Case.full(_python("def twice(x): return x + x"), reference=_TWICE, reason="accepted", why="a function"),
        Case.full(_python("def twice(x): return x + x"), reference=_ASSERT, reason="accepted", why="an assertion"),
        Case.partial(
            _python("def twice(x): return x * x"),
            2 / 3,
            reference=_THREE,
            params={"scoring": "fraction"},
            reason="wrong_answer",
            why="two of three tests",
        ),
        Case.partial(
            _python("def twice(x): return x * x"),
            1 / 3,
            reference=_THREE,
            params={"scoring": "first_failure"},
            why="one test before the first failure",
        ),
        Case.zero(_python("print(41)"), reference=_ADDER, reason="wrong_answer"),
        Case.zero(_python("print(42"), reference=_ADDER, reason="compile_error"),
        Case.zero(_python("1 / 0"), reference=_ADDER, reason="runtime_error"),
        Case.zero(_python("for _ in iter(int, 1): pass"), reference=_ADDER, params=_SHORT, reason="time_limit"),
        Case.malformed("It is 42.", reference=_ADDER, reason="no_code"),
        Case.malformed("```python\nprint(42)", reference=_ADDER, reason="no_code", why="a block that never ends"),
        Case.attack(_python("import sys; sys.exit(0)"), reference=_ADDER, why="leaving with success"),
        Case.attack(_python("import os; os._exit(0)"), reference=_TWICE, why="leaving before the call"),
        Case.attack(
            _python("class A:\n    def __eq__(self, other): return True\ndef twice(x): return A()"),
            reference=_ASSERT,
            reason="wrong_answer",
            why="an object that equals everything",
        ),
        Case.not_scored(_python("print(42)"), "bad_reference", reason="no_reference"),
    ]

    @classmethod
    def warm(cls) -> None:
        """Starts the supervisor that all workers will share. Raises `RewardFault` where programs cannot be isolated."""
        try:
            offered = _supervisor().offered()
        except SandboxFault as fault:
            missing = [f"{found.what}: {found.told}" for found in probe() if found.essential and not found.there]
            raise RewardFault("; ".join(missing) or str(fault)) from None
        if not offered.languages:
            raise RewardFault("; ".join(f"{name}: {why}" for name, why in offered.missing.items()))

    def check_task(self, task: Task, params: Any) -> None:
        """Raises `InvalidTask`: tests that cannot be used, a language that is not offered."""
        tests = suite.read(task.reference).tests if task.reference is not None else []
        try:
            language = _language(params.language)
        except SandboxFault:
            return  # each rollout will get that as its status
        if language not in _CALLS and any(not isinstance(test, Stdio) for test in tests):
            raise InvalidTask("/task/reference/tests", f"Functions of {language} cannot be called; use stdio tests.")
        if params.scoring == "weighted" and tests and not sum(test.weight for test in tests):
            raise InvalidTask("/task/reference/tests", "No test has a weight above zero.")

    def score(self, rollout: Rollout, task: Task, params: Any) -> Verdict:
        """Raises `BadReference`: no_reference, bad_tests."""
        tests = suite.of_rollout(task.reference)
        try:
            return _judge(rollout.text, tests, params)
        except TooLate:
            return Verdict.not_scored("timeout", "deadline")
        except Refused as fault:
            return Verdict.not_scored("sandbox_error", "queue_full", evidence={"detail": str(fault)})
        except SandboxFault as fault:
            return Verdict.not_scored("sandbox_error", "sandbox_lost", evidence={"detail": str(fault)[:1_000]})


_shared: list[Supervisor] = []


def _supervisor() -> Supervisor:
    """The one that was started before the workers were forked, or this process's own."""
    if not _shared:
        _shared.append(Supervisor())
        atexit.register(_shared[0].close)
    return _shared[0]


def _language(name: str) -> str:
    """Its own name. Raises `InvalidTask` when it is not offered, and `SandboxFault`."""
    offered = _supervisor().offered()
    found = offered.find(name)
    if found is None:
        because = offered.missing.get(name) or f"there are {', '.join(sorted(offered.languages))}"
        raise InvalidTask("/params/language", f"{name[:64]!r} is not offered: {because}.")
    return found


def _judge(text: str, tests: Suite, params: Params) -> Verdict:
    offered = _supervisor().offered()
    language = _language(params.language)
    found = find(text, {language, *offered.languages[language]["aliases"]}, params.extract)
    if found is None:
        wanted = f"Put the whole program into one fenced block: ```{language} … ```."
        return Verdict.scored(0.0, "no_code", feedback=wanted)
    course = Course(offered.isolation)
    order = Ordered(
        _supervisor(), language, found.source, params.limits.of_a_job(), params.compare, deadline_ns.get() or 0
    )
    results = _until_decided(outcomes(order, tests.tests, course), params.scoring)
    return _verdict(results, course, tests, params, _about(found, offered, language))


def _until_decided(results: Iterator[Outcome], by: Scoring) -> list[Outcome]:
    """The outcomes up to the one behind which none matters. Closing the rest stops the program."""
    kept = []
    with closing(cast(Any, results)):
        for outcome in results:
            kept.append(outcome)
            if outcome.reason != "accepted" and scoring.stops_early(by):
                break
    return kept


def _about(found: Program, offered: Offered, language: str) -> dict[str, Any]:
    version = offered.languages[language].get("version")
    return {"code": found.told(), "language": language} | ({"version": version} if version else {})


def _verdict(results: list[Outcome], course: Course, tests: Suite, params: Params, about: dict[str, Any]) -> Verdict:
    trust = "weak" if any(outcome.weak for outcome in results) else "full"
    evidence = about | {"isolation": course.isolation, "trust": trust, "count": len(tests.tests)}
    evidence["tests"] = [scoring.told(outcome) for outcome in results]
    compiled = course.compiled
    if compiled is not None:
        evidence["compiled"] = {"cached": compiled.cached, "well": compiled.well}
        if not compiled.well:
            return Verdict.scored(0.0, "compile_error", feedback=scoring.compiler_message(compiled), evidence=evidence)
    reward = scoring.reward(params.scoring, tests.tests, results)
    failed = scoring.first_failure(results)
    if failed is None:
        return Verdict.scored(reward, "accepted", evidence=evidence)
    told = scoring.feedback(failed, tests.tests[failed.index], len(tests.tests))
    return Verdict.scored(reward, failed.reason, feedback=told, evidence=evidence)
