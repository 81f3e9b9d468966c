r"""Tokens to formulas: one expression, from `\frac12x` to `\sum_{k=1}^{n}k`, as a tree of `Node`.

A plain recursive-descent grammar. Sums and products are loops; only brackets, exponents and the arguments of functions
recurse, and their depth has a cap, so a text can neither exhaust the stack nor take more than linear time. What the
grammar does not know is `Unreadable`; nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rewardsvc.rewards.math import values
from rewardsvc.rewards.math.tokens import Token, Unreadable
from rewardsvc.rewards.math.values import ONE, TEN, Node, call, listed, negative, number, symbol

MAX_DEPTH = 48
"""How deep brackets, exponents and function arguments may nest."""

MAX_NESTING = 60
"""How many factors may be open at once, one inside the other: a bound on Python's own stack."""

MAX_MARKS = 8
"""Powers, factorials and percent signs behind one factor."""

MAX_DIGITS = 4_000
"""Digits of one number: beyond, Python's own conversion refuses or takes quadratic time."""

MAX_EXPONENT = 400
"""Powers of ten up to which `1e5` becomes a plain number."""

_OPENING = {"(": ")", "[": "]", "\\{": "\\}", "lfloor": "rfloor", "lceil": "rceil", "langle": "rangle", "{": "}"}
_CLOSING = frozenset(_OPENING.values())
_FUNCTIONS = frozenset(
    listed(
        "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch arsinh "
        "arcosh artanh arcsinh arccosh arctanh ln log lg exp"
    )
)
_LISTED = frozenset(listed("gcd lcm min max det Re Im arg sgn"))
_PLAIN_WORDS = {
    "sqrt": "sqrt", "pi": "pi", "Pi": "pi", "PI": "pi", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "cbrt": "cbrt", "abs": "abs", "infty": "infty", "infinity": "infty", "inf": "infty", "Infinity": "infty",
    "oo": "infty", "theta": "theta", "alpha": "alpha", "beta": "beta", "gamma": "gamma", "lambda": "lambda",
    "mu": "mu", "sigma": "sigma", "phi": "phi", "omega": "omega", "delta": "delta", "rho": "rho", "tau": "tau",
    "floor": "floor", "ceil": "ceil", "frac": "frac", "cdot": "cdot", "times": "times", "Sqrt": "sqrt", "tg": "tan",
    "sgn": "sgn", "binom": "binom", "comb": "binom",
}  # fmt: skip
_CONSTANTS = {"pi": values.PI, "infty": values.INFINITY}
_DECORATIONS = frozenset(
    listed(
        "bar hat vec tilde overline widehat overrightarrow dot ddot widetilde underline overset "
        "mathring check acute breve"
    )
)
_MARKS = frozenset(["^", "!", "!!", "%", "circ", "_"])
_ENDS_TERM = frozenset(["+", "-", "pm", "mp"])
_NUMERALS = frozenset(["number", "grouped"])
_LETTERS = frozenset(["letter", "roman", "bold"])
_GROUPS = frozenset(["(", "[", "\\{", "{"])
_TIMES = frozenset(["cdot", "times", "*"])
_OVER = frozenset(["/", "div"])
_CALLED = frozenset("fghFGHuvPQW")
_NO_ATOM = frozenset(
    listed(
        "le ge ne approx in to implies iff cup cap setminus wedge vee equiv sim quad forall exists Rightarrow "
        "rightarrow Leftrightarrow leftrightarrow leftarrow longrightarrow mapsto propto subset subseteq notin ni "
        "therefore because perp parallel begin end & bigcup bigcap hline cline ldots text pmod bmod pounds euro yen "
        "cent \\ $"
    )
)


def kind_of(token: Token) -> str:
    """What a token is to a grammar: its sign or command; braces that show are `\\{`; other tokens are their kind."""
    if token.kind == "sign":
        return token.text
    if token.kind == "command":
        return "\\" + token.text if token.text in "{}" else token.text
    if token.kind == "word":
        return _PLAIN_WORDS.get(token.text) or (
            token.text if token.text in _FUNCTIONS or token.text in _LISTED else "word"
        )
    return token.kind


