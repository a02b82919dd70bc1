import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.answers import as_text, extract_flexible, extract_strict, first_turn, last_number
from tests.helpers import cpu_seconds

GSM8K = Path(__file__).parents[2] / "shared/data/gsm8k"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", "18"),
        ("####18", "18"),
        ("#####18", "18"),
        ("#### $18", "18"),
        ("#### $ 18", None),
        ("#### 18.", "18"),
        ("#### 18.00", "18"),
        ("#### 0.5", "0.5"),
        ("#### .5", "0.5"),
        ("#### 1,234", "1234"),
        ("#### 1,234,567.5", "1234567.5"),
        ("#### 1,2345", None),
        ("#### 1.2.3", None),
        ("#### -5", "-5"),
        ("####-5", "-5"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("#### \u22125", "-5"),
        ("#### 50%", "50"),
        ("#### 18 dollars a day", "18"),
        ("#### 18dollars", "18"),
        ("#### 18\nUser: another 7", "18"),
        ("#### 1\nno, wait\n#### 2", "2"),
        ("#### 1\n####", None),
        ("####\n18", None),
        ("#### about 18", None),
        ("#### 48/2", None),
        ("#### 5-3", None),
        ("#### 5 - 3 = 2", None),
        ("#### 2 * <MUL_2_3_6>", None),
        ("#### 2 + <ADD_2_3_5>", None),
        ("#### 10:30", None),
        ("#### 5-year plan", "5"),
        ("#### 18\n- 5 more", "18"),
        ("#### 10, 12", "10"),
        ("### 18", None),
        ("18", None),
        ("", None),
    ],
)
def test_strict(text, number):
    assert extract_strict(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 18.", "18"),
        ("The answer is 1,234.", "1234"),
        ("The answer is $1,234.50!", "1234.50"),
        ("so 5-3", "3"),
        ("so 5 - 3", "3"),
        ("so $5-$3", "3"),
        ("(4)-3", "3"),
        ("50%-3", "3"),
        ("5-8=-3", "-3"),
        ("5-8=<<5-8=-3>>-3", "-3"),
        ("<MUL_2_3_6>-3", "3"),
        ("which is -3", "-3"),
        ("which is \u22123", "-3"),
        ("3,4,5", "5"),
        ("**18**", "18"),
        ("6*9", "9"),
        ("it is <MUL_6_9_54>", "54"),
        ("it is <ADD_6_9_15>", "15"),  # the tokens of other families too
        ("3 or <SQUARE_20_400>", "400"),
        ("3, so <DIV_54_6_9>.", "9"),
        ("<MUL_2_3_6>=<<<MUL_2_3_6>>>6 hours at x60", "6"),
        ("H2O and x2", None),
        ("no number", None),
        ("", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 7 and 8", "7"),
        ("<answer>9</answer> #### 7", "7"),
        ("<think>1</think><answer>9</answer> or 10", "9"),
        ("<answer>8</answer><answer>$9.00</answer>", "9"),
        ("<answer>none</answer> 4", "4"),
        ("</answer> 4 <answer>5", "5"),
        ("#### ? so 12", "12"),
        ("nothing", None),
    ],
)
def test_flexible(text, number):
    assert extract_flexible(text) == (None if number is None else Decimal(number))


def test_first_turn_ends_where_the_model_asks_itself_the_next_question():
    assert first_turn(" 54\nUser: What is 1 times 1?\nAssistant: 1") == " 54"
    assert first_turn(" a User: inside a line") == " a User: inside a line"


def test_as_text_is_plain_digits():
    assert [as_text(Decimal(x)) for x in ("1E+2", "-0.50")] == ["100", "-0.50"]
    assert as_text(None) is None


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}", "{}.", "{}.00", "{:,}.0 dollars", "{}%"]))
def test_every_form_of_an_integer_is_that_integer(number, form):
    text = form.format(number)
    assert extract_strict(f"so\n#### {text}") == number
    assert last_number(f"it is {text}") == number


@given(st.text())
def test_any_text_is_read_without_error(text):
    extract_strict("####" + text)
    extract_flexible(f"<answer>{text}</answer>")


@pytest.mark.parametrize("unit", ["9", "9,", "1,234,", "-", "$", "9-", "####", "<answer>", "1.", "<MUL_", " ", "9 "])
def test_time_is_linear(unit):
    text = "####" + unit * (200_000 // len(unit)) + "x"
    for extract in (extract_strict, extract_flexible):
        assert cpu_seconds(extract, text, repeats=1) < 1.0  # a quadratic pattern needs minutes here


@pytest.mark.skipif(not GSM8K.is_dir(), reason="real GSM8K is not on this machine")
@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
def test_every_gold_answer_of_gsm8k_scores(name):
    rows = [json.loads(line) for line in (GSM8K / name).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        gold = Decimal(row["answer"].split("####")[1].strip().replace(",", ""))
        assert extract_strict(row["answer"]) == extract_flexible(row["answer"]) == gold
