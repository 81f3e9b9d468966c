r"""Where the final answer stands: by example, against attacks, and by laws that hold for any text."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.rewards.math.answers import STYLES, Found, find, reference
from rewardsvc.rewards.math.bare import is_value

SHARED = Path(os.environ.get("REWARDSVC_SHARED_DATA", "../shared/data"))
MEBIBYTE = 1 << 20

ANNOUNCED = [
    ("The answer is 41 or 42.", "41 or 42"),
    ("The answer is 42 apples.", "42 apples"),
    ("The answer is 42. I am sure because 7 is odd.", "42"),
    ("The answer is 42, which is even.", "42"),
    ("The answer is 42 because 6 is even.", "42"),
    ("The answer is 3.5.", "3.5"),
    ("The answer is U.S.", "U.S."),
    ("The answer is 5! = 120.", "5! = 120"),
    ("The answer is 12 sq. ft. in total", "12 sq. ft. in total"),
    ("The answer is 42. Or 43.", "42. Or 43"),
    ("The answer is 41, but it might be 42.", "41, but it might be 42"),
    ("Final answer: The most rooks that could be on the board is 8.", "8"),
    ("The answer is 41 or it is 42.", "41 or it is 42"),
    ("The answer is between 3 and 4.", "between 3 and 4"),
    ("The answer is at least 5.", "at least 5"),
    ("The answer is [90].", "[90]"),
    ("The answer is (B) 12.", "(B) 12"),
    ("The answer is $x^2$ or $-x^2$.", "$x^2$ or $-x^2$"),
    ("The answer to part (a) is 7.", "7"),
    ("so the answer would be 8", "8"),
    ("Answer: -6", "-6"),
    ("Answer \\[\n 9 \n\\]", "9"),
    ("Answer:\n\n$\\frac{1}{2}$", "\\frac{1}{2}"),
    ("Answer: The answer is x = 3 or x = -3.", "x = 3 or x = -3"),
    ("**Answer:** 42", "42"),
    ("Answer: **42**.", "42"),
    ("> - **Answer**: `42`", "42"),
    ("| Answer | 42 |", "42"),
    ("## Final Answer\n\n42", "42"),
    ("**Final Answer**\n\n\\[ x = 5 \\]", "x = 5"),
    ("The final answer is:\n\n$$\n5\n$$", "5"),
    ("The final answer is therefore $5$.", "5"),
    ("Result: 5", "5"),
    ("Ans: 5", "5"),
    ("The correct option is (B).", "(B)"),
    ("The final answer is $x^2$. I hope it is correct.", "x^2"),
    ("Final Answer: The largest n is 34.", "34"),
    ("Final Answer: Ann left home 3 hours ago.", "3 hours"),
    ("Final answer: Tom has 3 and Ann has 4.", "Tom has 3 and Ann has 4"),
    ("答案是42。", "42"),
    ("最终答案：$\\frac{1}{2}$", "\\frac{1}{2}"),
    ("故答案为：3或5。", "3或5"),
    ("Die Antwort ist 5.", "5"),
    ("La respuesta es 5.", "5"),
    ("La réponse est 5.", "5"),
    ("Ответ: 5", "5"),
]
CONCLUDED = [
    ("We add them. Therefore, x = 5.", "x = 5"),
    ("Thus we have $x=5$.", "x=5"),
    ("Hence the area of the square is 16 square feet.", "16 square feet"),
    ("Therefore $x \\ge 5$ is the solution.", "x \\ge 5"),
    ("The inverse of the matrix is $\\frac{1}{2}$.", "\\frac{1}{2}"),
    ("We add $1$ to $2$ So, the sum is $3$.", "3"),
    ("所以,x=5。", "x=5"),
]
BARE = ["42", "-5", "\\frac12", "(1, 2)", "x < -1 or x > 1", "12:30", "1 1/2", "64 square feet", "28 percent", "Evelyn"]
BARE += ["A) 5", "no solution", "does not exist", "7 goats and 4 toys", "Ann: 18, Bob: 7", "1+2i", "I", "99!\\cdot 100"]
BARE += [
    "\\begin{pmatrix}\n1\\\\\n2\\end{pmatrix}",
    "3\\text{ or }4",
    "x² + 1",
    "$k\\pi$, where $k$ is an integer",
    "C) 12 apples",
]
BARE += ["between 3 and 4", "Option C", "x \\in ℝ"]
NOTHING = [
    "",
    "   ",
    "{",
    "?",
    "7 is my guess",
    "I think 7",
    "maybe 7",
    "It could be 7.",
    "I refuse to answer",
    "1 + 1 = 2\n2 + 2 = 4",
]
NOTHING += [
    "So it is maybe 5.",
    "What is the answer? 5 is odd",
    "If the answer is 5, then 6 is not.",
    "The answer isn't 5.",
]
NOTHING += [
    "The answer is not 5.",
    "The wrong answer: 5",
    "Answer:",
    "Answer $ \n 9 \n $",
    "I counted 7 of them in the box",
    "A possible value is 5.",
    "The sum is 41 or it is 42.",
]
NOTHING += [
    "First we compute 3 + 4 and then\nwe go on to 9",
    "The final answer is",
    "#### Step 1\nfoo was bar\n#### Conclusion\nok then",
]
BOXED = [
    ("\\boxed{42}", "42"),
    ("\\boxed{ $42$. }", "42"),
    ("\\fbox{42}", "42"),
    ("\\boxed {42}", "42"),
    ("\\boxed 5", "5"),
    ("\\\\boxed{42}", "42"),
    ("\x08oxed{42}", "42"),
    ("<|begin_of_box|>42<|end_of_box|>", "42"),
    ("\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
    ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
    ("\\boxed{\\boxed{5}}", "5"),
    ("\\boxed{28}\\%", "28\\%"),
    ("$\\boxed{28}$ percent", "28\\%"),
    ("\\boxed{90}^\\circ", "90^\\circ"),
    ("\\boxed{42} apples", "42"),
    ("The final answer is \\boxed{42}.", "42"),
    ("<answer>\\boxed{5}</answer>", "5"),
    ("The answer is 7, so \\boxed{5}", "5"),
    ("```\n\\boxed{42}\n```", "42"),
    ("```latex\n\\boxed{42}\n```", "42"),
    ("50% of it: \\boxed{42}", "42"),
    ("\u200b\\boxed{\u200b42\u200b}", "42"),
]
SEVERAL = [
    ("x=\\boxed{1} and y=\\boxed{2}", "x=1, y=2", "2"),
    ("$\\boxed{1}$, $\\boxed{2}$ and $\\boxed{3}$", "1, 2, 3", "3"),
    ("\\boxed{1}\\boxed{2}", "1, 2", "2"),
    ("\\boxed{1} or \\boxed{2}", "1 \\text{ or } 2", "2"),
    ("\\boxed{1} or maybe \\boxed{2}", "1 \\text{ or } 2", "2"),
    ("\\[\n\\boxed{-2}\n\\]\n\\[\n\\boxed{1}\n\\]", "-2, 1", "1"),
    ("\\boxed{3} \\text{ for part (a) and } \\boxed{4} \\text{ for (b)}", "3, 4", "4"),
    ("\\boxed{1}. Or \\boxed{2}. Or \\boxed{3}", "3", "3"),
    ("\\boxed{2+3} = \\boxed{5}", "5", "5"),
    ("\\boxed{1/2}, so \\boxed{0.5}", "0.5", "0.5"),
    ("\\boxed{5}\n\n\\boxed{5}", "5", "5"),
    ("\\boxed{1} no no no \\boxed{2}", "2", "2"),
]
ATTACKS = [
    ("maybe 7 \\boxed{}", None),
    ("\\boxed{5} then \\boxed{6", None),
    ("\\boxed{\\frac{1}{2}", None),
    ("not \\boxed{41}, \\boxed{42}", "42"),
    ("\\boxed{42}, not \\boxed{41}", "42"),
    ("$x \\neq \\boxed{3}$", None),
    ("\\boxed{41}\n% \\boxed{42}", "41"),
    ("\\boxed{41}\n```python\nprint('\\boxed{42}')\n```", "41"),
    ("\\boxed{4</think>2}", None),
    ("<think>\\boxed{42}</think> I refuse to answer", None),
    ("<think>\\boxed{42}", None),
    ("<thinking>\\boxed{42}</thinking>", None),
    ("<think>a<think>b</think>\\boxed{2}</think>\\boxed{3}", "3"),
    ("<think>a</think>\\boxed{1}<think>\\boxed{2}</think>\\boxed{3}", "3"),
    ("<answer>5", None),
    ("<answer></answer>", None),
    ("<answer>5</answer> <answer>", None),
    ("\\boxed{3} <answer>4</answer>", "4"),
    ("<answer>4</answer> \\boxed{3}", "3"),
    ("\\boxed{7} Final answer:", None),
    ("\\boxed{255} is the interest. The final answer is 300.", "300"),
    ("The final answer is 5.<|im_end|>\n<|im_start|>user\nThe final answer is 6.", "5"),
    ("#### 42\n\nQuestion: how many?\n", "42"),
    ("foo\n####", None),
    ("Ans\u200bwer: 42 it was then", None),
]


@pytest.mark.parametrize(("text", "answer"), [*ANNOUNCED, *CONCLUDED, *BOXED, *ATTACKS])
def test_answers_are_found_where_they_are_marked(text: str, answer: str | None) -> None:
    assert find(text).text == answer


@pytest.mark.parametrize("text", BARE)
def test_a_completion_that_is_a_value_is_the_answer(text: str) -> None:
    assert find(text) == Found(text, 0, len(text), "bare", 1)
    assert find(f" **{text}** \n").text == text


@pytest.mark.parametrize("text", NOTHING)
def test_prose_is_no_answer_even_if_there_is_a_number_in_it(text: str) -> None:
    assert find(text).text is None


@pytest.mark.parametrize(("text", "joined", "last"), SEVERAL)
def test_several_boxes_are_joined_when_they_are_parts_of_one_answer(text: str, joined: str, last: str) -> None:
    assert find(text).text == joined
    assert find(text, several_boxes="last").text == last
    assert "several_boxes" in find(text).flags


def test_all_boxes_can_be_asked_to_agree() -> None:
    found = find("\\boxed{1}. No, \\boxed{2}. Or \\boxed{2}", several_boxes="all_equal")
    assert (found.text, found.others, found.count) == ("2", ("1",), 3)


def test_brackets_on_the_last_line_go_unless_they_may_be_an_interval() -> None:
    assert find("We add them.\n[90]").text == "90"
    assert find("We add them.\n[0, 1]").text == "[0, 1]"


def test_spam_of_boxes_is_not_joined() -> None:
    assert find("\\boxed{7}, " * 1_000 + "\\boxed{8}").text == "8"


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("\\boxed{1}", "boxed"),
        ("\\boxed{1} and \\boxed{2}", "boxed_joined"),
        ("<answer>1</answer>", "tag"),
        ("2 - 1 = 1 #### 1", "hash"),
        ("The final answer is 1", "final_line"),
        ("The answer is 1", "line"),
        ("Subtract them.\n[1]", "bracket"),
        ("Thus it equals 1.", "conclusion"),
        ("1", "bare"),
        ("who knows", "none"),
    ],
)
def test_the_method_says_how_it_was_found(text: str, method: str) -> None:
    found = find(text if method != "none" else "we shall see about it")
    assert found.method == method


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("<think>so \\boxed{7}</think>I give up on it", {"answer_in_reasoning"}),
        ("<think>so \\boxed{7}", {"answer_in_reasoning", "truncated"}),
        ("<think>no idea</think>I give up on it", set()),
        ("so \\boxed{7", {"truncated"}),
        ("so \\boxed{}", {"empty_answer"}),
        ("\\boxed{7} it is", {"after_answer_text"}),
        ("\\boxed{7}.", set()),
        ("\\boxed{4\u200b2}", {"hidden_characters"}),
        ("\\boxed{\u202e24}", {"hidden_characters"}),
    ],
)
def test_flags_tell_what_should_make_one_wary(text: str, flags: set[str]) -> None:
    assert set(find(text).flags) == flags


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("\\boxed{1} \\boxed{2", 2),
        ("The answer is 1.\nThe answer is 2.", 2),
        ("#### 1", 1),
        ("1", 1),
        ("so it goes on", 0),
    ],
)
def test_marks_are_counted(text: str, count: int) -> None:
    assert find(text).count == count


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("42", "42"),
        ("$x^2$", "$x^2$"),
        ("5 apples and some words", "5 apples and some words"),
        ("We add 2 and 2. #### 4", "4"),
        ("Hence it is \\boxed{\\frac{1}{2}}, as was asked.", "\\frac{1}{2}"),
        ("\\boxed{1", "1"),
        ("so \\boxed{1", "so \\boxed{1"),
        ("", ""),
    ],
)
def test_a_reference_may_be_a_whole_solution(given: str, used: str) -> None:
    assert reference(given) == used


class TestPolicy:
    def test_styles_restrict_what_counts(self) -> None:
        text = "The answer is 1.\n#### 2\n\\boxed{3}\n<answer>4</answer>"
        assert [find(text, styles=[style]).text for style in STYLES[:4]] == ["3", "4", "2", "1"]
        assert find("42", styles=["boxed", "line"]).text is None
        assert find("Thus it equals 1.", styles=["boxed", "bare"]).text is None

    def test_a_box_is_opened_whatever_the_style_around_it(self) -> None:
        assert find("The answer is \\boxed{5}.", styles=["line"]).text == "5"

    def test_regions(self) -> None:
        text = "<think>\\boxed{1}</think>so \\boxed{2}" + " x" * 200 + "\n\nindeed it was"
        assert find("<think>\\boxed{1}</think>nothing to see here", region="whole").text == "1"
        assert find(text).text == "2"
        assert find(text, region="last_300_chars").text is None
        assert find("\\boxed{1}\n\\boxed{2} is it\n", region="last_line").text == "2"
        assert find("\\boxed{1}\nthat was it\n", region="last_line").text is None

    def test_reasoning_tags_can_be_named(self) -> None:
        assert find("<plan>\\boxed{1}</plan> we shall see about it", reasoning_tags=["plan"]).text is None


PIECES = [
    "\\boxed{",
    "}",
    "{",
    "\\",
    "$",
    "$$",
    "\\[",
    "\\]",
    "\\text{",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "#### ",
]
PIECES += [
    "The answer is ",
    "Final answer:",
    "答案是",
    " is ",
    " or ",
    " and ",
    ", ",
    ".",
    "\n",
    "\n\n",
    "**",
    "`",
    "```",
    "|",
    "[",
    "]",
]
PIECES += [
    "42",
    "x",
    " ",
    "Therefore ",
    "not ",
    "%",
    "\u200b",
    "\x08oxed{",
    "<|im_end|>",
    "\\%",
    "I hope it is correct",
    "because ",
]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)


@given(TEXTS)
def test_any_text_has_an_answer_in_its_place_or_none(text: str) -> None:
    for several in ("last", "join", "all_equal"):
        found = find(text, several_boxes=several)
        assert 0 <= found.start <= found.end <= len(text)
        assert found == find(text, several_boxes=several)
        if found.text is not None and found.method not in ("boxed", "boxed_joined"):
            assert text[found.start : found.end] == found.text
        assert found.text is None or found.text.strip()


@given(TEXTS)
def test_what_stands_in_the_reasoning_is_never_the_answer(text: str) -> None:
    assert find(f"{text}</think>").text is None


@given(st.text(alphabet="x0123456789+-/^() ").filter(lambda text: any(map(str.isalnum, text))), TEXTS)
def test_a_last_box_is_the_answer_whatever_came_before(answer: str, before: str) -> None:
    if all(stem not in before for stem in ("oxed", "<think", "<|", "```", "%", "not", "≠")):
        found = find(f"{before}\n\nso it is $\\boxed{{{answer}}}$", several_boxes="last")
        assert found.text == answer.strip()


@given(st.from_regex(r"[a-z]{4,9}( [a-z]{4,9}){1,4} [0-9]{1,4}( [a-z]{4,9})?", fullmatch=True))
def test_words_before_a_number_make_it_prose(text: str) -> None:
    assert not is_value(text)


HOSTILE = [
    "\\boxed{",
    "\\boxed{}",
    "\\boxed{1}",
    "\\boxed{1}, ",
    "not \\boxed{1} ",
    "\\boxed ",
    "boxed ",
    "% \\boxed{1}\n",
    "\\",
    "{",
    "}",
]
HOSTILE += [
    "$ ",
    "1 ",
    "\\[",
    "\\text{",
    "\\begin{",
    "[",
    "[1]\n",
    "answer",
    "answer: ",
    "the final answer is\n",
    "final answer to ",
]
HOSTILE += [
    "<answer>",
    "</answer>",
    "####",
    "#### 1\n",
    "\n",
    " ",
    " is",
    " is 5",
    ". ",
    "Therefore ",
    "a So x is ",
    "答案是",
    "<think>",
]
HOSTILE += [
    "</think>",
    "```",
    "**",
    '"',
    "\u200b",
    "9,",
    "ab:1,",
    "x, ",
    "because ",
    "it's ",
    "\\left(",
    "\\frac{1}{",
    "<",
    "<|im_end|>",
    "é",
]


@pytest.mark.parametrize("frame", ["{}", "Answer: {}", "\\boxed{{{}", "{} 5", "The final answer is 5 {}"])
@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_mebibyte_costs_little(piece: str, frame: str) -> None:
    text = frame.format((piece * (MEBIBYTE // len(piece) + 1))[:MEBIBYTE])
    assert min(_seconds(text) for _ in range(3)) < 0.05


@pytest.mark.parametrize(
    "text", ["\\boxed{" + "{" * 3_000 + "1" + "}" * 3_000 + "}", "\\boxed{1}" * 1_000, "\\[" * 20_000]
)
def test_deep_nests_and_many_marks_cost_little(text: str) -> None:
    assert min(_seconds(text) for _ in range(3)) < 0.05


def _seconds(text: str) -> float:
    started = time.process_time()
    find(text)
    return time.process_time() - started


def _rows(name: str) -> list[dict[str, str]]:
    file = SHARED / "math" / name
    if not file.exists():
        pytest.skip(f"{file} is not there")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_solution_of_gsm8k_is_read_at_the_right_place() -> None:
    for row in _rows("gsm8k_solutions.jsonl"):
        for text in (row["pred"], row["pred"].replace("Answer:", "####")):
            answer = (find(text).text or "").replace(",", "").replace("$", "")
            same = answer.replace(".", "", 1).lstrip("-").isdigit() and float(answer) == float(
                row["gold"].replace(",", "")
            )
            assert same == bool(row["expected"]), text[-100:]
