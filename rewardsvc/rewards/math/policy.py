"""The policy: every choice on which reasonable graders differ, as one typed `Policy`, and presets of known graders.

The defaults are the house's own. A preset is a set of differences from them; what a caller sets explicitly wins.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, convert, structs

from rewardsvc.contract import Model

Preset = Literal["house", "math-verify", "dapo", "prm800k", "gsm8k", "olympiad"]


class Policy(Model):
    """How answers are compared."""

    decimals: Annotated[
        Literal["exact", "rounded"],
        Meta(
            description="`rounded`: a decimal equals the exact number that rounds to it; `exact`: only the same value."
        ),
    ] = "rounded"
    gold_digits: Annotated[
        int,
        Meta(
            ge=1, le=50, description="Significant digits a decimal gold needs before an exact answer may round to it."
        ),
    ] = 2
    answer_digits: Annotated[
        int,
        Meta(ge=1, le=50, description="Significant digits of a decimal answer that rounds a rational gold."),
    ] = 3
    irrational_digits: Annotated[
        int,
        Meta(ge=1, le=50, description="Significant digits of a decimal answer that rounds an irrational gold."),
    ] = 4
    relative_tolerance: Annotated[
        float, Meta(ge=0.0, le=0.5, description="Relative difference up to which numbers are equal; 0 is exact.")
    ] = 0.0
    fractions: Annotated[
        Literal["value", "as_written"],
        Meta(description="`as_written`: a fraction that makes a whole number, such as 6/2, is not that number."),
    ] = "value"
    percent: Annotated[
        Literal["either", "strict", "ignore"],
        Meta(description="`either`: 50% equals 0.5 and 50; `strict`: only 0.5; `ignore`: only 50."),
    ] = "either"
    degrees: Annotated[
        Literal["either", "strict"],
        Meta(description="`either`: 90° equals 90 and π/2; `strict`: a bare number is in radians."),
    ] = "either"
    units: Annotated[
        Literal["ignore", "match", "convert"],
        Meta(description="Units on both sides: `ignore` them, they must `match`, or `convert` 3 hours to 180 minutes."),
    ] = "convert"
    missing_unit: Annotated[bool, Meta(description="A unit on one side only is no difference.")] = True
    case: Annotated[Literal["fold", "keep"], Meta(description="Letter case of words; symbols always keep theirs.")] = (
        "fold"
    )
    order: Annotated[
        Literal["lists", "nothing", "everything"],
        Meta(description="What may be reordered: bare `lists` and sets; `nothing` but sets; `everything`, tuples too."),
    ] = "lists"
    set_or_tuple: Annotated[bool, Meta(description="A set in braces may stand for a tuple, and a tuple for a set.")] = (
        False
    )
    unwrap: Annotated[bool, Meta(description="`x = 5` equals `5`.")] = True
    chains: Annotated[
        Literal["every_link", "last"],
        Meta(description="`x = 5 = 7`: `every_link` of the chain must hold, or only the `last` member counts."),
    ] = "every_link"
    integration_constant: Annotated[
        Literal["required", "optional"], Meta(description="Whether `+ C` may be missing where the gold has it.")
    ] = "required"
    rename: Annotated[
        bool, Meta(description="Bound names may differ: f(x)=2x and f(t)=2t, kπ and nπ, + C and + k.")
    ] = True
    any_symbols: Annotated[bool, Meta(description="Free symbols may be renamed as well; a loose comparison.")] = False
    restatement: Annotated[
        Literal["reject", "accept"],
        Meta(description="An answer that leaves the task unevaluated, as an integral, sum, limit, derivative or gcd."),
    ] = "reject"
    interval_as_chain: Annotated[
        Literal["either", "in_gold", "never"],
        Meta(description="Where `a < x < b` may stand for the interval (a, b): on either side, in the gold, nowhere."),
    ] = "either"
    decimal_comma: Annotated[bool, Meta(description="`1,5` may be a decimal when the other side is one.")] = True
    repair: Annotated[
        bool, Meta(description="Backslashes that JSON escapes have eaten (a tab and `ext`) are put back.")
    ] = True
    algebra: Annotated[bool, Meta(description="Off: only the same spelling or the same plain number is equal.")] = True
    either_gold: Annotated[bool, Meta(description="A gold `a or b` is met by one of its members.")] = False
    answer_type: Annotated[
        Literal["auto", "number", "interval", "tuple", "set", "list", "choice", "text", "matrix"],
        Meta(description="What kind of value the gold is, where its text is ambiguous."),
    ] = "auto"


PRESETS: dict[Preset, dict[str, Any]] = {
    "house": {},
    "math-verify": {
        "chains": "last",
        "interval_as_chain": "in_gold",
        "repair": False,
        "irrational_digits": 7,
        "answer_digits": 2,
        "percent": "either",
        "units": "ignore",
        "case": "fold",
    },
    "dapo": {
        "algebra": False,
        "decimals": "exact",
        "chains": "last",
        "units": "ignore",
        "percent": "ignore",
        "rename": False,
    },
    "prm800k": {
        "decimals": "exact",
        "fractions": "as_written",
        "percent": "ignore",
        "units": "ignore",
        "order": "nothing",
        "interval_as_chain": "never",
        "rename": False,
    },
    "gsm8k": {"percent": "ignore", "units": "ignore", "decimals": "exact", "unwrap": True},
    "olympiad": {"relative_tolerance": 1e-8, "units": "ignore", "percent": "either"},
}
"""Differences from the house policy that make the engine decide as a known grader does, in what it can decide.

Sources: the behaviour of Math-Verify 0.9 (`grader.py`), verl `math_dapo.py`, openai/prm800k `grading/grader.py`,
openai/grade-school-math `dataset.py` and OlympiadBench `math_judger.py`.
"""


def preset(name: Preset, **changes: Any) -> Policy:
    """The policy of a preset with some fields changed. Raises `msgspec.ValidationError` for an impossible value."""
    return convert(PRESETS[name] | changes, Policy)


def fields(policy: Policy) -> dict[str, Any]:
    """The policy as plain data, to be echoed in a verdict."""
    return structs.asdict(policy)
