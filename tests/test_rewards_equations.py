"""rl/equations.py: what is an equation, what it says, and whether it holds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.equations import facts_in, read_sentences
from tests.helpers import cpu_seconds

FACT = "<MUL_2_7_14>"


def equations_of(text):
    return [equation for sentence in read_sentences(text) for equation in sentence.equations]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("6*9 = 54", [(54, True)]),
        ("6 x 9=54 apples", [(54, True)]),
        ("<ADD_6_9_15> * 2 + 1 = 31", [(31, True)]),  # facts of other families are facts too
        ("<ADD_6_9_15> = 15", [(15, True)]),
        ("<SQUARE_20_400> = <<<SQUARE_20_400>>>40", [(40, False), (40, False)]),
        ("54 / 6 = <<<DIV_54_6_9>>>9", [(9, True), (9, True)]),
        ("<DIV_81_9_9> = <SQUARE_3_9>", [(9, True)]),
        ("<DIV_54_6_9> + <MUL_6_9_54> = 64", [(64, False)]),
        ("6 × 9 = 55", [(55, False)]),
        ("6x9=54 and 3 x4 = 13", [(54, True), (13, False)]),
        (f"{FACT}x2 = 2x{FACT}", [(28, True)]),
        ("7² + 5 = 54", [(54, True)]),  # not 7 + 5
        ("<<7^2=49>>50", [(49, True)]),
        ("2 * 3 ** 2 = 18", [(18, True)]),
        ("-7^2 + 50 = 1", [(1, True)]),
        ("(3² + 4²)x2 = 50 m²", [(50, True)]),
        ("5 m² + 3 m² = 9 m²", [(9, False)]),  # a unit
        ("2³ + 1 = 9, 2^10 + 1 = 3", []),  # other powers end an expression
        ("She pays 3 * $8 = $24.", [(24, True)]),
        ("6 * 9 = <<6*9=54>>54", [(54, True), (54, True)]),
        ("6 * 9 = <<6*9=54>>55", [(54, True), (55, False)]),
        ("6 * 9 = <<6*9=55>>54", [(55, False), (54, True)]),
        (f"{FACT} = <<{FACT}>>14", [(14, True), (14, True)]),
        (f"3 quarts = <<{FACT}>>15", [(15, False)]),
        (f"{FACT} = 15", [(15, False)]),
        (f"7*2 = {FACT}", [(14, True)]),
        (f"({FACT}) + 4 = 18", [(18, True)]),
        (f"{FACT}km = 14km", [(14, True)]),
        ("2+3*4 = 14", [(14, True)]),
        ("(2+3)*4 = 20", [(20, True)]),
        ("((2+3)*(4-1))/5 = 3", [(3, True)]),
        ("20-5-3 = 12", [(12, True)]),
        ("24/4/2 = 3", [(3, True)]),
        ("-3 + 5 = 2", [(2, True)]),
        ("6*-2 = -12", [(-12, True)]),
        ("1,200 + 34 = 1,234", [(1234, True)]),
        ("0.1 + 0.2 = 0.3", [(0.3, True)]),
        ("10/3 = 3.33", [(3.33, True)]),
        ("10/3 = 3", [(3, False)]),
        ("10/3 = 3.34", [(3.34, False)]),
        ("6 quarts * 4 cups/quart = 24 cups", [(24, True)]),
        ("109 fifth graders + 115 sixth graders = 224", [(224, True)]),
        ("4*5 = 20 = 2*10", [(20, True), (20, True)]),
        ("6*9 = 54 - 4 = 50", [(54, False), (50, True)]),
        ("(5*3 = 15)", [(15, True)]),
        ("there are 5 and 3*4 = 12", [(12, True)]),
        ("5 3*4 = 12", [(12, True)]),
        ("10/0 = 3", [(3, False)]),
        ("(2+3 = 6) and 2)*3 = 6", [(6, False)]),
        ("3*(4 = 12", []),
        ("54 = 54", []),
        (f"{FACT} = {FACT}", []),
        ("7 = 72", []),
        ("x = 5", []),
        ("x2 * 3 = 6", []),
        ("= = =", []),
        ("5* = 3", []),
        ("3*4 is 12", []),
        ("3*4 =\n12", []),
        ("12345678901234567890 * 1 = 12345678901234567890", []),
        ("", []),
    ],
)
def test_equations(text, found):
    assert [(equation.value, equation.holds) for equation in equations_of(text)] == found


def test_what_an_equation_says():
    [said] = equations_of("24 - 4 + 3*2 = 26")
    assert said.operands == (24, 4, 3, 2) and said.lone_facts == () and not said.is_trivial
    [said] = equations_of(f"{FACT} = 15")
    assert said.operands == (2, 7) and said.lone_facts == (FACT,)
    [said] = equations_of("<SQUARE_7_49> = 49")
    assert said.operands == (7,) and said.lone_facts == ("<SQUARE_7_49>",)
    [said] = equations_of(f"{FACT} + 1 = 15")
    assert said.operands == (14, 1) and said.lone_facts == ()


@pytest.mark.parametrize(
    ("text", "trivial"), [("18*1=18", True), ("18+0=18", True), ("8-4=4", False), ("1+1=2", False)]
)
def test_trivial(text, trivial):
    assert equations_of(text)[0].is_trivial is trivial


def test_sentences_keep_facts_and_order():
    first, second = read_sentences(f"He has {FACT} cups = <<{FACT}>>14. So what\nThen 14 - 4 = 10 are left")
    assert first.facts == [FACT, FACT] and second.equations[0].value == 10
    assert facts_in("<MUL_2_7_14> <MUL_0_7_0> <MUL_2_7_> <SUB_2_7_5> <ADD_2_7_9>") == [FACT, "<ADD_2_7_9>"]


@given(st.lists(st.sampled_from(["+", "-", "*", "/", "(", ")", " "]), max_size=8), st.randoms(use_true_random=False))
def test_python_agrees(signs, rng):
    """Any calculation that Python can work out is read with Python's value."""
    text = "".join(f"{rng.randint(1, 9)}{sign}" for sign in signs if sign in "+-*/") + str(rng.randint(1, 9))
    cut = rng.randrange(len(text))
    text = f"({text})*2" if cut % 2 else text
    if any(sign in text for sign in "+-*/"):
        [said] = equations_of(f"{text}=777777")
        value = eval(text)
        assert equations_of(f"{text}={value:.9f}")[0].holds and not said.holds
        assert not equations_of(f"{text}={value + 0.01:.9f}")[0].holds


@given(st.text(alphabet="0123456789+-*/=()<>MULADIV_. x\n$,²^", max_size=200))
def test_any_text_is_read(text):
    for equation in equations_of(text):
        assert isinstance(equation.holds, bool)


UNITS = [
    "9",
    "9 ",
    "9+",
    "(",
    "(9",
    ")",
    "1,234,",
    "9=",
    "9*9=81 ",
    "<<",
    "<<9",
    ">>",
    "<MUL_2_7_14>",
    "9 a b ",
    "-",
    "a ",
    "<<<MUL_2_7_14>",
    "<SQUARE_20_400>+",
    "1/",
    "9 a/b ",
    "=",
    "234,",
    "7²",
    "7^2",
    "5x",
]


@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear(unit):
    """Three texts of 200,000 characters; a quadratic pattern would need minutes."""
    text = unit * (200_000 // len(unit))
    for piece in (text, text + "=", "1=" + text + "2345= 3*4 = 12"):
        assert cpu_seconds(read_sentences, piece, repeats=1) < 3.0


def test_a_long_sum_is_worked_out():
    numbers = [random.Random(0).randint(1, 9) for _ in range(20_000)]
    assert equations_of("+".join(map(str, numbers)) + f"={sum(numbers)}")[0].holds
