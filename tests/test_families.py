"""The token families: ids, facts, and the vocabulary that every choice of them gives."""

import re
from itertools import combinations

import numpy as np
import pytest
import yaml

from common.errors import UserError
from rl.equations import facts_in, operands_of, value_of
from tokenizer.families import chosen_families, fact_families, fact_pattern, families_name, read_families
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import CONDITIONS, EOT_ID, REASONING_TAGS, MulFactTokens
from tokenizer.vocabulary import Vocabulary

NAMES = ("mul", "add", "square", "div", "digits")
CHOICES = ["+".join(chosen) for count in range(1, 6) for chosen in combinations(NAMES, count)]
# First and last id and token of each: what models were trained with never moves.
BLOCKS = {
    "mul": (50304, "<MUL_1_1_1>", 50348, "<MUL_9_9_81>"),
    "add": (50349, "<ADD_1_1_2>", 50393, "<ADD_9_9_18>"),
    "square": (50394, "<SQUARE_1_1>", 50413, "<SQUARE_20_400>"),
    "div": (50414, "<DIV_2_2_1>", 50485, "<DIV_81_9_9>"),
    "digits": (50261, "<DIGIT_0_0>", 50300, "<DIGIT_9_3>"),
    "chinese": (50304, "<MUL_1_1_1>", 50348, "<MUL_9_9_81>"),
}
SIZES = {"mul": 50349, "digits": 50349, "mul+digits": 50349, "mul+add": 50394, "mul+add+square": 50414, "div": 50486}


def test_the_blocks_of_ids():
    found = {
        name: (family.facts[0].id, family.facts[0].token, family.facts[-1].id, family.facts[-1].token)
        for name, family in read_families().items()
    }
    assert found == BLOCKS
    for name, family in read_families().items():
        assert [fact.id for fact in family.facts] == list(range(BLOCKS[name][0], BLOCKS[name][2] + 1))


def test_every_fact_is_true_and_named_after_what_it_says():
    result = {
        "mul": lambda a, b: a * b,
        "add": lambda a, b: a + b,
        "square": lambda a, b: a**2,
        "div": lambda a, b: a / b,
        "digits": lambda a, b: a * 10**b,
    }
    written = {
        "mul": lambda a, b, c: f"<MUL_{a}_{b}_{c}>",
        "add": lambda a, b, c: f"<ADD_{a}_{b}_{c}>",
        "square": lambda a, b, c: f"<SQUARE_{a}_{c}>",
        "div": lambda a, b, c: f"<DIV_{a}_{b}_{c}>",
        "digits": lambda a, b, c: f"<DIGIT_{a}_{b}>",
    }
    for name in NAMES:
        for fact in read_families()[name].facts:
            assert fact.value == result[name](*fact.operands)
            assert fact.token == written[name](*fact.operands, fact.value)


def test_the_facts_of_a_family_are_all_there_and_distinct():
    operands = {name: {fact.operands for fact in read_families()[name].facts} for name in NAMES}
    unordered = {(a, b) for a in range(1, 10) for b in range(a, 10)}
    assert operands["mul"] == operands["add"] == unordered
    assert operands["square"] == {(n, n) for n in range(1, 21)}
    assert operands["div"] == {(n, b) for b in range(2, 10) for n in range(b, 9 * b + 1) if n % b == 0}
    assert operands["digits"] == {(digit, place) for digit in range(10) for place in range(4)}
    tokens = [fact.token for name in NAMES for fact in read_families()[name].facts]
    assert len(tokens) == len(set(tokens)) == 45 + 45 + 20 + 72 + 40


def test_chinese_is_another_form_of_mul():
    assert read_families()["chinese"].facts == read_families()["mul"].facts
    assert Vocabulary("mul_tokens", "mul+chinese").facts == Vocabulary("mul_tokens", "mul").facts


def test_the_families_of_facts():
    found = {choice: [f.name for f in fact_families(choice)] for choice in ("mul+digits", "chinese", "div+mul+chinese")}
    assert found == {"mul+digits": ["mul"], "chinese": ["mul"], "div+mul+chinese": ["mul", "div"]}


def test_what_reads_decoded_text_knows_every_fact():
    """A new family's facts, too: longer numbers than the patterns have room for would silently count for nothing."""
    for family in fact_families("+".join(read_families())):
        for fact in family.facts:
            assert re.fullmatch(fact_pattern(), fact.token)["value"] == str(fact.value)
            assert facts_in(f" {fact.token}.") == [fact.token] and value_of(fact.token) == fact.value
            assert set(operands_of(fact.token)) == set(fact.operands)


