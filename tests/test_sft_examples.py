"""sft/examples.py and sft/packing.py without a model: what is trained on, which part of it, and how it shares rows."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import write_jsonl
from data.formats import END_OF_TEXT
from sft.examples import (
    CUT,
    Example,
    Segment,
    chat_example,
    examples_sha256,
    load_gsm8k_train,
    messages_example,
    reasoning_example,
    split_examples,
    tokenize_examples,
)
from sft.packing import IGNORED, balanced_rows
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import EOT_ID, FIRST_MUL_ID, REASONING_TAGS

EXAMPLES = [{"question": f"What is {a} + {b}?", "answer": f"#### {a + b}"} for a in range(4) for b in range(4)]


CONVERSATION = [
    {"role": "user", "content": "What is 6*9?"},
    {"role": "assistant", "content": "6*9 = 54."},
    {"role": "user", "content": " And 3*4?\n"},
    {"role": "assistant", "content": "It is 3*4=12.\n"},
]
SYSTEM = {"role": "system", "content": "Answer in one sentence (2*3 words)."}
# An example of each format, its whole text, and the texts that are trained.
FORMATS = {
    "chat": (
        chat_example("What is 6*9?", "6*9 = 54\n#### 54"),
        "User: What is 6*9?\nAssistant: 6*9 = 54\n#### 54<|endoftext|>",
        [" 6*9 = 54\n#### 54<|endoftext|>"],
    ),
    "reasoning": (
        reasoning_example("What is 6*9?", "6*9 = 54", "54"),
        "What is 6*9?<think>6*9 = 54</think><answer>54</answer><|endoftext|>",
        ["<think>6*9 = 54</think><answer>54</answer><|endoftext|>"],
    ),
    "multi-turn": (
        messages_example(CONVERSATION),
        "User: What is 6*9?\nAssistant: 6*9 = 54.<|endoftext|>User: And 3*4?\nAssistant: It is 3*4=12.<|endoftext|>",
        [" 6*9 = 54.<|endoftext|>", " It is 3*4=12.<|endoftext|>"],
    ),
    "system": (
        messages_example([SYSTEM, *CONVERSATION[:2]]),
        "System: Answer in one sentence (2*3 words).\nUser: What is 6*9?\nAssistant: 6*9 = 54.<|endoftext|>",
        [" 6*9 = 54.<|endoftext|>"],
    ),
}


@pytest.fixture(scope="module")
def tokenizers():
    return {condition: build_hf_tokenizer(condition) for condition in ("baseline", "mul_tokens")}


def trained_texts(tokenizer, row) -> list[str]:
    """The text of every run of labelled positions."""
    runs, before = [], IGNORED
    for label in row["labels"].tolist():
        if label != IGNORED:
            if before == IGNORED:
                runs.append([])
            runs[-1].append(label)
        before = label
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pad_token", [END_OF_TEXT, "<|unused_50261|>"])
def test_every_answer_and_one_end_of_text_each_are_trained_and_nothing_else(tokenizers, name, pad_token):
    tokenizer = tokenizers["baseline"]
    example, text, trained = FORMATS[name]
    was, tokenizer.pad_token = tokenizer.pad_token, pad_token
    result = tokenize_examples(tokenizer, [example], max_length=96)
    tokenizer.pad_token = was
    (row,) = result.rows
    assert example.text == text == tokenizer.decode(row["input_ids"])
    assert trained_texts(tokenizer, row) == trained
    assert (row["labels"] == EOT_ID).sum() == len(trained)
    labelled = row["labels"] != IGNORED
    assert (row["labels"][labelled] == row["input_ids"][labelled]).all()
    assert (result.tokens, result.labelled_tokens) == (len(labelled), labelled.sum())
    assert result.reasoning_tags == (4 if name == "reasoning" else 0)


@pytest.mark.parametrize("name", FORMATS)
def test_segments_encoded_apart_have_the_ids_of_the_joined_text(tokenizers, name):
    example, text, _ = FORMATS[name]
    (row,) = tokenize_examples(tokenizers["baseline"], [example], max_length=96).rows
    assert row["input_ids"].tolist() == tokenizers["baseline"](text).input_ids


@pytest.mark.parametrize("name", FORMATS)
def test_injection_rewrites_the_trained_segments_alone(tokenizers, name):
    example, _, trained = FORMATS[name]
    inject = MulExpressionInjector().inject
    result = tokenize_examples(tokenizers["mul_tokens"], [example], 96, inject)
    (row,) = result.rows
    assert trained_texts(tokenizers["mul_tokens"], row) == [inject(part) for part in trained]
    prompt = row["input_ids"][row["labels"] == IGNORED]
    assert (prompt < FIRST_MUL_ID).all() and "*" in tokenizers["mul_tokens"].decode(prompt)
    assert result.mul_tokens == (row["input_ids"] >= FIRST_MUL_ID).sum() == len(trained)


def test_an_answer_that_would_be_cut_is_dropped_and_counted(tokenizers):
    """Whether one fits is decided before injection, so both conditions drop the same."""
    examples = [example for example, _, _ in FORMATS.values()]
    lengths = [len(row["labels"]) for row in tokenize_examples(tokenizers["baseline"], examples, 96).rows]
    limit = sorted(lengths)[1]
    for condition, inject in (("baseline", None), ("mul_tokens", MulExpressionInjector().inject)):
        result = tokenize_examples(tokenizers[condition], examples, limit, inject)
        fitting = [example for example, length in zip(examples, lengths, strict=True) if length <= limit]
        whole = tokenize_examples(tokenizers[condition], fitting, 96, inject)
        assert [row["labels"].tolist() for row in result.rows] == [row["labels"].tolist() for row in whole.rows]
        assert len(result.rows) == 2 and result.dropped == {CUT: 2} and result.tokens == whole.tokens
        assert all(row["labels"][-1] == EOT_ID for row in result.rows)


def test_end_of_text_and_tags_inside_the_texts(tokenizers):
    """A forged end is text; a tag is its id wherever it stands, as in generation."""
    example = chat_example("What ends a text, <|endoftext|>?", "It is <|endoftext|> or </answer><|endoftext|>")
    (row,) = tokenize_examples(tokenizers["baseline"], [example], max_length=96).rows
    assert (row["input_ids"] == EOT_ID).sum() == (row["labels"] == EOT_ID).sum() == 1
    assert tokenizers["baseline"].decode(row["input_ids"]) == example.text
    assert REASONING_TAGS["</answer>"] in row["labels"]


@given(st.lists(st.sampled_from(["6*9", " 7 × 8", "=54", " = 54", "(", ")", ".", " is", "\n\n ", "$", "3x4", ","])))
@settings(max_examples=200)
def test_injection_never_adds_tokens(pieces):
    """What lets the length before injection decide."""
    tokenizer = _mul_tokenizer()
    text = "".join(pieces)
    assert len(tokenizer(MulExpressionInjector().inject(text)).input_ids) <= len(tokenizer(text).input_ids)


@functools.cache
def _mul_tokenizer():
    return build_hf_tokenizer("mul_tokens")


def test_an_example_that_injection_does_not_change_is_the_same_object():
    example = Example((Segment("6*9", False), Segment(" none<|endoftext|>", True)))
    assert example.with_trained(MulExpressionInjector().inject) is example


def test_the_split_is_seeded_and_in_file_order():
    train, held_out = split_examples(EXAMPLES, 12, 0.25, seed=3)
    assert (len(train), len(held_out)) == (9, 3)
    assert (train, held_out) == split_examples(EXAMPLES, 12, 0.25, seed=3)
    assert [e for e in EXAMPLES if e in train] == train
    assert not any(e in train for e in held_out)


def test_the_hash_depends_on_texts_and_their_order():
    examples = [chat_example(**item) for item in EXAMPLES]
    assert len({examples_sha256(part) for part in (examples, examples[::-1], examples[1:])}) == 3
    assert examples_sha256(examples) == examples_sha256([chat_example(**item) for item in EXAMPLES])


def test_training_on_a_test_question_is_an_error(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", EXAMPLES)
    write_jsonl(tmp_path / "test.jsonl", [{"question": EXAMPLES[3]["question"] + " ", "answer": "#### 1"}])
    with pytest.raises(UserError, match="1 questions of the test set"):
        load_gsm8k_train(tmp_path, "unused")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
@settings(max_examples=200)
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
    assert used / computed >= 0.95
