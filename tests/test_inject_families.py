"""Which expressions of the families besides `mul` are rewritten, which stay text, and why."""

import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.families import chosen_families, read_families
from tokenizer.forms import FORMS
from tokenizer.inject_mul import InjectionStats, MulExpressionInjector

ALL = "mul+add+square+div+chinese"
CHOICES = ["+".join(c) for count in range(1, 5) for c in combinations(("mul", "add", "square", "div"), count)]

REWRITTEN = [  # in weak mode, with all families
    # sums, only with their result
    ("6+9=15", "<ADD_6_9_15>"),
    ("9 + 6 = 15 apples", "<ADD_6_9_15> apples"),
    ("He has 2+3=5.", "He has <ADD_2_3_5>."),
    ("$6+$9=$<<6+9=15>>15", "$6+$9=$<<<ADD_6_9_15>>>15"),  # GSM8K's calculator note
    ("15=6+9=15", "15=<ADD_6_9_15>"),
    ("1+1=2, 2+2=4", "<ADD_1_1_2>, <ADD_2_2_4>"),
    ("- 6+9=15", "- <ADD_6_9_15>"),  # the dash of a list
    ("6 + 9 = $15", "<ADD_6_9_15> = $15"),  # money is checked but stays, as for products
    # squares
    ("7²", "<SQUARE_7_49>"),
    ("7^2 = 49", "<SQUARE_7_49>"),
    ("7**2=49", "<SQUARE_7_49>"),
    ("12 ^ 2", "<SQUARE_12_144>"),
    ("20²=400", "<SQUARE_20_400>"),
    ("3*7²", "3*<SQUARE_7_49>"),  # it binds tighter than the product
    ("3/7²", "3/<SQUARE_7_49>"),
    ("3*7²=147", "3*<SQUARE_7_49>=147"),  # the result is the product's
    ("3+7²=52", "3+<SQUARE_7_49>=52"),
    ("3 - 7^2", "3 - <SQUARE_7_49>"),
    ("7²*3", "<SQUARE_7_49>*3"),
    ("3² + 4² = 25", "<SQUARE_3_9> + <SQUARE_4_16> = 25"),
    # quotients
    ("54/6=9", "<DIV_54_6_9>"),
    ("54 ÷ 6 = 9", "<DIV_54_6_9>"),
    ("54÷6", "<DIV_54_6_9>"),
    ("9/9=1", "<DIV_9_9_1>"),
    ("54/9=6", "<DIV_54_9_6>"),
    ("2 + 54÷6 = 11", "2 + <DIV_54_6_9> = 11"),  # the result is the sum's
    ("$54/6=$<<54/6=9>>9", "$54/6=$<<<DIV_54_6_9>>>9"),
    # the table as it is recited
    ("六九五十四", "<MUL_6_9_54>"),
    ("一一得一，二三得六，二五一十，三四十二，四五二十。", None),
    # several families
    ("6*9=54 and 6+9=15 and 54/6=9 and 6²", "<MUL_6_9_54> and <ADD_6_9_15> and <DIV_54_6_9> and <SQUARE_6_36>"),
    ("2*3+9=15", "<MUL_2_3_6>+9=15"),
    ("6+9=3*5", "6+9=<MUL_3_5_15>"),
    ("3*4=12÷2", "3*4=<DIV_12_2_6>"),
    ("6*9 / 3=18", "<MUL_6_9_54> / 3=18"),
]
TABLE = "<MUL_1_1_1>，<MUL_2_3_6>，<MUL_2_5_10>，<MUL_3_4_12>，<MUL_4_5_20>。"

