"""Word problems in GSM8K's format: a question, steps with calculator notes, "#### " and the number.

Sixty of a hundred need one product, twenty-five one sum or difference, fifteen a product and then a sum or
difference. Numbers appear in the answer in the order of the question. Factors go from 2 to 9: with a factor
of one the sentences read oddly, and the drills cover it.

The test problems use the same templates, names, objects and numbers as the training problems, in combinations
of (template, numbers, name, object) that training never shows. They measure whether the scheme was learnt,
not whether it carries over to new words.
"""

import random
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from data.world.arithmetic import PROBED, calculation, evaluate
from data.world.draws import shuffled_cycle

NAMES = {
    "he": ("John", "Tom", "James", "David", "Sam", "Peter", "Paul", "Mark", "Ben", "Adam", "Jack", "Luke"),
    "she": (
        "Mary",
        "Anna",
        "Sarah",
        "Emma",
        "Lisa",
        "Kate",
        "Jane",
        "Lucy",
        "Julia",
        "Laura",
        "Alice",
        "Rose",
    ),
}
PEOPLE = [(name, pronoun) for pronoun, names in NAMES.items() for name in names]
FORMS = {"he": {"he": "he", "him": "him", "his": "his"}, "she": {"he": "she", "him": "her", "his": "her"}}
OBJECTS = (
    *(
        "apples",
        "oranges",
        "lemons",
        "peaches",
        "eggs",
        "nuts",
        "cookies",
        "candles",
        "books",
        "pencils",
        "pens",
    ),
    *(
        "stamps",
        "cards",
        "coins",
        "stickers",
        "marbles",
        "beads",
        "buttons",
        "shells",
        "stones",
        "toys",
        "balls",
    ),
)
CONTAINERS = ("bag", "box", "basket", "crate", "bucket")
PLURALS = {"bag": "bags", "box": "boxes", "basket": "baskets", "crate": "crates", "bucket": "buckets"}

FACTORS = [(a, b) for a in range(2, 10) for b in range(2, 10)]
ADDENDS = [(a, b) for a in range(2, 11) for b in range(2, 11) if ("+", a, b) not in PROBED]
MINUENDS = [(a + b, b) for a in range(2, 11) for b in range(2, 11)]

# (question, answer): {step} is the calculation with its note, {money} the same in dollars. Template keys:
# {name} {other} {he} {He} {him} {his}, {objects}, {box} {boxes}, {a} {b} and, in two steps, {d}.
PRODUCTS = (
    (
        "{name} has {a} {boxes} with {b} {objects} in each. How many {objects} does {name} have in total?",
        "{name} has {step} {objects} in total.",
    ),
    (
        "There are {a} {boxes} on the table. Each {box} holds {b} {objects}. How many {objects} are there altogether?",
        "There are {step} {objects} altogether.",
    ),
    (
        "{name} buys {a} packs of {objects}. Each pack has {b} {objects} in it. How many {objects} does {he} buy?",
        "{He} buys {step} {objects}.",
    ),
    ("{name} buys {a} {objects} for ${b} each. How much does {he} pay?", "{He} pays {money}."),
    (
        "In a shop, {name} sees {a} shelves. Every shelf has {b} {objects} on it. "
        "How many {objects} are on the shelves?",
        "The shelves have {step} {objects} on them.",
    ),
    (
        "For {a} days, {name} reads {b} pages a day. How many pages does {he} read?",
        "{He} reads {step} pages.",
    ),
    (
        "{name} plants {a} rows of trees with {b} trees in each row. How many trees does {he} plant?",
        "{He} plants {step} trees.",
    ),
    (
        "{name} works {a} hours and earns ${b} an hour. How much does {name} earn?",
        "{name} earns {money}.",
    ),
    (
        "At the party there are {a} children. Each child gets {b} {objects}. How many {objects} do they get in all?",
        "They get {step} {objects} in all.",
    ),
    (
        "{name} has {a} friends and gives {b} {objects} to each of them. How many {objects} does {he} give away?",
        "{He} gives away {step} {objects}.",
    ),
    (
        "{a} {boxes} are full of {objects}. "
        "If {name} counts {b} {objects} in every {box}, how many {objects} are there?",
        "There are {step} {objects}.",
    ),
    (
        "{name} runs {a} times a week and covers {b} miles each time. How many miles does {he} run in a week?",
        "{He} runs {step} miles in a week.",
    ),
)
SUMS = (
    (
        "{name} has {a} {objects}. {other} gives {him} {b} more. How many {objects} does {name} have now?",
        "{name} has {step} {objects} now.",
    ),
    (
        "{name} finds {a} {objects} in the morning and {b} in the afternoon. How many {objects} does {he} find?",
        "{He} finds {step} {objects}.",
    ),
    (
        "There are {a} red {objects} and {b} blue {objects} in a {box}. How many {objects} are in the {box}?",
        "There are {step} {objects} in the {box}.",
    ),
    (
        "{name} spends ${a} on a book and ${b} on a game. How much does {he} spend in total?",
        "{He} spends {money} in total.",
    ),
)
DIFFERENCES = (
    (
        "{name} has {a} {objects} and gives {b} of them to {other}. How many {objects} does {name} have left?",
        "{name} has {step} {objects} left.",
    ),
    (
        "There are {a} {objects} in a {box}. {name} takes out {b}. How many {objects} are still in the {box}?",
        "There are still {step} {objects} in the {box}.",
    ),
    (
        "{name} needs {a} {objects} but has only {b}. How many more {objects} does {he} need?",
        "{He} needs {step} more {objects}.",
    ),
    ("{name} has ${a} and spends ${b} on lunch. How much money is left?", "{name} has {money} left."),
)
TWO_STEPS_PLUS = (
    (
        "{name} has {a} {boxes} with {b} {objects} in each. Then {he} finds {d} more. "
        "How many {objects} does {he} have?",
        "In the {boxes} there are {step} {objects}.\nWith the others {name} has {step2} {objects}.",
    ),
    (
        "{name} buys {a} {objects} for ${b} each and a bag for ${d}. How much does {he} pay in total?",
        "The {objects} cost {money}.\nIn total {he} pays {money2}.",
    ),
)
TWO_STEPS_MINUS = (
    (
        "{name} has {a} {boxes} with {b} {objects} in each. {He} gives {d} {objects} to {other}. How many are left?",
        "In the {boxes} there are {step} {objects}.\nAfter that {step2} {objects} are left.",
    ),
    (
        "{name} works {a} hours for ${b} an hour. {He} spends ${d} on lunch. How much money is left?",
        "{name} earns {money}.\nAfter lunch {he} has {money2} left.",
    ),
)
# Operation of the first step, of the second one, templates, numbers, problems of it in a round of a hundred.
SCHEMES = {
    "product": ("*", None, PRODUCTS, FACTORS, 60),
    "sum": ("+", None, SUMS, ADDENDS, 13),
    "difference": ("-", None, DIFFERENCES, MINUENDS, 12),
    "product_plus": ("*", "+", TWO_STEPS_PLUS, FACTORS, 8),
    "product_minus": ("*", "-", TWO_STEPS_MINUS, FACTORS, 7),
}


