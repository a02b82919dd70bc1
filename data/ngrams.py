"""Word n-grams of benchmark items, and where they occur in other texts.

Words are the runs of letters and digits of a text in lower case and Unicode's NFC, so punctuation, mark-up and line
breaks neither make nor hide a match. A product reads the same before and after injection (tokenizer/inject_mul.py, weak
mode): `6*9=54`, `9 × 6` and `<MUL_6_9_54>` are all the words 6, 9, 54.

An n-gram is hashed as the string of its words with one space between them:
sum of weight[character] * B^position, modulo 2^64. With prefix sums over a whole text, every window is a difference of
two of them times a power of B's inverse, so numpy hashes all windows at once, whatever n is. Equal n-grams have equal
hashes, so none is missed; a hash that is in the index is compared as text, so none is made up.
"""

import bisect
import functools
import re
import sys
import unicodedata
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np

from tokenizer.inject_mul import MulExpressionInjector

Item = TypeVar("Item", bound=Hashable)

PIECE_CHARACTERS = 1 << 16  # hashed at a time: the arrays of a piece stay in the processor's cache
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
SLOTS_PER_NGRAM = 16  # of the table that turns away most windows before they are looked up

_FACT_NAME = re.compile("<(?:mul|add|square|div)_")
_WORD = re.compile(r"[^\W_]+")


def normalise(text: str) -> str:
    """`text` as its words are read: products as numbers, lower case, composed characters."""
    injected = _injector().inject(text)
    return _FACT_NAME.sub("<", unicodedata.normalize("NFC", injected.lower()))


def words_of(text: str) -> list[str]:
    """The words of `text`."""
    return _WORD.findall(normalise(text))


class WordWindows:
    """The words of text[start:stop], which is normalised, and the hashes of their windows.

    starts, ends: (words,) where each word lies in `text`.
    """

    def __init__(self, text: str, start: int, stop: int) -> None:
        self.text = text
        # The space ends a word that stands last. JSON can hold half of a surrogate pair; it is no letter.
        encoded = f"{text[start:stop]} ".encode("utf-32-le", "surrogatepass")
        weights = _weights().take(np.frombuffer(encoded, dtype="<u4"))
        inside = weights != 0
        behind = np.concatenate(([False], inside[:-1]))
        starts, ends = np.flatnonzero(inside & ~behind), np.flatnonzero(behind & ~inside)
        self.starts, self.ends = start + starts, start + ends
        # What is hashed: each word, and of what separates it from the next one a single character.
        hashed = weights[inside | behind]
        self._hashed_ends = np.cumsum(ends - starts + 1) - 1
        self._hashed_starts = self._hashed_ends - (ends - starts)
        powers, self._inverse_powers = _powers(1 << len(hashed).bit_length())
        self._sums = np.zeros(len(hashed) + 1, dtype=np.uint64)
        np.cumsum(hashed * powers[: len(hashed)], out=self._sums[1:])

    def hashes(self, n: int) -> np.ndarray:
        """Hash of each window of n words: (words - n + 1,) uint64, empty when there are fewer than n words."""
        first, last = self._hashed_starts[: max(len(self.starts) - n + 1, 0)], self._hashed_ends[n - 1 :]
        return (self._sums[last] - self._sums[first]) * self._inverse_powers[first]

    def ngram(self, word: int, n: int) -> str:
        """The n words from number `word` on, with one space between them."""
        return " ".join(_WORD.findall(self.text[self.starts[word] : self.ends[word + n - 1]]))


