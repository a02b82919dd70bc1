"""Short questions about arithmetic: the 281 probes, 50 sanity questions, 256 word problems of one step.

probes: what the intervention is about, asked directly
mul_table       81   a times b, a and b from 1 to 9, both orders: the facts that the mul tokens stand for
mul_multidigit  100  a times b, a from 10 to 99, b from 2 to 9: the facts inside a longer computation
addition        100  a plus b, both from 1 to 100: arithmetic that the intervention leaves alone

The generated world's text (data/world/) shows the table by design, and none of the other 200 in either order. Every
probe is worded "What is A times B?" or "What is A plus B?": in words, so that neither condition's text holds a
mul token and both models read the same ids.

sanity: does the model calculate at all? Ten each of small sums, differences, products and quotients, in symbols, and
stories about cars. Their numbers are small, so training text holds many of them; that is what they are for.

word_problems: the step between the table and GSM8K: "Zofia has 7 sacks with 8 quinces in each." Every ordered pair of
factors from 2 to 9 twice, in different templates, and as many that need a sum of the same numbers: a model that
multiplies whatever it is told would otherwise look clever. Names and objects occur neither in the generated world nor
in GSM8K's training set, so a right answer is more than a remembered sentence.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

CATEGORIES = ("mul_table", "mul_multidigit", "addition")
PROBE_SEED = 1319

NAMES = (
    "Zofia",
    "Mirela",
    "Saskia",
    "Nerys",
    "Yusra",
    "Ksenia",
    "Anselm",
    "Rurik",
    "Lorcan",
    "Tadeusz",
    "Emeka",
    "Goran",
)
OBJECTS = (
    "thimbles",
    "whistles",
    "medallions",
    "figs",
    "lanterns",
    "quinces",
    "beets",
    "hinges",
    "compasses",
    "tassels",
)
PRODUCTS = (
    "{name} has {a} sacks with {b} {objects} in each. How many {objects} does {name} have?",
    "There are {a} drawers in the kitchen. In every drawer {name} keeps {b} {objects}. How many {objects} are there?",
    "{name} puts {b} {objects} on each of {a} trays. How many {objects} does {name} need?",
    "A tin holds {b} {objects}. {name} buys {a} tins. How many {objects} does {name} buy?",
    "{name} sells {a} {objects} for ${b} each. How many dollars does {name} earn?",
    "For {a} days {name} makes {b} {objects} every day. How many {objects} does {name} make?",
)
SUMS = (
    "{name} has {a} {objects} in a sack and {b} in a drawer. How many {objects} does {name} have?",
    "There are {a} {objects} on a tray. {name} adds {b} more. How many {objects} are on the tray?",
    "{name} buys {a} {objects} on Monday and {b} on Friday. How many {objects} does {name} buy?",
    "One tin holds {a} {objects} and another {b}. {name} takes both tins. How many {objects} does {name} take?",
)


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


def sanity_probes(seed: int = PROBE_SEED) -> list[Probe]:
    """The 50 sanity questions, ten of each of five categories, no two the same. `seed` draws the numbers."""
    generator = random.Random(seed)
    pairs = [(a, b) for a in range(2, 11) for b in range(2, 11)]

    def drawn() -> list[tuple[int, int]]:
        return generator.sample(pairs, 10)

    cars = "There are {a} cars in the parking lot and {b} more arrive. How many cars are in the parking lot now?"
    return (
        [Probe("plus", a, b, f"What is {a} + {b}?", a + b) for a, b in drawn()]
        + [Probe("minus", a + b, b, f"What is {a + b} - {b}?", a) for a, b in drawn()]
        + [Probe("times", a, b, f"What is {a} * {b}?", a * b) for a, b in drawn()]
        + [Probe("divided", a * b, b, f"What is {a * b} / {b}?", a) for a, b in drawn()]
        + [Probe("story", a, b, cars.format(a=a, b=b), a + b) for a, b in drawn()]
    )


def word_problem_probes(seed: int = PROBE_SEED) -> list[Probe]:
    """128 word problems of one product, then 128 of one sum; `seed` draws templates, names and objects."""
    generator = random.Random(seed)
    probes = []
    for category, templates in (("one_product", PRODUCTS), ("one_sum", SUMS)):
        for a in range(2, 10):
            for b in range(2, 10):
                answer = a * b if category == "one_product" else a + b
                for template in generator.sample(templates, 2):
                    words = {"name": generator.choice(NAMES), "objects": generator.choice(OBJECTS)}
                    probes.append(Probe(category, a, b, template.format(a=a, b=b, **words), answer))
    return probes


def _times(category: str, a: int, b: int) -> Probe:
    return Probe(category, a, b, f"What is {a} times {b}?", a * b)


PROBE_SETS: dict[str, Callable[[int], list[Probe]]] = {
    "probes": arithmetic_probes,
    "sanity": sanity_probes,
    "word_problems": word_problem_probes,
}
