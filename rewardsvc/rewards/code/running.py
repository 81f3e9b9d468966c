"""Runs a program's tests in the sandbox and says of each what came of it. The expected values stay on this side.

Neighbouring tests that travel alike (runs of the whole program, calls, weak assertions) make one job, in the order of
the suite, so that the first failure is the first. Results are compared as they arrive, and a job of which no more is
wanted is stopped.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

from rewardsvc.clock import now_ns
from rewardsvc.rewards.code import asserts
from rewardsvc.rewards.code.comparing import Comparison, same
from rewardsvc.rewards.code.suite import Assert, Call, Stdio, Test
from rewardsvc.rewards.code.values import same_json
from rewardsvc.sandbox import plain
from rewardsvc.sandbox.client import Compiled, SandboxFault, Supervisor
from rewardsvc.sandbox.job import Ended, Isolation, Job, Limits

Reason = Literal[
    "accepted",
    "wrong_answer",
    "compile_error",
    "runtime_error",
    "time_limit",
    "wall_limit",
    "memory_limit",
    "output_limit",
    "no_code",
    "security_violation",
]

_CHECK = "_rewardsvc_check"
_WEAK = f"""

def {_CHECK}(code, token):
    exec(compile(code, "assertion", "exec"), globals())
    return token
"""


class TooLate(Exception):
    """The deadline came before the last test."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one test. `given` is what the program made of it, for the feedback to its author."""

    index: int
    reason: Reason
    given: str | bytes = b""
    said: bytes = b""
    ended: Ended | None = None
    weak: bool = False


@dataclass(slots=True)
class Course:
    """How the jobs of one program went, apart from the outcomes of its tests."""

    isolation: Isolation
    compiled: Compiled | None = None


class Ordered(NamedTuple):
    """What is run, and where."""

    supervisor: Supervisor
    language: str
    source: bytes
    limits: Limits
    compare: Comparison
    deadline_ns: int


def outcomes(order: Ordered, tests: Sequence[Test], course: Course) -> Iterator[Outcome]:
    """One outcome per test, in their order. None comes when the source does not compile; `course` then says so.

    Closing the iterator stops the program. Raises `SandboxFault`, and `TooLate`.
    """
    numbered = list(enumerate(tests))
    for channel, stretch in groupby(numbered, key=lambda each: _channel(each[1])):
        yield from _CHANNELS[channel](order, list(stretch), course)
        if course.compiled is not None and not course.compiled.well:
            return


Numbered = list[tuple[int, Test]]
Channel = Literal["runs", "calls", "weak"]


def _channel(test: Test) -> Channel:
    match test:
        case Stdio():
            return "runs"
        case Call():
            return "calls"
    return "calls" if asserts.read(test.code) else "weak"


def _runs(order: Ordered, tests: Numbered, course: Course) -> Iterator[Outcome]:
    runs = [test.bytes_in() for _, test in tests if isinstance(test, Stdio)]
    job = Job(order.language, order.source, runs=runs, limits=order.limits, deadline_ns=order.deadline_ns)
    yield from _in_order(order, job, tests, course, lambda index, test, end: _of_run(order, index, test, end))


def _calls(order: Ordered, tests: Numbered, course: Course) -> Iterator[Outcome]:
    calls = [_call_line(test) for _, test in tests]
    job = Job(order.language, order.source, calls=calls, limits=order.limits, deadline_ns=order.deadline_ns)
    yield from _in_order(order, job, tests, course, _of_call)


def _weak(order: Ordered, tests: Numbered, course: Course) -> Iterator[Outcome]:
    """The assertions run beside the program. Each must hand back a token that is not in the source."""
    tokens = {index: secrets.token_hex(16) for index, _ in tests}
    calls = [plain.encode_call(_CHECK, [test.code, tokens[i]]) for i, test in tests if isinstance(test, Assert)]
    source = order.source + _WEAK.encode()
    job = Job(order.language, source, calls=calls, limits=order.limits, deadline_ns=order.deadline_ns)
    yield from _in_order(order, job, tests, course, lambda index, _, end: _of_weak(index, end, tokens[index]))


_CHANNELS: dict[Channel, Callable[[Ordered, Numbered, Course], Iterator[Outcome]]] = {
    "runs": _runs,
    "calls": _calls,
    "weak": _weak,
}


