"""The 281 arithmetic probes: what the intervention is about, asked directly.

mul_table       81   a times b, a and b from 1 to 9, both orders: the facts that the mul tokens stand for
mul_multidigit  100  a times b, a from 10 to 99, b from 2 to 9: the facts inside a longer computation
addition        100  a plus b, both from 1 to 100: arithmetic that the intervention leaves alone

The generated world's text (data/world/) shows the table by design, and none of the other 200 in either order. Every
probe is worded "What is A times B?" or "What is A plus B?": in words, so that neither condition's text holds a
mul token and both models read the same ids.
"""

import random
from dataclasses import dataclass

CATEGORIES = ("mul_table", "mul_multidigit", "addition")
PROBE_SEED = 1319


@dataclass(frozen=True)
class Probe:
    """One question with one number for an answer."""

    category: str
    a: int
    b: int
    question: str
    answer: int


def arithmetic_probes(seed: int = PROBE_SEED) -> list[Probe]:
    """The probes in a fixed order, no two the same. The table is whole; `seed` draws the other 200 pairs."""
    generator = random.Random(seed)
    table = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    products = [(a, b) for a in range(10, 100) for b in range(2, 10)]
    sums = [(a, b) for a in range(1, 101) for b in range(1, 101)]
    return (
        [_times("mul_table", a, b) for a, b in table]
        + [_times("mul_multidigit", a, b) for a, b in generator.sample(products, 100)]
        + [Probe("addition", a, b, f"What is {a} plus {b}?", a + b) for a, b in generator.sample(sums, 100)]
    )


def _times(category: str, a: int, b: int) -> Probe:
    return Probe(category, a, b, f"What is {a} times {b}?", a * b)
