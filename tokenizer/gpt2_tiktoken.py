"""Text to ids and back, fast: tiktoken over GPT-2's merges, extended by the tags and the multiplication facts."""

import functools
import hashlib
import json
import os
from pathlib import Path

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str  # GPT-2's split of text into words

from common.errors import UserError
from tokenizer.digit_tokens import read_numbers, spell_numbers
from tokenizer.families import DEFAULT_FAMILIES
from tokenizer.mul_facts import END_OF_TEXT, Condition
from tokenizer.vocabulary import Vocabulary

MERGES_PATH = Path(__file__).parents[1] / "third_party" / "gpt2-bpe" / "vocab.bpe"
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

# GPT-2 writes bytes as characters: printable Latin-1 as itself, the other 68 bytes as U+0100 onwards.
_PRINTABLE_BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHER_BYTES = [byte for byte in range(256) if byte not in _PRINTABLE_BYTES]
BYTE_OF_CHARACTER = {chr(byte): byte for byte in _PRINTABLE_BYTES} | {
    chr(0x100 + i): byte for i, byte in enumerate(_OTHER_BYTES)
}


@functools.cache
def read_merges(path: Path = MERGES_PATH) -> list[tuple[str, str]]:
    """GPT-2's 50,000 merges in order of rank, in its byte alphabet. Raises UserError if the file was altered."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; restore it from the repository (git checkout third_party)")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != MERGES_SHA256:
        raise UserError(f"{path} is not GPT-2's vocab.bpe (sha256 differs); restore it (git checkout third_party)")
    return [tuple(line.split(" ")) for line in content.decode().splitlines()[1:]]


def bpe_vocabulary() -> dict[str, int]:
    """Ids 0-50255 by token, in GPT-2's byte alphabet: the bytes, then what each merge makes (its encoder.json)."""
    tokens = [*BYTE_OF_CHARACTER, *(left + right for left, right in read_merges())]
    return {token: i for i, token in enumerate(tokens)}


class GPT2TokenizerWithMulFacts:
    """GPT-2's tokenizer with the reasoning tags and, in `mul_tokens`, the families' facts as tokens of their own.

    In `baseline` a text `<MUL_6_9_54>` is ordinary text. It gives the same ids as `hf_gpt2_with_mul` on any text. With
    the family `digits` that holds for texts in which numbers are spelled (tokenizer/digit_tokens.py): this class spells
    them itself, and decodes them to ordinary digits.
    """

    def __init__(self, condition: Condition, families: str = DEFAULT_FAMILIES) -> None:
        self.vocabulary = Vocabulary(condition, families)
        self.condition = condition
        beyond_bpe = self.vocabulary.tokens_beyond_bpe()
        # tiktoken calls every token outside its BPE special, and encodes only those that each call allows.
        # The suppressed ids are there for decode to show them; they are never allowed.
        self._encoding = tiktoken.Encoding(
            name=f"gpt2_{condition}",
            pat_str=r50k_pat_str,
            mergeable_ranks={bytes(BYTE_OF_CHARACTER[c] for c in token): i for token, i in bpe_vocabulary().items()},
            special_tokens=beyond_bpe,
            explicit_n_vocab=self.vocabulary.size,
        )
        suppressed = set(self.vocabulary.suppressed_ids)
        self._encodable = frozenset(token for token, i in beyond_bpe.items() if i not in suppressed)

    def encode(self, text: str, allow_special: bool = True) -> list[int]:
        """Ids of `text`. With `allow_special=False` a literal <|endoftext|> stays text: no document forges a boundary.

        Lone surrogates, which no UTF-8 can hold, become U+FFFD.
        """
        if self.vocabulary.has_digits:
            text = spell_numbers(text)
        return self._encoding.encode(text, allowed_special=self._allowed(allow_special), disallowed_special=())

    def encode_batch(
        self, texts: list[str], allow_special: bool = True, num_threads: int | None = None
    ) -> list[list[int]]:
        """`encode` for each of `texts`, on `num_threads` threads (default: one per core)."""
        if self.vocabulary.has_digits:
            texts = [spell_numbers(text) for text in texts]
        return self._encoding.encode_batch(
            texts,
            num_threads=num_threads or os.cpu_count() or 1,
            allowed_special=self._allowed(allow_special),
            disallowed_special=(),
        )

    def decode(self, ids: list[int]) -> str:
        """Text of `ids`. Bytes that are no UTF-8 become U+FFFD; a suppressed id shows as `<|unused_50261|>`.

        Raises KeyError for an id outside the vocabulary.
        """
        if self.vocabulary.has_digits:
            ids = read_numbers(ids, self._id_of_digit)
        return self._encoding.decode(ids, errors="replace")

    def count_mul_tokens(self, ids: list[int]) -> int:
        """How many of `ids` are tokens of the families: multiplication facts, by default."""
        return self.vocabulary.count_facts(ids)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of what decides the ids: merges, layout and condition. Equal fingerprints mean equal ids."""
        parts = [MERGES_SHA256, r50k_pat_str, self.condition, self.vocabulary.tokens_beyond_bpe()]
        if self.vocabulary.families != DEFAULT_FAMILIES:
            parts.append(self.vocabulary.families)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def _id_of_digit(self) -> list[int]:
        return [bpe_vocabulary()[str(digit)] for digit in range(10)]

    def _allowed(self, allow_special: bool) -> frozenset[str]:
        return self._encodable if allow_special else self._encodable - {END_OF_TEXT}