KEPT = [  # in weak mode, with all families
    # sums
    "6+9",  # a score
    "6+9=14",  # wrong
    "6+9=150",
    "6+9=15.5",
    "6+9=15+1",  # the result is an expression
    "6+9=15*2",
    "1+6+9=16",  # a chain
    "3-6+9=15",  # the sign binds as tightly
    "-6+9=15",
    "5 - 6+9=15",
    "18/6+9=15",
    "2^6+9=15",
    "16+9=25",  # longer numbers
    "6+90=96",
    "1.6+9=15",
    "$6+9=15",  # money on one side only
    "C++1+2=3",
    "v1+2=3",
    "6+9=15%",
    "10+5=15",  # no fact
    # squares
    "m²",
    "x7²",
    "x7^2",
    "3.7²",
    "-7²",  # squared with its sign in some notations
    "(-7^2)",
    "3*-7²",
    "37²",
    "21²",  # no fact
    "7^2^3",  # towers
    "2^7^2",
    "2**7**2",
    "7^20",
    "7^2.5",
    "7²!",
    "7^2x",
    "7^3",
    "7²=48",  # wrong
    "7²=49*2",
    # quotients
    "54/6",  # a fraction or a date, without its result
    "1/2/2020",
    "12/6/3=2",
    "5 4/2=2",  # a mixed number
    "54/6mm",
    "54/6=9.0",
    "54/6=8",
    "54/7",  # no fact
    "7/1=7",
    "154/6=9",
    "3*54/6=9",
    "54/6*2=18",
    "54÷6÷3",
    "54÷6/3",
    "54÷6%",
    "54÷60",
    "1.54÷6",
    # the table as it is recited
    "六九五十五",
    "九六五十四",
    "十六九五十四",
    "六九五十四万",
    "二三六",
    "六九",
]


@pytest.mark.parametrize(("text", "expected"), REWRITTEN)
def test_rewritten(text, expected):
    assert MulExpressionInjector("weak", ALL).inject(text) == (expected or TABLE)


@pytest.mark.parametrize("text", KEPT)
def test_kept(text):
    assert MulExpressionInjector("weak", ALL).inject(text) is text


@pytest.mark.parametrize(
    ("choice", "text"),
    [("add", "2*6+9=15"), ("add", "2 x 6+9=15"), ("add", "6+9*2=15"), ("add", "6+9²=15"), ("div", "54÷6²")],
)
def test_what_binds_tighter_keeps_an_expression(choice, text):
    assert MulExpressionInjector("weak", choice).inject(text) is text


@pytest.mark.parametrize("text", ["7²", "54÷6", "3*7²=147", "6*9"])
def test_strict_mode_wants_a_result(text):
    assert MulExpressionInjector("strict", ALL).inject(text) is text


@pytest.mark.parametrize("text", ["7²=49", "54÷6 = 9", "54/6=9", "6+9=15", "六九五十四", "6*9=54"])
def test_strict_mode_rewrites_what_has_its_result(text):
    assert MulExpressionInjector("strict", ALL).inject(text) in {
        f.token for family in chosen_families(ALL) for f in family.facts
    }


