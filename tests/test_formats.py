"""Prompt formats: what they look like, and that prompt and completion encode apart as they do together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.formats import (
    END_OF_TEXT,
    chat_completion,
    chat_document,
    chat_prompt,
    reasoning_completion,
    reasoning_prompt,
    split_gsm8k_answer,
)
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import CONDITIONS, EOT_ID

TOKENIZERS = {condition: GPT2TokenizerWithMulFacts(condition) for condition in CONDITIONS}
ANSWERS = (
    "54",
    "$5 is right.",
    "6 * 9 = <<6*9=54>>54\n#### 54",
    "<MUL_6_9_54> is it",
    "  '54'\n",
    "",
    "…",
    "-3",
)
# Without surrogates, which UTF-8 cannot hold.
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


def test_chat_format_is_as_specified():
    assert chat_prompt("How many?") == "User: How many?\nAssistant:"
    assert chat_completion("Nine.\n#### 9") == " Nine.\n#### 9<|endoftext|>"
    assert chat_document("How many?", "Nine.") == "User: How many?\nAssistant: Nine."


def test_chat_document_keeps_an_end_of_text_that_the_answer_quotes():
    assert chat_document("Q", f"It is {END_OF_TEXT}").endswith(f"It is {END_OF_TEXT}")


def test_reasoning_format_is_as_specified():
    assert reasoning_prompt("How many?") == "How many?"
    assert reasoning_completion("Count.", "9") == "<think>Count.</think><answer>9</answer><|endoftext|>"


@pytest.mark.parametrize("question", ["How many? ", "How many?\n", "\tHow many?  "])
def test_no_prompt_ends_with_white_space(question):
    for prompt in (chat_prompt(question), reasoning_prompt(question)):
        assert prompt == prompt.rstrip()


def assert_encodes_apart_as_together(prompt: str, completion: str) -> None:
    for tokenizer in TOKENIZERS.values():
        together = tokenizer.encode(prompt + completion, allow_special=True)
        apart = tokenizer.encode(prompt, allow_special=True) + tokenizer.encode(completion, allow_special=True)
        assert apart == together
        assert apart[-1] == EOT_ID


@pytest.mark.parametrize("answer", ANSWERS)
def test_prompt_and_completion_ids_join(answer):
    assert_encodes_apart_as_together(chat_prompt("What is 6 times 9?"), chat_completion(answer))
    assert_encodes_apart_as_together(reasoning_prompt("What is 6 x 9?"), reasoning_completion(answer, answer))


@given(TEXT, TEXT)
@settings(max_examples=200)
def test_prompt_and_completion_ids_join_for_any_text(question, answer):
    assert_encodes_apart_as_together(chat_prompt(question), chat_completion(answer))
    assert_encodes_apart_as_together(reasoning_prompt(question), reasoning_completion(answer, question))


def test_injection_apart_is_injection_together():
    inject = MulExpressionInjector().inject
    for question, answer in (
        ("What is 6 * 9?", "6 * 9 = <<6*9=54>>54\n#### 54"),
        ("Is it 6x9", "9 x 6 = 54"),
    ):
        prompt, completion = chat_prompt(question), chat_completion(answer)
        assert inject(prompt) + inject(completion) == inject(prompt + completion)


def test_gsm8k_answer_is_split_at_the_last_mark():
    assert split_gsm8k_answer("6 * 9 = <<6*9=54>>54\n#### 54") == ("6 * 9 = <<6*9=54>>54", "54")
    assert split_gsm8k_answer("Item #### 1\n####  1,000 ") == ("Item #### 1", "1,000")


@pytest.mark.parametrize("answer", ["54", "", "6 * 9\n####", "6 * 9\n####  "])
def test_gsm8k_answer_without_a_number_is_an_error(answer):
    with pytest.raises(UserError, match="####"):
        split_gsm8k_answer(answer)
