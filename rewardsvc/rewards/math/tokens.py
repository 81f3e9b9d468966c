r"""Text to tokens: LaTeX, Unicode, Markdown and plain mathematics as models write it become one small vocabulary.

`repair` undoes what a JSON decoder does to single backslashes (`\text` becomes a tab and `ext`). `tokenize` is one
pass of one regular expression whose alternatives cannot give back what they took, so time is linear in the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rewardsvc.rewards.math.values import listed

MAX_TEXT = 20_000
"""Characters of an answer that are read as mathematics; what is longer is no final answer."""

MAX_TOKENS = 6_000


class Unreadable(Exception):
    """A text that is no value the engine knows. `reason` is a slug; the text itself is never part of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Token(NamedTuple):
    """One token. `kind`: number, letter, word (two or more letters), text (words in a text command), sign, command."""

    kind: str
    text: str
    spaced: bool
    """White space stands before it."""


_CONTROL = {
    "\t": "t",
    "\f": "f",
    "\b": "b",
    "\r": "r",
    "\n": "n",
    "\v": "v",
    "\a": "a",
}
_DAMAGED = re.compile(
    r"\\?(?:\t(?=ext|imes|an\b|frac|heta|au\b|o\b|ilde|riangle)|\f(?=rac|orall)|\x08(?=oxed|ar\b|ar\{|eta|egin|inom|ig|f\b|f\{|mod)"
    r"|\r(?=ight|angle|ho\b|ceil|floor|m\b|m\{)|\n(?=eq|e\b|u\b|abla|ot\b|mid|i\b)|\v(?=ec|ert|arphi|ar|ee)|\a(?=lpha|pprox|ngle|rc|st))"
)

_SINGLE = re.compile(r"(?<!\\)\\(?:begin|hline)")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z]{2,}|[{}])")


def repair(text: str, controls: bool = True) -> str:
    r"""`text` with the LaTeX commands restored whose first letters a JSON decoder took for a control character.

    Total and linear. Only control characters followed by the rest of a known command change: a line break before
    `eq` becomes `\neq`, a line break before `so` stays. Without `controls` only doubled backslashes are halved.
    """
    if controls and not text.isprintable():
        text = _DAMAGED.sub(lambda found: "\\" + _CONTROL[found.group()[-1]], text)
    if "\\\\" in text and not _SINGLE.search(text):
        text = _DOUBLED.sub("\\\\", text)
    return text


_UNICODE = {
    "−": "-", "–": "-", "—": "-", "﹣": "-", "－": "-", "‐": "-", "‑": "-", "×": "\\times ", "⋅": "\\cdot ",
    "·": "\\cdot ", "∙": "\\cdot ", "•": "\\cdot ", "∗": "*", "⁄": "/", "∕": "/", "÷": "\\div ", "π": "\\pi ",
    "√": "\\sqrt ", "∛": "\\sqrt[3] ", "∞": "\\infty ", "∪": "\\cup ", "∩": "\\cap ", "≤": "\\le ", "≥": "\\ge ",
    "⩽": "\\le ", "⩾": "\\ge ", "≦": "\\le ", "≧": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "≅": "\\approx ",
    "≃": "\\approx ", "±": "\\pm ", "∓": "\\mp ", "∈": "\\in ", "∅": "\\emptyset ", "∖": "\\setminus ",
    "°": "^{\\circ}", "º": "^{\\circ}", "′": "'", "’": "'", "‘": "'", "″": "''", "”": "''", "“": "''",
    "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}",
    "⟨": "\\langle ", "⟩": "\\rangle ", "〈": "\\langle ", "〉": "\\rangle ", "⌊": "\\lfloor ", "⌋": "\\rfloor ",
    "⌈": "\\lceil ", "⌉": "\\rceil ", "∠": "\\angle ", "△": "\\triangle ", "∣": "|", "½": "\\frac{1}{2}",
    "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅛": "\\frac{1}{8}",
    "⅜": "\\frac{3}{8}", "⅝": "\\frac{5}{8}", "⅞": "\\frac{7}{8}", "⅕": "\\frac{1}{5}", "⅖": "\\frac{2}{5}",
    "⅗": "\\frac{3}{5}", "⅘": "\\frac{4}{5}", "⅙": "\\frac{1}{6}", "⅚": "\\frac{5}{6}", "∑": "\\sum ",
    "∏": "\\prod ", "∫": "\\int ", "∂": "\\partial ", "→": "\\to ", "⇒": "\\implies ", "⇔": "\\iff ",
    "∧": "\\wedge ", "∨": "\\vee ", "…": "\\ldots ", "⋯": "\\ldots ", "％": "\\%", "（": "(", "）": ")", "【": "[",
    "】": "]", "｛": "\\{", "｝": "\\}", "，": ",", "、": ",", "；": ";", "：": ":", "。": ".", "．": ".",
    "＝": "=", "＋": "+",
    "＜": "<", "＞": ">", "／": "/", "｜": "|", "＊": "*", "！": "!", "或": " or ", "和": " and ", "\u3000": " ",
    "\u00a0": " ", "\u2009": " ", "\u200a": " ", "\u202f": " ", "\u2002": " ", "\u2003": " ", "\u200b": "",
    "\u200c": "", "\u200d": "", "\ufeff": "", "\u2060": "", "\u2061": "", "\u2062": " ", "\u200e": "", "\u200f": "",
    "\u00ad": "", "€": "\\euro ", "£": "\\pounds ", "¥": "\\yen ", "¢": "\\cent ", "µ": "\\mu ", "ℓ": "\\ell ",
    "∆": "\\Delta ", "Ω": "\\Omega ",
}  # fmt: skip
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨΩϕ",
        listed(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon "
            "phi chi psi omega "
            "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega phi"
        ),
        strict=True,
    )
)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))
_TABLE = str.maketrans(
    _UNICODE
    | {letter: f"\\{name} " for letter, name in _GREEK.items()}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {chr(0xFF21 + place): chr(65 + place) for place in range(26)}
    | {chr(0xFF41 + place): chr(97 + place) for place in range(26)}
)
_RAISED_UNIT = re.compile(r"(?<=\d)[ ]?([mck]?m|ft|in|yd|mi)([²³])(?![a-zA-Z])")
_RAISED_RUN = re.compile("[" + "".join(_RAISED) + "]++")
_LOWERED_RUN = re.compile("[" + "".join(_LOWERED) + "]++")


