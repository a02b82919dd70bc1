"""What a condition and a choice of token families make of the ids.

The size depends on the choice alone, so both conditions of a choice have one, and a family's ids never depend on what
else is chosen. Ids up to the size that no text of the condition encodes to are padding, never to be sampled.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UserError
from tokenizer.families import DEFAULT_FAMILIES, Fact, chosen_families, families_name
from tokenizer.mul_facts import (
    CONDITIONS,
    END_OF_TEXT,
    EOT_ID,
    FIRST_PADDING_ID,
    REASONING_TAGS,
    VOCAB_SIZE,
    Condition,
)


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a condition with the token families of a choice, such as "mul" or "mul+digits".

    Raises UserError for an unknown condition or family.
    """

    condition: Condition
    families: str = DEFAULT_FAMILIES

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise UserError(f"unknown condition {self.condition!r}; valid: {', '.join(CONDITIONS)}")
        object.__setattr__(self, "families", families_name(self.families))

    @functools.cached_property
    def facts(self) -> dict[int, Fact]:
        """The facts of the chosen families by id, in the order of ids; in `baseline` no text encodes to them."""
        facts = [fact for family in chosen_families(self.families) for fact in family.facts]
        return {fact.id: fact for fact in sorted(facts, key=lambda fact: fact.id)}

    @property
    def size(self) -> int:
        """Rows of the embedding: 50,349, or more where a chosen family's ids lie beyond."""
        return max(VOCAB_SIZE, 1 + max(self.facts))

    @property
    def has_facts(self) -> bool:
        """Whether texts encode to the families' tokens."""
        return self.condition == "mul_tokens"

    @functools.cached_property
    def has_digits(self) -> bool:
        """Whether numbers are spelled in digit tokens."""
        return self.has_facts and "digits" in self.families.split("+")

    @functools.cached_property
    def suppressed_ids(self) -> list[int]:
        """Ids that no text of the condition encodes to: padding; in `baseline` the facts too."""
        return [i for i in range(FIRST_PADDING_ID, self.size) if not (self.has_facts and i in self.facts)]

    def suppressed_below(self, vocab_size: int) -> list[int]:
        """Those of the suppressed ids that a model of `vocab_size` rows has. A stock GPT-2 has none of them."""
        return [i for i in self.suppressed_ids if i < vocab_size]

    def tokens_beyond_bpe(self) -> dict[str, int]:
        """Token string to id from 50256 on. A suppressed id has a name for decoding; encoding never yields it."""
        tokens = {END_OF_TEXT: EOT_ID, **REASONING_TAGS}
        if self.has_facts:
            tokens |= {fact.token: i for i, fact in self.facts.items()}
        return tokens | {f"<|unused_{i}|>": i for i in self.suppressed_ids}

    def count_facts(self, ids: np.ndarray | Sequence[int]) -> int:
        """How many of `ids` (below 65,536) are tokens of the chosen families."""
        ids = ids if isinstance(ids, np.ndarray) else np.array(ids, dtype=np.int64)
        return int(np.count_nonzero(self._is_fact[ids]))

    @functools.cached_property
    def _is_fact(self) -> np.ndarray:
        table = np.zeros(65_536, dtype=bool)
        table[list(self.facts)] = True
        return table
