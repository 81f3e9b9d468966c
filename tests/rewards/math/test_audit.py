r"""What the audit of references finds, by example, and that it says something about any text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsvc.rewards.math.audit import FINDINGS, TREATMENTS, audit


@pytest.mark.parametrize(
    ("gold", "findings", "treatment"),
    [
        ("42", set(), "exact"),
        ("\\frac{x+1}{2}", set(), "exact"),
        ("", {"unparsable"}, "refused"),
        (" ", {"unparsable"}, "refused"),
        ("(1,2)", {"ambiguous"}, "exact"),
        ("1,234", {"ambiguous"}, "exact"),
        ("x=1 \\text{ or } x=2", {"multi_valued"}, "parts"),
        ("\\{1, 2, 3\\}", {"multi_valued"}, "parts"),
        ("1 \\pm \\sqrt{2}", {"multi_valued"}, "parts"),
        ("5 \\text{ cm}", {"needs_units"}, "exact"),
        ("\\text{(B)}", {"choice"}, "letter"),
        ("Paris", {"text"}, "words"),
        ("because every even number is the sum of two primes", {"prose"}, "second_tier"),
        ("\frac{1}{2}", {"damaged"}, "exact"),
        ("We add 40 and 2 and get the sum.\n#### 42", {"solution"}, "exact"),
        ("So it is, as we have seen, \\boxed{42}.", {"solution"}, "exact"),
    ],
)
def test_each_kind_of_reference_is_told(gold: str, findings: set[str], treatment: str) -> None:
    audited = audit(gold)
    assert (set(audited.findings), audited.treatment) == (findings, treatment)


def test_the_ways_to_read_an_ambiguous_reference_are_named() -> None:
    assert audit("(1,2)").readings == ("tuple", "interval")
    assert audit("42").readings == ()


@pytest.mark.parametrize(
    ("gold", "prompt", "restated"),
    [
        ("(x+1)^2", "Factor $x^2+2x+1$.", True),
        ("x^2+1", "Is $x^2+1$ prime?", True),
        ("7", "What is $3+4$?", True),
        ("7", "Is $7$ prime?", False),
        ("x^2", "Factor $x^2+2x+1$.", False),
        ("x^2", "", False),
    ],
)
def test_a_reference_that_stands_in_the_question_is_told(gold: str, prompt: str, restated: bool) -> None:
    assert ("restated" in audit(gold, prompt).findings) == restated


def test_what_cannot_be_read_has_a_reason_and_no_type() -> None:
    audited = audit("")
    assert (audited.type, audited.canonical, audited.reason) == (None, None, "empty")


@settings(deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="x12+-(){}[],.$\\^_= ", max_size=20))
def test_any_text_is_told_something_about(text: str) -> None:
    audited = audit(text)
    assert set(audited.findings) <= set(FINDINGS) and audited.treatment in TREATMENTS
