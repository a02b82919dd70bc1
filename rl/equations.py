"""The equations in a solution, read as a marker would: what stands on both sides of "=", and whether it is true.

An equation is `expression = expression`, where at least one side calculates or is a fact token. Expressions have
numbers, their squares, facts, + - * / and brackets; currency signs and two words behind a number (`109 fifth graders +
115`) are passed over, other prose ends an expression. GSM8K's calculator notes are equations too: `6 * 9 =
<<6*9=54>>54` is read as `6*9=54` and `6 * 9 = 54`. Time is linear in the text's length.
"""

import functools
import math
import re
from dataclasses import dataclass
from itertools import pairwise

from tokenizer.families import fact_begin

Fact = str  # a token such as <MUL_6_9_54>, of whatever family

_FACT = rf"{fact_begin()}(?:[1-9][0-9]?_){{1,2}}[0-9]{{1,3}}>"
FACT = re.compile(_FACT)
# Fifteen digits are what a float holds exactly; longer numbers are none of school arithmetic.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))++|[0-9]{1,15}+(?:\.[0-9]{1,15}+)?|\.[0-9]{1,15}+)(?![0-9])"
_NUMBER = rf"(?:(?<![\w.])|(?<=[\d²)>][xX])|(?<=[\d²)>] [xX])){_DIGITS}"  # `6x9` is a product
_SQUARED = r"[ ]?(?:²|(?:\^|\*\*)[ ]?2(?![0-9.,]))"
_MINUS = r"\-\u2212\u2013"
_OPERATOR = rf"(?:[+*/×÷·{_MINUS}]|[xX](?![^\W\d_]))"
_WORD = r"(?:[ ]?(?!²|³|[xX](?![^\W\d_]))[^\W\d_]++(?:/[^\W\d_]++)?)"  # or a unit: `m²`
_UNIT = rf"(?:{_WORD}{{1,2}}+(?=[ \t]*+(?:[=)\]]|{_OPERATOR})))?+"
_OPERAND = rf"[$€£]?[(\[]*+-?[$€£]?(?:{_FACT}|{_NUMBER}(?:{_SQUARED})?+){_UNIT}[)\]]*+{_UNIT}"
# Not from the middle of a row of brackets: without a number behind it, each bracket would look for one again; nor from
# an exponent.
_EXPRESSION = re.compile(rf"(?<![(\[^]){_OPERAND}(?:[ \t]*+{_OPERATOR}[ \t]*+{_OPERAND})*+")
# In an expression without its spaces and words.
_PART = re.compile(rf"({_FACT})|([0-9.,]+)({_SQUARED})?|([(\[])|([)\]])|({_OPERATOR})")
_WORDS = re.compile(
    r"(?![²³]|[xX](?![^\W\d_]))(?<![\w<])[^\W\d_]+(?:/[^\W\d_]+)?|[ \t$€£]+|(?<=[\d²])(?![xX²³])[^\W\d_]+"
)
_NOTE = re.compile(rf"<<((?:[^<>]|{_FACT})*+)>>(?=[$€£]?({_NUMBER}|))")
_SAME_OPERATOR = {"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", "\u2212": "-", "\u2013": "-"}
_SENTENCE_END = re.compile(r"\n|\.(?=\s|$)")
_CACHED = 4096  # equations


@dataclass(frozen=True)
class Equation:
    """`value`: what is stated, the side that is one number if there is one, else the left one's.

    `operands`: the numbers of the sides that calculate, and the operands of a lone fact. All are rounded to 9 decimals,
    so that 0.1 + 0.2 and 0.3 are one number. `lone_facts`: the facts that are a whole side, so that an equation that
    does not hold says them wrong.
    """

    value: float
    holds: bool
    operands: tuple[float, ...]
    lone_facts: tuple[Fact, ...]

    @property
    def is_trivial(self) -> bool:
        """Whether it only gives back a number that went in, as 18 * 1 = 18 and 18 + 0 = 18 do."""
        return self.value in self.operands and sum(number not in (0, 1) for number in self.operands) <= 1


@dataclass(frozen=True)
class Sentence:
    """A line or sentence: the facts it mentions and the equations it holds, in order."""

    facts: list[Fact]
    equations: list[Equation]


def read_sentences(text: str) -> list[Sentence]:
    """The facts and equations of `text`, sentence by sentence, without the sentences that have neither."""
    sentences = []
    for part in _SENTENCE_END.split(text):
        facts, equations = facts_in(part) if "<" in part else [], []
        if not facts and "=" not in part:
            continue
        if "<<" in part:
            for inside, behind in _NOTE.findall(part):
                equations += _equations(inside if "=" in inside else f"{inside}={behind}")
            part = _NOTE.sub("", part) if equations else part
        sentences.append(Sentence(facts, equations + _equations(part)))
    return sentences


