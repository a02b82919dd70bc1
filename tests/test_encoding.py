"""Documents to ids: the counts of each, long texts in pieces, and tasks on processes in order."""

import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from data import encoding
from data.encoding import COUNTS, Batch, encode_batch, encode_document, map_in_order, pieces_of
from tokenizer.mul_facts import EOT_ID

TEXTS = ["6*9=54 and 3 x 4", "no product é", "<MUL_6_9_54> stood there", "6*9=55 is wrong; 2*3*4 a chain"]


@pytest.mark.parametrize(("mode", "injection"), [("weak", [1, 1, 1, 1]), ("strict", [1, 0, 1, 2]), ("none", [0] * 4)])
def test_counts_of_each_document(mode, injection):
    encoded = encode_batch("mul_tokens", mode, Batch(TEXTS, ["a", "b", "a", "b"], after="place"))
    assert encoded.after == "place" and encoded.counts.shape == (4, len(COUNTS))
    pieces = np.split(encoded.ids, np.cumsum(encoded.lengths)[:-1])
    assert all(piece[0] == EOT_ID and EOT_ID not in piece[1:] for piece in pieces)
    of = dict(zip(COUNTS, encoded.counts.T.tolist(), strict=True))
    assert of["text_bytes"] == [len(text.encode()) for text in TEXTS]
    assert of["text_characters"] == [len(text) for text in TEXTS]
    assert of["injected_before"] == [0, 0, 1, 0] and of["documents"] == [1] * 4
    assert of["mul_tokens"] == [int((piece >= 50304).sum()) for piece in pieces]
    assert [sum(of[name]) for name in encoding.INJECTION_COUNTS] == injection


def test_totals_and_ids_of_groups():
    encoded = encode_batch("baseline", "none", Batch(TEXTS, ["a", "b", "a", "b"]))
    totals = {"a": encoding.Counter(), "b": encoding.Counter()}
    encoded.add_to(totals)
    for group in "ab":
        ids = encoded.ids_of(group)
        expected = [i for text in TEXTS["ab".index(group) :: 2] for i in encode_document("baseline", text)]
        assert ids.tolist() == expected and totals[group]["tokens"] == len(ids) and totals[group]["documents"] == 2
    assert encoded.ids_of("a", "b").tolist() == encoded.ids.tolist()
    assert encoded.ids_of("c").tolist() == []


def test_a_document_cannot_forge_a_border():
    assert encode_document("baseline", "a <|endoftext|> b").tolist().count(EOT_ID) == 1


# Words, products, numbers, white space of all kinds, scripts without spaces, contractions, and the added tokens.
PARTS = [" the", "word", "'s", "'", " 6*9", "<MUL_6_9_54>", "<think>", "1", "漢", "é", "=-", "。", "_", "!"]
PARTS += [" ", "  ", "\n", "\t", "\u00a0", "\u2028", "\r\n", "\x1c"]


@given(st.lists(st.sampled_from(PARTS), max_size=200).map("".join), st.integers(1, 60))
def test_pieces_join_to_the_text_and_change_no_id_at_a_word_border(text, limit):
    tokenizer = encoding.tokenizer_of("mul_tokens")
    original, encoding.PIECE_CHARACTERS = encoding.PIECE_CHARACTERS, limit
    try:
        pieces = list(pieces_of(text))
    finally:
        encoding.PIECE_CHARACTERS = original
    assert "".join(pieces) == text and all(0 < len(piece) <= limit for piece in pieces if text)
    # Pieces cut for want of a border may have other ids; put together, what lies between two borders has the same.
    joined = [pieces[0]]
    for piece in pieces[1:]:
        if re.match(r"[ \n]\S", piece) and re.search(r"\S\Z", joined[-1]):
            joined.append(piece)
        else:
            joined[-1] += piece
    ids = [i for piece in joined for i in tokenizer.encode(piece, allow_special=False)]
    assert ids == tokenizer.encode(text, allow_special=False)


@pytest.mark.parametrize("unit", ["a", " ", "\n ", "the cat 6*9=54 sat on "])
def test_a_long_document_takes_time_in_proportion(unit):
    """tiktoken alone raises ValueError on the white space."""
    text = unit * (1_000_000 // len(unit))
    ids = encode_document("mul_tokens", text)
    assert encoding.tokenizer_of("mul_tokens").decode(ids[1:].tolist()) == text
    assert len(ids) <= len(text) + 1


def test_long_prose_has_the_ids_of_the_whole():
    text = " ".join(f"Sentence {i}: it's {i % 9 + 1} x 7, or\n\nso.  " for i in range(10_000))
    expected = encoding.tokenizer_of("mul_tokens").encode(text, allow_special=False)
    assert len(text) > 3 * encoding.PIECE_CHARACTERS and encode_document("mul_tokens", text)[1:].tolist() == expected


def _square_or_die(number: int) -> int:
    if number < 0:
        os._exit(1)
    return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_map_in_order_reads_only_a_few_tasks_ahead(workers):
    taken = []
    results = map_in_order(_square_or_die, (taken.append(i) or i for i in range(50)), workers)
    assert next(results) == 0 and len(taken) <= 2 * workers + 1
    assert list(results) == [i * i for i in range(1, 50)]


def test_a_worker_that_was_killed_is_one_line():
    with pytest.raises(UserError, match="a worker was killed"):
        list(map_in_order(_square_or_die, [1, -1, 2, 3], 2))
