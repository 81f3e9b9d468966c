"""The engine's verdicts on cases that are data, and the laws that any comparison of answers obeys."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsvc.rewards.math.canon import MAX_SHOWN, canonical, type_of
from rewardsvc.rewards.math.comparing import Decision, decide
from rewardsvc.rewards.math.parsing import Unreadable, read
from rewardsvc.rewards.math.policy import PRESETS, Policy, preset

POLICY = Policy()
CASES = Path(__file__).parents[2] / "cases" / "math" / "verdicts.txt"


def cases() -> list[Any]:
    lines = [line for line in CASES.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return [pytest.param(*line.split(" | "), id=line) for line in lines]


def verdict(gold: str, answer: str, policy: Policy = POLICY) -> Decision:
    value = read(gold, policy)
    return decide(value, read(answer, policy, value), policy)


@pytest.mark.parametrize(("wanted", "gold", "answer"), cases())
def test_cases(wanted: str, gold: str, answer: str) -> None:
    try:
        outcome = verdict(gold, answer).outcome
    except Unreadable:
        outcome = "unreadable"
    assert outcome in {"=": ["equal"], "!": ["not_equal"], "~": ["not_equal", "undecided", "unreadable"]}[wanted]


@pytest.mark.parametrize(
    ("gold", "answer", "flag"),
    [
        ("8", "4+4=9=8", "chain_with_false_link"),
        (r"\frac15", r"\int_0^1 x^4 dx", "restated_task"),
        (r"6\text{ m}", r"6\text{ kg}", "unit_mismatch"),
        ("143_5", "143", "base_omitted"),
        (r"\frac{500}{7}", "71.43", "rounded"),
    ],
)
def test_what_was_noticed_is_said(gold: str, answer: str, flag: str) -> None:
    assert flag in verdict(gold, answer).flags


@pytest.mark.parametrize(
    ("changes", "gold", "answer", "outcome"),
    [
        ({"decimals": "exact"}, "66.7", r"\frac{200}{3}", "not_equal"),
        ({"relative_tolerance": 0.01}, "100", "100.5", "equal"),
        ({"percent": "strict"}, r"40\%", "40", "not_equal"),
        ({"percent": "ignore"}, r"40\%", "0.4", "not_equal"),
        ({"degrees": "strict"}, r"60^\circ", "60", "not_equal"),
        ({"units": "ignore"}, r"9\text{ miles}", r"9\text{ km}", "equal"),
        ({"units": "match"}, r"4\text{ hours}", r"240\text{ minutes}", "not_equal"),
        ({"missing_unit": False}, r"7\text{ cm}", "7", "not_equal"),
        ({"case": "keep"}, r"\text{Green}", "green", "not_equal"),
        ({"order": "nothing"}, "1,2", "2,1", "not_equal"),
        ({"order": "everything"}, "(1,2)", "(2,1)", "equal"),
        ({"set_or_tuple": True}, r"\{1,2\}", "(1,2)", "equal"),
        ({"unwrap": False}, "5", "x=5", "not_equal"),
        ({"chains": "last"}, "5", "x=4=5", "equal"),
        ({"integration_constant": "optional"}, "x^2+C", "x^2", "equal"),
        ({"rename": False}, "f(x)=2x", "f(t)=2t", "not_equal"),
        ({"any_symbols": True}, "x+1", "y+1", "equal"),
        ({"restatement": "accept"}, "15", r"\sum_{n=1}^{5} n", "equal"),
        ({"interval_as_chain": "never"}, r"x\in[1,4]", r"1\le x\le 4", "not_equal"),
        ({"interval_as_chain": "in_gold"}, r"x\in[1,4]", r"1\le x\le 4", "not_equal"),
        ({"fractions": "as_written"}, r"\frac{6}{2}", "3", "not_equal"),
        ({"repair": False}, "\frac{1}{2}", "0.5", "not_equal"),
        ({"answer_type": "tuple"}, "4,7", "7,4", "not_equal"),
        ({"answer_type": "set"}, "4,7", "4,7,7", "equal"),
        ({"answer_type": "text"}, "x+x", "2x", "undecided"),
        ({"decimal_comma": False}, "3,25", "3.25", "not_equal"),
        ({"algebra": False}, "x+x", "2x", "not_equal"),
        ({"either_gold": True}, "5 or 9", "9", "equal"),
    ],
)
def test_each_field_of_the_policy_changes_a_verdict(changes: Any, gold: str, answer: str, outcome: str) -> None:
    changed = verdict(gold, answer, preset("house", **changes)).outcome
    assert changed == outcome
    assert changed != verdict(gold, answer).outcome


def test_every_preset_is_a_policy() -> None:
    for name in PRESETS:
        assert verdict("5", "5", preset(name)).outcome == "equal"


def test_an_answer_with_several_parts_has_a_verdict_for_each() -> None:
    assert verdict("(1,2,3)", "(1,5,3)").parts == (True, False, True)
    assert verdict("a=1, b=2", "b=2, a=7").parts == (False, True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("3", "number"),
        ("x+1", "expression"),
        ("2-i", "complex"),
        ("x=1", "equation"),
        ("x<1", "inequality"),
        ("0<x<1", "chain"),
        ("(0,1]", "interval"),
        (r"(0,1]\cup(2,3)", "union"),
        (r"\{1,2\}", "set"),
        ("(1,2)", "tuple"),
        ("1,2", "list"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "matrix"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "vector"),
        (r"\begin{cases}x=1\\y=2\end{cases}", "system"),
        ("B", "choice"),
        ("thursday", "text"),
        (r"5\text{ cm}", "quantity"),
        ("101_2", "based_number"),
        ("9:30 PM", "time"),
        ("2:3:4", "ratio"),
        (r"5\%", "percent"),
        (r"5^\circ", "degrees"),
        (r"1\pm\sqrt2", "plus_minus"),
    ],
)
def test_types_have_names(text: str, kind: str) -> None:
    value = read(text, POLICY)
    assert type_of(value) == kind
    assert 0 < len(canonical(value)) <= MAX_SHOWN


def test_a_caller_may_say_what_an_ambiguous_gold_is() -> None:
    kinds = [type_of(read("(4,7)", preset("house", answer_type=kind))) for kind in ("interval", "tuple", "list")]
    assert kinds == ["interval", "tuple", "list"]


@pytest.mark.parametrize(
    "bomb",
    [
        "9" * 1_000_000,
        "(" * 3_000 + "1" + ")" * 3_000,
        r"\sqrt{" * 2_000,
        "9^{9^{9^{9^{9}}}}",
        "9!!!!!",
        r"\binom{10^9}{5\cdot 10^8}",
        r"\sum_{k=1}^{10^9}k^2",
        r"\sum_{k=1}^{3000}\sum_{j=1}^{3000}\frac{1}{k+j}",
        r"\begin{pmatrix}a&b\\c&d\end{pmatrix}" * 40,
        r"\lfloor\pi^{10^7}\rfloor",
        "+".join(rf"\sqrt{{{k}}}" for k in range(1_000)),
        ",".join(f"{k}+x" for k in range(300)),
        "-" * 15_000 + "1",
        "|" * 5_001,
        "$ " * 500_000,
        "\N{RIGHT-TO-LEFT OVERRIDE}" * 10_000,
    ],
    ids=range(16),
)
def test_no_input_costs_more_than_a_bounded_amount_of_work(bomb: str) -> None:
    for gold in ("42", r"\frac{\pi}{2}", "x=3", "(1,2)", "yes"):
        for pair in ((gold, bomb), (bomb, gold)):
            try:
                assert verdict(*pair).outcome != "equal"
            except Unreadable as error:
                assert error.reason.replace("_", "").isalpha()


PIECES = [
    "1", "2.5", "x", "n", r"\pi", "+", "-", r"\frac{", "}", "{", "(", ")", "[", "]", ",", ";", "=", "<", r"\le",
    "^", "_", "!", "%", r"\sqrt", r"\sin", "|", r"\text{", r"\{", r"\}", r"\cup", r"\infty", " or ", "$", "\\",
    "e", "i", ":", "/", r"\begin{cases}", r"\end{cases}", "&", r"\\", r"\pm", "°", "²", "cm", "\t", "\x0crac", "'",
    r"\int", "d", r"\sum", r"\left", r"\right.",
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))


@settings(max_examples=400)
@given(TEXTS, TEXTS)
def test_nothing_is_raised_but_unreadable_and_a_text_equals_itself(gold: str, answer: str) -> None:
    try:
        assert verdict(gold, gold).outcome == "equal"
        assert verdict(gold, f" {gold}").outcome in ("equal", "undecided", "not_equal")
        assert verdict(gold, answer).outcome in ("equal", "not_equal", "undecided")
    except Unreadable:
        pass


NUMBERS = st.integers(-99, 99)
TERMS = st.builds(lambda a, b, name: f"{a}{name}^{{{abs(b) % 5}}}", NUMBERS, NUMBERS, st.sampled_from("xyz"))
SUMS = st.lists(TERMS, min_size=1, max_size=4).map("+".join)


@given(SUMS, SUMS)
def test_formulas_are_compared_alike_from_both_sides(left: str, right: str) -> None:
    assert verdict(left, right).outcome == verdict(right, left).outcome


@given(SUMS)
def test_spelling_does_not_matter(text: str) -> None:
    for other in (
        f"${text}$",
        rf"\left({text}\right)",
        text.replace("+", " + "),
        rf"\dfrac{{{text}}}{{1}}",
        rf"\boxed{{{text}}}",
    ):
        assert verdict(text, other).outcome == "equal"


@given(SUMS, st.integers(1, 9))
def test_adding_something_matters(text: str, more: int) -> None:
    assert verdict(text, f"{text}+{more}").outcome == "not_equal"


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_order_matters_in_tuples_and_nowhere_else(items: list[int], random: Any) -> None:
    shuffled = random.sample(items, len(items))
    one, other = ",".join(map(str, items)), ",".join(map(str, shuffled))
    assert verdict(one, other).outcome == "equal"
    assert verdict(rf"\{{{one}\}}", rf"\{{{other}\}}").outcome == "equal"
    assert (verdict(f"({one})", f"({other})").outcome == "equal") == (items == shuffled)


def test_threads_give_the_same_verdicts() -> None:
    pairs = [line.values[1:] for line in cases() if line.values[0] in "=!"][:80]
    alone = [verdict(*pair).outcome for pair in pairs]
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append([verdict(*pair).outcome for pair in pairs])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 4