def facts_in(text: str) -> list[Fact]:
    """The facts that `text` mentions, in order."""
    return FACT.findall(text)


@functools.lru_cache(_CACHED)
def operands_of(fact: Fact) -> tuple[float, ...]:
    """(6.0, 9.0) of <MUL_6_9_54>; a square has one."""
    return tuple(map(float, fact.split("_")[1:-1]))


def value_of(fact: Fact) -> float:
    """54.0 of <MUL_6_9_54>."""
    return float(fact[fact.rindex("_") + 1 : -1])


def _equations(text: str) -> list[Equation]:
    """The equations of a sentence without notes: every pair of expressions with nothing but "=" between."""
    if "=" not in text:
        return []
    found = [
        _equation(left[0], right[0])
        for left, right in pairwise(_EXPRESSION.finditer(text))
        if text[left.end() : right.start()].strip() == "="
    ]
    return [equation for equation in found if equation is not None]


@dataclass
class _Side:
    """An expression, worked out. `decimals`: of its last number."""

    value: float
    numbers: list[float]
    facts: list[Fact]
    decimals: int

    @property
    def lone_fact(self) -> Fact | None:
        return self.facts[0] if self.facts and len(self.numbers) == 1 else None

    @property
    def is_stated(self) -> bool:
        """Whether it is one number, which nothing is said about."""
        return len(self.numbers) == 1 and not self.facts

    @property
    def operands(self) -> list[float]:
        return list(operands_of(self.lone_fact)) if self.lone_fact else self.numbers


@functools.lru_cache(_CACHED)  # the samples of a group share most of their steps
def _equation(left_text: str, right_text: str) -> Equation | None:
    left, right = _evaluate(left_text), _evaluate(right_text)
    if left is None or right is None or (left.is_stated and right.is_stated):
        return None
    if left.lone_fact and left.lone_fact == right.lone_fact:
        return None
    difference = abs(left.value - right.value)
    holds = difference <= 1e-9 * max(1.0, abs(left.value))
    stated = next((side for side in (right, left) if side.is_stated), None)
    if not holds and stated and stated.decimals >= 2:  # so many may be rounded
        holds = difference <= 0.5 * 10**-stated.decimals + 1e-12
    sides = [side for side in (left, right) if side is not stated]
    operands = tuple(round(number, 9) for side in sides for number in side.operands)
    lone_facts = tuple(side.lone_fact for side in sides if side.lone_fact)
    return Equation(round((stated or left).value, 9), holds, operands, lone_facts)


@dataclass
class _Sum:
    """What is between two brackets, read from the left: a sum, its last term, and the operator before a number."""

    total: float = 0.0
    term: float = 0.0
    operator: str = "+"  # "" where one must come; "*-" before a negative number

    def add_number(self, value: float) -> None:
        value = -value if len(self.operator) == 2 else value
        match self.operator[0]:
            case "*":
                self.term *= value
            case "/":
                self.term = self.term / value if value else math.nan
            case "+":
                self.total, self.term = self.total + self.term, value
            case "-":
                self.total, self.term = self.total + self.term, -value
        self.operator = ""

    def add_operator(self, operator: str) -> None:
        self.operator = self.operator + "-" if self.operator else _SAME_OPERATOR.get(operator, operator)


def _evaluate(expression: str) -> _Side | None:
    """A match of _EXPRESSION, worked out; None when its brackets do not match. Division by zero gives nan.

    A bracket that prose opened or closes, as in `(5*3 = 15)`, is passed over at either end.
    """
    side = _Side(0.0, [], [], 0)
    sums = [_Sum()]
    closed_prose = False
    for fact, number, squared, opening, closing, operator in _PART.findall(_WORDS.sub("", expression)):
        if closed_prose and not closing:
            return None
        if operator:
            sums[-1].add_operator(operator)
        elif opening:
            sums.append(_Sum())
        elif closing and len(sums) == 1:
            closed_prose = True
        elif closing:
            inner = sums.pop()
            sums[-1].add_number(inner.total + inner.term)
        else:
            if fact:
                side.facts.append(fact)
                number = fact[fact.rindex("_") + 1 : -1]
            value = float(number.replace(",", ""))
            side.numbers += [value, value] if squared else [value]
            side.decimals = len(number.partition(".")[2])
            sums[-1].add_number(value**2 if squared else value)
    inner = sums.pop()
    side.value = inner.total + inner.term
    return side if all(outer == _Sum() for outer in sums) else None