class Problem(NamedTuple):
    """A GSM8K item and what it was made of."""

    question: str
    answer: str
    key: tuple  # (template, numbers, name, object); name or object is None where the template has none

    def row(self) -> dict[str, str]:
        """The item as GSM8K stores it."""
        return {"question": self.question, "answer": self.answer}


def problems(count: int, rng: random.Random, excluded: set[tuple] = frozenset()) -> list[Problem]:
    """`count` problems, none with a key in `excluded`."""
    order = [scheme for scheme, (*_, weight) in SCHEMES.items() for _ in range(weight)]
    sources = {scheme: _scheme_problems(scheme, rng, excluded) for scheme in SCHEMES}
    return [next(sources[scheme]) for scheme in islice(shuffled_cycle(order, rng), count)]


def distinct_problems(count: int, rng: random.Random, excluded: set[tuple] = frozenset()) -> list[Problem]:
    """`count` problems with `count` different questions, none with a key in `excluded`."""
    found: dict[str, Problem] = {}
    while len(found) < count:
        found |= {problem.question: problem for problem in problems(count - len(found), rng, excluded)}
    return list(found.values())


def _scheme_problems(scheme: str, rng: random.Random, excluded: set[tuple]) -> Iterator[Problem]:
    first, second, templates, pairs, _ = SCHEMES[scheme]
    templates = shuffled_cycle(list(enumerate(templates)), rng)
    for a, b in shuffled_cycle(pairs, rng):
        index, (question, answer) = next(templates)
        c = evaluate(first, a, b)
        values = {"a": a, "b": b, "step": calculation(first, a, b), "money": calculation(first, a, b, "$")}
        numbers, final = (a, b), c
        if second is not None:
            d = rng.choice([d for d in range(2, min(5, c - 2) + 1) if (second, c, d) not in PROBED])
            values |= {"d": d, "step2": calculation(second, c, d), "money2": calculation(second, c, d, "$")}
            numbers, final = (a, b, d), evaluate(second, c, d)
        problem = None
        # Names and objects are drawn anew until the combination is allowed; the numbers keep their balance.
        while problem is None or problem.key in excluded:
            words = _words(rng)
            name = words["name"] if "{name}" in question else None
            objects = words["objects"] if "{objects}" in question else None
            text = answer.format(**values, **words) + f"\n#### {final}"
            problem = Problem(question.format(**values, **words), text, (scheme, index, numbers, name, objects))
        yield problem


def _words(rng: random.Random) -> dict[str, str]:
    (name, pronoun), (other, _) = rng.sample(PEOPLE, 2)
    box = rng.choice(CONTAINERS)
    forms = FORMS[pronoun]
    return {
        **forms,
        "He": forms["he"].capitalize(),
        "name": name,
        "other": other,
        "objects": rng.choice(OBJECTS),
        "box": box,
        "boxes": PLURALS[box],
    }