def _in_order(
    order: Ordered, job: Job, tests: Numbered, course: Course, judge: Callable[[int, Test, Any], Outcome]
) -> Iterator[Outcome]:
    """The events of a job as outcomes. A result that never came is no outcome, and so never an accepted test."""
    heard = 0
    events = order.supervisor.stream(job)
    try:
        for kind, place, value in events:
            if kind == "compiled":
                course.compiled = value
                _must_not_be_ours(value.ended)
                if not value.well:
                    return
            elif kind == "done":
                course.isolation = value["isolation"]
            elif place == heard < len(tests):
                _must_not_be_ours(value)
                yield judge(*tests[place], value)
                heard += 1
    finally:
        events.close()  # type: ignore[attr-defined]  # it is a generator
    if heard < len(tests):
        if job.deadline_ns and now_ns() >= job.deadline_ns:
            raise TooLate
        raise SandboxFault("results of some tests never came")


def _must_not_be_ours(value: Any) -> None:
    if isinstance(value, Ended) and value.outcome == "sandbox_error":
        raise SandboxFault(value.detail or "a box broke")


def _call_line(test: Test) -> bytes:
    if isinstance(test, Call):
        return plain.encode_call(test.function, test.args, test.kwargs)
    asserted = asserts.read(test.code) if isinstance(test, Assert) else None
    assert asserted is not None
    return plain.encode_call(asserted.function, asserted.args, asserted.kwargs)


def _of_run(order: Ordered, index: int, test: Test, ended: Ended) -> Outcome:
    assert isinstance(test, Stdio)
    reason = _how(ended)
    if reason == "accepted" and not same(test.bytes_out(), ended.stdout, test.compare or order.compare):
        reason = "wrong_answer"
    return Outcome(index, reason, ended.stdout, ended.stderr, ended)


def _how(ended: Ended) -> Reason:
    """The reason that lies in how a process ended; `accepted` when nothing is wrong with that."""
    if ended.outcome == "exited":
        return "accepted" if ended.exit_code == 0 else "runtime_error"
    if ended.outcome == "signalled":
        return "security_violation" if ended.signal == signal.SIGSYS else "runtime_error"
    assert ended.outcome != "sandbox_error"
    return ended.outcome


def _of_call(index: int, test: Test, line: bytes | Ended) -> Outcome:
    if isinstance(line, bytes) and len(line) > _SMALL and len(line) > _most(test):
        return Outcome(index, "output_limit", "returned more than any right result could be")
    return _of_result(index, line, lambda value: _accepts(test, value))


_SMALL = 1 << 16
_MORE = 8


def _most(test: Test) -> int:
    """Bytes of a result that are worth reading: a forged set of numbers with equal hashes costs the square of them.

    An assertion may look at the length or the truth of something big, so it is allowed more.
    """
    if isinstance(test, Assert):
        return (1 << 20) + _MORE * len(test.code)
    return _SMALL + _MORE * len(repr(test.expected)) if isinstance(test, Call) else 0


def _of_weak(index: int, line: bytes | Ended, token: str) -> Outcome:
    """What an assertion says of itself would tell what it expects, so it is not repeated."""
    outcome = _of_result(index, line, lambda value: type(value) is str and value == token)
    if outcome.reason == "runtime_error" and str(outcome.given).startswith(_UNMET):
        return Outcome(index, "wrong_answer", weak=True)
    given = outcome.given if outcome.reason == "runtime_error" else ""
    return Outcome(index, outcome.reason, given, outcome.said, outcome.ended, weak=True)


_UNMET = "raised AssertionError"


def _of_result(index: int, line: bytes | Ended, accepts: Callable[[Any], bool]) -> Outcome:
    """A process that ended in the middle of a call has not answered it, whatever its exit code."""
    if isinstance(line, Ended):
        how = _how(line)
        reason = "runtime_error" if how == "accepted" else how
        return Outcome(index, reason, "ended without a result", line.stderr, line)
    try:
        value = plain.decode(line)
    except plain.Unreadable as fault:
        return Outcome(index, "security_violation", f"wrote to where results are reported: {fault}")
    if isinstance(value, plain.Raised):
        told = f": {value.message}" if value.message else ""
        return Outcome(index, "runtime_error", f"raised {value.type_name}{told}")
    if isinstance(value, plain.Opaque):
        return Outcome(index, "wrong_answer", f"returned an object of type {value.type_name}")
    if accepts(value):
        return Outcome(index, "accepted")
    return Outcome(index, "wrong_answer", f"returned {_shown(value)}")


def _accepts(test: Test, value: Any) -> bool:
    if isinstance(test, Call):
        return same_json(test.expected, value, test.absolute, test.relative)
    asserted = asserts.read(test.code) if isinstance(test, Assert) else None
    return asserted is not None and asserted.accepts(value)


_MOST_SHOWN = 10_000


def _shown(value: Any) -> str:
    """A bounded look at plain data."""
    if isinstance(value, (str, bytes)):
        return repr(value[:_MOST_SHOWN])
    try:
        return repr(value)[:_MOST_SHOWN]
    except (RecursionError, ValueError):  # nested too deeply, or an integer of too many digits
        return f"a {type(value).__name__}"
