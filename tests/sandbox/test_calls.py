"""Calls of a function: what comes back is plain data, call by call, whatever the program does."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.sandbox import plain
from rewardsvc.sandbox.client import Supervisor
from rewardsvc.sandbox.job import Ended, Job, Limits
from rewardsvc.sandbox.python_calls import plain as write_plain

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(scalars, inner, max_size=4)
        | st.sets(scalars, max_size=4)
    ),
    max_leaves=12,
)


def call(supervisor: Supervisor, source: str, calls: list[tuple[Any, ...]], **limits: int) -> list[Any]:
    """Results of f(...) for each tuple of arguments: decoded values, or how the process ended."""
    lines = [plain.encode_call("f", arguments) for arguments in calls]
    report = supervisor.run(Job("python", source.encode(), calls=lines, limits=Limits(**limits)))
    return [plain.decode(line) if isinstance(line, bytes) else line for line in report.calls]


@given(values)
def test_what_is_written_is_read_as_the_same_value_and_type(value: Any) -> None:
    line = plain.json.dumps({"r": write_plain(value)}).encode()
    read = plain.decode(line)
    assert read == value and type(read) is type(value)


@given(st.binary() | st.text().map(str.encode) | st.from_regex(rb'\{"r":[\[\]{}"a-z0-9:,]{0,40}\}', fullmatch=True))
def test_a_forged_line_is_a_value_or_unreadable(line: bytes) -> None:
    with contextlib.suppress(plain.Unreadable):
        plain.decode(line)


def test_depth_and_length_are_bounded() -> None:
    for line in (b'{"r":' + b"[" * 100_000, b'{"r":' + b"9" * 100_000 + b"}", b'{"r":{"i":"' + b"f" * 300_000 + b'"}}'):
        with pytest.raises(plain.Unreadable):
            plain.decode(line)


def test_an_argument_without_a_plain_form_is_refused() -> None:
    with pytest.raises(ValueError, match="object"):
        plain.encode_call("f", [[object()]])


def test_values_keep_their_types(supervisor: Supervisor) -> None:
    given_values = [(1,), (True,), ("é",), ([1, (2, {3: {4}})],), (10**40,), (1.5,), (b"x",), (None,), (math.inf,)]
    assert call(supervisor, "def f(x): return x", given_values) == [value for (value,) in given_values]
    (nan,) = call(supervisor, "def f(): return float('nan')", [()])
    assert math.isnan(nan)


def test_exceptions_are_results_of_their_call(supervisor: Supervisor) -> None:
    source = "import sys\ndef f(x):\n    if x == 1: raise KeyError('k')\n    if x == 2: sys.exit(0)\n    return x"
    assert call(supervisor, source, [(0,), (1,), (2,), (3,)]) == [
        0,
        plain.Raised("KeyError", "'k'"),
        plain.Raised("SystemExit", "0"),
        3,
    ]


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [("os._exit(0)", "exited"), ("os.kill(os.getpid(), 9)", "signalled"), ("[0 for _ in iter(int, 1)]", "time_limit")],
)
def test_a_call_that_ends_the_process_costs_itself_only(supervisor: Supervisor, ends: str, outcome: str) -> None:
    source = f"import os\ndef f(x):\n    if x == 2: {ends}\n    return x + 1"
    results = call(supervisor, source, [(0,), (1,), (2,), (3,), (4,)], cpu_ms=300)
    assert isinstance(results[2], Ended) and results[2].outcome == outcome
    assert results[:2] + results[3:] == [1, 2, 4, 5]


def test_the_limit_of_time_is_that_of_one_call(supervisor: Supervisor) -> None:
    source = "import time\ndef f():\n    end = time.process_time() + 0.1\n    while time.process_time() < end: pass"
    assert call(supervisor, source, [()] * 6, cpu_ms=300) == [None] * 6


def test_a_program_that_does_not_load_answers_no_call(supervisor: Supervisor) -> None:
    results = call(supervisor, "1 / 0", [(), ()])
    assert all(isinstance(ended, Ended) and ended.exit_code == 1 for ended in results)


def test_methods_and_missing_functions(supervisor: Supervisor) -> None:
    source = "class Solution:\n    def twice(self, x): return x * 2"
    lines = [plain.encode_call("Solution.twice", [4]), plain.encode_call("nowhere", [])]
    report = supervisor.run(Job("python", source.encode(), calls=lines))
    read = [plain.decode(line) for line in report.calls if isinstance(line, bytes)]
    assert read == [8, plain.Raised("NameError", "name 'nowhere' is not defined")]


LIES = {
    "an object equal to everything": "class A:\n    def __eq__(s, o): return True\ndef f(): return A()",
    "an integer equal to everything": "class A(int):\n    def __eq__(s, o): return True\ndef f(): return A(0)",
    "a string with another face": "class A(str):\n    def __eq__(s, o): return True\ndef f(): return A('no')",
    "a list of liars": "class A(list):\n    def __eq__(s, o): return True\ndef f(): return [A()]",
    "a class that claims to be int": (
        "class A:\n    __class__ = int\n    def __eq__(s, o): return True\ndef f(): return A()"
    ),
    "leaving with success": "import os\nos._exit(0)\ndef f(): return 0",
    "leaving at the end": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "closing the channel": "import os\ndef f():\n    os.close(4)\n    return 42",
    "a result that is cut off": "import os\ndef f():\n    os.write(4, b'{\"r\":')\n    os._exit(0)",
    "becoming another program": "import os\ndef f(): os.execv('/bin/true', ['true'])",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_never_equals_the_expected_value(supervisor: Supervisor, lie: str) -> None:
    (result,) = call(supervisor, LIES[lie], [()])
    assert isinstance(result, Ended) or (result != 42 and result != [42] and result != "yes")
