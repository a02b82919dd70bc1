"""The id layout, one for both conditions, and the 45 multiplication facts in it.

0-50256      GPT-2's BPE; 50256 is <|endoftext|>
50257-50260  <think> </think> <answer> </answer>
50261-50303  padding, up to the 50,304 rows that GPT-2 reimplementations like to have
50304-50348  <MUL_a_b_c>, a <= b, in lexicographic order of (a, b)

That is the default. Other token families (families.yaml) take some of the padding, or ids from 50349 on.
"""

from typing import Literal

from tokenizer.families import FIRST_FREE_ID, read_families

Condition = Literal["baseline", "mul_tokens"]
CONDITIONS: tuple[Condition, ...] = ("baseline", "mul_tokens")

END_OF_TEXT = "<|endoftext|>"
EOT_ID = 50256
THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE = "<think>", "</think>", "<answer>", "</answer>"
REASONING_TAGS = {THINK_OPEN: 50257, THINK_CLOSE: 50258, ANSWER_OPEN: 50259, ANSWER_CLOSE: 50260}
FIRST_PADDING_ID = FIRST_FREE_ID
FIRST_MUL_ID = 50304
VOCAB_SIZE = 50349


class MulFactTokens:
    """Names and ids of the facts. A product and its mirror image (6*9, 9*6) are one fact."""

    def __init__(self) -> None:
        facts = read_families()["mul"].facts
        self._facts = [(*fact.operands, fact.value) for fact in facts]
        self.ids: list[int] = [fact.id for fact in facts]
        self.tokens: list[str] = [fact.token for fact in facts]
        self._id_of = {(a, b): i for i, (a, b, _) in zip(self.ids, self._facts, strict=True)}

    def id_of(self, a: int, b: int) -> int:
        """Id of the fact a*b, factors in either order. Raises ValueError unless both are 1 to 9."""
        try:
            return self._id_of[min(a, b), max(a, b)]
        except KeyError:
            raise ValueError(f"factors must be 1 to 9, found {a} and {b}") from None

    def token(self, a: int, b: int) -> str:
        """Token of the fact a*b, factors in either order. Raises ValueError unless both are 1 to 9."""
        return self.tokens[self.id_of(a, b) - FIRST_MUL_ID]

    def fact(self, token_id: int) -> tuple[int, int, int]:
        """(a, b, a*b) of a mul id, a <= b. Raises ValueError for any other id."""
        if not self.is_mul_id(token_id):
            raise ValueError(f"mul ids are {self.ids[0]} to {self.ids[-1]}, found {token_id}")
        return self._facts[token_id - FIRST_MUL_ID]

    def is_mul_id(self, token_id: int) -> bool:
        """Whether the id is one of the 45 facts."""
        return FIRST_MUL_ID <= token_id < VOCAB_SIZE
