"""Word n-grams: what a word is, and that the index finds what a naive search finds."""

import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import ngrams
from data.ngrams import NGramIndex, WordWindows, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 1,000.50 – OK?", "it s 1 000 50 ok"),
        ("", ""),
        ("\n\t…—!", ""),
        ("Ångström A\u030angstro\u0308m", "ångström ångström"),
        ("ΟΔΟΣ 漢字 ٣٤ snake_case", "οδος 漢字 ٣٤ snake case"),
        ("half a pair \ud83d here", "half a pair here"),
        ("6*9=54", "6 9 54"),
        ("9 × 6 = 54", "6 9 54"),
        ("<MUL_6_9_54>", "6 9 54"),
        ("6*9 = <<6*9=54>>54 pens", "6 9 54 6 9 54 54 pens"),
        ("<MUL_6_9_54> = <<<MUL_6_9_54>>>54 pens", "6 9 54 6 9 54 54 pens"),
        ("6*9=55 and 16*9", "6 9 55 and 16 9"),
    ],
)
def test_words(text, words):
    assert words_of(text) == words.split()


def test_a_letter_is_what_the_regular_expression_takes_for_one():
    every_character = "".join(map(chr, range(sys.maxunicode + 1)))
    found = {character for word in re.findall(r"[^\W_]+", every_character) for character in word}
    windows = WordWindows(f" {' '.join(sorted(found))} \U0010ffff", 0, 2 * len(found) + 2)
    assert len(windows.starts) == len(found)
    others = "".join(character for character in every_character if character not in found)
    assert len(WordWindows(others, 0, len(others)).starts) == 0


def test_equal_windows_and_only_they_have_equal_hashes():
    text = "a b ab a  b, A-b abab a b ab"
    windows = WordWindows(text.lower(), 0, len(text))
    for n in (1, 2, 3):
        hashes = windows.hashes(n).tolist()
        strings = [windows.ngram(i, n) for i in range(len(hashes))]
        assert len(hashes) == len(windows.starts) - n + 1
        for i, one in enumerate(strings):
            assert [one == other for other in strings] == [hashes[i] == other for other in hashes]
    assert len(windows.hashes(100)) == 0


PART = st.lists(
    st.sampled_from(
        ["a", "b", "A", "ab", "é", "e\u0301", "6*9=54", "9 × 6", "<MUL_6_9_54>", "54", "-", "_", "\n", "\U0010ffff"]
    ),
    max_size=14,
).map(" ".join)


def naive_ngrams(items: dict[int, list[str]], n: int) -> dict[int, set[tuple]]:
    """The n-grams of each item, straight from their definition."""
    ngrams = {}
    for item, texts in items.items():
        ngrams[item] = set()
        for i, words in enumerate(map(words_of, texts)):
            length = min(len(words), n)
            if length == n or (i == 0 and length):
                ngrams[item] |= {tuple(words[k : k + length]) for k in range(len(words) - length + 1)}
    return ngrams


@settings(max_examples=300)
@given(
    items=st.lists(st.lists(PART, min_size=1, max_size=2), max_size=5),
    documents=st.lists(PART, max_size=6),
    n=st.integers(1, 5),
    piece=st.integers(1, 40),
)
def test_it_finds_what_a_naive_search_finds(items, documents, n, piece):
    items = dict(enumerate(items))
    wanted = naive_ngrams(items, n)
    first: dict[tuple, int] = {}
    for number, words in enumerate(map(words_of, documents)):
        for length in range(1, n + 1):
            for k in range(len(words) - length + 1):
                first.setdefault(tuple(words[k : k + length]), number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "PIECE_CHARACTERS", piece)
        index = NGramIndex(items, n)
        found = {tuple(index.ngram(number).split(" ")): document for number, document in index.find(documents).items()}
    everything = set().union(*wanted.values())
    assert len(index) == len(everything)
    assert found == {ngram: first[ngram] for ngram in everything if ngram in first}
    for item, numbers in index.ngrams_of.items():
        assert len(numbers) == len(wanted[item])
        assert {tuple(index.ngram(number).split(" ")) for number in numbers} == wanted[item]


def test_a_hash_alone_flags_nothing(monkeypatch):
    """With equal weights for all letters, every window of the same shape has the hash of the item's n-gram."""
    only_shape = (ngrams._weights() != 0).astype(np.uint64)
    monkeypatch.setattr(ngrams, "_weights", lambda: only_shape)
    index = NGramIndex({"item": ["ab cd ef"]}, 3)
    assert index.find(["gh ij kl", "xx ab cd", "ab cd eg"]) == {}
    assert index.find(["gh ij kl", "ab cd ef"]) == {0: 1}
