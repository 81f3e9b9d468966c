"""Text to values: what kind of answer a text is, and its parts.

`read` is the way in. Numbers in plain digits take a short cut; everything else becomes tokens, which are split from the
outside in: several answers, relations, sets, brackets, and at last a formula with its unit. Where a text has several
readings, such as `(1,2)`, `1,234` or `12:30`, the gold's value (`hint`) decides. Text that is no mathematics is `Text`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from rewardsvc.rewards.math import units, words
from rewardsvc.rewards.math.canon import canonical
from rewardsvc.rewards.math.formulas import MAX_DIGITS, Formulas, decimal, kind_of, literal, looks_like_word, whole
from rewardsvc.rewards.math.matrices import folded
from rewardsvc.rewards.math.policy import Policy
from rewardsvc.rewards.math.respelling import respelt
from rewardsvc.rewards.math.tokens import Token, Unreadable, repair, tokenize
from rewardsvc.rewards.math.values import (
    INFINITY,
    MINUS_INFINITY,
    ZERO,
    Based,
    Builder,
    Choice,
    Clock,
    Difference,
    Formula,
    Interval,
    Listing,
    Matrix,
    Node,
    Ratio,
    Relation,
    SetOf,
    System,
    Text,
    Tuple,
    Union,
    Unit,
    Value,
    number,
    spelt,
)

__all__ = ["Unreadable", "read"]

_PLAIN = re.compile(r"\s*+(-?+)(\d{1,3}(?:,\d{3})++|\d++)?+(\.\d++)?+\s*+\.?+\s*+")
_FRACTION = re.compile(
    r"\s*+(-?+)(?:(\d{1,30})\s*+/\s*+(\d{1,30})|\\[dt]?frac\s*+\{(-?\d{1,30})\}\s*+\{(-?\d{1,30})\})\s*+\.?+\s*+"
)
_BOX = re.compile(r"^\\(?:boxed|fbox)\s*+\{(.*)\}$", re.DOTALL)
_FONT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|textit|boldsymbol|bf|rm)\s*+\{([^{}]*+)\}")
_CHOICE = re.compile(
    r"^(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?[\s:]*+)?"
    r"[\s$(*\[{]*+([A-Ja-j])\s*+(?:[$)*\]}]*+\s*+$|[).:\]]++[\s$*]*+(.*+)$)",
    re.DOTALL | re.IGNORECASE,
)
_COMPOUND = re.compile(r"([a-zA-Z]+),? (?:and )?(\d{1,9}(?:\.\d{1,9})?) ([a-zA-Z]+)")
_WHEN = frozenset(["if", "for", "when", "where", ",", "if,", "for all", "whenever"])
_ANOTHER = re.compile(r"(?i:\b(?:or|and|not)\b)|^[\s(]*[A-J]\b|[,;/]\s*+\(?[A-J]\b|(?<![\w\\(])\(?[A-J][).:](?!\Z)")
_WRAPPERS = (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("**", "**"), ("`", "`"), ("__", "__"))
_TAIL = " \t\n\r.,;:。、"
_SIGNS = {
    "=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in", "sim": "~",
    "equiv": "≡", "to": "→", "notin": "notin", "implies": "⇒", "iff": "⇔", "Rightarrow": "⇒", "rightarrow": "→",
    "Leftrightarrow": "⇔", "ll": "<", "gg": ">",
}  # fmt: skip
_SEPARATORS = ("\\", ";", "or", "and", ",")
_SEPARATING = frozenset([*_SEPARATORS, "begin"])
_COMPOUNDING = frozenset([*_SIGNS, "cup", "setminus", ":", "begin"])
_JOINTS = {
    "or": "or", "and": "and", "vee": "or", "wedge": "and", "or,": "or", "and,": "and", ", or": "or", ", and": "and",
    "as well as": "and", "and also": "and", "&": "and", ",": ",", "or else": "or", "as": "", "i.e.": "=",
}  # fmt: skip
MAX_ITEM_WORDS = 4
"""A list with a longer phrase among its items is a sentence with commas, and compared as a whole."""

_MONEY = {"$": "dollar", "euro": "euro", "pounds": "pounds_sterling", "yen": "yen", "cent": "cent"}
_MARKS = {
    "%": "percent", "percent": "percent", "pct": "percent", "percentage": "percent", "per cent": "percent",
    "percents": "percent", "degrees": "degrees", "degree": "degrees", "deg": "degrees", "°": "degrees",
}  # fmt: skip
_LEADING = frozenset([",", ".", ";", ":", "\\", "and", "!"])
_TRAILING = frozenset([",", ".", ";", ":", "\\", "?", "and", "other"])
_WRAPPING = frozenset(["$", "`", "**"])
_TYPESETTING = frozenset(
    [
        "boxed",
        "fbox",
        "text",
        "mbox",
        "displaylines",
        "ensuremath",
        "textcolor",
        "underline",
        "large",
        "Large",
        "huge",
        "checkmark",
    ]
)
_NESTING = {"(": 1, "[": 1, ")": -1, "]": -1}
_SHOWN_NESTING = {"{": 1, "langle": 1, "}": -1, "rangle": -1}
_WORDY = frozenset(["text", "word", "roman"])
_NUMBER_SETS = frozenset(["set Z", "set N", "set Q", "set R", "set C", "integers", "reals"])
_CONSTANT_ROMAN = frozenset("eidCDT")


def read(text: str, policy: Policy, hint: Value | None = None) -> Value:
    """The value that a text spells under a policy; `hint` is the gold's value when `text` is an answer to it.

    Raises `Unreadable` when the text is empty, too long, too deep or not balanced.
    """
    if hint is not None and text == hint.source:
        return hint
    value = _plain(text, hint) or _careful(text, policy, hint)
    if policy.answer_type != "auto":
        value = _as_asked(value, policy.answer_type)
    return spelt(value, text)


def _as_asked(value: Value, kind: str) -> Value:
    """The members of a collection as the kind of collection that the caller said it is."""
    if kind == "text" and not isinstance(value, Text):
        return Text(words.words([canonical(value)]), words.shape(canonical(value)))
    if not isinstance(value, Listing | Tuple | SetOf) or kind not in ("set", "tuple", "list"):
        return value
    if kind == "set":
        return SetOf(value.items)
    return Tuple(value.items) if kind == "tuple" else Listing(value.items)


def _plain(text: str, hint: Value | None) -> Formula | None:
    """Numbers in digits and fractions of them, without the tokenizer."""
    found = _PLAIN.fullmatch(text)
    if found is not None:
        sign, digits, decimals = found.groups()
        if (
            (digits is None and decimals is None)
            or (digits or "").startswith("0,")
            or (digits and "," in digits and isinstance(hint, Listing | Tuple | SetOf))
        ):
            return None
        return _decimal(sign + (digits or "0").replace(",", ""), decimals)
    found = _FRACTION.fullmatch(text)
    if found is None:
        return None
    sign, *pairs = found.groups()
    above, below = (int(part) for part in pairs if part is not None)
    if not below:
        return None
    return Formula(number(whole(Fraction(-above if sign else above, below))))


def _decimal(digits: str, decimals: str | None) -> Formula | None:
    if len(digits) + len(decimals or "") > MAX_DIGITS:
        return None
    if decimals is None:
        return Formula(number(int(digits)))
    value = decimal(digits + decimals)
    return Formula(number(value), len(decimals) - 1, significant_digits(digits + decimals))


def significant_digits(literal: str) -> int:
    """How many significant digits a decimal literal has."""
    return max(1, len(literal.lower().partition("e")[0].replace(".", "").lstrip("-+0")))


def _careful(text: str, policy: Policy, hint: Value | None) -> Value:
    cleaned = clean(repair(text, policy.repair))
    if not cleaned:
        raise Unreadable("empty")
    choice = _choice(cleaned, policy, hint)
    if choice is not None:
        return choice
    tokens = _prepared(tokenize(respelt(cleaned)), hint)
    if not tokens:
        raise Unreadable("empty")
    prose = words.words([cleaned]) if cleaned.isascii() and cleaned.replace(" ", "").replace("-", "").isalpha() else ""
    if prose:
        known = _phrase(prose)
        if known is not None:
            return known
    try:
        return _Reader(tokens, policy, hint).value(0, len(tokens))
    except RecursionError:
        raise Unreadable("too_deep") from None  # the caller's own stack was nearly full
    except Unreadable as error:
        if error.reason in ("too_deep", "too_many_digits"):
            raise
        return _text(tokens)


def clean(text: str) -> str:
    """The text without what surrounds an answer: math delimiters, boxes, Markdown, announcements, a full stop."""
    text = text.strip()
    for _ in range(4):
        before = text
        if not text.endswith(("\\,", "\\right.")):
            text = text.rstrip(_TAIL).strip()
        text = words.without_announcement(text)
        for opening, closing in _WRAPPERS:
            if not (text.startswith(opening) and text.endswith(closing)) or len(text) <= 2 * len(opening):
                continue
            inner = text[len(opening) : -len(closing)]
            if opening not in inner and closing not in inner:
                text = inner.strip()
        text = text.removesuffix("\\") if text.endswith("\\") and not text.endswith("\\\\") else text
        found = _BOX.match(text)
        if found and _balanced(found.group(1)):
            text = found.group(1).strip()
        if text == before:
            break
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for mark in re.findall(r"\\[{}]|[{}]", text):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        if depth < 0:
            return False
    return depth == 0


def _choice(text: str, policy: Policy, hint: Value | None) -> Choice | None:
    """A letter of a multiple-choice question: unless the gold is one, only a bare or bracketed capital letter."""
    if len(text) > 2_000:
        return None
    expected = isinstance(hint, Choice) or policy.answer_type == "choice"
    plain = _FONT.sub(r"\1", text).strip() if "\\" in text else text.strip()
    found = _CHOICE.match(plain)
    if found is None:
        return None
    letter, rest = found.groups()
    rest = (rest or "").strip()
    if rest and (rest[0] in "+*/^=<>_-" or _ANOTHER.search(rest)):
        return None
    if expected:
        return Choice(letter.upper(), rest)
    if rest or not letter.isupper():
        return None
    return Choice(letter)


def _phrase(prose: str) -> Value | None:
    if words.is_empty_set(prose):
        return SetOf(())
    side = words.half_line(prose)
    if side:
        return Interval(ZERO, INFINITY, False, False) if side > 0 else Interval(MINUS_INFINITY, ZERO, False, False)
    if words.is_everything(prose):
        return Interval(MINUS_INFINITY, INFINITY, False, False)
    spelt = words.spelt_number(prose)
    if spelt is not None:
        return Formula(number(spelt))
    return None


def _text(tokens: list[Token]) -> Text:
    normal = words.words(token.text for token in tokens)
    if not normal:
        raise Unreadable("empty")
    return Text(normal, words.shape(normal))


def _prepared(tokens: list[Token], hint: Value | None) -> list[Token]:
    """Tokens with money and math dollars told apart, joints as signs, groups of three digits and `\frac12` resolved."""
    prepared: list[Token] = []
    money: bool | None = None
    inside = 0
    for place, token in enumerate(tokens):
        kind, text, spaced = token
        if kind == "sign":
            inside += _NESTING.get(text, 0)
            if text not in _WRAPPING:
                prepared.append(token)
            elif text == "$" and (money := _is_money(tokens) if money is None else money):
                prepared.append(Token("command", "$", spaced))
        elif kind == "command":
            inside += _SHOWN_NESTING.get(text, 0)
            if text not in _TYPESETTING:
                prepared.append(token)
        elif kind == "grouped":
            prepared.extend(_ungrouped(tokens, place, inside > 0, hint))
        elif kind == "text" and text and not text.strip(".,;:!"):
            continue
        elif kind in ("word", "text"):
            prepared.append(_joint(token))
        elif kind == "number" and _takes_digits(prepared) and text.isdigit() and len(text) > 1:
            prepared += [Token("number", text[0], spaced), Token("number", text[1:], False)]
        else:
            prepared.append(token)
    return prepared


def _is_money(tokens: list[Token]) -> bool:
    """An odd number of dollar signs cannot be math delimiters."""
    return sum(token.text == "$" and token.kind == "sign" for token in tokens) % 2 == 1


def _takes_digits(before: list[Token]) -> bool:
    r"""`\frac12` takes one digit for each argument."""
    return bool(before) and before[-1].kind == "command" and before[-1].text in ("frac", "binom")


def _joint(token: Token) -> Token:
    joint = _JOINTS.get(token.text.lower().strip())
    if joint is None:
        return token
    return Token("sign", "," if joint == "," else joint, True) if joint else token


def _ungrouped(tokens: list[Token], place: int, inside: bool, hint: Value | None) -> list[Token]:
    """`1,234`: one number, or a list where brackets, neighbours or the gold say so."""
    token = tokens[place]
    pieces = token.text.split(",")
    beside = any(
        0 <= near < len(tokens) and tokens[near].text == "," and not tokens[max(near, place)].spaced
        for near in (place - 1, place + 1)
    )
    expected = isinstance(hint, Listing | Tuple | SetOf) and len(hint.items) == len(pieces) and len(tokens) <= 3
    if pieces[0] == "0" and len(pieces) == 2:
        return [Token("number", ".".join(pieces), token.spaced)]
    if any(piece.startswith("0") for piece in pieces[1:]) and not (expected and inside):
        return [Token("number", token.text.replace(",", ""), token.spaced)]
    if not (inside or beside or expected):
        return [Token("number", token.text.replace(",", ""), token.spaced)]
    listed = [Token("number", pieces[0], token.spaced)]
    for piece in pieces[1:]:
        listed += [Token("sign", ",", False), Token("number", piece.strip(), False)]
    return listed


def _environments(kinds: Sequence[str]) -> dict[int, int]:
    """Where each environment ends, by the place where it begins."""
    ends: dict[int, int] = {}
    waiting: list[int] = []
    for place, kind in enumerate(kinds):
        if kind == "begin":
            waiting.append(place)
        elif kind == "end" and waiting:
            ends[waiting.pop()] = place
    return ends


class _Reader(Formulas):
    """Reads values out of one token list."""

    def __init__(self, tokens: list[Token], policy: Policy, hint: Value | None) -> None:
        super().__init__(tokens)
        self.met = frozenset(self.kinds)
        self.ends = _environments(self.kinds) if "begin" in self.met else {}
        self.several = not self.met.isdisjoint(_SEPARATING)
        self.compound = not self.met.isdisjoint(_COMPOUNDING)
        self.policy = policy
        self.hint = hint
        self.level = 0

    def value(self, start: int, end: int) -> Value:
        """The value that the tokens from `start` to `end` spell. Raises `Unreadable`."""
        self.level += 1
        if self.level > 12:
            raise Unreadable("too_deep")
        try:
            return self._value(*self._trimmed(start, end))
        finally:
            self.level -= 1

    def _trimmed(self, start: int, end: int) -> tuple[int, int]:
        """Without punctuation around it and braces that only group."""
        kinds = self.kinds
        while start < end:
            if kinds[start] in _LEADING or (kinds[start] == "=" and start + 1 < end):
                start += 1
            elif kinds[end - 1] in _TRAILING:
                end -= 1
            elif kinds[start] == "{" and self.closing(start) == end - 1:
                start, end = start + 1, end - 1
            else:
                return start, end
        raise Unreadable("empty")

    def _value(self, start: int, end: int) -> Value:
        if end == start + 1:
            return self._single(start)
        for joint in _SEPARATORS if self.several else ():
            spans = self._split(start, end, joint)
            if len(spans) > 1:
                return self._several(spans, joint)
        return self._one(start, end)

    def _split(self, start: int, end: int, sign: str) -> list[tuple[int, int]]:
        if sign not in self.met and "begin" not in self.met:  # most texts have none that divides them
            return [(start, end)] if start < end else []
        spans, begin, place = [], start, start
        while place < end:
            if self.kinds[place] == sign:
                spans.append((begin, place))
                begin = place + 1
            place = self.pairs.get(place, place) + 1 if self.kinds[place] != "begin" else self._after(place, end)
        spans.append((begin, end))
        return [(first, last) for first, last in spans if first < last]

    def _after(self, place: int, end: int) -> int:
        """The place behind an environment that begins here."""
        last = self.ends.get(place, end)
        if last >= end:
            raise Unreadable("environment")
        return self.pairs.get(last + 1, last) + 1

    def _several(self, spans: list[tuple[int, int]], joint: str) -> Value:
        items = [self._item(*span) for span in spans]
        kept = [item for item in items if not _is_condition(item)] or items
        if len(kept) == 1:
            return kept[0]
        if joint in ("or", "and"):
            kept = [part for item in kept for part in _flat(item)]
        named = _distributed(kept)
        return named or Listing(tuple(kept), ";" if joint == "\\" else joint)

    def _item(self, start: int, end: int) -> Value:
        item = self.value(start, end)
        if isinstance(item, Text) and len(item.words.split()) > MAX_ITEM_WORDS:
            raise Unreadable("prose")
        return item

    def _single(self, place: int) -> Value:
        token, kind = self.tokens[place], self.kinds[place]
        if kind == "emptyset":
            return SetOf(())
        if kind in ("set R", "reals"):
            return Interval(MINUS_INFINITY, INFINITY, False, False)
        if kind in _NUMBER_SETS:
            return Text(kind, kind)
        if token.kind == "text":
            return self._words(token.text)
        if token.kind == "word" and kind == "word" and self.level <= 2:
            return self._bare_word(token.text)
        if kind == "number":
            return Formula(literal(token.text), *self._precision(place, place + 1))
        return self._formula(place, place + 1)

    def _words(self, text: str) -> Value:
        """What stands in a text command by itself: read as if it stood there without the command."""
        phrase = _phrase(words.words([text]))
        if phrase is not None:
            return phrase
        plain = text.strip().strip("().")
        if len(plain) == 1 and plain.isalpha():
            return Choice(plain) if "A" <= plain <= "J" else Formula(self._letter_named(plain))
        if plain and not plain.replace(" ", "").replace("-", "").isalpha() and self.level < 6:
            return _careful(text, self.policy, self.hint)
        normal = words.words([text])
        return Text(normal, words.shape(normal))

    def _letter_named(self, letter: str) -> Node:
        saved = self.place
        node = self._letter(Token("letter", letter, False), True)
        self.place = saved
        return node

    def _bare_word(self, text: str) -> Value:
        """Letters in a row and nothing else: short lower-case runs are products, the rest are words."""
        if looks_like_word(text):
            return _phrase(text) or Text(words.words([text]), text)
        product = text.islower() and len(text) <= 3 and not units.is_known(text) and words.spelt_number(text) is None
        expected = isinstance(self.hint, Formula) and text.islower() and len(text) <= 4
        if product or expected:
            try:
                return Formula(self.read_word(text))
            except Unreadable:
                pass
        return _phrase(text) or Text(words.words([text]), text)

    def read_word(self, text: str) -> Node:
        """The product of the letters of a word."""
        return (
            self.read(0, 1)
            if len(self.tokens) == 1
            else Node("mul", tuple(self._letter_named(letter) for letter in text))
        )

    def _one(self, start: int, end: int) -> Value:
        """A value without list separators at its top level."""
        compound = self._compound(start, end) if self.compound else None
        if compound is not None:
            return compound
        closing = self.pairs.get(start, -1)
        if closing == end - 1 and self.kinds[start] in ("(", "[", "\\{", "langle"):
            return self._bracket(start, closing)
        if self.kinds[start] == "<" and self.kinds[end - 1] == ">":
            return Tuple(self._members(start + 1, end - 1))
        if self.kinds[start] == "begin" and self._after(start, end) == end:
            return self._environment(start, end)
        return self._formula(start, end)

    def _compound(self, start: int, end: int) -> Value | None:
        """A relation, a union or difference of sets, or what a colon divides."""
        relation = self._relation(start, end)
        if relation is not None:
            return relation
        joined = self._union(start, end)
        if joined is not None:
            return joined
        colon = self._split(start, end, ":")
        return self._colons(colon) if len(colon) > 1 else None

    def _relation(self, start: int, end: int) -> Value | None:
        places, place = [], start
        while place < end:
            if self.kinds[place] in _SIGNS:
                places.append(place)
            place = self.pairs.get(place, place) + 1 if self.kinds[place] != "begin" else self._after(place, end)
        if not places or (self.kinds[start] == "<" and self.kinds[end - 1] == ">" and len(places) == 2):
            return None
        if places[0] == start:
            if self.kinds[start] != "approx":
                raise Unreadable("relation")
            value = self.value(start + 1, end)
            return replace(value, mark="about") if isinstance(value, Formula) and not value.mark else value
        bounds = [start - 1, *places, end]
        sides = tuple(
            self._side(left + 1, right, order == 0) for order, (left, right) in enumerate(itertools.pairwise(bounds))
        )
        return Relation(sides, tuple(_SIGNS[self.kinds[place]] for place in places))

    def _side(self, start: int, end: int, first: bool) -> Value:
        if start >= end:
            raise Unreadable("relation")
        named = not self.tokens[start].text.islower() or looks_like_word(self.tokens[start].text)
        if end == start + 1 and self.kinds[start] == "word" and named:
            return Formula(Node("sym", (), self.tokens[start].text))
        if first:
            saved, self.calls = self.calls, True
            try:
                return Formula(self.read(start, end, calls=True))
            except Unreadable:
                pass
            finally:
                self.calls = saved
        return self.value(start, end)

    def _union(self, start: int, end: int) -> Value | None:
        parts = self._split(start, end, "cup")
        if len(parts) > 1:
            return Union(tuple(_open_interval(self.value(*part)) for part in parts))
        parts = self._split(start, end, "setminus")
        if len(parts) == 2:
            return Difference(_open_interval(self.value(*parts[0])), self.value(*parts[1]))
        return None

    def _colons(self, spans: list[tuple[int, int]]) -> Value:
        clock = self._clock(spans)
        if clock is not None:
            return clock
        first = spans[0]
        if len(spans) == 2 and all(self.tokens[place].kind in ("word", "text") for place in range(*first)):
            label = words.words(token.text for token in self.tokens[first[0] : first[1]])
            return Relation((Text(label, label), self.value(*spans[1])), ("=",))
        return Ratio(tuple(self.read(*span) for span in spans))

    def _clock(self, spans: list[tuple[int, int]]) -> Clock | None:
        start, end = spans[0][0], spans[-1][1]
        half = ""
        texts = [self.tokens[first].text for first, _ in spans]
        tail = "".join(token.text for token in self.tokens[spans[-1][0] + 1 : end]).lower().replace(".", "").strip()
        if tail in ("am", "pm"):
            half = tail
        elif tail:
            return None
        plain = all(text.isdigit() for text in texts) and all(len(text) == 2 for text in texts[1:])
        if not plain or any(last - first > 1 for first, last in spans[:-1]) or len(spans) > 3 or start == end:
            return None
        parts = [int(text) for text in texts]
        if parts[0] > 24 or any(part >= 60 for part in parts[1:]) or (isinstance(self.hint, Ratio) and not half):
            return None
        hours = parts[0] % 12 + (12 if half == "pm" else 0) if half and parts[0] <= 12 else parts[0]
        return Clock(hours * 3600 + parts[1] * 60 + (parts[2] if len(parts) == 3 else 0), half)

    def _members(self, start: int, end: int) -> tuple[Value, ...]:
        separator = ";" if len(self._split(start, end, ";")) > 1 else ","
        return tuple(self.value(*span) for span in self._split(start, end, separator))

    def _bracket(self, start: int, closing: int) -> Value:
        opening, shutting = self.kinds[start], self.kinds[closing]
        if start + 1 == closing:
            if opening == "\\{":
                return SetOf(())
            raise Unreadable("empty")
        if opening == "\\{":
            return self._braces(start, closing)
        items = self._members(start + 1, closing)
        if len(items) == 1:
            return self._alone(items[0], opening, start, closing)
        interval = self._interval(items, opening, shutting)
        if interval is not None:
            return interval
        if opening == "[" and all(isinstance(item, Tuple) and item.brackets == "[]" for item in items):
            return _rows(items)
        if all(isinstance(item, Relation) for item in items):
            return Listing(items)
        if (opening == "(" and shutting == ")") or (opening == "[" and shutting == "]") or opening == "langle":
            return Tuple(items, "[]" if opening == "[" else "()")
        raise Unreadable("brackets")

    def _alone(self, item: Value, opening: str, start: int, closing: int) -> Value:
        if isinstance(item, Formula) and opening == "(" and not item.mark and not item.unit:
            return replace(item)
        return item

    def _interval(self, items: tuple[Value, ...], opening: str, shutting: str) -> Interval | None:
        if (
            len(items) != 2
            or opening == "langle"
            or not all(isinstance(item, Formula) and not item.unit for item in items)
        ):
            return None
        low, high = (item.expr for item in items if isinstance(item, Formula))
        unbounded = low in (INFINITY, MINUS_INFINITY) or high in (INFINITY, MINUS_INFINITY)
        mixed = (opening == "(") != (shutting == ")")
        round_ = opening == "("
        if not (unbounded or mixed) and not self._wants_interval(round_):
            return None
        return Interval(low, high, opening == "[", shutting == "]")

    def _wants_interval(self, round_: bool) -> bool:
        """`(1,2)` is a point and `[1,2]` an interval, unless the gold or the policy says otherwise."""
        if self.policy.answer_type in ("interval", "tuple"):
            return self.policy.answer_type == "interval"
        if isinstance(self.hint, Interval | Union | Difference):
            return True
        if isinstance(self.hint, Tuple | Matrix | Listing):
            return False
        return not round_

    def _braces(self, start: int, closing: int) -> Value:
        for bar in ("|", ":"):
            spans = self._split(start + 1, closing, bar)
            if len(spans) == 2:
                return Builder(self.value(*spans[0]), self.value(*spans[1]))
        if len(spans) == 1 and self.kinds[start + 1] == "begin":
            return self.value(start + 1, closing)
        return SetOf(self._members(start + 1, closing))

    def _environment(self, start: int, end: int) -> Value:
        name = self.tokens[start + 2].text
        if name.rstrip("*") in (
            "cases",
            "aligned",
            "align",
            "gathered",
            "split",
            "equation",
            "gather",
            "dcases",
            "rcases",
            "multline",
        ):
            rows, _ = self.rows(start, end)
            lines = [self._line(row) for row in rows]
            return System(tuple(line for line in lines if line is not None))
        return self._formula(start, end)

    def _line(self, row: list[tuple[int, int]]) -> Value | None:
        """One line of a system: an aligned relation, or a value and the condition under which it holds."""
        cells = [[*self.tokens[first:last]] for first, last in row if first < last]
        if not cells:
            return None
        if len(cells) == 1 or kind_of(cells[1][0]) in _SIGNS:
            return self._apart([token for cell in cells for token in cell])
        condition = [token for cell in cells[1:] for token in cell]
        while len(condition) > 1 and condition[0].text.strip().lower() in _WHEN:
            condition = condition[1:]
        return Tuple((self._apart(cells[0]), self._apart(condition)))

    def _apart(self, tokens: list[Token]) -> Value:
        """A value that is spelt by tokens of its own."""
        if self.level > 4:
            raise Unreadable("too_deep")
        reader = _Reader(tokens, self.policy, self.hint)
        reader.level = self.level
        return reader.value(0, len(tokens))

    def _formula(self, start: int, end: int) -> Value:
        """A formula, and what may stand behind it: a percent sign, degrees, a unit."""
        unit = None
        mark = ""
        money = [] if self.met.isdisjoint(_MONEY) else self._money(start, end)
        if money:
            unit = units.unit(_MONEY[self.kinds[money[0]]])
            return self._without(money, start, end, unit)
        if self.kinds[end - 1] == "%" and end - 1 > start:
            end, mark = end - 1, "percent"
        tail = self._tail(start, end)
        if tail is not None and tail == start:
            return self._prose(start, end)
        if tail is not None:
            phrase = self._phrase_of(tail, end)
            mark = _MARKS.get(phrase.lower(), mark)
            base = _base(phrase)
            if base and tail == start + 1 and self.tokens[start].text.isdigit():
                return Based(self.tokens[start].text, base)
            if phrase.lower() in ("repeating", "recurring") and tail == start + 1:
                return Formula(_repeating_last(self.tokens[start].text))
            if not (mark and phrase.lower() in _MARKS):
                return self._measured(start, tail, phrase)
            end = tail
            if self.kinds[end - 1] == "%":
                end, mark = end - 1, "percent"
        return self._quantity(start, end, mark, unit)

    def _money(self, start: int, end: int) -> list[int]:
        return [
            place for place in range(start, end) if self.kinds[place] in _MONEY and self.tokens[place].kind == "command"
        ]

    def _measured(self, start: int, end: int, phrase: str) -> Value:
        """A number with its unit, its scale (`2 million`), or both; `5 feet 6 inches` is one length."""
        value = self._quantity(start, end, "", None)
        if not isinstance(value, Formula):
            raise Unreadable("prose")
        compound = _COMPOUND.fullmatch(phrase)
        if compound:
            return _compound(value, *compound.groups())
        first, _, rest = phrase.partition(" ")
        scale = words.scale(first)
        if scale > 1:
            expr = Node("mul", (number(scale), value.expr))
            value, phrase = replace(value, expr=expr, places=None, significant=None), rest
            if not phrase:
                return value
        unit = units.unit(phrase)
        if unit is None:
            raise Unreadable("prose")
        return replace(value, unit=unit)

    def _without(self, money: list[int], start: int, end: int, unit: Unit | None) -> Value:
        kept = [token for place, token in enumerate(self.tokens[start:end], start) if place not in money]
        if not kept:
            raise Unreadable("empty")
        value = self._apart(kept)
        return replace(value, unit=value.unit or unit) if isinstance(value, Formula) else value

    def _tail(self, start: int, end: int) -> int | None:
        """Where words begin at the top level; everything from there on is one phrase."""
        if self.met.isdisjoint(_WORDY) and "begin" not in self.met:
            return None
        place = start
        while place < end:
            kind = self.kinds[place]
            if (kind == "text" and not self._is_subscripted(place, end)) or (
                kind == "word" and self._is_phrase(place, start, end)
            ):
                return place
            if kind == "roman" and place > start and self._is_unit_letter(place):
                return place
            place = self._after(place, end) if kind == "begin" else self.pairs.get(place, place) + 1
        return None

    def _is_subscripted(self, place: int, end: int) -> bool:
        return place > 0 and self.kinds[place - 1] in ("_", "^")

    def _is_phrase(self, place: int, start: int, end: int) -> bool:
        text = self.tokens[place].text
        if place > start and self.kinds[place - 1] in ("_", "^", "+", "-", "/", "cdot", "times", "*"):
            return False
        from_unit = place > start and (units.is_known(text) and len(text) > 1)
        return from_unit or text in _MARKS or looks_like_word(text)

    def _is_unit_letter(self, place: int) -> bool:
        return self.tokens[place].text not in _CONSTANT_ROMAN and self.kinds[place - 1] not in (
            "+",
            "-",
            "cdot",
            "times",
            "*",
            "/",
            "_",
            "^",
            "frac",
            "sqrt",
        )

    def _phrase_of(self, start: int, end: int) -> str:
        pieces = []
        for token in self.tokens[start:end]:
            if token.kind in ("text", "word", "roman", "number", "letter"):
                pieces.append(token.text)
            elif token.text in ("/", "^", "-", "{", "}", ".", "cdot"):
                pieces.append({"{": "", "}": "", "cdot": "*"}.get(token.text, token.text))
            else:
                raise Unreadable("prose")
        return " ".join(piece for piece in pieces if piece).replace(" ^ ", "^").replace("^- ", "^-").strip()

    def _prose(self, start: int, end: int) -> Value:
        pieces = []
        for token in self.tokens[start:end]:
            if token.kind not in ("text", "word", "letter", "number", "roman", "other") and token.text not in "-'.,()/":
                raise Unreadable("prose")
            pieces.append(token.text)
        normal = words.words(pieces)
        return _phrase(normal) or Text(normal, words.shape(normal))

    def _quantity(self, start: int, end: int, mark: str, unit: Unit | None) -> Value:
        based = self._based_number(start, end)
        if based is not None:
            return based
        if not mark and not unit and self.pairs.get(start) == end - 1 and self.kinds[start] in ("(", "["):
            return self._bracket(start, end - 1)
        node = (self._spaced_number(start, end) if self.kinds[end - 1] == "number" else None) or self.read(start, end)
        if "begin" in self.met:
            node = folded(node)
        if node.op == "mat":
            return Matrix(tuple(row.args for row in node.args))
        if node.op == "deg" and not mark:
            node, mark = node.args[0], "degrees"
        places, digits = self._precision(start, end)
        return Formula(node, places, digits, mark, unit)

    def _based_number(self, start: int, end: int) -> Based | None:
        """Digits with a subscript that is their base."""
        if "_" not in self.met:
            return None
        mark = next((place for place in range(start, min(end, start + 4)) if self.kinds[place] == "_"), None)
        if mark is None or mark == start:
            return None
        sign = "-" if self.kinds[start] == "-" else ""
        digits = "".join(token.text for token in self.tokens[start + bool(sign) : mark])
        last = self.pairs.get(mark + 1, mark + 1)
        base = "".join(token.text for token in self.tokens[mark + 1 : last + 1]).strip("{}()")
        base = {"two": "2", "three": "3", "eight": "8", "ten": "10", "sixteen": "16"}.get(base, base)
        if (
            last + 1 != end
            or not base.isdigit()
            or (not digits[:1].isdigit() and not digits.isupper())
            or not digits.isalnum()
        ):
            return None
        if (not digits[:1].isdigit() and len(digits) < 2) or not 2 <= int(base[:3]) <= 36:
            return None
        return Based(sign + digits, int(base[:3]))

    def _spaced_number(self, start: int, end: int) -> Node | None:
        """`1 000`, digits in groups of three behind spaces, and `1 1/2`, a mixed number."""
        sign = self.kinds[start] == "-"
        tokens = self.tokens[start + sign : end]
        texts = [token.text for token in tokens]
        if len(tokens) < 2 or tokens[0].kind != "number" or tokens[1].kind != "number" or not texts[0].isdigit():
            return None
        if len(texts) == 4 and texts[2] == "/" and texts[1].isdigit() and texts[3].isdigit() and int(texts[3][:50]):
            mixed = int(texts[0][:50]) + Fraction(int(texts[1][:50]), int(texts[3][:50]))
            return number(whole(-mixed if sign else mixed))
        grouped = all(token.kind == "number" and len(token.text.partition(".")[0]) == 3 for token in tokens[1:])
        if not grouped or len(texts[0]) > 3 or any("." in text for text in texts[:-1]) or len(texts) > 100:
            return None
        value = whole(Fraction("".join(texts)))
        return number(-value if sign else value)

    def _precision(self, start: int, end: int) -> tuple[int | None, int | None]:
        """Digits after the point and significant digits of a single decimal, also in scientific notation."""
        if self.kinds[start] in ("-", "+"):
            start += 1
        if start >= end or self.kinds[start] != "number":
            return None, None
        text, exponent = self.tokens[start].text.lower(), 0
        if end > start + 1:
            power = self._power_of_ten(start + 1, end)
            if power is None:
                return None, None
            exponent = power
        mantissa, _, shift = text.partition("e")
        if "." not in mantissa and not shift and end == start + 1:
            return None, None
        if len(shift) > 6:
            return None, None
        return len(mantissa.partition(".")[2]) - int(shift or 0) - exponent, significant_digits(mantissa)

    def _power_of_ten(self, start: int, end: int) -> int | None:
        texts = [token.text for token in self.tokens[start:end] if token.text not in "{}"]
        if len(texts) < 4 or texts[0] not in ("times", "cdot", "*") or texts[1] != "10" or texts[2] != "^":
            return None
        power = "".join(texts[3:])
        return int(power) if power.lstrip("-").isdigit() and len(power) < 7 else None


def _flat(item: Value) -> tuple[Value, ...]:
    """`1, 2 or 3` is one list of three numbers."""
    plain = isinstance(item, Listing) and item.joint == "," and all(isinstance(part, Formula) for part in item.items)
    return item.items if plain and isinstance(item, Listing) else (item,)


def _open_interval(value: Value) -> Value:
    """Next to ∪, a pair in round brackets is an interval."""
    if isinstance(value, Tuple) and len(value.items) == 2 and value.brackets == "()":
        low, high = value.items
        if isinstance(low, Formula) and isinstance(high, Formula):
            return Interval(low.expr, high.expr, False, False)
    return value


def _compound(value: Formula, first: str, count: str, second: str) -> Formula:
    larger, smaller = units.unit(first), units.unit(second)
    if larger is None or smaller is None or not units.commensurable(larger, smaller) or larger.factor <= smaller.factor:
        raise Unreadable("prose")
    part = Fraction(count) * Fraction(smaller.factor) / Fraction(larger.factor)
    return Formula(Node("add", (value.expr, number(whole(part)))), unit=larger)


def _repeating_last(text: str) -> Node:
    """A decimal whose last digit goes on for ever."""
    places = len(text.partition(".")[2])
    if not places or len(text) > 50 or not text.replace(".", "", 1).isdigit():
        raise Unreadable("repeating")
    return number(whole(Fraction(text) + Fraction(int(text[-1]), 9 * 10**places)))


def _base(phrase: str) -> int:
    """The number base that a phrase such as `base 7` names; 0 for another phrase."""
    found = re.fullmatch(r"(?:\(|in )?base[\s_]*+(\d{1,2})\)?", phrase.lower())
    return int(found.group(1)) if found and 2 <= int(found.group(1)) <= 36 else 0


def _is_condition(item: Value) -> bool:
    """A remark about which numbers a name stands for; no answer by itself."""
    if not isinstance(item, Relation) or item.signs != ("in",):
        return False
    last = item.sides[-1]
    return (isinstance(last, Interval) and last.low == MINUS_INFINITY and last.high == INFINITY) or (
        isinstance(last, Text) and last.words.startswith("set ")
    )


def _distributed(items: list[Value]) -> Relation | None:
    """`x = 1, 2, 3`: one name for all values of the list."""
    first, *others = items
    if (
        not isinstance(first, Relation)
        or first.signs != ("=",)
        or any(isinstance(item, Relation | Text) for item in others)
    ):
        return None
    return Relation((first.sides[0], Listing((first.sides[1], *others))), ("=",))


def _rows(items: tuple[Value, ...]) -> Value:
    rows = []
    for item in items:
        cells = [cell.expr for cell in item.items if isinstance(cell, Formula)] if isinstance(item, Tuple) else []
        rows.append(tuple(cells))
    if len({len(row) for row in rows}) != 1 or any(
        len(row) != len(item.items) for row, item in zip(rows, items, strict=True) if isinstance(item, Tuple)
    ):
        return Tuple(items, "[]")
    return Matrix(tuple(rows))
