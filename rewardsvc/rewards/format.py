r"""The reward `format`: does a completion have the shape that it was asked for?

A shape is up to five rules: which tags, in which order, what may stand outside of them, which Markdown headings, and
how many boxed answers. Each rule is a function from the text to a `Finding`; the verdict reports the first one that is
broken. Whether the answer is right is no concern of this file.

A tag is the exact text `<name>` or `</name>`, wherever it stands. That includes code blocks and quotes, because the
parsers which later read such completions do not know Markdown either. Headings inside code blocks are code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

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
    reasons: ClassVar[dict[str, str]] = {
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
    cases: ClassVar[list[Case]] = [
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

    class Params(Model, frozen=True):
        """The rules."""

        tags: Annotated[
            list[Annotated[str, Meta(max_length=64)]],
            Meta(max_length=16, description="Names of tags that must occur once each, in this order, not nested."),
        ] = ["think", "answer"]  # noqa: RUF012  msgspec copies it
        strict: Annotated[bool, Meta(description="Nothing but white space may stand outside the tags.")] = True
        sections: Annotated[
            list[Annotated[str, Meta(max_length=200)]],
            Meta(
                max_length=32,
                description="Markdown headings that must occur once each, in this order: 'Answer' at any level, "
                "'## Answer' at the second.",
            ),
        ] = []
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
        opened = f"<{params.tags[0]}>" if params.think_opened and params.tags else ""
        text = opened + rollout.text
        findings = {name: rule(text, params) for name, rule in _RULES.items()}
        broken = next((finding for finding in findings.values() if finding.share < 1.0), None)
        asked = [finding.share for finding in findings.values() if finding.asked]
        return Verdict.scored(
            sum(asked) / len(asked) if params.partial and asked else float(broken is None),
            broken.reason if broken else "well_formed",
            parts={name: finding.share for name, finding in findings.items()},
            feedback=broken.sentence if broken else None,
        )


class Finding(NamedTuple):
    """What a rule found: how far it holds (0 to 1), the reason and a sentence when it does not, and whether the
    parameters ask for it at all."""

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
        if not _title(title) or "\n" in title:
            yield "/params/sections", f"{title!r} is no heading: it must be one line and not blank."
    if len(set(params.tags)) < len(params.tags):
        yield "/params/tags", "A tag is named twice, and yet each must occur exactly once."
    if len({_title(title) for title in params.sections}) < len(params.sections):
        yield "/params/sections", "A heading is named twice, and yet each must occur exactly once."
    if params.think_opened and not params.tags:
        yield "/params/think_opened", "There are no tags, so the prompt cannot have opened the first one."
    if not (params.tags or params.sections or params.final_answer == "one"):
        yield "/params/tags", "Nothing is asked for: name tags or sections, or set final_answer to 'one'."


def _check_tags(text: str, params: Format.Params) -> Finding:
    """The share of tags that are there exactly once and, if asked, have content; the gravest fault of the others."""
    if not params.tags:
        return NOT_ASKED
    faults = [fault for tag in params.tags if (fault := _tag_fault(text, tag, params.non_empty)) is not None]
    if not faults:
        return HOLDS
    reason, sentence = min(faults, key=lambda fault: list(Format.reasons).index(fault[0]))
    return Finding(1.0 - len(faults) / len(params.tags), reason, sentence)


def _tag_fault(text: str, tag: str, non_empty: bool) -> tuple[str, str] | None:
    for mark in (f"<{tag}>", f"</{tag}>"):
        count = text.count(mark)
        if count == 0:
            return "missing_tag", f"{mark} is missing."
        if count > 1:
            return "repeated_tag", f"{mark} must occur once, and occurs {count} times."
    if non_empty and any(not _visible(span.text) for span in tagged(text, tag)):
        return "empty_tag", f"There is nothing in <{tag}>."
    return None


def _visible(text: str) -> bool:
    """Whether anything in `text` can be seen: neither white space nor a control or format character."""
    return any(character.isprintable() and not character.isspace() for character in set(text))


def _check_order(text: str, params: Format.Params) -> Finding:
    if not params.tags:
        return NOT_ASKED
    places = _tag_places(text, params.tags)
    if places is None:
        return Finding(0.0, "missing_tag", "The order of the tags cannot be judged until each is there once.")
    if places == sorted(places):
        return HOLDS
    wanted = ", ".join(f"<{tag}>" for tag in params.tags)
    if places[::2] == sorted(places[::2]) and all(a < b for a, b in zip(places[::2], places[1::2], strict=True)):
        return Finding(0.0, "nested_tag", f"A tag begins before the one in front of it has ended: {wanted} stand apart.")
    return Finding(0.0, "wrong_order", f"The tags must come in this order, each opened and then closed: {wanted}.")


def _tag_places(text: str, tags: list[str]) -> list[int] | None:
    """Where each opening and closing tag stands, in the order of `tags`; None unless each is there exactly once."""
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    return [text.index(mark) for mark in marks] if all(text.count(mark) == 1 for mark in marks) else None


def _check_outside(text: str, params: Format.Params) -> Finding:
    if not (params.tags and params.strict):
        return NOT_ASKED
    places = _tag_places(text, params.tags)
    if places is None or places != sorted(places):
        return Finding(0.0, "wrong_order", "What stands outside cannot be judged until the tags are in order.")
    begin = 0
    for tag, opened, closed in zip(params.tags, places[::2], places[1::2], strict=True):
        if text[begin:opened].strip():
            return Finding(0.0, "text_outside", f"There is text in front of <{tag}>; only white space may stand there.")
        begin = closed + len(f"</{tag}>")
    if text[begin:].strip():
        return Finding(0.0, "text_outside", "There is text after the last tag; only white space may stand there.")
    return HOLDS


def _check_sections(text: str, params: Format.Params) -> Finding:
    if not params.sections:
        return NOT_ASKED
    region = _without_code(_region(text))
    places = []
    for title in params.sections:
        found = [heading.start() for heading in _heading(title).finditer(region)]
        if not found:
            return Finding(0.0, "missing_section", f"The heading {_title(title)!r} is missing.")
        if len(found) > 1:
            return Finding(0.0, "repeated_section", f"The heading {_title(title)!r} occurs {len(found)} times.")
        places.append(found[0])
    if places == sorted(places):
        return HOLDS
    return Finding(0.0, "section_order", f"The headings must come in this order: {', '.join(params.sections)}.")


def _check_final_answer(text: str, params: Format.Params) -> Finding:
    if params.final_answer == "any":
        return NOT_ASKED
    boxes = boxed(_last_section(text, params))
    if len(boxes) > 1:
        return Finding(0.0, "several_final_answers", f"There must be one boxed answer at the end, not {len(boxes)}.")
    if not boxes or not _visible(boxes[0].text):
        return Finding(0.0, "no_final_answer", r"The final answer must be in one \boxed{…} at the end.")
    return HOLDS


def _region(text: str) -> str:
    region = after_reasoning(text)
    return region.text if region else ""


def _last_section(text: str, params: Format.Params) -> str:
    region = _region(text)
    if params.sections:
        headings = list(_heading(params.sections[-1]).finditer(_without_code(region)))
        return region[headings[-1].end() :] if headings else ""
    if params.tags and params.tags[-1] != "think":
        pairs = tagged(region, params.tags[-1])
        return pairs[-1].text if pairs else ""
    return region


def _without_code(text: str) -> str:
    """`text` with the lines of its code blocks blotted out, so that `# a comment` is no heading. Same length."""
    pieces, begin = [], 0
    for block in fenced_blocks(text):
        pieces += [text[begin : block.start], "\0" * (block.end - block.start)]
        begin = block.end
    return "".join([*pieces, text[begin:]])


def _title(section: str) -> str:
    return section.strip().lstrip("#").strip()


def _heading(section: str) -> re.Pattern[str]:
    """Matches the line of a heading: an ATX heading of CommonMark, closed by more `#` or not."""
    level = len(section.strip()) - len(section.strip().lstrip("#"))
    marks = f"#{{{level}}}" if level else "#{1,6}"
    return re.compile(rf"^[ ]{{0,3}}{marks}[ \t]++{re.escape(_title(section))}[ \t]*+#*+[ \t\r]*+$", re.MULTILINE)


_RULES: Mapping[str, Callable[[str, Format.Params], Finding]] = {
    "tags": _check_tags,
    "order": _check_order,
    "outside": _check_outside,
    "sections": _check_sections,
    "final_answer": _check_final_answer,
}
