"""The word problems of the generated world (data/world/problems.py), those with one step and those with two apart."""

import random

from data.world.problems import SCHEMES, problems

BATCH = 1000
STEPS = (1, 2)


def word_problems(count: int, steps: int, rng: random.Random) -> list[dict[str, str]]:
    """`count` items {"question", "answer"} with different questions that take so many `steps`, 1 or 2."""
    schemes = {scheme for scheme, (_, second, *_) in SCHEMES.items() if (second is None) == (steps == 1)}
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        found |= {problem.question: problem.row() for problem in problems(BATCH, rng) if problem.key[0] in schemes}
    return list(found.values())[:count]
