r"""What the scanners find in model text, checked by example and against slow but obvious twins on generated text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise
from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc import extract
from rewardsvc.extract import Span, after_reasoning, boxed, fenced_blocks, final_answer, plain, tagged

MEBIBYTE = 1 << 20


def pieces(*texts: str) -> st.SearchStrategy[str]:
    """Texts made of what a scanner cares about."""
    return st.lists(st.sampled_from(texts)).map("".join)


ANY = st.text() | pieces(
    "<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "}", "#### ", "Answer: ", "**", "4", "\n", " "
)
BRACES = pieces("\\", "{", "}", "\\boxed{", "\\boxed {", "\\fbox{", "a", "\\{", "\\}", " ")
FENCES = pieces("```", "````", "~~~", "~", "`", "py", " ", "\n", "\n", "x", "\t", "\r\n")


def texts(spans: list[Span]) -> list[str]:
    return [span.text for span in spans]


class TestAfterReasoning:
    @pytest.mark.parametrize(
        ("text", "answer"),
        [
            ("42", "42"),
            ("<think>a</think>42", "42"),
            ("a</think>42", "42"),
            ("<think>a</think>b<think>c</think>42", "42"),
            ("<think>a<think>b</think>42", "42"),
            ("<think>42", None),
            ("41</think>42<think>43", None),
            ("<think>a</think>", ""),
            ("<thinking>42", "<thinking>42"),
            ("< think>42", "< think>42"),
            ("", ""),
        ],
    )
    def test_it_is_what_follows_the_last_closing_tag(self, text: str, answer: str | None) -> None:
        region = after_reasoning(text)
        assert (region.text if region else None) == answer

    def test_the_tags_can_be_named(self) -> None:
        region = after_reasoning("<plan>a</plan><think>b</think>42", tags=["plan", "think"])
        assert region == Span("42", 30, 32, "after_reasoning")
        assert after_reasoning("<think>42", tags=["plan"]) == Span("<think>42", 0, 9, "whole")
        assert after_reasoning("<think>42", tags=[]) == Span("<think>42", 0, 9, "whole")


class TestBoxed:
    @pytest.mark.parametrize(
        ("text", "contents"),
        [
            (r"\boxed{42}", ["42"]),
            (r"\fbox{a} \boxed {b}", ["a", "b"]),
            (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
            (r"\boxed{\{1\}}", [r"\{1\}"]),
            (r"\boxed{a\}", []),
            (r"\boxed{a\\}", [r"a\\"]),
            (r"\boxed{\boxed{a}b}c", [r"\boxed{a}b"]),
            (r"\boxed{ \boxed{a} \boxed{b}", ["a", "b"]),
            (r"\boxed{{ \boxed{a} } \boxed{b}", ["a", "b"]),
            (r"\boxed{{ \boxed{a} }} \boxed{b}", [r"{ \boxed{a} }", "b"]),
            (r"}}\boxed{a}}}\boxed{b}", ["a", "b"]),
            (r"\\boxed{a} \\\boxed{b}", ["a", "b"]),
            (r"\boxed a", []),
            (r"\boxed\{a}", []),
            (r"\boxedx{a}", []),
            ("boxed{a}", []),
            (r"\boxed{}", [""]),
            (r"\Boxed{a}", []),
            ("", []),
        ],
    )
    def test_braces_are_balanced_and_boxes_are_outermost(self, text: str, contents: list[str]) -> None:
        assert texts(boxed(text)) == contents

    @given(BRACES)
    def test_it_agrees_with_a_slow_twin(self, text: str) -> None:
        assert [(span.start, span.end) for span in boxed(text)] == _slow_boxes(text)

    @given(BRACES)
    def test_places_are_true_and_in_order(self, text: str) -> None:
        spans = boxed(text)
        assert all(text[span.start : span.end] == span.text for span in spans)
        assert all(one.end < other.start for one, other in pairwise(spans))


def _slow_boxes(text: str) -> list[tuple[int, int]]:
    """Walks from every opening brace of a box to its partner, character by character."""
    found: list[tuple[int, int]] = []
    for box in re.finditer(r"\\(?:boxed|fbox)\s*\{", text):
        place, depth = box.end(), 1
        while place < len(text) and depth:
            if text[place] == "\\" and not re.match(r"\\\\(?:boxed|fbox)", text[place:]):
                place += 2
                continue
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            place += 1
        if not depth and not (found and found[-1][1] > box.end()):
            found.append((box.end(), place - 1))
    return found


class TestTagged:
    @pytest.mark.parametrize(
        ("text", "contents"),
        [
            ("<a>x</a><a>y</a>", ["x", "y"]),
            ("<a>x<a>y</a>z</a>", ["y"]),
            ("</a><a>x</a></a>", ["x"]),
            ("<a>x", []),
            ("<a></a>", [""]),
            ("<a>\nx\n</a>", ["\nx\n"]),
            ("<b>x</b><A>x</A><a >x</a>", []),
            ("<a>x</a >", []),
        ],
    )
    def test_a_closing_tag_belongs_to_the_nearest_opening_tag(self, text: str, contents: list[str]) -> None:
        assert texts(tagged(text, "a")) == contents

    def test_a_name_is_no_pattern(self) -> None:
        assert texts(tagged("<a.c>x</a.c><abc>y</abc>", "a.c")) == ["x"]

    @given(pieces("<a>", "</a>", "x"))
    def test_it_agrees_with_a_regular_expression(self, text: str) -> None:
        expected = re.findall(r"<a>((?:(?!</?a>).)*)</a>", text, re.DOTALL)
        assert texts(tagged(text, "a")) == expected


class TestFencedBlocks:
    @pytest.mark.parametrize(
        ("text", "blocks"),
        [
            ("```\nx\n```", [("", "x\n", True)]),
            ("```Python title=x\nx\n```\n", [("python", "x\n", True)]),
            ("~~~sql\nx\n~~~", [("sql", "x\n", True)]),
            ("```\n~~~\n```", [("", "~~~\n", True)]),
            ("````\n```\n````", [("", "```\n", True)]),
            ("```\nx\n`````", [("", "x\n", True)]),
            ("```\nx\n``` y\n```", [("", "x\n``` y\n", True)]),
            ("```x```\n", []),
            ("``\nx\n``", []),
            ("~~~ a`b\nx\n~~~", [("a`b", "x\n", True)]),
            ("1. so\n   ```py\n   if x:\n     y\n   ```", [("py", "if x:\n  y\n", True)]),
            ("```\r\nx\r\n```\r\n", [("", "x\r\n", True)]),
            ("```py\nx", [("py", "x", False)]),
            ("```\nx\n```\n```py", [("", "x\n", True), ("py", "", False)]),
            ("x ```\ny\n```", [("", "", False)]),
            ("```\n```", [("", "", True)]),
            ("", []),
        ],
    )
    def test_blocks_follow_commonmark(self, text: str, blocks: list[tuple[str, str, bool]]) -> None:
        assert [(block.label, block.text, block.complete) for block in fenced_blocks(text)] == blocks

    @given(FENCES)
    def test_places_are_true_and_only_the_last_block_may_be_incomplete(self, text: str) -> None:
        blocks = fenced_blocks(text)
        assert all(block.complete for block in blocks[:-1])
        for block in blocks:
            source = text[block.start : block.end].split("\n")
            assert all(line.endswith(kept) for line, kept in zip(source, block.text.split("\n"), strict=True))

    @given(FENCES)
    def test_it_agrees_with_reading_line_by_line(self, text: str) -> None:
        assert [(block.text, block.complete) for block in fenced_blocks(text)] == _slow_blocks(text)


def _slow_blocks(text: str) -> list[tuple[str, bool]]:
    blocks: list[tuple[str, bool]] = []
    fence: re.Match[str] | None = None
    lines: list[str] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+\Z", text):
        if fence is None:
            fence = re.match(r"([ \t]*)(?:(```+)[^`]*$|(~~~+))", line)
            lines = []
        elif re.match(rf"[ \t]*{(fence[2] or fence[3])}{(fence[2] or fence[3])[0]}*\s*$", line):
            blocks.append(("".join(lines), True))
            fence = None
        else:
            lines.append(re.sub(rf"^[ \t]{{0,{len(fence[1])}}}", "", line))
    return blocks if fence is None else [*blocks, ("".join(lines), False)]


class TestFinalAnswer:
    def test_styles_have_an_order_and_can_be_chosen(self) -> None:
        text = "\\boxed{1}\n<answer>2</answer>\n#### 3"
        assert final_answer(text) == Span("1", 7, 8, "boxed")
        assert final_answer(text, ["tag", "boxed"]) == Span("2", 18, 19, "tag")
        assert final_answer(text, ["line", "hash"]) == Span("3", 34, 35, "hash")
        assert final_answer(text, ["line"]) is None
        assert final_answer(text, []) is None

    @pytest.mark.parametrize(
        "text", ["", "42", "The result is 42.", "x = 42", "**42**", "answer 42", "Answers: 42", "##### 42"]
    )
    def test_without_a_style_there_is_no_answer(self, text: str) -> None:
        assert final_answer(text) is None

    @pytest.mark.parametrize("text", [r"42 \boxed{}", "42 <answer> </answer>", "42\n####", "42\nAnswer:", "Answer: **"])
    def test_an_empty_answer_is_an_answer(self, text: str) -> None:
        answer = final_answer(text)
        assert answer is not None and answer.text == ""

    @pytest.mark.parametrize(
        ("text", "answer"),
        [
            ("Answer: x", "x"),
            ("answer : x", "x"),
            ("ANSWER：x", "x"),
            ("> - **Answer**: x", "x"),
            ("__Answer:__ __x__", "x"),
            ("**Answer: x.**", "x."),
            ("The answer is: **x**.", "x"),
            ("Hence, the correct answer is x", "x"),
            ("1 + 1 = 2, so the answer is x", "x"),
            ("Thus my final answer is x", "x"),
            ("The final answer is x. I hope it is correct.", "x"),
            ("Final Answer: The final answer is x", "x"),
            ("Answer:\r\n\r\nx\r\ny", "x"),
            ("Answer: x**2", "x**2"),
            ("Answer: **x** or **y**", "x** or **y"),
            ("Answer: __init__", "init"),
            ("Answer: x and y", "x and y"),
        ],
    )
    def test_lines_are_read_up_to_their_end_without_bold_marks(self, text: str, answer: str) -> None:
        found = final_answer(text)
        assert found is not None
        assert (found.text, found.method) == (answer, "line")

    @pytest.mark.parametrize(
        "text", ["If the answer is x", "nonanswer: x", "the answer isn't x", "anſwer: x", "question: x"]
    )
    def test_other_lines_are_not_answers(self, text: str) -> None:
        assert final_answer(text) is None

    @given(ANY)
    def test_places_are_true_and_answers_are_trimmed(self, text: str) -> None:
        for style in extract.STYLES:
            answer = final_answer(text, [style])
            assert answer is None or (text[answer.start : answer.end] == answer.text == answer.text.strip())

    @given(ANY)
    def test_an_answer_within_the_reasoning_is_not_found_after_it(self, text: str) -> None:
        region = after_reasoning(f"<think>{text}</think>")
        assert region is not None and final_answer(region.text) is None


class TestPlain:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (" A  b\n", "a b"),
            ("a.", "a"),
            ("a. ", "a"),
            ("a...", "a..."),
            (".", "."),
            ("a .", "a ."),
            ("北京。", "北京"),
            ("STRAßE", "strasse"),
            ("e\u0301", "\u00e9"),
            ("\u212a", "k"),
            ("2\u00b2", "2\u00b2"),
            ("\uff12", "\uff12"),
            ("a\u200bb", "a\u200bb"),
            ("\x00", "\x00"),
            ("", ""),
        ],
    )
    def test_it_keeps_what_matters(self, text: str, expected: str) -> None:
        assert plain(text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Well, 'yes'!", "well yes"),
            ("(3.14)", "3.14"),
            ("-5", "-5"),
            ("a-b", "ab"),
            ("a - b", "a b"),
            ("5!", "5!"),
            ("«x»", "x"),
            ("U.S.", "us"),
            ("x^2 + $3", "x^2 + $3"),
            ("...", ""),
        ],
    )
    def test_punctuation_goes_unless_it_touches_a_digit(self, text: str, expected: str) -> None:
        assert plain(text, ignore_punctuation=True) == expected

    @given(
        st.text()
        | pieces("\u0301", "\u0316", "\u0345", "a", "A", "ß", ".", "。", " ", "'", "-", "1", "\u0130", "]", "\\", "^"),
        st.fixed_dictionaries(
            {name: st.booleans() for name in ("ignore_case", "ignore_whitespace", "ignore_punctuation")}
        ),
    )
    def test_twice_is_once(self, text: str, flags: dict[str, bool]) -> None:
        once = plain(text, **flags)
        assert plain(once, **flags) == once

    def test_every_character_is_stable(self) -> None:
        for code in range(0x110000):
            once = plain(chr(code))
            assert plain(once) == once, hex(code)

    @given(st.text(alphabet=ascii_letters, min_size=1))
    def test_case_is_ignored_or_not(self, text: str) -> None:
        assert plain(text) == plain(text.swapcase())
        assert plain(text, ignore_case=False) != plain(text.swapcase(), ignore_case=False)


SCANNERS: dict[str, Callable[[str], object]] = {
    "after_reasoning": after_reasoning,
    "boxed": boxed,
    "tagged": lambda text: tagged(text, "answer"),
    "fenced_blocks": fenced_blocks,
    "final_answer": final_answer,
    "plain": lambda text: plain(text, ignore_punctuation=True),
}
HOSTILE = ["\\boxed{", "\\boxed{}", "\\boxed{{a}", "{", "}", "{}", "\\", "\\boxed ", "<answer>", "</answer>", "<think>"]
HOSTILE += [
    "`",
    "```",
    "```\n",
    "~~~a\n",
    " \t",
    "\n",
    "####",
    "#### \n",
    "Answer: ",
    "\nA",
    ", so the final answer ",
    "**",
]
HOSTILE += ["a\u0301\u0316", "\u0301\u0316", "x.", "![", "\x00", "é"]


def seconds(scanner: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    scanner(text)
    return time.process_time() - started


@pytest.mark.parametrize("scanner", SCANNERS.values(), ids=SCANNERS.keys())
@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_mebibyte_costs_little_and_eight_times_an_eighth_of_it(
    piece: str, scanner: Callable[[str], object]
) -> None:
    for frame in ("{}", "\\boxed{{{}", "```\n{}"):
        text = frame.format((piece * (MEBIBYTE // len(piece) + 1))[:MEBIBYTE])
        whole = seconds(scanner, text)
        assert whole < 1.0
        assert whole < 0.05 + 24 * min(seconds(scanner, text[: MEBIBYTE // 8]) for _ in range(3))


@given(st.text())
def test_no_scanner_ever_raises(text: str) -> None:
    for scanner in SCANNERS.values():
        scanner(text)
