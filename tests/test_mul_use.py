"""Are a response's fact tokens right, in their place, and called for?"""

import json
import random
import time

import pytest

from data.world.problems import problems
from eval.mul_use import MulUse, mul_use
from tests.helpers import SHARED_DATA
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector

TOKENIZER = GPT2TokenizerWithMulFacts("mul_tokens")
QUESTION = "Tom has 6 boxes of nine pens. How many pens?"


def use(text: str, question: str = QUESTION) -> tuple[int, int, int, int]:
    found = mul_use(question, TOKENIZER.encode(text), TOKENIZER)
    return found.total, found.right, found.placed, found.grounded


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (" He has <MUL_6_9_54> pens.", (1, 1, 1, 1)),
        (" He has <MUL_6_9_54> = 54 pens.", (1, 1, 1, 1)),
        (" He has <MUL_6_9_54> = <<<MUL_6_9_54>>>54 pens.", (2, 2, 2, 2)),
        (" He has <MUL_6_9_54> = 55 pens.", (1, 0, 1, 1)),
        (" He has <MUL_6_9_54> = <<<MUL_6_9_54>>>48 pens.", (2, 1, 2, 2)),
        (" He has <MUL_6_9_54> = <<<MUL_6_8_48>>>48 pens.", (2, 1, 2, 1)),
        (" He pays <MUL_6_9_54> = $54.", (1, 1, 1, 1)),
        (" He has 2 + <MUL_6_9_54> = 56 pens.", (1, 1, 1, 1)),  # the result is the sum's
        (" He has <MUL_6_9_54> = 50 + 4 pens.", (1, 1, 1, 1)),  # an expression, not worked out
        (" He has <MUL_7_8_56> pens.", (1, 1, 1, 0)),
        (" He has 7 and 8, so <MUL_7_8_56> pens.", (1, 1, 1, 1)),
        (" <MUL_6_9_54> pens, and 3<MUL_6_9_54> cards.", (2, 2, 1, 2)),
        (" <MUL_6_9_54>th", (1, 1, 0, 1)),
        (" <MUL_6_9_54>*3", (1, 1, 0, 1)),
        (" <MUL_6_9_54><MUL_6_9_54>", (2, 2, 0, 2)),
        (" 54 pens", (0, 0, 0, 0)),
        ("", (0, 0, 0, 0)),
    ],
)
def test_table(text, counts):
    assert use(text) == counts


def test_a_number_of_an_earlier_fact_is_there_for_a_later_one():
    assert use(" <MUL_2_4_8> and <MUL_3_8_24>", "2 with 4, then 3?") == (2, 2, 2, 2)
    assert use(" <MUL_3_8_24> and <MUL_2_4_8>", "2 with 4, then 3?")[3] == 1


def test_spelling_is_no_token():
    ids = [token for part in ("<MUL", "_6_9_54>") for token in TOKENIZER.encode(part)]
    assert TOKENIZER.decode(ids) == "<MUL_6_9_54>"
    assert mul_use(QUESTION, ids, TOKENIZER) == MulUse(0, 0, 0, 0)


def test_the_facts_of_training_text_are_all_right_placed_and_grounded():
    injector = MulExpressionInjector()
    total = 0
    for problem in problems(400, random.Random(0)):
        counts = use(injector.inject(problem.answer), problem.question)
        assert len(set(counts)) == 1, problem
        total += counts[0]
    assert total > 400


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k").is_dir(), reason="real GSM8K is not on this machine")
def test_the_facts_of_gsm8k_are_right_and_placed():
    injector = MulExpressionInjector()
    sums = [0, 0, 0, 0]
    for line in (SHARED_DATA / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        counts = use(injector.inject(row["answer"]), row["question"])
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
    total, right, placed, grounded = sums
    assert total > 700 and right == total and placed > 0.99 * total and grounded > 0.8 * total


def test_time_is_linear():
    text = " <MUL_6_9_54> = <<<MUL_6_9_54>>>54 and" * 3000
    started = time.perf_counter()
    use(text)
    assert time.perf_counter() - started < 5