def plain_signs(text: str) -> str:
    """Unicode mathematics as LaTeX in ASCII; invisible characters vanish. Letters that only look alike stay."""
    if text.isascii():
        return text
    text = _RAISED_UNIT.sub(lambda unit: f"\\text{{ {unit.group(1)}^{_RAISED[unit.group(2)]}}}", text)
    text = _RAISED_RUN.sub(lambda run: "^{" + "".join(_RAISED[sign] for sign in run.group()) + "}", text)
    text = _LOWERED_RUN.sub(lambda run: "_{" + "".join(_LOWERED[sign] for sign in run.group()) + "}", text)
    return text.translate(_TABLE)


_GROUPED = r"\d{1,3}(?:(?:,|\\,|\\;|\\:|~|[ ]?\{,[ ]?\}[ ]?|\\?,?[ ]?\\![ ]?)\d{3})++(?!\d)(?!\{,\})"
_TOKEN = re.compile(
    r"(?P<mark>[+^_(){}\[\]/])"  # the commonest signs of one character come first
    r"|(?P<space>\s++|\\[,;:!> ~]|~|\\(?:quad|qquad|displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut"
    r"|thinspace|(?:left|right)(?:\s*+\.(?!\d))?(?![a-z])|[bB]ig{1,2}[lrm]?|middle|hfill|newline|noindent|hline"
    r"|bullet(?=\s*+[a-zA-Z]\s*+=)"
    r"|medskip|smallskip|bigskip|allowbreak|nobreak|mathrm(?=~)|rm(?![a-z])|bf(?![a-z])|it(?![a-z]))(?![a-zA-Z])"
    r"|\\[hv]space\*?\{[^{}]*+\})"
    r"|(?P<grouped>" + _GROUPED + r"(?:\.\d++)?)"
    r"|(?P<number>(?:\d++(?:\.\d++)?+|\.\d++)[eE][-+]?\d++(?![\d.a-zA-Z^_])|\d++(?:\.\d++|\.(?![.\d]))?|\.\d++)"
    r"|\\(?:text|textbf|textit|textrm|textnormal|textsf|texttt|mbox|hbox|mathrm|mathit|mathsf|mathbf|boldsymbol|bm"
    r"|operatorname\*?|rm|bf|emph|mathtt|mathcal|mathscr|mathfrak|mathbb|unit|pmb)\s*+\{(?P<text>[^{}]*+)\}"
    r"|\\mathbb\s++(?P<blackboard>[A-Z])|\\(?:mathbf|bf|boldsymbol)\s++(?P<bold>[a-zA-Z])(?![a-zA-Z])"
    r"|\\(?P<command>[a-zA-Z]++|[%$#&{}|\\])"
    r"|(?P<word>(?<=[\d)}$])(?:or|and)(?=[A-Z(\\$\d]|[a-z](?![a-z]))|[a-zA-Z]{2,})"
    r"|(?P<letter>[a-zA-Z])"
    r"|(?P<sign>\*\*|<=|>=|=<|!=|==|<>|->|=>|!!|'++|[-+*/^_=<>()\[\]{}|,;:!?&%@#\"`.$])"
    r"|(?P<other>.)",
    re.DOTALL,
)
_SPELLING = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "lt": "<", "gt": ">", "neq": "ne", "lbrace": "{", "rbrace": "}", "lvert": "|", "rvert": "|", "vert": "|",
    "mid": "|", "lVert": "norm", "rVert": "norm", "Vert": "norm", "|": "norm", "ast": "*", "star": "*",
    "bullet": "cdot", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots",
    "varnothing": "emptyset", "land": "wedge", "lor": "vee", "prime": "'", "backslash": "setminus", "lbrack": "[",
    "rbrack": "]", "lparen": "(", "rparen": ")", "colon": ":", "dbinom": "binom", "tbinom": "binom",
    "degree": "circ", "degrees": "circ", "arcctg": "arccot", "tg": "tan", "ctg": "cot", "cosec": "csc", "sh": "sinh",
    "ch": "cosh", "thickapprox": "approx", "simeq": "approx", "cong": "approx", "varepsilon": "epsilon",
    "vartheta": "theta", "varphi": "phi", "infin": "infty", "R": "reals", "owns": "ni", "smallsetminus": "setminus",
    "bigcup": "bigcup", "Z": "integers", "lg": "lg",
}  # fmt: skip
_SIGNS = {"<=": "le", ">=": "ge", "=<": "le", "!=": "ne", "<>": "ne", "==": "=", "**": "^", "->": "to", "=>": "implies"}
_AS_WRITTEN = frozenset(["number", "letter", "word"])
_DIRECT = frozenset("<>|*{}[]():'=")
_THOUSANDS = re.compile(r"[^\d.]++")


