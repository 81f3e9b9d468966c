"""The tests that a caller sends, the assertions that become calls, and the program in a completion."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.errors import BadReference
from rewardsvc.reward import InvalidTask
from rewardsvc.rewards.code import asserts, program, suite


@pytest.mark.parametrize(
    ("reference", "pointer"),
    [
        ({"tests": []}, "/task/reference/tests"),
        ({}, "/task/reference"),
        ([], "/task/reference"),
        ("assert f(1) == 1", "/task/reference"),
        ({"tests": [{"kind": "stdio"}]}, "/task/reference/tests/0"),
        ({"tests": [{"kind": "shell", "expected": ""}]}, "/task/reference/tests/0/kind"),
        ({"tests": [{"kind": "stdio", "expected": "", "weight": -1}]}, "/task/reference/tests/0/weight"),
        ({"tests": [{"kind": "stdio", "expected": "%", "encoding": "base64"}]}, "/task/reference/tests/0/encoding"),
        (
            {"tests": [{"kind": "stdio", "expected": "nan", "compare": {"mode": "floats"}}]},
            "/task/reference/tests/0/expected",
        ),
        (
            {"tests": [{"kind": "stdio", "expected": "[1", "compare": {"mode": "json"}}]},
            "/task/reference/tests/0/expected",
        ),
        ({"tests": [{"kind": "assert", "code": "assert f(("}]}, "/task/reference/tests/0/code"),
        ({"tests": [{"kind": "call", "function": "", "expected": 1}]}, "/task/reference/tests/0/function"),
    ],
)
def test_tests_that_cannot_be_used_are_refused_where_they_are_wrong(reference: Any, pointer: str) -> None:
    with pytest.raises(InvalidTask) as refused:
        suite.read(reference)
    assert refused.value.pointer == pointer
    with pytest.raises(BadReference):
        suite.of_rollout(reference)


def test_a_rollout_without_tests_is_never_a_zero() -> None:
    with pytest.raises(BadReference):
        suite.of_rollout(None)


@pytest.mark.parametrize(
    ("code", "call", "right", "wrong"),
    [
        ("assert f(2) == 4", ("f", [2], {}), 4, 5),
        ("assert f(2, k=[1]) == [1, (2,)], 'message'", ("f", [2], {"k": [1]}), [1, (2,)], [1, [2]]),
        ("assert 4 == f(-2)", ("f", [-2], {}), 4, -4),
        ("assert Solution().f('a') == 'b'", ("Solution.f", ["a"], {}), "b", "a"),
        ("assert f() is None", ("f", [], {}), None, 0),
        ("assert f(1) is True", ("f", [1], {}), True, 1),
        ("assert f(1) == True", ("f", [1], {}), True, False),
        ("assert not f(1)", ("f", [1], {}), 0, 1),
        ("assert f(1)", ("f", [1], {}), [0], []),
        ("assert set(f(1)) == set([1, 2])", ("f", [1], {}), (2, 1, 1), (1, 3)),
        ("assert sorted(f(1)) == [1, 2]", ("f", [1], {}), [2, 1], [2, 2]),
        ("assert len(f(1)) == 2", ("f", [1], {}), "ab", 2),
        ("assert abs(f(1) - 0.5) < 1e-3", ("f", [1], {}), 0.5001, 0.6),
        ("assert math.isclose(f(1), 0.5, rel_tol=0.001)", ("f", [1], {}), 0.5001, "0.5"),
        ("assert f({1: {2}}) == {'a': None}", ("f", [{1: {2}}], {}), {"a": None}, {"a": 0}),
    ],
)
def test_an_assertion_becomes_a_call(code: str, call: Any, right: Any, wrong: Any) -> None:
    asserted = asserts.read(code)
    assert asserted is not None
    assert (asserted.function, asserted.args, asserted.kwargs) == call
    assert asserted.accepts(right) and not asserted.accepts(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "assert f(x) == 1",
        "assert f(1) == g(1)",
        "assert f(1) != 2",
        "assert f(*[1]) == 1",
        "assert f(**{'a': 1}) == 1",
        "assert f(1) == 1 and f(2) == 2",
        "assert f(1) == 1\nassert f(2) == 2",
        "x = f(1)",
        "assert module.f(1) == 1",
        "assert Solution(3).f(1) == 1",
        "assert isinstance(f(1), int)",
        "assert 1 == 1",
        "assert f([open('x')]) == 1",
        "for i in range(3): assert f(i) == i",
    ],
)
def test_what_cannot_be_taken_apart_is_left_to_the_weak_mode(code: str) -> None:
    assert asserts.read(code) is None


@given(st.text(max_size=80) | st.from_regex(r"assert [f(\[\]{}0-9=, a-z.]{0,30}", fullmatch=True))
def test_reading_an_assertion_is_total(code: str) -> None:
    with suppress(SyntaxError):
        asserts.read(code)


PY = ("python", "py", "python3")


@pytest.mark.parametrize(
    ("completion", "source"),
    [
        ("```python\na\n```", b"a\n"),
        ("```python\na\n```\n```py\nb\n```", b"b\n"),
        ("```Python3 title=x\na\n```", b"a\n"),
        ("```\na\n```", b"a\n"),
        ("```python\na\n```\n```\nthe output\n```", b"a\n"),
        ("```python\na\n```\n```cpp\nb\n```", b"a\n"),
        ("```python\na\n```\n```python\nb", b"a\n"),
        ("<think>```python\na\n```</think>```python\nb\n```", None),
        ("<think>```python\na\n```</think>\n```python\nb\n```", b"b\n"),
        ("<think>\n```python\na\n```", None),
        ("```cpp\na\n```", None),
        ("```python\n\n```", None),
        ("print(1)", None),
        ("", None),
    ],
)
def test_the_program_is_the_last_complete_block_of_the_language(completion: str, source: bytes | None) -> None:
    found = program.find(completion, PY)
    if completion.startswith("<think>```"):
        source = b"b\n"
    assert (found and found.source) == source
    if found and not completion.startswith("<"):
        assert completion[found.start : found.end].encode() == found.source


@given(st.text(), st.sampled_from(["block", "whole"]))
def test_finding_a_program_is_total(completion: str, where: Any) -> None:
    program.find(completion, PY, where)
