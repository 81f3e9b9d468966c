r"""The reward `exact`: the final answer is the reference, or it is not.

What counts as the final answer is decided by `extract`, what counts as the same text by `extract.plain`; here two
answers are compared. Numbers written in digits are compared by value, without rounding and without ever computing a
power: only their digits are looked at, so `1e999999999` costs nothing. There is no algebra, no LaTeX and no units in
this file: `1/2`, `\frac{1}{2}`, `50%` and `$42$` are text. The reward `math` understands those.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from rewardsvc.contract import Model, Rollout, Task, Verdict
from rewardsvc.errors import BadReference
from rewardsvc.extract import STYLES, Span, Style, after_reasoning, boxed, final_answer, plain
from rewardsvc.reward import Case, Cpu, PerRollout

MAX_ANSWER = 1_000
"""Characters of the extracted answer that a verdict repeats."""

_WANTED = {
    "auto": "Give a final answer after the reasoning.",
    "whole": "Give an answer after the reasoning.",
    "boxed": r"Put the final answer into \boxed{…} after the reasoning.",
    "tag": "Put the final answer into <answer>…</answer> after the reasoning.",
}


class Exact(PerRollout):
    r"""1.0 when the final answer equals the reference as text or as a plain number, else 0.0.

    The reasoning (`<think>…</think>`) is cut off first; when it never ends there is no answer. The final answer is the
    last `\boxed{…}`, else the last `<answer>…</answer>`, else the last `#### …` line, else what follows the last
    `Answer:` or `the answer is`, else the whole remaining text. A box or tag that is there but empty is no answer. A
    text that is the reference as a whole is right even if one of these marks occurs in it.

    Always ignored: white space at both ends, one full stop at the end, and how an accented letter is composed. Never
    ignored: hidden characters, and the difference between letters that look alike.

    A reference that is one box means what is in it. `nan` equals nothing, so as a reference it is refused.
    """

    name, version = "exact", "1"
    resources = Cpu(item_timeout=1.0)
    deterministic = True
    Reference = str | int | float | list[str | int | float]
    reasons = {
        "equal": "The final answer is the reference, or one of the accepted answers.",
        "not_equal": "There is a final answer and it is another one.",
        "no_answer": "There is no final answer: it is empty, the reasoning never ends, or the box or tag is missing.",
    }
    cases = [
        Case.full(r"\boxed{42}", reference="42", reason="equal"),
        Case.full("42", reference=42, reason="equal", why="without any mark the whole text is the answer"),
        Case.full("<think>41? No, 42.</think> The answer is **42**.", reference="42", reason="equal"),
        Case.full("<answer> the  Eiffel Tower.\n</answer>", reference="The Eiffel Tower", reason="equal"),
        Case.full("6 * 7 = 42\n#### 42", reference="42", reason="equal", why="the format of GSM8K"),
        Case.full("The answer is blowing in the wind", reference="The answer is blowing in the wind", reason="equal"),
        Case.full(r"\boxed{1,000}", reference="1e3", reason="equal", why="plain numbers are compared by value"),
        Case.full("NYC", reference=["New York City", "NYC"], reason="equal", why="a list holds accepted answers"),
        Case.zero("41", reference="42", reason="not_equal"),
        Case.zero(r"\boxed{42} No, wait: \boxed{41}", reference="42", reason="not_equal", why="the last box counts"),
        Case.zero("0.30000000000000001", reference=0.3, reason="not_equal", why="nothing is rounded"),
        Case.zero("PARIS", reference="Paris", params={"ignore_case": False}, reason="not_equal"),
        Case.zero("1000.0", reference="1000", params={"numeric": False}, reason="not_equal"),
        Case.full("Well, 'yes'!", reference="well yes", params={"ignore_punctuation": True}, reason="equal"),
        Case.malformed("", reference="42", reason="no_answer"),
        Case.malformed(r"It is 42. \boxed{}", reference="42", reason="no_answer", why="an empty box answers nothing"),
        Case.malformed("<think>It must be 42", reference="42", reason="no_answer", why="cut off while reasoning"),
        Case.malformed("42", reference="42", params={"extract": "boxed"}, reason="no_answer"),
        Case.attack("42 or 43", reference="42", reason="not_equal", why="two answers are not one"),
        Case.attack(r"\boxed{41, 42, 43}", reference="42", reason="not_equal"),
        Case.attack(r"<think>\boxed{42}</think> \boxed{41}", reference="42", reason="not_equal"),
        Case.attack("4\u200b2", reference="42", reason="not_equal", why="a zero-width space in the middle"),
        Case.attack("true", reference=1, reason="not_equal", why="a truth value is no number"),
        Case.attack("1e999999999", reference=1, reason="not_equal", why="a number too big to write out"),
        Case.not_scored("42", "bad_reference", reason="no_reference"),
        Case.not_scored("", "bad_reference", reference=" ", reason="empty_reference", why="empty never equals empty"),
        Case.not_scored("nan", "bad_reference", reference="NaN", reason="nan_reference"),
    ]

    class Params(Model):
        """What counts as an answer, and which differences do not count."""

        ignore_case: Annotated[bool, Meta(description="Upper and lower case are the same.")] = True
        ignore_whitespace: Annotated[
            bool, Meta(description="Any run of white space is one space. At both ends it never counts.")
        ] = True
        ignore_punctuation: Annotated[
            bool,
            Meta(
                description="Punctuation does not count, except where it touches a digit (3.14, -5). "
                "One full stop at the end never counts."
            ),
        ] = False
        numeric: Annotated[
            bool, Meta(description="Two plain numbers are compared by exact value: 1,000 = 1000.0 = 1e3.")
        ] = True
        extract: Annotated[
            Literal["auto", "whole", "boxed", "tag"],
            Meta(
                description="Where the answer stands: in the last box, <answer> tag, #### line or 'Answer:' line and "
                "else the whole text (auto); always the whole text; only in a box; only in an <answer> tag."
            ),
        ] = "auto"

    def score(self, rollout: Rollout, task: Task, params: Params) -> Verdict:
        """Raises `BadReference`: no_reference, empty_reference, nan_reference."""
        accepted = _accepted(task.reference, params)
        answers = _answers(rollout.text, params)
        blank = not answers
        for order, answer in enumerate(answers):
            given = _comparable(answer.text, params)
            if _is_accepted(given, accepted):
                return _verdict(1.0, "equal", answer)
            blank = blank or (order == 0 and given is None)
        if blank:
            return Verdict.scored(0.0, "no_answer", feedback=_WANTED[params.extract])
        return _verdict(0.0, "not_equal", answers[0])


def _verdict(reward: float, reason: str, answer: Span) -> Verdict:
    evidence = {"method": answer.method, "start": answer.start, "end": answer.end}
    return Verdict.scored(reward, reason, answer=answer.text[:MAX_ANSWER], evidence=evidence)


_STYLES: dict[str, tuple[Style, ...]] = {"auto": STYLES, "whole": (), "boxed": ("boxed",), "tag": ("tag",)}


def _answers(text: str, params: Exact.Params) -> list[Span]:
    """The final answer, and after it the whole text where that counts too. Places are those in the completion."""
    region = after_reasoning(text)
    if region is None:
        return []
    answer = final_answer(region.text, _STYLES[params.extract])
    whole = region.trimmed() if params.extract in ("auto", "whole") else None
    return [span for span in (answer and answer.moved(region.start), whole) if span is not None]


class Number(NamedTuple):
    """A decimal number in its only form: `digits` times ten to the `exponent`, no zeros at either end of `digits`."""

    negative: bool
    digits: str
    exponent: int


class _Comparable(NamedTuple):
    text: str
    number: Number | None


def _accepted(reference: object, params: Exact.Params) -> list[_Comparable]:
    """The accepted answers, ready to compare. Blank ones in a list are passed over, as nothing can equal them."""
    if reference is None:
        raise BadReference("no_reference", "exact needs a reference: a string, a number, or a list of them.")
    texts = [_unboxed(str(item), params) for item in (reference if isinstance(reference, list) else [reference])]
    accepted = [wanted for text in texts if (wanted := _comparable(text, params)) is not None]
    if not accepted:
        raise BadReference("empty_reference", "The reference is empty, so that nothing can equal it.")
    numbers = [wanted for wanted in accepted if not (params.numeric and wanted.text.lower().lstrip("+-") == "nan")]
    if not numbers:
        raise BadReference("nan_reference", "nan equals nothing. To compare the word, set numeric to false.")
    return numbers


def _unboxed(reference: str, params: Exact.Params) -> str:
    """A reference that is one whole box could never be met by the content of a box."""
    boxes = boxed(reference) if params.extract in ("auto", "boxed") else []
    if len(boxes) != 1:
        return reference
    before, after = reference[: boxes[0].start].strip(), reference[boxes[0].end :].strip()
    return boxes[0].text if before in (r"\boxed{", r"\fbox{") and after == "}" else reference


def _comparable(text: str, params: Exact.Params) -> _Comparable | None:
    """None when nothing is left of `text`."""
    text = plain(
        text,
        ignore_case=params.ignore_case,
        ignore_whitespace=params.ignore_whitespace,
        ignore_punctuation=params.ignore_punctuation,
    )
    return _Comparable(text, plain_number(text) if params.numeric else None) if text else None


def _is_accepted(given: _Comparable | None, accepted: list[_Comparable]) -> bool:
    return given is not None and any(_same(given, wanted) for wanted in accepted)


def _same(given: _Comparable, wanted: _Comparable) -> bool:
    if given.number is not None and wanted.number is not None:
        return given.number == wanted.number
    return given.text == wanted.text


_NUMBER = re.compile(
    r"([+-]?)([1-9][0-9]{0,2}(?:,[0-9]{3})++|[0-9]*+)(?:\.([0-9]*+))?(?:[eE]([+-]?[0-9]{1,18}))?",
)


def plain_number(text: str) -> Number | None:
    """The value of a number written in ASCII digits, or None.

    Allowed: a sign (also U+2212), thousands in groups of three after commas, a decimal point, and an exponent of up to
    18 digits. A group that starts with zero (`0,125`) is a decimal comma for half of the world, and so no number here.
    """
    found = _NUMBER.fullmatch(text.replace("\u2212", "-"))
    if found is None:
        return None
    sign, whole, fraction, power = found.groups(default="")
    digits = whole.replace(",", "") + fraction
    significant = digits.lstrip("0")
    if not significant:
        return Number(False, "", 0) if digits else None
    shortest = significant.rstrip("0")
    shift = len(significant) - len(shortest) - len(fraction)
    return Number(sign == "-", shortest, int(power or 0) + shift)
