"""One number from the outcomes of all tests, and the words that the program's author gets to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rewardsvc.rewards.code.running import Outcome, Reason
from rewardsvc.rewards.code.suite import Assert, Call, Stdio, Test
from rewardsvc.sandbox.client import Compiled

Scoring = Literal["all", "fraction", "weighted", "first_failure"]

MOST_SHOWN = 2_000
"""Characters of an input, an output or a message that feedback repeats."""


def stops_early(scoring: Scoring) -> bool:
    """Whether nothing behind the first failure can change the number."""
    return scoring in ("all", "first_failure")


def reward(scoring: Scoring, tests: Sequence[Test], outcomes: Sequence[Outcome]) -> float:
    """From 0 to 1. A test without an outcome counts as failed."""
    accepted = [outcome.index for outcome in outcomes if outcome.reason == "accepted"]
    if len(accepted) == len(tests):
        return 1.0
    match scoring:
        case "all":
            return 0.0
        case "fraction":
            return len(accepted) / len(tests)
        case "weighted":
            return sum(tests[index].weight for index in accepted) / sum(test.weight for test in tests)
        case "first_failure":
            return next((i for i, outcome in enumerate(outcomes) if outcome.reason != "accepted"), 0) / len(tests)


def first_failure(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The first test that was not accepted."""
    return next((outcome for outcome in outcomes if outcome.reason != "accepted"), None)


_WORDS: dict[Reason, str] = {
    "wrong_answer": "wrong answer",
    "runtime_error": "the program failed",
    "time_limit": "it took too much processor time",
    "wall_limit": "it took too long without using the processor",
    "memory_limit": "it took too much memory",
    "output_limit": "it wrote too much",
    "security_violation": "it did what no program may do here",
}


def compiler_message(compiled: Compiled) -> str:
    """What the compiler said."""
    ended = compiled.ended
    if ended is None:
        return "The program does not compile."
    said = _text(ended.stderr or ended.stdout)
    limit = "" if ended.outcome == "exited" else f" ({ended.outcome})"
    return f"The program does not compile{limit}:\n{said}"


def feedback(outcome: Outcome, test: Test, count: int) -> str:
    """The first failing test: its input, what the program made of it, and what was expected only if it is visible."""
    lines = [f"Test {outcome.index + 1} of {count}: {_WORDS[outcome.reason]}.", *_input(test)]
    if outcome.given:
        lines += ["Your program's output:", _text(outcome.given)] if isinstance(test, Stdio) else [_it(outcome.given)]
    if outcome.said and outcome.reason == "runtime_error":
        lines += ["Your program's error output:", _text(outcome.said[-MOST_SHOWN:])]
    if test.visible:
        lines += _expected(test)
    return "\n".join(lines)


def _it(given: str | bytes) -> str:
    return f"It {_text(given)}"


def _input(test: Test) -> list[str]:
    """An assertion says what is expected, so a hidden one is not repeated."""
    match test:
        case Stdio():
            return ["Input:", _text(test.bytes_in())] if test.stdin else []
        case Call():
            named = [f"{name}={value!r}" for name, value in test.kwargs.items()]
            return [_text(f"Call: {test.function}({', '.join([*map(repr, test.args), *named])})")]
        case Assert():
            return []


def _expected(test: Test) -> list[str]:
    match test:
        case Stdio():
            return ["Expected output:", _text(test.bytes_out())]
        case Call():
            return [_text(f"Expected: {test.expected!r}")]
        case Assert():
            return [_text(f"Expected: {test.code}")]


def _text(output: str | bytes) -> str:
    text = output if isinstance(output, str) else output[: 4 * MOST_SHOWN].decode(errors="replace")
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… (cut)"


def told(outcome: Outcome) -> dict[str, Any]:
    """The evidence of one test: figures, never contents."""
    evidence: dict[str, Any] = {"index": outcome.index, "verdict": outcome.reason}
    if outcome.weak:
        evidence["trust"] = "weak"
    if outcome.ended is not None:
        ended = outcome.ended
        evidence |= {"cpu_ms": round(ended.cpu_ms, 3), "wall_ms": round(ended.wall_ms, 3)}
        evidence |= {"memory_kb": ended.memory_kb, "exit_code": ended.exit_code, "signal": ended.signal}
        evidence |= {"stdout_bytes": ended.stdout_bytes, "stderr_bytes": ended.stderr_bytes}
    return evidence