def test_sizes():
    assert {choice: Vocabulary("mul_tokens", choice).size for choice in SIZES} == SIZES


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_has_one_size_and_every_id_is_encodable_or_suppressed(choice):
    sizes = set()
    for condition in CONDITIONS:
        vocabulary = Vocabulary(condition, choice)
        sizes.add(vocabulary.size)
        facts = set(vocabulary.facts) if condition == "mul_tokens" else set()
        parts = [range(EOT_ID + 1), REASONING_TAGS.values(), facts, vocabulary.suppressed_ids]
        assert sorted(i for part in parts for i in part) == list(range(vocabulary.size))
        tokens = vocabulary.tokens_beyond_bpe()
        assert sorted(tokens.values()) == list(range(EOT_ID, vocabulary.size)) and len(set(tokens)) == len(tokens)
        for fact in facts:  # an id means the same in every choice
            assert tokens[vocabulary.facts[fact].token] == fact
    assert len(sizes) == 1


def test_the_tokens_of_a_choice_are_single_ids_and_those_of_other_families_are_text():
    tokenizer = GPT2TokenizerWithMulFacts("mul_tokens", "mul+add")
    ids = tokenizer.encode("<MUL_6_9_54><ADD_6_9_15>")
    assert (
        ids == [MulFactTokens().id_of(6, 9), 50349 + 38] and tokenizer.count_mul_tokens([*ids, 5, 50300, EOT_ID]) == 2
    )
    assert max(tokenizer.encode("<SQUARE_7_49>")) < EOT_ID
    assert max(GPT2TokenizerWithMulFacts("baseline", "mul+add").encode("<ADD_6_9_15>")) < EOT_ID
    assert tokenizer.vocabulary.count_facts(np.array([50348, 50349, 50393, 50394, 65535], dtype=np.uint16)) == 3


def test_fingerprints_differ_between_choices():
    given = [(condition, choice) for condition in CONDITIONS for choice in ("mul", "mul+add", "add", "mul+chinese")]
    assert len({GPT2TokenizerWithMulFacts(*both).fingerprint for both in given}) == len(given)


def test_the_order_of_a_choice_does_not_matter():
    assert families_name("digits+add+mul") == Vocabulary("baseline", "digits+mul+add").families == "mul+add+digits"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("mul+ad", "--families mul+ad: unknown token family 'ad'; did you mean add"),
        ("xyz", "unknown token family 'xyz'; there are mul, add, square, div, digits, chinese"),
        ("", "unknown token family ''; there are"),
        ("mul+add+mul", "--families mul+add+mul: mul is given twice"),
    ],
)
def test_a_wrong_choice_is_an_error(choice, message):
    with pytest.raises(UserError) as error:
        chosen_families(choice)
    assert message in str(error.value) and "\n" not in str(error.value)


SOUND = {"first_id": 50400, "token": "<SUB_{a}_{b}_{c}>", "rule": "sum", "numbers": [[1, 9], [1, 9]], "forms": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_id": 50300}, "sub: 50304 already belongs to mul"),
        ({"first_id": 50400, "token": "<MUL_{a}_{b}_{a}>"}, "sub: <MUL_1_1_1> already belongs to mul"),
        ({"first_id": 50250}, "sub: ids 50250 to 50294; expected 50261 to 65535"),
        ({"first_id": 65500}, "sub: ids 65500 to 65544"),
        ({"rule": "power"}, "sub: unknown rule 'power'; there are product, sum, square, quotient, digit"),
        ({"token": "MUL {a} {b}"}, "sub: token 'MUL {a} {b}'; expected a form such as <MUL_{a}_{b}_{c}>"),
        ({"token": "<SUB_{a}>"}, "sub: <SUB_1> already belongs to sub"),
        ({"forms": ["infix"]}, "sub: unknown form 'infix'; there are infix_product, infix_sum"),
        ({"form": []}, "sub: expected the keys first_id, forms, numbers, rule, token, found"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_file_and_family(change, message, tmp_path):
    path = tmp_path / "families.yaml"
    mul = {"first_id": 50304, "token": "<MUL_{a}_{b}_{c}>", "rule": "product", "numbers": [[1, 9], [1, 9]], "forms": []}
    path.write_text(yaml.safe_dump({"mul": mul, "sub": SOUND}, sort_keys=False))
    assert read_families(path)["sub"].facts[-1].id == 50444
    read_families.cache_clear()
    path.write_text(yaml.safe_dump({"mul": mul, "sub": SOUND | change}, sort_keys=False))
    with pytest.raises(UserError) as error:
        read_families(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)