def tokenize(text: str) -> list[Token]:
    """The tokens of a text, spaces and invisible layout left out. Raises `Unreadable` for oversized or foreign text."""
    if len(text) > MAX_TEXT:
        raise Unreadable("too_long")
    tokens: list[Token] = []
    spaced = False
    for found in _TOKEN.finditer(plain_signs(text)):
        kind, piece = found.lastgroup or "", found[0]
        if kind == "space":
            spaced = True
            continue
        if kind == "mark" or (kind == "sign" and piece not in _SIGNS):
            tokens.append(Token("sign", piece, spaced))
        elif kind in _AS_WRITTEN:
            tokens.append(Token(kind, piece, spaced))
        else:
            tokens.append(_token(kind, found, piece, spaced))
        spaced = False
    if len(tokens) > MAX_TOKENS:
        raise Unreadable("too_many_tokens")
    return tokens


def _token(kind: str, found: re.Match[str], piece: str, spaced: bool) -> Token:
    if kind == "sign":
        return Token("sign", piece, spaced) if _SIGNS[piece] in _DIRECT else _named(_SIGNS[piece], spaced)
    if kind == "command":
        name = found.group("command")
        return _named(_SPELLING.get(name, name), spaced)
    if kind == "text":
        return _words(piece, found.group("text"), spaced)
    if kind == "grouped":
        return _grouped(piece, spaced)
    if kind == "bold":
        return Token("bold", found.group("bold"), spaced)
    if kind == "blackboard":
        return Token("command", "set " + found.group("blackboard"), spaced)
    return Token("other", piece, spaced)


def _grouped(piece: str, spaced: bool) -> Token:
    """Digits in groups of three: surely one number when TeX spacing joins them, but `1,234` may also be a list."""
    if "{" in piece or "\\" in piece or "~" in piece:
        return Token("number", _THOUSANDS.sub("", piece), spaced)
    return Token("grouped", piece, spaced)


def _named(name: str, spaced: bool) -> Token:
    if name == "^":
        return Token("sign", "^", spaced)
    if name in ("{", "}"):
        return Token("command", name, spaced)
    return Token("sign" if name in _DIRECT else "command", name, spaced)


def _words(piece: str, content: str, spaced: bool) -> Token:
    r"""What a text or font command holds: a letter in a font is a letter, `\mathbb{R}` is a set, the rest is words."""
    bare = content.replace("~", " ").strip()
    if piece.startswith("\\mathbb"):
        return Token("command", "set " + bare, spaced)
    if piece.startswith(
        (
            "\\operatorname",
            "\\mathrm",
            "\\mathbf",
            "\\boldsymbol",
            "\\mathit",
            "\\mathcal",
            "\\mathscr",
            "\\mathfrak",
            "\\bm",
            "\\mathsf",
        )
    ):
        if len(bare) == 1 and bare.isalpha() and not content.startswith(("~", " ")):
            return Token("bold" if piece.startswith(("\\mathbf", "\\boldsymbol", "\\bm")) else "roman", bare, spaced)
        if bare.isdigit():
            return Token("number", bare, spaced)
    return Token("text", bare, spaced)
