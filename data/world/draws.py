"""Balanced draws: everything once in random order, then everything once again."""

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shuffled_cycle(items: Sequence[Item], rng: random.Random) -> Iterator[Item]:
    """Yield all `items` in random order, again and again.

    Unlike independent draws, no item is ever more than one occurrence ahead at the end of a round: with a
    small budget of tokens, every product should be seen about equally often.
    """
    while True:
        yield from rng.sample(items, len(items))
