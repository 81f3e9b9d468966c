"""The second tier is not asked to carry out what its budget of calls cannot see."""

from __future__ import annotations

import pytest

from rewardsvc.rewards.math import second
from rewardsvc.rewards.math.parsing import read
from rewardsvc.rewards.math.policy import Policy
from rewardsvc.rewards.math.values import Formula, Node


@pytest.mark.parametrize(
    "heavy", [r"f(\binom{10^8}{5\cdot 10^7})", r"f(30000!)", r"f(\lfloor 10^{10^{7}}\rfloor)", r"f(2^{3^{40}})"]
)
def test_a_huge_operation_in_one_step_is_heavy(heavy: str) -> None:
    assert second.is_heavy(_node(heavy))


@pytest.mark.parametrize(
    "light", [r"f(20!)", r"\binom{n}{3}+x^{100}", r"\Gamma(x)+e^{e^{2}}", "f(7^{7^{2}})", r"f(e^{i\pi})"]
)
def test_ordinary_formulas_are_not(light: str) -> None:
    assert not second.is_heavy(_node(light))


def _node(text: str) -> Node:
    value = read(text, Policy())
    assert isinstance(value, Formula)
    return value.expr
