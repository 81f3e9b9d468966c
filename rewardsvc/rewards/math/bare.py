r"""Is a text a value and nothing else: `42`, `\frac12`, `$x=3$`, `(1, 2)`, `64 square feet`, `41 or 42`, `Evelyn`?

This is asked of a whole completion, which is an answer if it is one, and of what follows "the answer is". It looks at
words only and never picks a number out of a sentence: `maybe 7`, `7 is my guess` and `we get 7` are no values.
"""

from __future__ import annotations

import re

MAX_BARE = 4_000
"""Characters; nothing longer is one short line of mathematics."""
_MAX_WORDS = 6

UNIT = re.compile(
    r"""(?:percent(?:age)?|per\scent|pct|degrees?|radians?|hours?|hrs?|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|
    years?|inch(?:es)?|foot|feet|ft|yards?|miles?|(?:kilo|centi|milli)?met(?:er|re)s?|(?:kilo|milli)?grams?|kilos?|tons?|
    pounds?|lbs?|ounces?|oz|(?:milli)?lit(?:er|re)s?|gallons?|quarts?|pints?|cups?|dollars?|cents?|euros?|yuan|rupees?|
    pesos?|square|sq|cubic|cu|units?|cm|mm|km|kg|mg|ml|kph|mph|hz|times|points?|am|pm)\b\.?""",
    re.VERBOSE | re.IGNORECASE,
)
"""A word that says in what a number is measured."""

# Words of mathematics, and words that stand between values or before them.
_MATHEMATICAL = re.compile(
    r"""(?:a?r?c?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|lg|exp|sqrt|root|pi|theta|alpha|beta|gamma|lambda|omega|phi|
    mod|gcd|lcm|max|min|sup|inf|lim|det|tr|deg|rad|infinity|infty|oo|abs|floor|ceil|binom|choose|frac|
    and|or|if|for|where|when|otherwise|with|any|all|integers?|real|to|by|in|of|over|union|cup|cap|plus|minus|
    undefined|none|no|solutions?|empty|set|true|false|yes|even|odd|prime|positive|negative|repeating|
    am|pm|base|vs|und|oder|et|ou|y|o|per|each|than|less|greater|equal)\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_SPEAKING = re.compile(
    r"""\b(?:is|are|was|were|be|been|am\s+not|isn|has|have|had|do|does|did|can|cannot|could|may|might|must|shall|should|
    will|would|the|this|that|these|those|there|here|it|its|we|you|he|she|they|my|our|your|their|his|her|
    not|but|so|thus|hence|therefore|because|since|then|now|maybe|perhaps|probably|possibly|guess|think|believe|know|
    sure|unsure|wait|let|get|gets|got|find|found|give|gives|given|need|want|say|says|answers?|result|about|around|approximately|
    roughly|nearly|almost|actually|likely|either|neither|option|step|what|which|who|how|why|please|sorry|refuse|cannot)\b
    |n't|[a-z]!\s|(?-i:\bI(?:\s[a-z]{2,}|['’]))""",
    re.VERBOSE | re.IGNORECASE,
)
_FIXED = re.compile(
    r"""\b(?:does\snot\sexist|cannot\sbe\sdetermined|not\senough\sinformation|not\sdefined)\b|
    \b[a-z]\b\$?\sis\s(?:an?\s|any\s)?(?:\w+\s)?(?:integer|number|constant)\b|\A(?:option|choice)\s\(?[A-H]\)?\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_SKIPPED = re.compile(
    r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|operatorname)\*?\s?\{[^{}]{0,400}\}|"
    r"\\begin\{[a-z*]{1,20}\}(?:\{[^{}]{0,40}\})?|\\end\{[a-z*]{1,20}\}|[\\\t\x0c\x08][A-Za-z]+|[_^]\s?\{[^{}]{0,80}\}"
)
_ENVIRONMENT = re.compile(r"\\begin\{([a-z]{1,12}\*?)\}.{0,4000}?\\end\{\1\}", re.DOTALL)
# Latin, Greek, letter-like symbols (ℝ), mathematical alphabets: what a single letter of a formula may be.
_SYMBOL = re.compile("[A-Za-z\u0370-\u03ff\u2100-\u214f\U0001d400-\U0001d7ff]")
_WORD = re.compile(r"[^\W\d_]+")
_STARTS_AS_VALUE = re.compile(
    r"""(?:\(?[A-H][).:]\s*)?(?:(?:all|every|any|between|at\s(?:least|most))\b|
    [\s$*_`(\[{|<"'“]*+[-+−±~≈]?\s*(?:[$€£¥]|\\\$)?\s*[\d.\\√∞π])""",
    re.VERBOSE | re.IGNORECASE,
)
_LABELLED = re.compile(r"(?:[^\W\d_][\w ]{0,30}+[:=：][^,;:=]{1,40}+(?:[,;]\s?|\Z)){1,20}+\Z")


def is_value(text: str) -> bool:
    """Whether `text`, without white space around it, is one value or one list of values and no sentence."""
    if not text or len(text) > MAX_BARE or "\n\n" in text or _several_lines(text):
        return False
    rest = _FIXED.sub(" ", _SKIPPED.sub(" ", text))
    words = _WORD.findall(rest)
    if "?" in rest or (words and _SPEAKING.search(rest)):
        return False
    words = [word for word in words if not _is_mathematical(word)]
    return not words or (len(words) <= _MAX_WORDS and _words_fit(text, words))


def _several_lines(text: str) -> bool:
    """More than one line, unless a displayed formula or an environment runs over them."""
    return "\n" in text and not text.startswith(("\\[", "$$", "\\(")) and "\n" in _ENVIRONMENT.sub("", text)


def _is_mathematical(word: str) -> bool:
    """Names of variables and of geometry (`x`, `ab`, `SABC`) are mathematics as well."""
    if not word.isascii():
        return len(word) <= 3 and not any(letter.isalpha() and not _SYMBOL.match(letter) for letter in word)
    return len(word) <= 3 or (word.isupper() and len(word) <= 6) or _MATHEMATICAL.match(word) is not None


def _words_fit(text: str, words: list[str]) -> bool:
    """Words may name what was counted or measured, be labels of values, or be the answer when there is no number."""
    if not any(character.isdigit() for character in text):
        return len(words) <= 4
    return _STARTS_AS_VALUE.match(text) is not None or _LABELLED.match(text) is not None