class NGramIndex:
    """The distinct n-grams of items, by number.

    items: the texts of each. Of a first text with fewer than n words, all of it is one n-gram of that length, so that
    a short question is found where it is asked in full; further texts with fewer have none.
    """

    def __init__(self, items: dict[Item, Sequence[str]], n: int) -> None:
        texts = [(item, i > 0, normalise(text)) for item, those in items.items() for i, text in enumerate(those)]
        self._windows = WordWindows(text := "\n".join(text for *_, text in texts), 0, len(text))
        borders = list(accumulate((len(text) + 1 for *_, text in texts), initial=0))
        first_words = np.searchsorted(self._windows.starts, borders).tolist()

        owners, words, lengths = [], [], []
        for (item, is_further, _), (first, end) in zip(texts, pairwise(first_words), strict=True):
            length = min(n, end - first)
            if length == n or (length > 0 and not is_further):
                starts = range(first, end - length + 1)
                words.extend(starts)
                lengths.extend([length] * len(starts))
                owners.extend([item] * len(starts))
        words, lengths = np.array(words, dtype=np.int64), np.array(lengths, dtype=np.int64)
        hashes = np.zeros(len(words), dtype=np.uint64)
        self._different_lengths = np.unique(lengths).tolist()
        for length in self._different_lengths:
            chosen = lengths == length
            hashes[chosen] = self._windows.hashes(length)[words[chosen]]

        self._hashes, one_of_each, numbers = np.unique(hashes, return_index=True, return_inverse=True)
        self._words, self._lengths = words[one_of_each], lengths[one_of_each]
        bits = max(len(self._hashes) * SLOTS_PER_NGRAM, 1).bit_length()
        self._shift = np.uint64(64 - bits)  # the high bits of such a hash are its random ones
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[self._hashes >> self._shift] = True
        self.ngrams_of: dict[Item, list[int]] = {item: [] for item in items}
        for item, number in zip(owners, numbers.tolist(), strict=True):
            self.ngrams_of[item].append(number)
        self.ngrams_of = {item: list(dict.fromkeys(those)) for item, those in self.ngrams_of.items()}

    def __len__(self) -> int:
        return len(self._hashes)

    def ngram(self, number: int) -> str:
        """The words of n-gram `number`, with one space between them."""
        return self._windows.ngram(self._words[number], self._lengths[number])

    def find(self, documents: Sequence[str]) -> dict[int, int]:
        """The n-grams that occur in `documents`: number of the n-gram to number of the first document that has it.

        An n-gram lies within one document.
        """
        texts = [normalise(document) for document in documents]
        borders = list(accumulate((len(text) + 1 for text in texts), initial=0))
        found: dict[int, int] = {}
        for windows in self._pieces("\n".join(texts)):
            for length in self._different_lengths:
                for word, number in self._candidates(windows.hashes(length)):
                    if number in found:
                        continue
                    document = bisect.bisect(borders, windows.starts[word]) - 1
                    in_one = windows.ends[word + length - 1] < borders[document + 1]
                    if in_one and windows.ngram(word, length) == self.ngram(number):
                        found[number] = document
        return found

    def _candidates(self, hashes: np.ndarray) -> list[tuple[int, int]]:
        """(window, n-gram) where a window's hash is that of an n-gram."""
        rows = np.flatnonzero(self._table[hashes >> self._shift])
        numbers = np.searchsorted(self._hashes[:-1], hashes[rows])
        hits = self._hashes[numbers] == hashes[rows] if len(rows) else []
        return list(zip(rows[hits].tolist(), numbers[hits].tolist(), strict=True))

    def _pieces(self, text: str) -> Iterator[WordWindows]:
        """Cut `text` between words. A piece begins with the last words of the one before, one fewer than a window."""
        overlap = max(self._different_lengths, default=1) - 1
        start = stop = 0
        while stop < len(text):
            stop = min(stop + PIECE_CHARACTERS, len(text))
            while stop < len(text) and text[stop].isalnum():
                stop += 1
            windows = WordWindows(text, start, stop)
            yield windows
            if len(windows.starts) > overlap:
                start = int(windows.starts[-overlap]) if overlap else stop


# Built once in each process.
@functools.cache
def _injector() -> MulExpressionInjector:
    return MulExpressionInjector("weak")


@functools.cache
def _weights() -> np.ndarray:
    """One random odd number per Unicode character, 0 for what is not part of a word."""
    weights = np.random.default_rng(0).integers(2**64, size=sys.maxunicode + 1, dtype=np.uint64) | np.uint64(1)
    weights[[not chr(code).isalnum() for code in range(len(weights))]] = 0
    return weights


@functools.cache
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE^i and BASE^-i modulo 2^64 for i below `size`."""
    powers, inverse_powers = (np.full(size, base, dtype=np.uint64) for base in (BASE, pow(BASE, -1, 2**64)))
    powers[0] = inverse_powers[0] = 1
    return np.cumprod(powers), np.cumprod(inverse_powers)
