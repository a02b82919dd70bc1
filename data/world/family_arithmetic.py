"""Arithmetic of the token families besides `mul`, for the choices that name them: sums, squares, quotients and the
recited table in the forms that injection knows (tokenizer/forms.py), and in words.

As with products (arithmetic.py), a rewritten equation is one token that does not show its result, so each form also
states the result in a way that stays text. What the arithmetic probes (data/probes.py) ask is left out.
"""

import random
from collections.abc import Iterator
from itertools import islice

from data.formats import chat_document
from data.world.arithmetic import PROBED
from data.world.draws import shuffled_cycle
from tokenizer.families import read_families
from tokenizer.forms import recited

EQUATIONS = {
    "add": ("{a}+{b}={c}", "{a} + {b} = {c}"),
    "square": ("{a}²={c}", "{a}^2 = {c}", "{a}**2={c}", "{a}² = {c}"),
    "div": ("{a}/{b}={c}", "{a} / {b} = {c}", "{a} ÷ {b} = {c}", "{a}÷{b}={c}"),
}
STATEMENTS = {
    "add": ("{a} plus {b} is {c}.", "The sum of {a} and {b} is {c}.", "{a} + {b} makes {c}."),
    "square": ("{a} squared is {c}.", "The square of {a} is {c}.", "{a}² is {c}."),
    "div": ("{a} divided by {b} is {c}.", "{a} ÷ {b} is {c}.", "{b} goes into {a} {c} times."),
}
QUESTIONS = {
    "add": ("How much is {a} + {b}?", "Add {a} and {b}."),
    "square": ("What is {a} squared?", "What is {a}²?", "Calculate {a}^2."),
    "div": ("What is {a} divided by {b}?", "What is {a} ÷ {b}?", "Calculate {a} / {b}."),
}
NOTES = {"add": "{a} + {b} = <<{a}+{b}={c}>>{c}", "square": "{a}² = <<{a}^2={c}>>{c}"}
NOTES |= {"div": "{a} ÷ {b} = <<{a}/{b}={c}>>{c}"}
FAMILIES = (*EQUATIONS, "chinese")


def family_documents(family: str, count: int, rng: random.Random) -> list[str]:
    """`count` documents about the facts of one of FAMILIES: equations, statements, questions with their answers."""
    if family == "chinese":
        return list(islice(_recitations(rng), count))
    forms = [_equation_lists(family, rng), _statements(family, rng), _drills(family, rng)]
    return [next(forms[i % len(forms)]) for i in range(count)]


def _numbers(family: str, rng: random.Random) -> Iterator[dict[str, int]]:
    """The facts in balanced cycles, sums in both orders."""
    facts = [(*fact.operands, fact.value) for fact in read_families()[family].facts]
    if family == "add":
        both = {(x, y, c) for a, b, c in facts for x, y in ((a, b), (b, a))}
        facts = sorted(each for each in both if ("+", *each[:2]) not in PROBED)
    for a, b, c in shuffled_cycle(facts, rng):
        yield {"a": a, "b": b, "c": c}


def _equation_lists(family: str, rng: random.Random) -> Iterator[str]:
    numbers = _numbers(family, rng)
    for style in shuffled_cycle(EQUATIONS[family], rng):
        yield rng.choice(("\n", ", ")).join(style.format(**each) for each in islice(numbers, 6))


def _statements(family: str, rng: random.Random) -> Iterator[str]:
    numbers, sentences = _numbers(family, rng), shuffled_cycle(STATEMENTS[family], rng)
    while True:
        yield " ".join(next(sentences).format(**each) for each in islice(numbers, 3))


def _drills(family: str, rng: random.Random) -> Iterator[str]:
    asked = shuffled_cycle(QUESTIONS[family], rng)
    for each in _numbers(family, rng):
        answer = f"{NOTES[family].format(**each)}\n#### {each['c']}"
        yield chat_document(next(asked).format(**each), answer)


def _recitations(rng: random.Random) -> Iterator[str]:
    """One row of the table as it is recited, and then one of its products in digits."""
    digits = " 一二三四五六七八九"
    for b in shuffled_cycle(range(1, 10), rng):
        row = "，".join(f"{digits[a]}{digits[b]}{recited(a * b)}" for a in range(1, b + 1))
        a = rng.randint(1, b)
        yield f"{row}。\n{digits[a]}{digits[b]}{recited(a * b)}: {a} times {b} is {a * b}."
