"""Which numbers a text states, and where."""

import pytest

from eval.stated_numbers import stated_numbers
from tests.helpers import cpu_seconds


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,200 nuts and 2.5 kg for $.75", [1200, 2.5, 0.75]),
        ("Twice a week three men", [2, 7, 3]),
        ("A4 and 6x9", [4, 6, 9]),
        ("1,2345 and pens.54", [1, 2345, 54]),
        ("<MUL_6_9_54> and <DIV_54_6_9>, then <SQUARE_20_400>", [54, 9, 400]),
        ("someone often weighs tenths", []),
        ("Forty-four", [4]),
        ("", []),
    ],
)
def test_values(text, values):
    assert [value for _, value in stated_numbers(text)] == values


def test_some_words_are_numbers_only_to_a_reader():
    text = "a dozen for an egg each, twenty once"
    assert stated_numbers(text) == [(len(text), 1.0)]
    assert [value for _, value in stated_numbers(text, to_a_reader=True)] == [1, 12, 1, 1, 20, 1]


def test_places_are_where_numbers_end():
    assert stated_numbers("six 9s") == [(3, 6.0), (5, 9.0)]


@pytest.mark.parametrize("unit", ["234,", "1,234,", ".5", "a ", "<MUL_6_9_", "9", "."])
def test_time_is_linear(unit):
    text = unit * (200_000 // len(unit))
    assert cpu_seconds(stated_numbers, text, True, repeats=1) < 2
