"""data/tinygsm/conversion.py: what is written is true, ends in the function's answer, and can be injected."""

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings

from data.tinygsm.conversion import convert, in_words, written
from data.tinygsm.interpreter import trace_solution
from data.tinygsm.values import Unsupported
from eval.answers import extract_flexible, extract_strict
from tests.test_tinygsm_interpreter import body, programs
from tests.tinygsm_rows import synthetic_rows
from tokenizer.inject_mul import MulExpressionInjector

PARTY = body(
    '"""Trays and drinks for a party."""',
    "trays = 10",
    "tray_cost = 50",
    "cases = 8",
    "case_cost = 7",
    "tray_total = trays * tray_cost",
    "case_total = cases * case_cost",
    "total_cost = tray_total + case_total",
    "result = total_cost",
    "return result",
)
SHOP = body(
    "numApples, price = 12, 0.25",
    "weights = [3, 4.5]",
    "third = 1 / 3",
    "part = numApples * third",
    "cost = numApples * price + 2 * 3 - 1",
    "for weight in weights:",
    "    cost += weight",
    "if cost > 15 and part == 4:",
    "    cost = cost - -2",
    "boxes = int(17 // 5) + 17 % 5",
    "mean = round(sum(weights) / len(weights), 1)",
    "best = max(mean, boxes) ** 2",
    "return best * 4",
)


def test_a_solution_becomes_its_steps():
    assert convert(PARTY).split("\n") == [
        "trays = 10",
        "tray cost = 50",
        "cases = 8",
        "case cost = 7",
        "tray total = 10 * 50 = 500",
        "case total = 8 * 7 = 56",
        "total cost = 500 + 56 = 556",
        "#### 556",
    ]


def test_all_that_is_supported_is_written_in_words():
    assert convert(SHOP).split("\n") == [
        "num apples = 12",
        "price = 0.25",
        "weights = 3, 4.5",
        "third = 1/3",
        "part = 12 * (1/3) = 4",
        "12 * 0.25 = 3",
        "2 * 3 = 6",
        "cost = 3 + 6 - 1 = 8",
        "cost = 8 + 3 = 11",
        "cost = 11 + 4.5 = 15.5",
        "Is 15.5 greater than 15? Yes.",
        "Is 4 equal to 4? Yes.",
        "cost = 15.5 - (-2) = 17.5",
        "17 / 5 rounded down = 3",
        "remainder of 17 / 5 = 2",
        "boxes = 3 + 2 = 5",
        "3 + 4.5 = 7.5",
        "count of 3, 4.5 = 2",
        "7.5 / 2 = 3.75",
        "mean = 3.75 rounded to 1 decimal = 3.8",
        "largest of 3.8, 5 = 5",
        "best = 5 ^ 2 = 25",
        "answer = 25 * 4 = 100",
        "#### 100",
    ]


def test_what_only_hands_the_answer_on_is_left_out():
    assert convert(body("a = 2 * 4", "b = a", "result = b", "return result")) == "a = 2 * 4 = 8\n#### 8"
    assert convert(body("a = 2 * 4", "return -a")) == "a = 2 * 4 = 8\nanswer = -8\n#### -8"


def test_single_digit_products_become_tokens():
    lines = MulExpressionInjector().inject(convert(SHOP)).split("\n")
    assert "<MUL_2_3_6>" in lines and "answer = 25 * 4 = 100" in lines
    assert "case total = <MUL_7_8_56>" in MulExpressionInjector().inject(convert(PARTY))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (body("return 5"), "no_calculation"),
        (body("a = 5", "if a > 3:", "    a = 2", "return a"), "no_calculation"),
        (body("return 10 / 3"), "answer_not_a_decimal"),
        (body("return 2 ** 0.5"), "inexact_value"),
        (body("a = 1 / 997", "return a * 997"), "inexact_value"),
        (body("return round(5 / 2)"), "inexact_value"),  # 2 in Python, 3 at school
        (body("return f'{2 + 3}'"), "answer_not_a_number"),
        (body("return 2 + 3 == 5"), "answer_not_a_number"),
        (body("return [2 + 3]"), "answer_not_a_number"),
        (body("return sum(range(100))"), "long_list"),
        (body("return round(1234, -2)"), "rounded_before_the_point"),
    ],
)
def test_what_cannot_be_written_is_refused(code, reason):
    with pytest.raises(Unsupported, match=f"^{reason}$"):
        convert(code)


def test_floats_are_what_they_are_meant_to_be():
    assert written(0.1 + 0.2).text == "0.3" and written(1.1 * 3).exact == Fraction("3.3")
    assert written(20.0).text == "20" and written(-0.0).text == "0" and written(2 / 3).text == "2/3"
    with pytest.raises(Unsupported):
        written(0.1234567891)


def test_names_become_words():
    names = {"num_apples": "num apples", "crayonsLeft": "crayons left", "_day_1": "day 1", "x": "x", "_": "_"}
    assert {name: in_words(name) for name in names} == names


def value_of(expression: str) -> Fraction | None:
    """What an expression of written numbers is worth, as school reads it; None for one in words."""
    if re.search(r"[a-z,]", expression):
        return None
    return eval(re.sub(r"\d+(\.\d+)?", r"Fraction('\g<0>')", expression).replace("^", "**"), {"Fraction": Fraction})


@settings(max_examples=100)
@given(programs())
def test_every_equation_is_true_and_the_answer_is_the_functions(program):
    try:
        text = convert(program)
    except Unsupported:
        return
    *lines, last = text.split("\n")
    for line in lines:
        sides = [value for side in line.split(" = ") if (value := value_of(side)) is not None]
        assert len(set(sides)) <= 1, line
    answer = trace_solution(program).answer
    assert last.startswith("#### ") and float(last[5:]) == pytest.approx(answer, rel=1e-9)
    assert extract_strict(text) == extract_flexible(text) == Decimal(last[5:])


def test_synthetic_rows_convert_and_keep_their_answers_when_injected():
    rows = synthetic_rows(200, seed=0)
    assert rows == synthetic_rows(200, seed=0) and len({row["question"] for row in rows}) == 200
    for row in rows:
        text = convert(row["code"])
        injected = MulExpressionInjector().inject(text)
        assert extract_strict(injected) == extract_strict(text) == trace_solution(row["code"]).answer
        # Where one-digit numbers are multiplied, a token stands, and no such product is left.
        assert ("<MUL_" in injected) == bool(re.search(r"\b[1-9] \* [1-9]\b", text))
        assert not re.search(r"\b[1-9] \* [1-9]\b", injected)