def test_every_fact_of_the_recited_table():
    digits = " 一二三四五六七八九"

    def numeral(n: int) -> str:
        if n < 10:
            return "得" + digits[n]
        return (digits[n // 10] if n >= 20 or n == 10 else "") + "十" + (digits[n % 10] if n % 10 else "")

    injector = MulExpressionInjector("strict", "chinese")
    for fact in read_families()["mul"].facts:
        a, b = fact.operands
        assert injector.inject(f"{digits[a]}{digits[b]}{numeral(a * b)}") == fact.token


def test_every_fact_in_each_of_its_forms():
    written = {
        "add": ["{a}+{b}={c}", "{b} + {a} = {c}"],
        "square": ["{a}²={c}", "{a}^2", "{a} ** 2 = {c}"],
        "div": ["{a}/{b}={c}", "{a} ÷ {b}"],
    }
    for name, styles in written.items():
        injector = MulExpressionInjector("weak", name)
        for fact in read_families()[name].facts:
            (a, b), c = fact.operands, fact.value
            assert {injector.inject(style.format(a=a, b=b, c=c)) for style in styles} == {fact.token}


def test_what_a_form_writes_is_rewritten():
    for family in read_families().values():
        injector = MulExpressionInjector("weak", family.name)
        for name in family.forms:
            form = FORMS[name](family.prefix)
            for fact in family.facts:
                assert injector.inject(form.write(*fact.operands, fact.value)) == fact.token


def test_only_the_chosen_families_are_rewritten():
    text = "6*9=54, 6+9=15, 7²=49, 54/6=9"
    assert MulExpressionInjector("weak", "add").inject(text) == "6*9=54, <ADD_6_9_15>, 7²=49, 54/6=9"
    assert MulExpressionInjector("weak", "digits").inject(text) is text


def test_statistics_count_every_family():
    text = "6*9, 6+9=15, 6+9=16, 2+3, 54÷6, 7/2=3"
    assert MulExpressionInjector("weak", ALL).inject_with_stats(text)[1] == InjectionStats(1, 2, 1, 1)


TOKENS = ["<MUL_2_3_6>", "<ADD_2_3_5>", "<DIV_6_2_3>", "<SQUARE_3_9>"]
FRAGMENTS = st.sampled_from(
    [
        *"0123456789",
        *"*×xX=.,-+/÷%^$<>()! \n²",
        *("6*9", "2+3", "2+3=5", "6/2=3", "6÷2", "3²", "3^2", "3**2", "=54", "= 5", "=3", " = $", "**", " 1/2"),
        *TOKENS,
        *("a", " of ", "六九五十四", "二三得六", "六"),
    ]
)


@settings(max_examples=600)
@given(
    st.lists(FRAGMENTS, max_size=10).map("".join), st.sampled_from([*CHOICES, ALL]), st.sampled_from(["weak", "strict"])
)
def test_injecting_twice_equals_injecting_once(text, choice, mode):
    injector = MulExpressionInjector(mode, choice)
    once = injector.inject(text)
    assert injector.inject(once) is once


_PYTHON = str.maketrans({"×": "*", "÷": "/", "^": "**", "²": "**2"})
_VALUES = {fact.token: fact.value for family in read_families().values() for fact in family.facts}


def _value(expression: str) -> float:
    expression = re.sub(r"<[A-Z]+_[0-9_]+>", lambda token: f"({_VALUES[token[0]]})", expression).translate(_PYTHON)
    # Floats, so that a tower of powers overflows instead of filling the memory.
    return eval(re.sub(r"\d+(\.\d+)?", lambda number: f"{float(number[0])}", expression))


NUMBERS = st.sampled_from(["1", "2", "3", "6", "9", "12", "18", "2.5", "(2+3)", "6²", "3^2", "2**2"])
OPERATORS = st.sampled_from(["*", " * ", "×", "+", " + ", "-", " - ", "/", " / ", "÷", " ÷ ", "^", "*-", "/-", "^-"])


@settings(max_examples=600)
@given(st.lists(st.tuples(NUMBERS, OPERATORS), min_size=1, max_size=4), NUMBERS, st.sampled_from([*CHOICES, ALL]))
def test_rewriting_keeps_the_value_of_an_expression(links, last, choice):
    expression = "".join(number + operator for number, operator in links) + last
    try:
        value = _value(expression)
    except ArithmeticError:
        return
    if isinstance(value, complex) or abs(value) > 1e9:
        return
    injected = MulExpressionInjector("weak", choice).inject(expression)
    assert _value(injected) == pytest.approx(value, rel=1e-9, abs=1e-9), injected


@settings(max_examples=400)
@given(
    st.sampled_from(["6+9", "18/6", "18÷6", "6²", "3*6"]),
    st.integers(8, 12),
    st.sampled_from(["", "-", "2+", "7 - ", "3*", "18/", "2^"]),
    st.sampled_from(["", "+1", "*2", " - 4", "²", "/1", "^2"]),
    st.sampled_from([*CHOICES, ALL]),
)
def test_a_statement_stays_as_true_or_false_as_it_was(expression, difference, left, right, choice):
    """`left expression = right`: whatever goes with the result, the two sides differ by what they differed before."""
    try:
        value = _value(left + expression)
    except OverflowError:
        return
    statement = f"{left}{expression}={round(value) + difference - 10}{right}"
    before = [_value(side) for side in statement.split("=")]
    after = MulExpressionInjector("weak", choice).inject(statement).split("=")
    if len(after) == 1:
        assert before[0] == pytest.approx(before[1])
    else:
        assert [_value(side) for side in after] == pytest.approx(before)