def partners(kinds: Sequence[str]) -> dict[int, int]:
    """Where each bracket closes, by place; half-open intervals may mix round and square ones. Raises `Unreadable`."""
    pairs: dict[int, int] = {}
    waiting: list[int] = []
    for place, kind in enumerate(kinds):
        if kind in _OPENING:
            waiting.append(place)
            if len(waiting) > MAX_DEPTH:
                raise Unreadable("too_deep")
        elif kind in _CLOSING:
            if not waiting or not _fits(kinds[waiting[-1]], kind):
                raise Unreadable("unbalanced")
            pairs[waiting.pop()] = place
    if waiting:
        raise Unreadable("unbalanced")
    return pairs


def _fits(opening: str, closing: str) -> bool:
    return _OPENING[opening] == closing or (opening in "([" and closing in ")]")


class Formulas:
    """Reads formulas out of one token list. `kinds` and `pairs` are computed once and shared by all readings."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.kinds = [token.text if token.kind == "sign" else kind_of(token) for token in tokens]
        self.pairs = partners(self.kinds)
        self.place = 0
        self.end = 0
        self.depth = 0
        self.nesting = 0
        self.calls = False

    def read(self, start: int, end: int, *, calls: bool = False) -> Node:
        """The formula that tokens `start` to `end` spell. `calls`: any name before a bracket is a function."""
        saved, nesting = (self.place, self.end, self.calls), self.nesting
        self.place, self.end, self.calls = start, end, calls
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("too_deep")
        try:
            node = self._sum()
            if self.place != self.end:
                raise Unreadable("not_a_formula")
        finally:
            self.depth -= 1
            self.nesting = nesting
            self.place, self.end, self.calls = saved
        return node

    def closing(self, place: int) -> int:
        """Where the bracket that opens here closes. Raises `Unreadable` when none opens here."""
        if place not in self.pairs:
            raise Unreadable("unbalanced")
        return self.pairs[place]

    def _peek(self) -> str:
        return self.kinds[self.place] if self.place < self.end else ""

    def _sum(self) -> Node:
        terms: list[Node] = []
        while True:
            sign = self._signs() if self._peek() in _ENDS_TERM else ""
            term = self._product()
            terms.append(_signed(sign, term) if sign else term)
            if self._peek() not in _ENDS_TERM:
                break
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _signs(self) -> str:
        """Signs before a term, folded into one: empty, `-`, `pm` or `mp`."""
        sign = ""
        while (kind := self._peek()) in _ENDS_TERM:
            self.place += 1
            if kind in ("pm", "mp"):
                sign = kind
            elif kind == "-":
                sign = {"": "-", "-": "", "pm": "mp", "mp": "pm"}[sign]
        return sign

    def _product(self) -> Node:
        """Factors multiplied and divided from left to right; juxtaposition is multiplication."""
        above = [self._factor()]
        below: list[Node] = []
        while (kind := self._peek()) and kind not in _ENDS_TERM:
            if kind in _TIMES or kind in _OVER:
                self.place += 1
                sign = self._signs()
                factor = _signed(sign, self._factor())
                (above if kind in _TIMES else below).append(factor)
            else:
                previous = self.place
                factor = self._factor()
                if self.kinds[previous] == "number" and not self._may_follow(previous):
                    raise Unreadable("adjacent_numbers")
                if _is_mixed(self.tokens, self.kinds, previous, above, factor):
                    above[-1] = number(above[-1].value + factor.value)
                elif below and _binds_left(self.tokens, self.kinds, previous):
                    below[-1] = Node("mul", (below[-1], factor))
                else:
                    above.append(factor)
        product = above[0] if len(above) == 1 else Node("mul", tuple(above))
        if not below:
            return product
        divisor = below[0] if len(below) == 1 else Node("mul", tuple(below))
        return fraction(product, divisor)

    def _may_follow(self, place: int) -> bool:
        """May a number stand here without an operator? After a closing bracket, a letter or a power: yes."""
        return self.kinds[place - 1] not in ("number", "grouped")

    def _factor(self) -> Node:
        self._deeper()
        node = self._atom()
        for _ in range(MAX_MARKS):
            kind = self._peek()
            if kind not in _MARKS:
                self.nesting -= 1
                return node
            if kind == "^":
                node = self._power(node)
            elif kind in ("!", "!!"):
                node = self._factorial(node, kind)
            elif kind == "%":
                self.place += 1
                node = fraction(node, number(100))
            elif kind == "circ":
                self.place += 1
                node = self._degrees(node)
            elif node.op != "sym":
                raise Unreadable("subscript")
            else:
                self.nesting -= 1
                return node
        raise Unreadable("too_deep")

    def _factorial(self, node: Node, kind: str) -> Node:
        self.place += 1
        if self._peek() in ("!", "!!"):
            if kind == "!" and self._peek() == "!":
                self.place += 1
                kind = "!!"
            if self._peek() in ("!", "!!"):
                raise Unreadable("iterated_factorial")
        return call(kind, node)

    def _power(self, base: Node) -> Node:
        if self._is_degree_sign():
            self.place += 4 if self.kinds[self.place + 1] == "{" else 2
            return self._degrees(base)
        if self._skip_primes():
            return base
        return Node("pow", (base, self._exponent()))

    def _is_degree_sign(self) -> bool:
        following = self.kinds[self.place + 1 : min(self.place + 4, self.end)]
        return following[:1] == ["circ"] or following == ["{", "circ", "}"]

    def _skip_primes(self) -> bool:
        """A raised prime after a name was taken by the name; here it is a mistake."""
        following = self.kinds[self.place + 1 : min(self.place + 4, self.end)]
        if following[:1] == ["'"] or following[:2] == ["{", "'"]:
            raise Unreadable("prime")
        return False

    def _exponent(self) -> Node:
        self.place += 1
        sign = self._signs()
        exponent = self._argument()
        if self._peek() == "^" and not self._is_degree_sign():
            self._deeper()
            exponent = Node("pow", (exponent, self._exponent()))
            self.nesting -= 1
        return _signed(sign, exponent)

    def _deeper(self) -> None:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise Unreadable("too_deep")

    def _degrees(self, node: Node) -> Node:
        """Degrees, and minutes and seconds of arc behind them."""
        for size in (60, 3600):
            part = self._arc(size)
            if part is None:
                break
            node = Node("add", (node, part))
        return Node("deg", (node,))

    def _arc(self, size: int) -> Node | None:
        if self._peek() != "number":
            return None
        marks, after = 0, self.place + 1
        wanted = 1 if size == 60 else 2
        while after < self.end and marks < wanted:
            kind, text = self.kinds[after], self.tokens[after].text
            if set(kind) == {"'"} or kind == '"':
                marks += 2 if kind == '"' else len(text)
                after += 1
            elif kind in ("^", "{", "}"):
                after += 1
            else:
                break
        if marks != wanted:
            return None
        while after < self.end and self.kinds[after] == "}":
            after += 1
        value = literal(self.tokens[self.place].text)
        self.place = after
        return fraction(value, number(size))

    def _argument(self) -> Node:
        """What TeX takes as one argument: a group, or one token; numbers are taken whole."""
        number_alone = self._number_alone()
        if number_alone is not None:
            return number_alone
        self._deeper()
        node = self._group() if self._peek() == "{" else self._atom(one=True)
        self.nesting -= 1
        return node

    def _number_alone(self) -> Node | None:
        """A group that holds one number, as most do; None for another."""
        place = self.place
        if place + 2 >= self.end or self.kinds[place : place + 3] != ["{", "number", "}"]:
            return None
        self.place = place + 3
        return literal(self.tokens[place + 1].text)

    def _group(self) -> Node:
        start, closing = self.place, self.pairs.get(self.place, -1)
        if closing < 0 or closing >= self.end:
            raise Unreadable("unbalanced")
        node = self._choose(start, closing) or self.read(start + 1, closing, calls=self.calls)
        self.place = closing + 1
        return node

    def _choose(self, start: int, closing: int) -> Node | None:
        if "choose" not in self.kinds[start:closing]:
            return None
        middle = self.kinds.index("choose", start, closing)
        return call("binom", self.read(start + 1, middle), self.read(middle + 1, closing))

    def _atom(self, one: bool = False) -> Node:
        kind = self._peek()
        token = self.tokens[self.place] if kind else None
        if token is None:
            raise Unreadable("incomplete")
        if kind in _NUMERALS:
            return self._number(token)
        if kind.isalpha() and token.kind != "text":
            return self._named(kind, token, one)
        if kind in _GROUPS:
            return self._group()
        if kind in ("|", "norm"):
            return self._absolute(kind)
        if kind == "text" and self.depth > 1 and token.text.isalnum():
            self.place += 1
            return self._letter_after(token.text)  # inside a formula a single word in a text command is a name
        raise Unreadable("prose" if kind in ("text", "other") else "not_a_formula")

    def _number(self, token: Token) -> Node:
        self.place += 1
        text = token.text.replace(",", "").replace(" ", "")
        if self.place >= self.end:
            return literal(text)
        if self._peek() in ("overline", "dot") and "." in text and self.place + 1 < self.end:
            return self._repeating(text)
        if self._peek() == "_" and text.isdigit():
            return self._based(text)
        return literal(text)

    def _repeating(self, text: str) -> Node:
        """A decimal whose last digits repeat for ever."""
        self.place += 1
        closing = self.pairs.get(self.place, self.place)
        period = "".join(token.text for token in self.tokens[self.place : closing + 1] if token.kind == "number")
        if not period.isdigit() or len(text) + len(period) > 100:
            raise Unreadable("repeating")
        self.place = closing + 1
        shift = 10 ** len(text.partition(".")[2])
        tail = Fraction(int(period), (10 ** len(period) - 1) * shift)
        return number(Fraction(text.rstrip(".") or "0") + tail)

    def _based(self, digits: str) -> Node:
        self.place += 1
        base = self._argument()
        if base.op != "num" or not isinstance(base.value, int) or not 2 <= base.value <= 36 or len(digits) > 500:
            raise Unreadable("base")
        try:
            return number(int(digits, base.value))
        except ValueError:
            raise Unreadable("base") from None

    def _absolute(self, kind: str) -> Node:
        place = self.place + 1
        while place < self.end and self.kinds[place] != kind:
            place = self.pairs.get(place, place) + 1
        if place >= self.end or place == self.place + 1:
            raise Unreadable("unbalanced")
        node = self.read(self.place + 1, place)
        self.place = place + 1
        return call("abs", node)

    def _named(self, kind: str, token: Token, one: bool) -> Node:
        if kind == "bold" and token.text in "ijk":
            return self._letter(Token("letter", f"\\mathbf {token.text}", token.spaced), one)
        if kind in _LETTERS:
            return self._letter(token, one)
        if kind == "word":
            return self._word(token)
        if kind in _CONSTANTS:
            self.place += 1
            return _CONSTANTS[kind]
        if kind in _FUNCTIONS:
            return self._function(kind)
        special = _SPECIAL.get(kind)
        if special is not None:
            return special(self)
        if kind in _NO_ATOM or kind.startswith("set "):
            raise Unreadable("not_a_formula")
        return self._letter(Token("letter", "\\" + kind, token.spaced), one)

    def _word(self, token: Token) -> Node:
        """Letters in a row: a product of names, unless they look like a word."""
        text = token.text
        if looks_like_word(text) or len(text) > 12:
            raise Unreadable("prose")
        self.place += 1
        first, last = text[:-1], text[-1]
        factors = [_name(letter) for letter in first]
        self.place -= 1
        factors.append(self._letter(Token("letter", last, False), False))
        return Node("mul", tuple(factors))

    def _letter(self, token: Token, one: bool) -> Node:
        self.place += 1
        name = token.text
        if one and self._peek() != "_":
            return _name(name)
        name = self._decorated(name)
        if self._calls(name):
            return self._call(name)
        return _name(name)

    def _decorated(self, name: str) -> str:
        """The name with its subscript and primes."""
        while True:
            kind = self._peek()
            if kind == "_":
                self.place += 1
                name += "_" + self._spelling()
            elif kind and set(kind) == {"'"}:
                name += self.tokens[self.place].text
                self.place += 1
            elif kind == "^" and self._raised_primes():
                name += "'" * self._raised_primes()
                self.place = self.pairs.get(self.place + 1, self.place + 1) + 1
            else:
                return name

    def _raised_primes(self) -> int:
        inside = self.kinds[self.place + 1 : self.pairs.get(self.place + 1, self.place + 1) + 1]
        marks = [kind for kind in inside if kind not in "{}"]
        return sum(map(len, marks)) if marks and all(set(kind) == {"'"} for kind in marks) else 0

    def _spelling(self) -> str:
        """A subscript as text."""
        closing = self.pairs.get(self.place, self.place)
        if closing >= self.end:
            raise Unreadable("unbalanced")
        inside = self.tokens[self.place : closing + 1]
        self.place = closing + 1
        return "".join(token.text for token in inside if token.text not in ("{", "}"))

    def _calls(self, name: str) -> bool:
        if self._peek() not in ("(",):
            return False
        return self.calls or name.partition("_")[0].rstrip("'") in _CALLED

    def _call(self, name: str) -> Node:
        closing = self.closing(self.place)
        if closing >= self.end:
            raise Unreadable("unbalanced")
        arguments = self._items(self.place + 1, closing)
        self.place = closing + 1
        return call("f:" + name, *arguments)

    def _items(self, start: int, end: int) -> list[Node]:
        items, place, begin = [], start, start
        while place < end:
            if self.kinds[place] == ",":
                items.append(self.read(begin, place))
                begin = place + 1
            place = self.pairs.get(place, place) + 1
        return [*items, self.read(begin, end)]

    def _function(self, name: str) -> Node:
        self.place += 1
        base = power = None
        while self._peek() in ("_", "^"):
            if self._peek() == "_":
                self.place += 1
                base = self._argument()
            elif self._is_degree_sign():
                raise Unreadable("degree")
            else:
                power = self._exponent()
        return _applied(name, base, power, self._operand())

    def _operand(self) -> Node:
        """What a function is applied to: a bracket, or the factors up to an operator or another function."""
        kind = self._peek()
        if kind in ("(", "[", "{", "\\{", "|"):
            node = self._absolute(kind) if kind == "|" else self._group()
            if self._peek() == "circ" or (self._peek() == "^" and self._is_degree_sign()):
                return self._power(node) if self._peek() == "^" else self._degrees(node)
            return node
        sign = self._signs()
        factors = [self._factor()]
        while self._continues(factors):
            factors.append(self._factor())
        node = factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
        if self._peek() == "/" and self._short_quotient():
            self.place += 1
            node = fraction(node, self._factor())
        return _signed(sign, node)

    def _short_quotient(self) -> bool:
        """`sin pi/3`: a number below the stroke, and the constant above it."""
        return (
            self.place + 1 < self.end
            and self.kinds[self.place + 1] == "number"
            and self.kinds[self.place - 1] == "pi"
            and not self.tokens[self.place].spaced
        )

    def _continues(self, factors: list[Node]) -> bool:
        kind = self._peek()
        if kind in ("(", "["):
            return all(factor.op == "num" for factor in factors)
        if kind in ("{", "letter", "frac", "sqrt", "pi"):
            return not (kind == "letter" and self.tokens[self.place].text in ("e", "i"))
        return kind in _GREEK

    def _fraction(self) -> Node:
        self.place += 1
        if self._peek() == "(" and self.tokens[self.place - 1].kind == "word":
            items = self._items(self.place + 1, self.closing(self.place))
            self.place = self.closing(self.place) + 1
            if len(items) != 2:
                raise Unreadable("fraction")
            return fraction(*items)
        derivative = self._derivative()
        if derivative is not None:
            return derivative
        above = self._argument()
        below = self._argument()
        return fraction(above, below)

    def _derivative(self) -> Node | None:
        r"""`\frac{d}{dx} …`: the operator, not a quotient."""
        inside = [token.text for token in self.tokens[self.place : self.place + 8] if token.text not in "{}"]
        spelt = "".join(inside[:3])
        first = self.pairs.get(self.place, -1)
        if (
            first != self.place + 2
            or not spelt.startswith(("dd", "partialpartial"))
            or self.kinds[first + 1 : first + 2] != ["{"]
        ):
            return None
        below = self.closing(first + 1)
        variable = "".join(token.text for token in self.tokens[first + 2 : below])
        self.place = below + 1
        return call("derivative", symbol(variable.removeprefix("d").removeprefix("partial")), self._product())

    def _root(self) -> Node:
        cube = self.tokens[self.place].text == "cbrt"
        self.place += 1
        index: Node = number(3 if cube else 2)
        if self._peek() == "[" and self.closing(self.place) < self.end - 1:
            closing = self.closing(self.place)
            index = self.read(self.place + 1, closing)
            self.place = closing + 1
        radicand = self._group() if self._peek() == "(" else self._argument()
        return call("root", radicand, index)

    def _binomial(self) -> Node:
        self.place += 1
        if self._peek() == "(":
            items = self._items(self.place + 1, self.closing(self.place))
            self.place = self.closing(self.place) + 1
        else:
            items = [self._argument(), self._argument()]
        if len(items) != 2:
            raise Unreadable("binomial")
        return call("binom", *items)

    def _bracketed(self) -> Node:
        name = {"lfloor": "floor", "lceil": "ceil"}.get(self._peek(), "")
        closing = self.closing(self.place)
        if not name or closing >= self.end:
            raise Unreadable("not_a_formula")
        node = self.read(self.place + 1, closing)
        self.place = closing + 1
        return call(name, node)

    def _listed(self) -> Node:
        name = self.kinds[self.place]
        self.place += 1
        if self._peek() not in ("(", "\\{", "{"):
            return call(name, self._operand())
        closing = self.closing(self.place)
        if closing >= self.end:
            raise Unreadable("unbalanced")
        items = self._items(self.place + 1, closing)
        self.place = closing + 1
        return call(name, *items)

    def _decoration(self) -> Node:
        name = self.kinds[self.place]
        self.place += 1
        inside = self._spelling()
        return self._letter_after(f"\\{name} {inside}")

    def _letter_after(self, name: str) -> Node:
        name = self._decorated(name)
        return self._call(name) if self.calls and self._peek() == "(" else _name(name)

    def _geometry(self) -> Node:
        """An angle or a triangle by its corners: one name."""
        name = self.kinds[self.place]
        self.place += 1
        kind = self._peek()
        if kind not in ("letter", "word"):
            raise Unreadable("not_a_formula")
        text = self.tokens[self.place].text
        self.place += 1
        return _name(f"\\{name} {text}")

    def _big(self) -> Node:
        r"""`\sum`, `\prod`, `\int`, `\lim` with their bounds and what they are applied to."""
        name = self.kinds[self.place]
        self.place += 1
        bounds: dict[str, tuple[int, int]] = {}
        while self._peek() in ("_", "^"):
            mark = self._peek()
            self.place += 1
            bounds[mark] = self._span()
        if name == "int":
            return self._integral(bounds)
        variable, lower = self._bound_name(bounds.get("_"))
        upper = self.read(*bounds["^"]) if "^" in bounds else values.INFINITY
        body = self._product()
        return call(name, variable, lower, upper, body)

    def _span(self) -> tuple[int, int]:
        start = self.place
        closing = self.pairs.get(start, start)
        self.place = closing + 1
        if closing >= self.end:
            raise Unreadable("incomplete")
        return (start + 1, closing) if self.kinds[start] == "{" else (start, closing + 1)

    def _bound_name(self, span: tuple[int, int] | None) -> tuple[Node, Node]:
        if span is None:
            return symbol("?"), values.MINUS_INFINITY
        start, end = span
        middle = next((place for place in range(start, end) if self.kinds[place] in ("=", "to", "rightarrow")), None)
        if middle is None:
            return self.read(start, end), values.MINUS_INFINITY
        return self.read(start, middle), self.read(middle + 1, end)

    def _integral(self, bounds: dict[str, tuple[int, int]]) -> Node:
        start = self.place
        for place in range(start, self.end - 1):
            if self.tokens[place].text == "d" and self.kinds[place + 1] in ("letter", "theta", "phi"):
                break
            if (
                self.tokens[place].kind == "word"
                and self.tokens[place].text[0] == "d"
                and len(self.tokens[place].text) == 2
            ):
                break
        else:
            if (
                self.end <= start
                or self.tokens[self.end - 1].kind != "word"
                or self.tokens[self.end - 1].text[0] != "d"
            ):
                raise Unreadable("integral")
            place = self.end - 1
        body = self.read(start, place) if place > start else ONE
        word = self.tokens[place].kind == "word"
        variable = symbol(self.tokens[place].text[1:] if word else self.tokens[place + 1].text)
        self.place = place + (1 if word else 2)
        lower = self.read(*bounds["_"]) if "_" in bounds else values.MINUS_INFINITY
        upper = self.read(*bounds["^"]) if "^" in bounds else values.INFINITY
        return call("int", variable, lower, upper, body)

    def _matrix(self) -> Node:
        """A matrix environment as a node `mat` of nodes `row`."""
        name = self.tokens[self.place + 2].text if self.place + 2 < self.end else ""
        rows, self.place = self.rows(self.place, self.end)
        cells = tuple(Node("row", tuple(self.read(*cell) for cell in row)) for row in rows)
        if not cells or len({len(row.args) for row in cells}) != 1:
            raise Unreadable("matrix")
        matrix = Node("mat", cells)
        return call("det", matrix) if name == "vmatrix" else matrix

    def rows(self, start: int, end: int) -> tuple[list[list[tuple[int, int]]], int]:
        """The cells of an environment as token spans, row by row, and the place behind it."""
        place = self.pairs.get(start + 1, -1) + 1
        if place <= 0 or place >= end:
            raise Unreadable("environment")
        if self.tokens[start + 2].text in ("array", "tabular") and self.kinds[place] == "{":
            place = self.closing(place) + 1
        rows: list[list[tuple[int, int]]] = [[]]
        begin = place
        while place < end and self.kinds[place] != "end":
            if self.kinds[place] in ("&", "\\"):
                rows[-1].append((begin, place))
                if self.kinds[place] == "\\":
                    rows.append([])
                begin = place + 1
            place = self.pairs.get(place, place) + 1
        if place >= end:
            raise Unreadable("environment")
        if begin < place:
            rows[-1].append((begin, place))
        return [row for row in rows if row], self.closing(place + 1) + 1


_SPECIAL = {
    "frac": Formulas._fraction,
    "sqrt": Formulas._root,
    "cbrt": Formulas._root,
    "binom": Formulas._binomial,
    "lfloor": Formulas._bracketed,
    "lceil": Formulas._bracketed,
    "sum": Formulas._big,
    "prod": Formulas._big,
    "int": Formulas._big,
    "lim": Formulas._big,
    "angle": Formulas._geometry,
    "triangle": Formulas._geometry,
    "begin": Formulas._matrix,
    "floor": Formulas._listed,
    "ceil": Formulas._listed,
    "abs": Formulas._listed,
    **dict.fromkeys(_LISTED, Formulas._listed),
    **dict.fromkeys(_DECORATIONS, Formulas._decoration),
}
_GREEK = frozenset(
    listed(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau "
        "upsilon phi chi psi omega"
    )
)
_WORDS = frozenset(
    listed("yes no odd even all any one two six ten red but not the are was has his her its day may can men for")
)
_VOWELS = frozenset("aeiouyAEIOUY")


def looks_like_word(text: str) -> bool:
    """Are letters in a row a word rather than a product of names? Capitals in a row and short runs are names."""
    if text.isupper():
        return len(text) > 6
    if len(text) <= 3:
        return text.lower() in _WORDS or (text[0].isupper() and text[1:].islower() and len(text) == 3)
    letters = "".join(sorted(set(text)))
    return not (letters == text or not _VOWELS & set(text) or len(set(text.lower())) < 3)


def literal(text: str) -> Node:
    """The exact number that a decimal literal spells; a large power of ten stays a power. Raises `Unreadable`."""
    if len(text) > MAX_DIGITS:
        raise Unreadable("too_many_digits")
    if text.isdigit():
        return number(int(text))
    mantissa, _, exponent = text.lower().partition("e")
    if not exponent:
        return number(decimal(mantissa))
    if len(exponent) > 30:
        raise Unreadable("too_many_digits")
    if abs(int(exponent)) <= MAX_EXPONENT:
        return number(whole(Fraction(mantissa) * Fraction(10) ** int(exponent)))
    return Node("mul", (number(whole(Fraction(mantissa))), Node("pow", (TEN, number(int(exponent))))))


def decimal(text: str) -> int | Fraction:
    """The exact value of digits with a point among them."""
    above, _, below = text.partition(".")
    return whole(Fraction(int(above + below), 10 ** len(below)))


def whole(value: Fraction) -> int | Fraction:
    """An `int` where that is exact."""
    return value.numerator if value.denominator == 1 else value


def fraction(above: Node, below: Node) -> Node:
    """A quotient; of two numbers it is a number, as long as the divisor is not zero."""
    if above.op == below.op == "num" and below.value:
        return number(whole(Fraction(above.value, below.value)))
    return Node("div", (above, below))


def _signed(sign: str, node: Node) -> Node:
    if sign == "-":
        return negative(node)
    return Node(sign, (node,)) if sign else node


def _name(name: str) -> Node:
    if name == "e":
        return values.E
    return values.IMAGINARY if name in ("i", "\\imath", "\\iota") else symbol(name)


def _applied(name: str, base: Node | None, power: Node | None, operand: Node) -> Node:
    """A function of an operand; the power minus one means the inverse of a trigonometric function."""
    if power is not None and power == values.MINUS_ONE and name in _INVERSES:
        return call(_INVERSES[name], operand)
    name = {"lg": "log", "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh"}.get(name, name)
    if name == "exp":
        applied = Node("pow", (values.E, operand))
    else:
        applied = call(name, operand) if base is None else call(name, operand, base)
    return applied if power is None else Node("pow", (applied, power))


_INVERSES = {name: "arc" + name for name in listed("sin cos tan cot sec csc sinh cosh tanh")}


def _is_mixed(tokens: Sequence[Token], kinds: Sequence[str], place: int, above: list[Node], factor: Node) -> bool:
    """Is this factor the fraction of a mixed number, a whole number directly before a fraction of numbers?"""
    if kinds[place] != "frac" or factor.op != "num" or not isinstance(factor.value, Fraction):
        return False
    return (
        kinds[place - 1] == "number" and tokens[place - 1].text.isdigit() and above[-1].op == "num" and factor.value > 0
    )


def _binds_left(tokens: Sequence[Token], kinds: Sequence[str], place: int) -> bool:
    """`a/bc` means a/(bc) when the letters stand together; after a number or a space it is read from left to right."""
    return (
        kinds[place] in ("letter", "pi", "sqrt")
        and kinds[place - 1] in ("letter", "word", "pi")
        and not tokens[place].spaced
    )
