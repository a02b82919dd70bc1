"""Bare calculations as GSM8K items, in five tiers: each asks for more results than the one before, or harder ones.

    1  sums and differences up to 20                           8 + 7
    2  the table of 81 products                                6 × 9
    3  a product, then a sum or difference                     6 × 9 + 4
    4  two products and their sum or difference                6 × 9 - 5 × 7
    5  two digits times one digit, taken apart by places       46 × 7

An answer shows one result after the other: "6 × 9 + 4 = 54 + 4 = 58. The answer is 58." The products of the table,
which tiers 2 to 5 are made of, stand where injection rewrites them: asked for 6 times 9, mul_tokens answers
"<MUL_6_9_54>. The answer is 54." What the arithmetic probes (data/probes.py) ask beyond the table is in no drill.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice, product, repeat, zip_longest
from typing import Literal, NamedTuple

from common.errors import UserError
from data.gsm_sbs.decompositions import shows_probe, steps
from data.world.arithmetic import DIFFERENCES, PAIRS, QUESTIONS, SUMS, evaluate

Tier = Literal[1, 2, 3, 4, 5]
TIERS = (1, 2, 3, 4, 5)
PRODUCT_TIERS = (2, 3, 4, 5)  # those that are made of what mul tokens stand for

LONGER_QUESTIONS = (
    "What is {symbols}?",
    "Calculate {symbols}.",
    "How much is {symbols}?",
    "What is {words}?",
    "Work out {words}.",
    "How much is {words}?",
)


class Calculation(NamedTuple):
    """Equal expressions, the last one the result, and the questions that can ask for it."""

    expressions: list[str]
    questions: list[str]


def drills(count: int, tiers: Sequence[Tier], rng: random.Random) -> dict[Tier, list[dict[str, str]]]:
    """`count` items {"question", "answer"} with different questions, by tier, in random order.

    The tiers get equal shares, except that what one does not have goes to the others. No calculation is asked for
    twice before all of its tier have been asked for once. Raises UserError when the tiers do not have that many.
    """
    tiers = tuple(sorted(set(tiers)))
    tagged = [zip(repeat(tier), _items(tier, rng)) for tier in tiers]
    in_turn = filter(None, chain.from_iterable(zip_longest(*tagged)))
    found: dict[Tier, list[dict[str, str]]] = {tier: [] for tier in tiers}
    for tier, item in islice(in_turn, count):
        found[tier].append(item)
    if (total := sum(map(len, found.values()))) < count:
        raise UserError(f"{count} drills are asked for, but tiers {tiers} have only {total}; ask for fewer")
    return found


def calculations(tier: Tier) -> list[Calculation]:
    """All calculations of a tier, without those that show what a probe asks."""
    found = {1: _small_sums, 2: _table, 3: _product_and_term, 4: _two_products, 5: _wide_products}[tier]()
    return [calculation for calculation in found if not shows_probe(" = ".join(calculation.expressions))]


def _items(tier: Tier, rng: random.Random) -> Iterator[dict[str, str]]:
    """Every question once, in rounds of one question about each calculation."""
    shuffled = [(expressions, rng.sample(asked, len(asked))) for expressions, asked in calculations(tier)]
    for round_number in range(max(len(asked) for _, asked in shuffled)):
        for expressions, asked in rng.sample(shuffled, len(shuffled)):
            if round_number < len(asked):
                result = expressions[-1]
                answer = f"{' = '.join(expressions)}. The answer is {result}.\n#### {result}"
                yield {"question": asked[round_number], "answer": answer}


def _one_operation(operation: str, a: int, b: int, expressions: list[str]) -> Calculation:
    return Calculation(expressions, [question.format(a=a, b=b) for question in QUESTIONS[operation]])


def _several_operations(expressions: list[str]) -> Calculation:
    symbols = expressions[0]
    words = symbols.replace("×", "times").replace("+", "plus").replace("-", "minus")
    return Calculation(expressions, [question.format(symbols=symbols, words=words) for question in LONGER_QUESTIONS])


def _small_sums() -> Iterator[Calculation]:
    for sign, a, b in SUMS + DIFFERENCES:
        yield _one_operation(sign, a, b, [f"{a} {sign} {b}", str(evaluate(sign, a, b))])


def _table() -> Iterator[Calculation]:
    for a, b in PAIRS:
        yield _one_operation("*", a, b, [f"{a} × {b}", str(a * b)])


def _product_and_term() -> Iterator[Calculation]:
    for (a, b), sign, d in product(PAIRS, "+-", range(2, 10)):
        if (result := evaluate(sign, a * b, d)) >= 0:
            yield _several_operations([f"{a} × {b} {sign} {d}", f"{a * b} {sign} {d}", str(result)])


def _two_products() -> Iterator[Calculation]:
    for (a, b), sign, (c, d) in product(PAIRS, "+-", PAIRS):
        if (result := evaluate(sign, a * b, c * d)) >= 0:
            yield _several_operations([f"{a} × {b} {sign} {c} × {d}", f"{a * b} {sign} {c * d}", str(result)])


def _wide_products() -> Iterator[Calculation]:
    for a, b in product(range(11, 100), range(2, 10)):
        yield _one_operation("*", a, b, steps(a, b))
