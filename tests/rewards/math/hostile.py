"""Inputs made to hang, exhaust or crash a grader: (gold, completion) by name."""

from __future__ import annotations


def _boxed(formula: str) -> str:
    return f"\\boxed{{{formula}}}"


def _matrix(size: int, entry: str) -> str:
    rows = r"\\".join("&".join(entry.format(i=i, j=j) for j in range(size)) for i in range(size))
    return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"


_FORMULAS = {
    "power tower": "10^{10^{10^{10}}}",
    "tower of fives": "5^{5^{5^{5^5}}}",
    "tower of letters": "x^{x^{x^{x^{x^x}}}}",
    "iterated factorials": "9!!!!!",
    "factorial of a power": "(10^{10})!",
    "large factorial": "1000000!",
    "huge binomial": r"\binom{10^9}{5\cdot 10^8}",
    "binomial of binomials": r"\binom{\binom{1000}{500}}{\binom{500}{250}}",
    "a million digits": "7" * 1_000_000,
    "a hundred thousand digits": "7" * 100_000,
    "a million decimals": "0." + "3" * 1_000_000,
    "many exponents": "2" + "^2" * 500,
    "3,000 parentheses": "(" * 3_000 + "1" + ")" * 3_000,
    "3,000 braces": "{" * 3_000 + "1" + "}" * 3_000,
    "3,000 roots": r"\sqrt{" * 3_000 + "2" + "}" * 3_000,
    "100 roots": r"\sqrt{2+" * 100 + "2" + "}" * 100,
    "3,000 fractions": r"\frac{1}{" * 3_000 + "2" + "}" * 3_000,
    "3,000 unclosed": "(" * 3_000,
    "3,000 minus signs": "-" * 3_000 + "1",
    "3,000 absolute bars": "|" * 3_000 + "1",
    "80 × 80 numbers": _matrix(80, "{i}{j}"),
    "80 × 80 symbols": _matrix(80, "x_{{{i}{j}}}"),
    "determinant of 8 × 8 symbols": r"\det" + _matrix(8, "a_{{{i}{j}}}"),
    "power of a matrix": _matrix(10, "{i}.{j}") + "^{1000000}",
    "long sum": r"\sum_{n=1}^{1000000000} \frac{1}{n^2+n+1}",
    "long product": r"\prod_{n=1}^{1000000000} (1+\frac1{n^3})",
    "sum of sums": r"\sum_{a=1}^{10^5}\sum_{b=1}^{10^5}\sum_{c=1}^{10^5} abc",
    "10,000 terms": "+".join(f"x^{{{n}}}" for n in range(10_000)),
    "10,000 names": "+".join(f"x_{{{n}}}" for n in range(10_000)),
    "large power of a sum": "(a+b+c+d+e)^{1000}",
    "product of 200 sums": "".join(f"(x+{n})" for n in range(200)),
    "gcd of large numbers": r"\gcd(10^{100000}, 6^{90000})",
    "digits of pi": r"\lfloor \pi^{10000000} \rfloor",
    "17th roots of trigonometry": r"\prod_{k=1}^{16} \sin\frac{k\pi}{17}" * 8,
    "equation of high degree": "x^{800}+x^{799}-3x^{7}+1=0",
    "trigonometric equation": r"\sin(x^2)+\cos(\tan x)=e^{x}",
    "nested logarithms": r"\log(" * 200 + "x" + ")" * 200,
    "nested functions": r"\sin(\cos(" * 200 + "x" + "))" * 200,
    "exponents of e": "e^{" * 200 + "1" + "}" * 200,
    "near a pole": r"\tan(\frac{\pi}{2}-10^{-300})",
    "huge modulus": r"2^{10^{18}} \bmod (10^{18}+9)",
    "5,000 members": r"\{" + ",".join(map(str, range(5_000))) + r"\}",
    "5,000 members backwards": r"\{" + ",".join(map(str, range(5_000, 0, -1))) + r"\}",
    "2,000 plus or minus": ",".join(rf"\pm {n}" for n in range(2_000)),
    "30 signs in one": r"\pm 1 " * 30,
    "500 intervals": r"\cup".join(f"({n},{n}.5)" for n in range(500)),
    "chain of 2,000": "=".join(["1"] * 2_000),
    "chain of 2,000 bounds": "<".join(map(str, range(2_000))),
    "units to the power": r"5 \text{ m}^{10^{9}}",
    "base one billion": "12_{1000000000}",
    "1,000 recurring digits": r"0.\overline{" + "142857" * 200 + "}",
    "all backslashes": "\\" * 50_000,
    "all carets": "^" * 50_000,
    "all dollars": "$ " * 50_000,
    "spaces between ones": "1 " * 50_000,
    "commas": "," * 50_000,
    "combining accents": "x" + "\u0301" * 50_000,
    "wide digits": "\uff11" * 50_000,
    "right-to-left marks": "\u202e" * 50_000 + "1",
    "begin without end": r"\begin{matrix}" * 2_000,
    "left without right": r"\left(" * 2_000,
    "text in text": r"\text{" * 2_000 + "a" + "}" * 2_000,
}

INPUTS: dict[str, tuple[str, str]] = {name: ("1", _boxed(formula)) for name, formula in _FORMULAS.items()}
INPUTS |= {f"{name}, against itself less one": (f"{formula}-1", _boxed(formula)) for name, formula in _FORMULAS.items()}
INPUTS |= {
    "1,000 boxes": ("1", "".join(_boxed(str(n)) for n in range(1_000))),
    "box in box": ("1", r"\boxed{" * 5_000 + "1" + "}" * 5_000),
    "5,000 unclosed boxes": ("1", r"\boxed{" * 5_000),
    "20,000 brackets": ("1", r"\[" * 20_000),
    "20,000 dollars": ("1", "$ " * 20_000),
    "50,000 ones": ("1", "1 " * 50_000),
    "100,000 answers": ("1", "The answer is 2. " * 60_000),
    "100,000 tags": ("1", "<answer>" * 100_000),
    "100,000 thoughts": ("1", "<think></think>" * 60_000),
    "a megabyte of letters": ("1", "a" * 1_000_000),
    "a megabyte of spaces": ("1", " " * 1_000_000),
    "a megabyte of lines": ("1", "\n" * 1_000_000),
    "a megabyte of hashes": ("1", "####" * 250_000),
    "a megabyte in a box": ("1", _boxed("x+" * 500_000 + "1")),
    "a megabyte of asterisks": ("1", "**" * 500_000),
}
