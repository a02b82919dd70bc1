"""Numbers spelled in digit tokens, and read back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import read_jsonl
from data.encoding import tokenizer_of
from sft.examples import chat_example, tokenize_examples
from tests.helpers import SHARED_DATA
from tokenizer.digit_tokens import count_digits, spell_numbers
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer
from tokenizer.vocabulary import Vocabulary

TOKENIZER = tokenizer_of("mul_tokens", "mul+digits")
CASES = [
    ("54", "<DIGIT_5_1><DIGIT_4_0>"),
    ("I have 7.", "I have <DIGIT_7_0>."),
    ("2024 and 0", "<DIGIT_2_3><DIGIT_0_2><DIGIT_2_1><DIGIT_4_0> and <DIGIT_0_0>"),
    ("$5-3=2%", "$<DIGIT_5_0>-<DIGIT_3_0>=<DIGIT_2_0>%"),
    ("<MUL_6_9_54>+1", "<MUL_6_9_54>+<DIGIT_1_0>"),  # what stands inside a token is no number
    ("#### 10", "#### <DIGIT_1_1><DIGIT_0_0>"),
]
KEPT = ["12345", "3.14", "1,000", "12\u202f000", "a1", "1st", "007", "x2", "7²", "1_000", "", "no number"]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_spelled(text, expected):
    assert spell_numbers(text) == expected and spell_numbers(expected) == expected
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert count_digits(text) == expected.count("<DIGIT_")


@pytest.mark.parametrize("text", KEPT)
def test_kept(text):
    assert spell_numbers(text) == text and TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_every_number_of_four_digits_comes_back():
    text = " ".join(map(str, range(10_000)))
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text and TOKENIZER.count_mul_tokens(ids) == sum(len(str(n)) for n in range(10_000))


@pytest.mark.parametrize(
    "marks",
    [
        "<DIGIT_5_0><DIGIT_4_0>",
        "<DIGIT_5_1>",
        "<DIGIT_5_2><DIGIT_4_0>",
        "<DIGIT_0_1><DIGIT_4_0>",
        "<DIGIT_5_0><DIGIT_4_1>",
    ],
)
def test_what_spells_no_number_is_not_read_as_one(marks):
    assert TOKENIZER.decode(TOKENIZER.encode(f"It is {marks}.")) == f"It is {marks}."


PARTS = [
    *"0123456789",
    "12",
    "345",
    "6*9=54",
    "<MUL_6_9_54>",
    ".",
    ",",
    " ",
    "\n",
    "$",
    "%",
    "x",
    "a",
    "/",
    "²",
    "é",
    "\u202f",
]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_reading_what_was_spelled_gives_the_text(text):
    spelled = spell_numbers(text)
    assert spell_numbers(spelled) == spelled
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k").exists(), reason="needs shared/data/gsm8k")
def test_gsm8k_comes_back():
    rows = read_jsonl(SHARED_DATA / "gsm8k" / "test.jsonl")[:300]
    for row in rows:
        text = row["question"] + row["answer"]
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_both_tokenizers_agree_on_spelled_text_and_skipping_special_tokens_keeps_it():
    hf = build_hf_tokenizer("mul_tokens", "mul+digits")
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choice(PARTS) for _ in range(10))
        ids = hf(spell_numbers(text))["input_ids"]
        assert ids == TOKENIZER.encode(text)
        assert hf.decode(ids, skip_special_tokens=True) == spell_numbers(text)


def test_baseline_and_other_choices_leave_numbers_alone():
    for tokenizer in (tokenizer_of("baseline", "mul+digits"), tokenizer_of("mul_tokens")):
        assert tokenizer.count_mul_tokens(tokenizer.encode("54")) == 0


def test_supervised_stages_spell_prompts_too_and_drop_the_same_examples_in_both_conditions():
    examples = [chat_example(f"What is {'1 + ' * n}5?", f"It is {n + 5}.") for n in range(1, 12)]
    rows, dropped = {}, {}
    for condition in ("baseline", "mul_tokens"):
        vocabulary = Vocabulary(condition, "mul+digits")
        hf = build_hf_tokenizer(condition, "mul+digits")
        found = tokenize_examples(hf, examples, 40, None, vocabulary)
        rows[condition], dropped[condition] = found.rows, found.dropped
    assert dropped["baseline"] == dropped["mul_tokens"] and 0 < len(rows["baseline"]) < len(examples)
    assert len(rows["baseline"]) == len(rows["mul_tokens"])
    for example, row in zip(examples, rows["mul_tokens"], strict=False):
        assert len(row["input_ids"]) <= 40
        assert TOKENIZER.decode(row["input_ids"].tolist()) == example.text
        prompt = TOKENIZER.encode(example.segments[0].text)
        assert row["input_ids"][: len(prompt)].tolist() == prompt
