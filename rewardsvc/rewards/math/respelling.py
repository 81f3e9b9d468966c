"""Spellings of LaTeX that the tokenizer does not know, as ones that it does.

Each is looked for only in a text that has its characteristic word, so that a plain answer pays for none of them. The
patterns are linear: none can give back what it took.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from re import Match

_BRACED = re.compile(r"(?:\\left\s*+)?\\\{\s*+\\begin\s*+\{(array|aligned|matrix|gathered|align)\}(?:\s*+\{[^{}]*+\})?")
_UNBRACED = re.compile(r"\\end\s*+\{(?:array|aligned|matrix|gathered|align)\}\s*+\\right\s*+\.")
_TEMPERATURE = re.compile(
    r"(?:\^\s*+\{?\s*+\\circ\s*+\}?|°)\s*+(?:\\(?:text|mathrm|rm)\s*+\{\s*+~?)?([CF])(?![a-zA-Z])\s*+\}?"
)
_SCALES = {"C": "celsius", "F": "fahrenheit"}
_COLOUR = re.compile(r"\\(?:text)?color\s*+\{[a-zA-Z0-9!]*+\}")
_ROMAN = re.compile(r"\{\\rm\s++([^{}\\]*+)\}|\\rm\s*+\{([^{}\\]*+)\}")
_WORDS = r"\s*+\\(?:text|mathrm|rm)\s*+\{([^{}]*+)\}(\^\{?\d\}?)?\s*+"
_UNIT_FRACTION = re.compile(rf"\\[dt]?frac\s*+\{{{_WORDS}\}}\s*+\{{{_WORDS}\}}")
_CHOOSE = re.compile(r"\{([^{}\\]*+)\\choose\s*+([^{}\\]*+)\}")
_CHOOSE_ALONE = re.compile(r"([^{}\\]*+)\\choose\s*+([^{}\\]*+)")
_COMBINATION = re.compile(r"(?<![\w)}\]])(?:\{\})?[\^_]\{?(\w{1,4}+)\}?\s*+(?:C|\\mathrm\{C\})_\{?(\w{1,4}+)\}?")
_HALF_LINE = re.compile(
    r"\\mathbb\s*+\{?R\}?\s*+(?:[\^]\s*+\{?(?P<sign>[+-])\}?|_\s*+\{\s*+(?P<than>>|<|\\geq?|\\leq?)\s*+0\s*+\})(?![_^])"
)
_HALF_LINES = {
    "+": r"(0,\infty)", "-": r"(-\infty,0)", ">": r"(0,\infty)", "<": r"(-\infty,0)",
    r"\ge": r"[0,\infty)", r"\geq": r"[0,\infty)", r"\le": r"(-\infty,0]", r"\leq": r"(-\infty,0]",
}  # fmt: skip
_OUTWARD_OPEN = re.compile(r"(?:^|(?<=\\cup)|(?<=\\in))\s*+(?:\\left\s*+)?\](?=[^\[\](){}]++[\[\]])")
_OUTWARD_SHUT = re.compile(r"(?:\\right\s*+)?\[\s*+(?=$|\\cup)")
_DIGITS_IN_BRACKETS = re.compile(r"\(([0-9A-Z]{1,200}+)\)\s*+_")
_EXCEPT = re.compile(
    r"^(?:\\(?:text|mathrm)\s*+\{\s*+)?(?:all )?real numbers,? except(?: for)?\s*+\}?\s*+"
    r"(?:[a-z]\s*+=\s*+)?(-?[\d/., ]++)$"
)


def respelt(text: str) -> str:
    """The text in spellings that the tokenizer knows. Total and linear."""
    for word, change in _CHANGES:
        if word in text:
            text = change(text)
    return text


def _system(text: str) -> str:
    """Braces that only open a system become `cases`."""
    return _UNBRACED.sub(r"\\end{cases}", _BRACED.sub(r"\\begin{cases}", text)) if _UNBRACED.search(text) else text


def _temperature(text: str) -> str:
    return _TEMPERATURE.sub(lambda found: f"\\text{{ {_SCALES[found.group(1)]}}}", text)


def _roman(text: str) -> str:
    return _ROMAN.sub(lambda found: f"\\text{{{found.group(1) or found.group(2)}}}", text)


def _unit_fraction(text: str) -> str:
    def phrase(found: Match[str]) -> str:
        above, power, below, other = (part or "" for part in found.groups())
        return f"\\text{{{above}{power}/{below.strip()}{other}}}"

    return _UNIT_FRACTION.sub(lambda found: phrase(found).replace("^{", "^").replace("}}", "}"), text)


def _choose(text: str) -> str:
    alone = _CHOOSE_ALONE.fullmatch(text)
    return rf"\binom{{{alone[1]}}}{{{alone[2]}}}" if alone else _CHOOSE.sub(r"\\binom{\1}{\2}", text)


def _combination(text: str) -> str:
    return _COMBINATION.sub(r"\\binom{\1}{\2}", text)


def _half_line(text: str) -> str:
    return _HALF_LINE.sub(lambda found: _HALF_LINES[found["sign"] or found["than"]], text)


def _outward(text: str) -> str:
    """Open ends written with a bracket turned outward: `]1,2[` is (1,2)."""
    turned = _OUTWARD_OPEN.sub("(", text)
    return _OUTWARD_SHUT.sub(")", turned) if "," in turned or ";" in turned else text


_CHANGES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("\\right", _system),
    ("circ", _temperature),
    ("°", _temperature),
    ("color", lambda text: _COLOUR.sub("", text)),
    ("\\rm", _roman),
    ("frac", _unit_fraction),
    ("\\choose", _choose),
    ("C", _combination),
    ("\\mathbb", _half_line),
    ("]", _outward),
    ("[", _outward),
    (")_", lambda text: _DIGITS_IN_BRACKETS.sub(r"\1_", text) if text.startswith("(") else text),
    ("except", lambda text: _EXCEPT.sub(r"\\mathbb{R}\\setminus\\{\1\\}", text)),
    ("m\\angle", lambda text: text.replace("m\\angle", "\\angle")),
)
