"""The tests of a task, as a caller writes them into `task.reference`, and what is wrong with them.

Expected values are here and in `running`, which compares; they never go into a box.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rewardsvc.contract import Model, first_error
from rewardsvc.errors import BadReference
from rewardsvc.reward import InvalidTask
from rewardsvc.rewards.code import asserts
from rewardsvc.rewards.code.comparing import Comparison, impossible
from rewardsvc.sandbox import plain

Weight = Annotated[float, Meta(ge=0, description="What the test counts when the scoring is `weighted`.")]
Visible = Annotated[bool, Meta(description="Whether the feedback may tell the expected value.")]


class Stdio(Model, kw_only=True, tag_field="kind", tag="stdio"):
    """The whole program is run: what it reads, and what it must write."""

    stdin: str = ""
    expected: str
    encoding: Annotated[
        Literal["text", "base64"], Meta(description="How `stdin` and `expected` are written: as text, or as base64.")
    ] = "text"
    compare: Comparison | None = None
    weight: Weight = 1.0
    visible: Visible = False

    def bytes_in(self) -> bytes:
        """Standard input."""
        return _bytes(self.stdin, self.encoding)

    def bytes_out(self) -> bytes:
        """Expected standard output."""
        return _bytes(self.expected, self.encoding)


class Call(Model, kw_only=True, tag_field="kind", tag="call"):
    """A function is called, and its result compared with a JSON value outside of the box."""

    function: Annotated[str, Meta(min_length=1, description="A function, or a method: `Solution.twoSum`.")]
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    expected: Any
    absolute: Annotated[float, Meta(ge=0, description="Tolerance of decimals.")] = 1e-6
    relative: Annotated[float, Meta(ge=0, description="Tolerance of decimals, times the expected one.")] = 1e-6
    weight: Weight = 1.0
    visible: Visible = False


class Assert(Model, kw_only=True, tag_field="kind", tag="assert"):
    """`assert f(2) == 4`: becomes a call where that can be; else it runs beside the program, in which trust is weak."""

    code: Annotated[str, Meta(min_length=1)]
    weight: Weight = 1.0
    visible: Visible = False


Test = Stdio | Call | Assert


class Suite(Model):
    """All tests of a task, in the order in which they are run."""

    tests: list[Test]


_last: tuple[Any, Suite] = (None, Suite(tests=[]))


def read(reference: Any) -> Suite:
    """The tests of a reference, read once for the rollouts that share it. Raises `InvalidTask` where it is wrong."""
    global _last
    if reference is None or _last[0] is not reference:
        _last = (reference, _read(reference))
    return _last[1]


def _read(reference: Any) -> Suite:
    try:
        suite = msgspec.convert(reference, Suite)
    except msgspec.ValidationError as error:
        raise InvalidTask(*first_error(error, "/task/reference", Suite)) from None
    if not suite.tests:
        raise InvalidTask("/task/reference/tests", "There are no tests; a program that is not tested earns nothing.")
    for index, test in enumerate(suite.tests):
        fault = _fault(test)
        if fault:
            raise InvalidTask(f"/task/reference/tests/{index}/{fault[0]}", fault[1])
    return suite


def of_rollout(reference: Any) -> Suite:
    """The tests that one rollout is judged by. Raises `BadReference`."""
    if reference is None:
        raise BadReference("no_reference", 'code needs tests: {"tests": [{"kind": "stdio", …}]}.')
    try:
        return read(reference)
    except InvalidTask as error:
        raise BadReference("bad_tests", f"{error.pointer}: {error.message}") from None


def _fault(test: Test) -> tuple[str, str] | None:
    """The field that is wrong, and why."""
    match test:
        case Stdio():
            return _fault_of_stdio(test)
        case Call():
            return _fault_of_call(test.function, test.args, test.kwargs)
        case Assert():
            return _fault_of_assert(test)


def _fault_of_stdio(test: Stdio) -> tuple[str, str] | None:
    try:
        test.bytes_in()
        expected = test.bytes_out()
    except (binascii.Error, ValueError) as error:
        return "encoding", f"Not {test.encoding}: {error}."
    if test.compare is None or test.compare.mode not in ("floats", "json"):
        return None
    why = impossible(expected, test.compare)
    return ("expected", f"No output can be this one: {why}.") if why else None


def _fault_of_call(function: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[str, str] | None:
    try:
        plain.encode_call(function, args, kwargs)
    except (ValueError, RecursionError) as error:
        return "args", f"They have no plain form: {error}."
    return None


def _fault_of_assert(test: Assert) -> tuple[str, str] | None:
    try:
        asserts.read(test.code)
    except SyntaxError as error:
        return "code", f"Not Python: {error.msg}."
    return None


def _bytes(text: str, encoding: str) -> bytes:
    return base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
