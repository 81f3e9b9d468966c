"""`rewardsvc math audit`: the references of a data set, examined."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_a_table_says_what_is_there_and_what_will_be_done(rewardsvc: Any) -> None:
    rewardsvc.write("golds.jsonl", {"gold": "42"}, {"gold": "(1,2)"}, {"gold": "5 cm"}, {"gold": ["Paris", "42"]})
    done = rewardsvc("math", "audit", "golds.jsonl")
    assert done.returncode == 0, done.stderr
    assert "5 references, 2 with nothing to say about them." in done.stdout
    assert "ambiguous     line 2: (1,2)  (tuple or interval)" in done.stdout
    assert "needs_units   line 3: 5 cm" in done.stdout
    assert "text          line 4: Paris" in done.stdout


def test_a_reference_that_cannot_be_used_has_an_exit_code_of_its_own(rewardsvc: Any) -> None:
    rewardsvc.write("golds.jsonl", {"gold": "42"}, {"gold": ""})
    done = rewardsvc("math", "audit", "golds.jsonl")
    assert done.returncode == 3
    assert "unparsable    line 2:   (empty)" in done.stdout


def test_json_has_a_summary_and_every_reference(rewardsvc: Any) -> None:
    rewardsvc.write("golds.jsonl", {"gold": "(x+1)^2", "question": "Factor $x^2+2x+1$."}, "", {"gold": 7})
    document = json.loads(rewardsvc("math", "audit", "golds.jsonl", "--json").stdout)
    assert document["summary"]["references"] == 2
    assert document["summary"]["findings"] == {"restated": 1}
    assert document["summary"]["treatments"] == {"exact": 2}
    assert [(entry["line"], entry["gold"], entry["type"]) for entry in document["references"]] == [
        (1, "(x+1)^2", "expression"),
        (3, "7", "number"),
    ]


def test_fields_are_guessed_or_named(rewardsvc: Any) -> None:
    lines = [
        {"reward_model": {"ground_truth": "1"}, "prompt": [{"role": "user", "content": "What is $1$?"}]},
        {"task": {"reference": "2"}},
        {"mine": "3", "answer": "4"},
    ]
    rewardsvc.write("golds.jsonl", *lines)
    rewardsvc.write("mine.jsonl", lines[2])
    guessed = json.loads(rewardsvc("math", "audit", "golds.jsonl", "--json").stdout)
    named = json.loads(rewardsvc("math", "audit", "mine.jsonl", "--gold", "mine", "--json").stdout)
    assert [entry["gold"] for entry in guessed["references"]] == ["1", "2", "4"]
    assert [entry["gold"] for entry in named["references"]] == ["3"]


@pytest.mark.parametrize(
    ("lines", "arguments", "complaint"),
    [
        (["{"], (), "golds.jsonl, line 1:"),
        (["[1]"], (), "golds.jsonl, line 1:"),
        ([{"gold": "1"}, {"mine": "1"}], (), "golds.jsonl, line 2: there is no reference; name its field with --gold"),
        ([{"gold": "1"}], ("--gold", "mine"), "golds.jsonl, line 1: there is no 'mine'. It has gold."),
        ([], (), "golds.jsonl has no references."),
        ([{"gold": "1"}], ("--preset", "mine"), "There is no preset 'mine'; there are house"),
    ],
)
def test_bad_usage_is_told(rewardsvc: Any, lines: list[Any], arguments: tuple[str, ...], complaint: str) -> None:
    rewardsvc.write("golds.jsonl", *lines)
    done = rewardsvc("math", "audit", "golds.jsonl", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_a_reference_that_is_null_is_refused_and_does_not_end_the_audit(rewardsvc: Any) -> None:
    rewardsvc.write("golds.jsonl", {"answer": None}, {"answer": 0}, {"answer": []})
    done = rewardsvc("math", "audit", "golds.jsonl", "--json")
    assert done.returncode == 3, done.stderr
    entries = json.loads(done.stdout)["references"]
    assert [entry["treatment"] for entry in entries] == ["refused", "exact", "refused"]
