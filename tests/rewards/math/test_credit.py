"""What an answer earns: all or nothing, by its parts, or by how near a wrong formula is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.contract import Rollout, Task, Verdict
from rewardsvc.rewards.math import Math
from rewardsvc.rewards.math.credit import MAX_NODES, nearness
from rewardsvc.rewards.math.parsing import read
from rewardsvc.rewards.math.policy import Policy

POLICY = Policy()


def verdict_on(answer: str, gold: str, **params: Any) -> Verdict:
    return Math().score(Rollout(id="0", completion=f"\\boxed{{{answer}}}"), Task(reference=gold), Math.Params(**params))


def near(answer: str, gold: str) -> float:
    return nearness(read(gold, POLICY), read(answer, POLICY))


class TestParts:
    def test_binary_is_the_default(self) -> None:
        assert verdict_on("(1, 2, 4)", "(1, 2, 3)").reward == 0.0

    @pytest.mark.parametrize(
        ("answer", "reward"), [("(1, 2, 3)", 1.0), ("(1, 2, 4)", 2 / 3), ("(3, 2, 1)", 1 / 3), ("(7, 8, 9)", 0.0)]
    )
    def test_the_share_of_right_parts(self, answer: str, reward: float) -> None:
        assert verdict_on(answer, "(1, 2, 3)", credit="parts").reward == pytest.approx(reward)

    def test_each_part_is_told(self) -> None:
        assert verdict_on("(1, 2, 4)", "(1, 2, 3)").evidence["parts"] == [True, True, False]

    def test_more_parts_than_asked_for_are_no_way_to_all_of_the_credit(self) -> None:
        assert verdict_on(",".join(map(str, range(50))), "7, 8", credit="parts").reward == 2 / 50


class TestTreeEdit:
    def test_a_near_formula_earns_less_than_the_right_one_and_more_than_a_far_one(self) -> None:
        right, close, far = (
            verdict_on(answer, "3x^2+2x+1", credit="tree_edit").reward for answer in ("1+2x+3x^2", "3x^2+2x+2", "y")
        )
        assert right == 1.0
        assert close is not None
        assert far is not None
        assert 0.6 > close > far >= 0.0

    def test_one_wrong_leaf_costs_one_node(self) -> None:
        # add(mul(3, pow(x, 2)), mul(2, x), 1): ten nodes
        assert near("3x^2+2x+2", "3x^2+2x+1") == pytest.approx(0.6 - 1 / 10)

    def test_the_order_of_terms_does_not_matter(self) -> None:
        assert near("7+x", "x+1") == near("x+7", "1+x")

    def test_large_formulas_earn_nothing(self) -> None:
        large = "+".join(f"x^{n}" for n in range(MAX_NODES))
        assert near(large, large + "+1") == 0.0

    def test_a_wrong_answer_never_earns_as_much_as_a_right_one(self) -> None:
        assert verdict_on("5", "6", credit="tree_edit").reward == 0.0

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.lists(st.integers(1, 9), min_size=1, max_size=6))
    def test_it_lies_between_nothing_and_six_tenths(self, gold: list[int], answer: list[int]) -> None:
        first, second = ("+".join(f"{n}x^{place}" for place, n in enumerate(some, 2)) for some in (gold, answer))
        assert 0.0 <= near(second, first) <= 0.6
