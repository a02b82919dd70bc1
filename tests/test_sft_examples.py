"""sft/examples.py and sft/packing.py without a model: which examples are trained on, and how they share rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import write_jsonl
from sft.examples import load_gsm8k_train, split_examples
from sft.packing import balanced_rows

EXAMPLES = [{"question": f"What is {a} + {b}?", "answer": f"#### {a + b}"} for a in range(4) for b in range(4)]


def test_the_split_is_seeded_and_in_file_order():
    train, held_out = split_examples(EXAMPLES, 12, 0.25, seed=3)
    assert (len(train), len(held_out)) == (9, 3)
    assert (train, held_out) == split_examples(EXAMPLES, 12, 0.25, seed=3)
    assert [e for e in EXAMPLES if e in train] == train
    assert not any(e in train for e in held_out)


def test_training_on_a_test_question_is_an_error(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", EXAMPLES)
    write_jsonl(tmp_path / "test.jsonl", [{"question": EXAMPLES[3]["question"] + " ", "answer": "#### 1"}])
    with pytest.raises(UserError, match="1 questions of the test set"):
        load_gsm8k_train(tmp_path, "unused")


def test_an_example_of_another_shape_is_an_error(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [EXAMPLES[0], {"question": "What?"}])
    with pytest.raises(UserError, match=r"train.jsonl, item 2"):
        load_gsm8k_train(tmp_path, "unused")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_rows_hold_every_document_once_and_fit(lengths):
    rows = balanced_rows(lengths, row_length=50)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert max(sum(lengths[i] for i in row) for row in rows) <= 50


def test_packing_computes_few_padding_tokens_on_gsm8k_like_lengths():
    lengths = np.random.default_rng(0).gamma(shape=6.5, scale=24.5, size=7473).clip(40, 442).astype(int)
    used = computed = 0
    for i in range(0, len(lengths), 32):
        batch = lengths[i : i + 32].tolist()
        rows = balanced_rows(batch, row_length=512)
        used += sum(batch)
        computed += len(rows) * max(sum(batch[i] for i in row) for row in rows)
    assert used / computed > 0.94
