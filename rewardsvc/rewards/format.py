r"""The reward `format`: does a completion have the shape that it was asked for?

A shape is up to five rules: which tags, in which order, what may stand outside of them, which Markdown headings, and
how many boxed answers. Each rule is a function from the text to a `Finding`; the verdict reports the first one that is
broken. Whether the answer is right is no concern of this file.

A tag is the exact text `<name>` or `</name>`, wherever it stands. That includes code blocks and quotes, because the
parsers which later read such completions do not know Markdown either. Headings inside code blocks are code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from rewardsvc.contract import Model, Rollout, Task, Verdict
from rewardsvc.extract import after_reasoning, boxed, fenced_blocks, tagged
from rewardsvc.reward import Case, Cpu, InvalidTask, PerRollout

GOOD = "<think>6 * 7 = 42</think>\n<answer>42</answer>"
SECTIONS = {"tags": [], "sections": ["Plan", "Answer"]}


class Format(PerRollout):
    r"""1.0 when the completion has the shape that was asked for: tags, headings, one boxed answer.

    By default that is `<think>…</think>` and then `<answer>…</answer>`, each once, neither empty nor inside the other,
    and nothing but white space around them. Rules that are not asked for hold (their part is 1.0), but earn no share
    under `partial`. Nor can a rule on order or surroundings hold while a tag is missing: an empty completion is not
    a good start.

    Headings (`# Plan` to `###### Plan`) and boxes are looked for after `</think>`. Boxes are counted after the last
    heading of `sections`; without sections in the last tag of `tags`; without either in all of that text.
    """

    name, version = "format", "1"
    resources = Cpu(item_timeout=1.0)
    deterministic = True
    parts = ("tags", "order", "outside", "sections", "final_answer")
    reasons = {
        "well_formed": "Every rule that was asked for holds.",
        "missing_tag": "An opening or closing tag is not there.",
        "repeated_tag": "An opening or closing tag is there more than once.",
        "empty_tag": "There is nothing to see between an opening and a closing tag.",
        "nested_tag": "A tag begins before the one in front of it has ended.",
        "wrong_order": "The tags are in another order, or one closes before it opens.",
        "text_outside": "There is text outside the tags.",
        "missing_section": "A heading is not there.",
        "repeated_section": "A heading is there more than once.",
        "section_order": "The headings are in another order.",
        "no_final_answer": "There is no boxed answer where one belongs, or it is empty.",
        "several_final_answers": "There is more than one boxed answer where one belongs.",
    }
    cases = [
        Case.full(GOOD, reason="well_formed"),
        Case.full("6 * 7</think><answer>42</answer>", params={"think_opened": True}, reason="well_formed"),
        Case.full(f"Sure! {GOOD}", params={"strict": False}, reason="well_formed"),
        Case.full("## Plan\nAdd.\n## Answer\n42", params=SECTIONS, reason="well_formed"),
        Case.full(r"So \boxed{42}.", params={"tags": [], "final_answer": "one"}, reason="well_formed"),
        Case.full("<think></think><answer>42</answer>", params={"non_empty": False}, reason="well_formed"),
        Case.zero("42", reason="missing_tag"),
        Case.zero("<think>a</think><answer>42", reason="missing_tag", why="cut off before the end"),
        Case.zero(f"{GOOD}<answer>43</answer>", reason="repeated_tag"),
        Case.zero("<answer>42</answer><think>a</think>", reason="wrong_order"),
        Case.zero("<think>a<answer>42</answer></think>", reason="nested_tag"),
        Case.zero(f"Sure! {GOOD}", reason="text_outside"),
        Case.zero("## Plan\nAdd.", params=SECTIONS, reason="missing_section"),
        Case.zero("## Answer\n42\n## Plan\nAdd.", params=SECTIONS, reason="section_order"),
        Case.zero("## Plan\n## Answer\n42\n## Plan", params=SECTIONS, reason="repeated_section"),
        Case.zero(r"\boxed{41} or \boxed{42}", params={"tags": [], "final_answer": "one"}),
        Case.partial(f"Sure! {GOOD}", 2 / 3, params={"partial": True}, reason="text_outside"),
        Case.partial("<think>a</think>", 1 / 6, params={"partial": True}, reason="missing_tag"),
        Case.malformed("", reason="missing_tag"),
        Case.malformed("", params={"partial": True}, reason="missing_tag"),
        Case.attack("<think></think><answer></answer>", reason="empty_tag"),
        Case.attack("<think>\u200b</think><answer>\u200b</answer>", reason="empty_tag", why="only hidden characters"),
        Case.attack("<think><answer></think></answer>", reason="nested_tag"),
        Case.attack(f"```\n{GOOD}\n```", reason="text_outside", why="the fence itself stands outside the tags"),
        Case.attack(r"\boxed{}", params={"tags": [], "final_answer": "one"}, reason="no_final_answer"),
    ]

    class Params(Model):
        """The rules."""

        tags: Annotated[
            tuple[Annotated[str, Meta(max_length=64)], ...],
            Meta(max_length=16, description="Names of tags that must occur once each, in this order, not nested."),
        ] = ("think", "answer")
        strict: Annotated[bool, Meta(description="Nothing but white space may stand outside the tags.")] = True
        sections: Annotated[
            tuple[Annotated[str, Meta(max_length=200)], ...],
            Meta(
                max_length=32,
                description="Markdown headings that must occur once each, in this order: 'Answer' at any level, "
                "'## Answer' at the second.",
            ),
        ] = ()
        final_answer: Annotated[
            Literal["any", "one"], Meta(description="'one': exactly one boxed answer, not empty, in the last section.")
        ] = "any"
        think_opened: Annotated[
            bool, Meta(description="The prompt's template has already opened the first tag: it must not come again.")
        ] = False
        non_empty: Annotated[bool, Meta(description="Every tag must have something visible in it.")] = True
        partial: Annotated[
            bool,
            Meta(description="The reward is the mean of the parts that were asked for, and not all or nothing."),
        ] = False

    def check_task(self, task: Task, params: Params) -> None:
        """Refuses rules that no completion could keep, and an empty set of rules."""
        for pointer, message in _mistakes(params):
            raise InvalidTask(pointer, message)

    def score(self, rollout: Rollout, task: Task, params: Params) -> Verdict:
        """Needs no reference."""
        reading = _Reading(rollout.text, params)
        findings = {name: rule(reading) for name, rule in _RULES.items()}
        broken = next((finding for finding in findings.values() if finding.share < 1.0), None)
        asked = [finding.share for finding in findings.values() if finding.asked]
        return Verdict.scored(
            sum(asked) / len(asked) if params.partial and asked else float(broken is None),
            broken.reason if broken else "well_formed",
            parts={name: finding.share for name, finding in findings.items()},
            feedback=broken.sentence if broken else None,
        )


class Finding(NamedTuple):
    """What a rule found: how far it holds (0 to 1), why not, and whether the parameters ask for it at all."""

    share: float = 1.0
    reason: str = ""
    sentence: str = ""
    asked: bool = True


NOT_ASKED = Finding(asked=False)
HOLDS = Finding()


def _mistakes(params: Format.Params) -> Iterator[tuple[str, str]]:
    """What makes no sense in `params`, as (JSON pointer, message)."""
    for name in params.tags:
        if not re.fullmatch(r"[^\s<>/]+", name):
            yield "/params/tags", f"{name!r} is no tag name: it must not be empty or contain white space, <, > or /."
    for title in params.sections:
        if not title.strip("# \t") or "\n" in title:
            yield "/params/sections", f"{title!r} is no heading: it must be one line and not blank."
    if len(set(params.tags)) < len(params.tags):
        yield "/params/tags", "A tag is named twice, and yet each must occur exactly once."
    if len({_parted(title)[1] for title in params.sections}) < len(params.sections):
        yield "/params/sections", "A heading is named twice, and yet each must occur exactly once."
    if params.think_opened and not params.tags:
        yield "/params/think_opened", "There are no tags, so the prompt cannot have opened the first one."
    if not (params.tags or params.sections or params.final_answer == "one"):
        yield "/params/tags", "Nothing is asked for: name tags or sections, or set final_answer to 'one'."


class _Reading:
    """One completion and the rules for it, with what more than one rule wants to know."""

    def __init__(self, completion: str, params: Format.Params) -> None:
        """An opening tag that the prompt already holds is put back in front, so that all rules see whole tags."""
        opened = f"<{params.tags[0]}>" if params.think_opened and params.tags else ""
        self.text = opened + completion
        self.params = params

    @cached_property
    def places(self) -> list[int] | None:
        """Where each opening and closing tag stands, in the order asked for; None unless each is there exactly once."""
        marks = [mark for tag in self.params.tags for mark in (f"<{tag}>", f"</{tag}>")]
        counted = all(self.text.count(mark) == 1 for mark in marks)
        return [self.text.index(mark) for mark in marks] if counted else None

    @cached_property
    def in_order(self) -> bool:
        """Whether each tag is there exactly once, in the order asked for and none in another."""
        return self.places is not None and self.places == sorted(self.places)

    @cached_property
    def region(self) -> str:
        """What comes after the reasoning."""
        region = after_reasoning(self.text)
        return region.text if region else ""

    @cached_property
    def headings(self) -> list[Heading]:
        """The headings asked for, wherever they stand in `region`."""
        return _headings(self.region, self.params.sections) if self.params.sections else []

    @property
    def last_section(self) -> str:
        """Where the final answer belongs."""
        if self.params.sections:
            ends = [heading.end for heading in self.headings if heading.section == self.params.sections[-1]]
            return self.region[ends[-1] :] if ends else ""
        if self.params.tags and self.params.tags[-1] != "think":
            pairs = tagged(self.region, self.params.tags[-1])
            return pairs[-1].text if pairs else ""
        return self.region


def _check_tags(reading: _Reading) -> Finding:
    """The share of tags that are there exactly once and, if asked, have content; the gravest fault of the others."""
    tags = reading.params.tags
    if not tags:
        return NOT_ASKED
    faults = [fault for tag in tags if (fault := _tag_fault(reading.text, tag, reading.params.non_empty)) is not None]
    if not faults:
        return HOLDS
    reason, sentence = min(faults, key=lambda fault: list(Format.reasons).index(fault[0]))
    return Finding(1 - len(faults) / len(tags), reason, sentence)


def _tag_fault(text: str, tag: str, non_empty: bool) -> tuple[str, str] | None:
    for mark in (f"<{tag}>", f"</{tag}>"):
        count = text.count(mark)
        if count == 0:
            return "missing_tag", f"{mark} is missing."
        if count > 1:
            return "repeated_tag", f"{mark} must occur once, and occurs {count} times."
    if non_empty and any(not _VISIBLE.search(text, span.start, span.end) for span in tagged(text, tag)):
        return "empty_tag", f"There is nothing in <{tag}>."
    return None


# All but white space, control characters, and what Unicode 16 calls Default_Ignorable_Code_Point.
_VISIBLE = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff]"
)


def _check_order(reading: _Reading) -> Finding:
    if not reading.params.tags:
        return NOT_ASKED
    if reading.in_order:
        return HOLDS
    if reading.places is None:
        return Finding(0.0, "missing_tag", "The order of the tags cannot be judged until each is there once.")
    wanted = ", ".join(f"<{tag}>" for tag in reading.params.tags)
    if _overlap(reading.places):
        return Finding(0.0, "nested_tag", f"Each tag must end before another begins: {wanted}.")
    return Finding(0.0, "wrong_order", f"The tags must come in this order, each opened and then closed: {wanted}.")


def _overlap(places: list[int]) -> bool:
    """Whether all tags open before they close, and one opens inside another."""
    pairs = sorted(zip(places[::2], places[1::2], strict=True))
    return all(a < b for a, b in pairs) and any(a[1] > b[0] for a, b in pairwise(pairs))


def _check_outside(reading: _Reading) -> Finding:
    tags, text, places = reading.params.tags, reading.text, reading.places
    if not (tags and reading.params.strict):
        return NOT_ASKED
    if places is None or not reading.in_order:
        return Finding(0.0, "wrong_order", "What stands outside cannot be judged until the tags are in order.")
    begin = 0
    for tag, opened, closed in zip(tags, places[::2], places[1::2], strict=True):
        if text[begin:opened].strip():
            return Finding(0.0, "text_outside", f"There is text in front of <{tag}>; only white space may stand there.")
        begin = closed + len(f"</{tag}>")
    if text[begin:].strip():
        return Finding(0.0, "text_outside", "There is text after the last tag; only white space may stand there.")
    return HOLDS


def _check_sections(reading: _Reading) -> Finding:
    sections = reading.params.sections
    if not sections:
        return NOT_ASKED
    found = [heading.section for heading in reading.headings]
    for section in sections:
        count = found.count(section)
        if count == 0:
            return Finding(0.0, "missing_section", f"The heading {section!r} is missing.")
        if count > 1:
            return Finding(0.0, "repeated_section", f"The heading {section!r} occurs {count} times.")
    if found == list(sections):
        return HOLDS
    return Finding(0.0, "section_order", f"The headings must come in this order: {', '.join(sections)}.")


def _check_final_answer(reading: _Reading) -> Finding:
    if reading.params.final_answer == "any":
        return NOT_ASKED
    boxes = boxed(reading.last_section)
    if len(boxes) > 1:
        return Finding(0.0, "several_final_answers", f"There must be one boxed answer at the end, not {len(boxes)}.")
    if not boxes or not _VISIBLE.search(boxes[0].text):
        return Finding(0.0, "no_final_answer", r"The final answer must be in one \boxed{…} at the end.")
    return HOLDS


class Heading(NamedTuple):
    """One of the headings that were asked for, as the parameters spell it, and where its line ends."""

    section: str
    end: int


def _headings(text: str, sections: Sequence[str]) -> list[Heading]:
    """The headings among `sections` that `text` has outside of code, in its order (CommonMark 0.31, section 4.2).

    One pass for all of them, because a hostile text times thirty-two sections would be slow.
    """
    wanted = {title: (marks, section) for section in sections for marks, title in [_parted(section)]}
    titles = "|".join(map(re.escape, wanted))
    line = re.compile(rf"^[ ]{{0,3}}(#{{1,6}})[ \t]++({titles})(?:[ \t]++#*+[ \t]*+)?\r?$", re.MULTILINE)
    headings = []
    for found in line.finditer(_without_code(text)):
        marks, section = wanted[found[2]]
        if marks in ("", found[1]):
            headings.append(Heading(section, found.end()))
    return headings


def _without_code(text: str) -> str:
    """`text` with the lines of its code blocks blotted out, so that `# a comment` is no heading. Same length."""
    pieces, begin = [], 0
    for _, _, start, end, _ in fenced_blocks(text):
        pieces += [text[begin:start], "\0" * (end - start)]
        begin = end
    return "".join([*pieces, text[begin:]])


def _parted(section: str) -> tuple[str, str]:
    """The level that a section of the parameters asks for (`##`, or nothing for any), and its title."""
    marks, _, title = section.strip().partition(" ")
    return (marks, title.strip()) if set(marks) == {"#"} and len(marks) <= 6 else ("", section.strip())


_RULES: Mapping[str, Callable[[_Reading], Finding]] = {
    "tags": _check_tags,
    "order": _check_order,
    "outside": _check_outside,
    "sections": _check_sections,
    "final_answer": _check_final_answer,
}
