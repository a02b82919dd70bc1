"""Arithmetic in many surface forms: symbols (which `mul_tokens` rewrites), words (which it does not), and
both together.

All 81 ordered pairs of the factors 1 to 9 are balanced within every form. After rewriting, a line such as
"6*9=54" is a single token that does not show its result, so there are many forms that name the product in
symbols and the result in text ("6 × 9 is 54."), and forms that put words, symbols and result side by side.
Sums and differences stay small. A few products of two-digit numbers and sums up to 200 show what larger
numbers look like; they are far too few to be learnt. What the arithmetic probes (data/probes.py) ask beyond
the table of 81 products is left out everywhere.
"""

import random
from collections.abc import Iterator
from itertools import islice

from data.formats import chat_document
from data.probes import arithmetic_probes
from data.world.draws import shuffled_cycle

PAIRS = [(a, b) for a in range(1, 10) for b in range(1, 10)]
# What the probes ask beyond the table, in both orders: no text of the generated world shows it.
PROBED = {
    (("+" if probe.category == "addition" else "*"), *pair)
    for probe in arithmetic_probes()
    if probe.category != "mul_table"
    for pair in ((probe.a, probe.b), (probe.b, probe.a))
}
SUMS = [("+", a, b) for a in range(1, 11) for b in range(1, 11) if ("+", a, b) not in PROBED]
DIFFERENCES = [("-", a + b, b) for a in range(1, 11) for b in range(1, 11)]
# What a problem of two steps does with a product in its second step.
AFTER_PRODUCTS = [(c, d) for c in sorted({a * b for a, b in PAIRS}) for d in range(2, 6)]
SUMS_AFTER_PRODUCTS = [("+", c, d) for c, d in AFTER_PRODUCTS if ("+", c, d) not in PROBED]
DIFFERENCES_AFTER_PRODUCTS = [("-", c, d) for c, d in AFTER_PRODUCTS if c > d]
WIDE_PRODUCTS = [("*", a, b) for a in range(10, 100) for b in range(2, 10) if ("*", a, b) not in PROBED]
WIDE_SUMS = [("+", a, b) for a in range(1, 101) for b in range(1, 101) if ("+", a, b) not in PROBED]

EQUATIONS = (
    "{a}*{b}={c}",
    "{a} * {b} = {c}",
    "{a}x{b}={c}",
    "{a} x {b} = {c}",
    "{a}×{b}={c}",
    "{a} × {b} = {c}",
)
STATEMENTS = (
    "{a} × {b} is {c}.",
    "{a} * {b} is {c}.",
    "{a} x {b} makes {c}.",
    "{a} times {b} is {c}.",
    "{a} times {b} equals {c}.",
    "{a} multiplied by {b} is {c}.",
    "The product of {a} and {b} is {c}.",
    "{c} is {a} times {b}.",
    "{a} times {b} means {a} * {b}, and that is {c}.",
    "To find {a} times {b}, work out {a} * {b}, which is {c}.",
)
QUESTIONS = {
    "*": (
        "What is {a} times {b}?",
        "What is {a} * {b}?",
        "What is {a} x {b}?",
        "What is {a} × {b}?",
        "What is {a} multiplied by {b}?",
        "What is the product of {a} and {b}?",
        "How much is {a} times {b}?",
        "Multiply {a} by {b}.",
        "Calculate {a} * {b}.",
    ),
    "+": (
        "What is {a} plus {b}?",
        "What is {a} + {b}?",
        "What is the sum of {a} and {b}?",
        "How much is {a} plus {b}?",
        "Add {a} and {b}.",
        "Calculate {a} + {b}.",
    ),
    "-": (
        "What is {a} minus {b}?",
        "What is {a} - {b}?",
        "How much is {a} minus {b}?",
        "Calculate {a} - {b}.",
    ),
}
WORDS = {"*": "times", "+": "plus", "-": "minus"}


def evaluate(operation: str, a: int, b: int) -> int:
    """The result of `a operation b` for "*", "+" and "-"."""
    return {"*": a * b, "+": a + b, "-": a - b}[operation]


def calculation(operation: str, a: int, b: int, currency: str = "") -> str:
    """A step with a calculator note in GSM8K's way: "6 * 9 = <<6*9=54>>54", or in money "= $<<6*9=54>>54"."""
    c = evaluate(operation, a, b)
    return f"{a} {operation} {b} = {currency}<<{a}{operation}{b}={c}>>{c}"


def drill(operation: str, a: int, b: int, question: str) -> dict[str, str]:
    """A bare calculation as a GSM8K item; `question` is one of QUESTIONS[operation]."""
    answer = f"{calculation(operation, a, b)}\n#### {evaluate(operation, a, b)}"
    return {"question": question.format(a=a, b=b), "answer": answer}


