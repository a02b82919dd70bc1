"""Are a response's fact tokens right, in their place, and called for?"""

import json
import random
from dataclasses import astuple

import pytest

from data.world.family_arithmetic import family_documents
from data.world.problems import problems
from eval.fact_use import FactUse, fact_use
from tests.helpers import SHARED_DATA, cpu_seconds
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector

TOKENIZER = GPT2TokenizerWithMulFacts("mul_tokens")
ALL = GPT2TokenizerWithMulFacts("mul_tokens", "mul+add+square+div+digits")
QUESTION = "Tom has 6 boxes of nine pens. How many pens?"


def use(text: str, question: str = QUESTION) -> tuple[int, int, int, int]:
    found = fact_use(question, TOKENIZER.encode(text), TOKENIZER)
    assert list(found) == ["mul"]
    return astuple(found["mul"])


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
    assert fact_use(QUESTION, ids, TOKENIZER) == {"mul": FactUse(0, 0, 0, 0)}


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


# ---- the other families


def use_of(family: str, text: str, question: str) -> tuple[int, int, int, int]:
    """Of one family; whatever others the text has."""
    return astuple(fact_use(question, ALL.encode(text), ALL)[family])


STORY = "54 pens for 6 boys, 9 girls and seven cats."  # 7 in letters


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        # right, wrong, behind an operator
        (" It is <ADD_6_9_15> boys and girls.", (1, 1, 1, 1)),
        (" It is <ADD_6_9_15> = 15", (1, 1, 1, 1)),
        (" It is 6 + 9 = <<<ADD_6_9_15>>>15", (1, 1, 1, 1)),  # as injection has it
        (" It is <ADD_6_9_15> = $15", (1, 1, 1, 1)),
        (" It is <ADD_6_9_15> = 16", (1, 0, 1, 1)),
        (" It is <ADD_6_9_15> = <DIV_54_6_9>", (1, 0, 1, 1)),
        (" It is 2 - <ADD_6_9_15> = 5", (1, 1, 0, 1)),  # the result is the difference's; 2-6+9=15 says another thing
        (" It is <ADD_6_9_15> = 10 + 5", (1, 1, 1, 1)),
        # a longer sum is not 6+9, nor is it a factor
        (" It is <ADD_6_9_15> + 3", (1, 1, 0, 1)),
        (" It is 2*<ADD_6_9_15>", (1, 1, 0, 1)),
        (" <ADD_6_9_15><ADD_6_9_15>", (2, 2, 0, 2)),
        (" <ADD_6_9_15><MUL_6_9_54>", (1, 1, 0, 1)),
        (" <ADD_6_9_15>th", (1, 1, 0, 1)),
        # from numbers that are there, in letters too, or from nowhere
        (" <ADD_6_7_13>", (1, 1, 1, 1)),
        (" <ADD_3_8_11>", (1, 1, 1, 0)),
        (" 3 and 8 are <ADD_3_8_11>", (1, 1, 1, 1)),
        (" 15 pens", (0, 0, 0, 0)),
    ],
)
def test_sums(text, counts):
    assert use_of("add", text, STORY) == counts


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (" It is <SQUARE_6_36>.", (1, 1, 1, 1)),
        (" <SQUARE_6_36> = <<<SQUARE_6_36>>>36", (2, 2, 2, 2)),
        (" <SQUARE_6_36> = 35", (1, 0, 1, 1)),
        (" <SQUARE_6_36> = 6^2", (1, 1, 1, 1)),  # worked out further on
        (" 3*<SQUARE_6_36> = 108", (1, 1, 1, 1)),  # it binds tighter
        (" -<SQUARE_6_36>", (1, 1, 0, 1)),
        (" <SQUARE_6_36>^2", (1, 1, 0, 1)),
        (" 4<SQUARE_6_36>", (1, 1, 0, 1)),
        (" <SQUARE_7_49>", (1, 1, 1, 1)),
        (" <SQUARE_12_144>", (1, 1, 1, 0)),
        (" a dozen: <SQUARE_12_144>", (1, 1, 1, 1)),
    ],
)
def test_squares(text, counts):
    assert use_of("square", text, STORY) == counts


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (" Each gets <DIV_54_6_9> pens.", (1, 1, 1, 1)),
        (" Each gets <DIV_54_6_9> = <<<DIV_54_6_9>>>9 pens.", (2, 2, 2, 2)),
        (" Each gets <DIV_54_6_9> = 8 pens.", (1, 0, 1, 1)),
        (" Each gets <DIV_54_6_9> = <<<DIV_54_6_9>>>6 pens.", (2, 1, 2, 2)),
        (" It is 2 + <DIV_54_6_9> = 11", (1, 1, 1, 1)),
        (" It is 54/<DIV_54_6_9>", (1, 1, 0, 1)),
        (" It is <DIV_54_6_9>/3", (1, 1, 0, 1)),
        (" 4<DIV_54_6_9>", (1, 1, 0, 1)),
        (" <DIV_63_9_7>", (1, 1, 1, 0)),
        (" <MUL_7_9_63>, then <DIV_63_9_7>", (1, 1, 1, 1)),  # the dividend is another fact's value
    ],
)
def test_quotients(text, counts):
    assert use_of("div", text, STORY) == counts


def test_each_family_is_counted_by_itself():
    text = " <MUL_6_9_54> = 54, <ADD_6_9_15> = 14, <SQUARE_7_49>, <DIV_54_6_9>"
    found = fact_use(STORY, ALL.encode(text), ALL)
    assert found == {
        "mul": FactUse(1, 1, 1, 1),
        "add": FactUse(1, 0, 1, 1),
        "square": FactUse(1, 1, 1, 1),
        "div": FactUse(1, 1, 1, 1),
    }
    few = GPT2TokenizerWithMulFacts("mul_tokens", "div+digits")
    assert list(fact_use(STORY, few.encode(text), few)) == ["mul", "div"]


@pytest.mark.parametrize("family", ["add", "square", "div"])
def test_the_facts_of_a_familys_training_text_are_all_right_placed_and_grounded(family):
    injector = MulExpressionInjector(families=family)
    total = 0
    for document in family_documents(family, 300, random.Random(0)):
        question, _, answer = document.partition("\nAssistant:")
        # A list of equations has no question; what its facts are made of comes from nowhere.
        counts = use_of(family, injector.inject(answer or document), question if answer else document)
        assert len(set(counts)) == 1, document
        total += counts[0]
    assert total > 300


@pytest.mark.parametrize("token", ["<MUL_6_9_54>", "<ADD_6_9_15>", "<SQUARE_6_36>", "<DIV_54_6_9>"])
def test_time_is_linear(token):
    responses = [ALL.encode(f" {token} = <<{token}>>54 and" * count) for count in (1000, 4000)]
    short, long = (cpu_seconds(fact_use, QUESTION, ids, ALL) for ids in responses)
    assert long < 8 * short  # 4 times when linear, 16 when quadratic