def drills(count: int, rng: random.Random) -> list[dict[str, str]]:
    """`count` different drills: four of five products, the others small sums and differences."""
    operations = shuffled_cycle("****+****-", rng)
    numbers = {"*": shuffled_cycle([("*", a, b) for a, b in PAIRS], rng)}
    numbers |= {"+": shuffled_cycle(SUMS, rng), "-": shuffled_cycle(DIFFERENCES, rng)}
    items: dict[str, dict[str, str]] = {}
    while len(items) < count:
        operation, a, b = next(numbers[next(operations)])
        item = drill(operation, a, b, rng.choice(QUESTIONS[operation]))
        items[item["question"]] = item
    return list(items.values())


def arithmetic_documents(count: int, rng: random.Random) -> list[str]:
    """`count` documents of all forms, in random order."""
    forms = {form: form(rng) for form in WEIGHTS}
    order = shuffled_cycle([form for form, weight in WEIGHTS.items() for _ in range(weight)], rng)
    return [next(forms[form]) for form in islice(order, count)]


# Each form below is an endless generator of documents with balanced cycles of its own.


def equation_lists(rng: random.Random) -> Iterator[str]:
    """Six equations of one style."""
    pairs = shuffled_cycle(PAIRS, rng)
    for style in shuffled_cycle(EQUATIONS, rng):
        yield rng.choice(("\n", ", ")).join(style.format(a=a, b=b, c=a * b) for a, b in islice(pairs, 6))


def statements(rng: random.Random) -> Iterator[str]:
    """Three sentences about three products."""
    pairs, sentences = shuffled_cycle(PAIRS, rng), shuffled_cycle(STATEMENTS, rng)
    while True:
        yield " ".join(next(sentences).format(a=a, b=b, c=a * b) for a, b in islice(pairs, 3))


def questions(rng: random.Random) -> Iterator[str]:
    """Three questions, each with its result behind it."""
    pairs, asked = shuffled_cycle(PAIRS, rng), shuffled_cycle(QUESTIONS["*"], rng)
    while True:
        yield "\n".join(f"{next(asked).format(a=a, b=b)} {a * b}." for a, b in islice(pairs, 3))


def product_drills(rng: random.Random) -> Iterator[str]:
    """A product asked and answered in the chat format, with its calculator note."""
    asked = shuffled_cycle(QUESTIONS["*"], rng)
    for a, b in shuffled_cycle(PAIRS, rng):
        yield chat_document(**drill("*", a, b, next(asked)))


def short_answers(rng: random.Random) -> Iterator[str]:
    """A product asked and answered in one sentence."""
    asked = shuffled_cycle(QUESTIONS["*"], rng)
    for a, b in shuffled_cycle(PAIRS, rng):
        yield chat_document(next(asked).format(a=a, b=b), f"The answer is {a * b}.")


def tables(rng: random.Random) -> Iterator[str]:
    """One row of the multiplication table, one to nine."""
    for a in shuffled_cycle(range(1, 10), rng):
        line = rng.choice((*EQUATIONS, "{a} times {b} is {c}", "{a} × {b} is {c}"))
        rows = (line.format(a=a, b=b, c=a * b) for b in range(1, 10))
        yield "\n".join((f"The table of {a}:", *rows))


def sum_lists(rng: random.Random) -> Iterator[str]:
    """Six small sums and differences, or the same with a product's result in front."""
    small = shuffled_cycle(SUMS + DIFFERENCES, rng)
    after_products = shuffled_cycle(SUMS_AFTER_PRODUCTS + DIFFERENCES_AFTER_PRODUCTS, rng)
    while True:
        source = rng.choice((small, after_products))
        line = rng.choice(("{a} {sign} {b} = {c}", "{a}{sign}{b}={c}", "{a} {word} {b} is {c}."))
        rows = [
            line.format(a=a, b=b, c=evaluate(sign, a, b), sign=sign, word=WORDS[sign])
            for sign, a, b in islice(source, 6)
        ]
        yield "\n".join(rows)


def sum_drills(rng: random.Random) -> Iterator[str]:
    """A small sum or difference asked and answered in the chat format."""
    for operation, a, b in shuffled_cycle(SUMS + DIFFERENCES, rng):
        question = rng.choice(QUESTIONS[operation])
        if rng.random() < 0.75:
            yield chat_document(**drill(operation, a, b, question))
        else:
            yield chat_document(question.format(a=a, b=b), f"The answer is {evaluate(operation, a, b)}.")


def wide_numbers(rng: random.Random) -> Iterator[str]:
    """A drill with larger numbers. Not balanced: there are far more of them than documents."""
    while True:
        operation, a, b = rng.choice(rng.choice((WIDE_PRODUCTS, WIDE_SUMS)))
        yield chat_document(**drill(operation, a, b, rng.choice(QUESTIONS[operation])))


# Documents of each form in a round. Question and answer lead by far: what a small model finds hardest is to carry the
# numbers of a question over into its answer, and it needs nearly all of a small budget of tokens for that.
WEIGHTS = {
    product_drills: 24,
    sum_drills: 8,
    short_answers: 4,
    tables: 2,
    equation_lists: 2,
    statements: 2,
    questions: 1,
    sum_lists: 1,
    wide_numbers: 1,
}
