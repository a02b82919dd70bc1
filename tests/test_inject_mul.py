"""The injector's rules, one case per row: the text, what weak mode makes of it, and why."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.inject_mul import InjectionStats, MulExpressionInjector
from tokenizer.mul_facts import MulFactTokens

T = "<MUL_6_9_54>"

REWRITTEN = [
    # forms
    ("6*9", T, "asterisk"),
    ("6 * 9", T, "asterisk, spaced"),
    ("6×9", T, "multiplication sign"),
    ("6 × 9", T, "multiplication sign, spaced"),
    ("6\u00a0×\u00a09", T, "hard spaces are spaces"),
    ("6x9", T, "letter"),
    ("6 x 9", T, "letter, spaced"),
    ("9*6", T, "factors in either order"),
    ("6* 9", T, "uneven spaces, as GSM8K has them"),
    ("6*9=54", T, "result"),
    ("6 *9 =54", T, "result, uneven spaces"),
    ("6 × 9 = 54", T, "result, spaced"),
    ("6*9  =\t54", T, "any gap around the equals sign"),
    ("1*1=1 and 9*9=81", "<MUL_1_1_1> and <MUL_9_9_81>", "both ends of the table"),
    # what surrounds it is kept
    ("so 6 * 9 = 54 eggs", f"so {T} eggs", "spaces outside stay"),
    ("<<6*9=54>>54", f"<<{T}>>54", "calculator note"),
    ("6 * 9 = <<6*9=54>>54", f"{T} = <<{T}>>54", "GSM8K's pair"),
    ("$6*9=$<<6*9=54>>54", f"${T}=$<<{T}>>54", "GSM8K's pair in dollars"),
    ("It is 6*9.", f"It is {T}.", "end of a sentence"),
    ("It is 6*9=54.", f"It is {T}.", "end of a sentence, result"),
    ("6*9, 7*8", f"{T}, <MUL_7_8_56>", "comma and space"),
    ("(6*9)^2", f"({T})^2", "the power is the bracket's"),
    ("6*9=54!", f"{T}!", "the result shows that it is no factorial"),
    ("**Answer: 6*9=54**", f"**Answer: {T}**", "bold text"),
    ("* 6*9=54", f"* {T}", "list item, asterisk"),
    ("* -6*9", f"* -{T}", "list item, asterisk, sign"),
    ("- 6*9=54\n- 7*8=56", f"- {T}\n- <MUL_7_8_56>", "list items, dash"),
    ("1) 6*9=54", f"1) {T}", "numbered item"),
    ("6*9=54\n7*8=56", f"{T}\n<MUL_7_8_56>", "lines"),
    ("54 = 6*9", f"54 = {T}", "result on the left stays"),
    ("6*9=54=6*9", f"{T}={T}", "equality of products"),
    # money
    ("$6*9", f"${T}", "the price is 6 dollars, the product 54"),
    ("$6 x 9 = $54", f"${T} = $54", "an amount is checked and stays"),
    # sums, differences, divisions after it
    ("-6*9", f"-{T}", "-(6*9)"),
    ("-6*9=-54", f"-{T}=-54", "the result is that of -6*9"),
    ("2+6*9", f"2+{T}", "2+(6*9)"),
    ("2+6*9=56", f"2+{T}=56", "the result is the sum's"),
    ("2 + 6*9 = 54", f"2 + {T} = 54", "wrong as a sum: the 54 must not vanish"),
    ("6*9+1", f"{T}+1", "(6*9)+1"),
    ("6*9+1=55", f"{T}+1=55", "the result is the sum's"),
    ("6*9-7*8=-2", f"{T}-<MUL_7_8_56>=-2", "difference of products"),
    ("6*9 / 3", f"{T} / 3", "(6*9)/3"),
    ("6*9/hour", f"{T}/hour", "a rate"),
    ("6*9==54", f"{T}==54", "code"),
    # sizes written as a bare product are one: nothing in the text tells them from arithmetic
    ("6 x 9 inches", f"{T} inches", "size, spaced"),
    ("a 6x9 photo", f"a {T} photo", "size"),
    # next to tokens
    ("<MUL_7_8_56> 6*9", f"<MUL_7_8_56> {T}", "after a token"),
    ("6*9=54<MUL_7_8_56>", f"{T}<MUL_7_8_56>", "before a token"),
]

KEPT = [
    # part of a longer number
    ("16*9", "longer number"),
    ("6*90", "longer number"),
    ("6.5*9", "decimal"),
    ("6*9.5", "decimal"),
    (".6*9", "decimal without a zero"),
    ("1,6*9", "thousands or decimal comma"),
    ("6*9,000", "thousands"),
    ("6*9'000", "thousands, Swiss"),
    ("6*9\u00a0000", "thousands, hard space"),
    ("0x9", "0 is no factor (and hexadecimal)"),
    ("6*0", "0 is no factor"),
    ("0x6x9", "hexadecimal"),
    ("6*9/3", "9/3 may be a fraction"),
    ("3/6*9", "(3/6)*9"),
    ("3 / 6 * 9", "(3/6)*9, spaced"),
    ("3÷6×9", "(3÷6)×9"),
    ("6*9 1/2", "mixed number"),
    ("½6*9", "fraction sign"),
    ("6*9²", "power"),
    # part of a word, name or date
    ("4x4s", "word"),
    ("x6x9", "word"),
    ("6x9mm", "unit"),
    ("6x9-foot", "compound"),
    ("2024-6x9", "code or date"),
    ("2024-6-9", "date"),
    ("6x9.png", "file"),
    ("img/6x9", "path"),
    ("6x 9", "won it 6x: uneven spaces around the letter"),
    ("6_9*6", "identifier"),
    # other operators
    ("6X9", "capital letter: model numbers"),
    ("6**9", "power"),
    ("6\\*9", "escaped"),
    ("6·9", "dot"),
    # chains, powers, percentages
    ("6*9*2", "chain"),
    ("2*6*9", "chain"),
    ("2*6*9=108", "chain with its result"),
    ("6x9x12", "dimensions"),
    ("6 x 9 x 12 cm", "dimensions, spaced"),
    ("6 × 9 · 2", "chain of mixed signs"),
    ("2(6)6*9(3)", "implied multiplication"),
    ("6*9^2", "power"),
    ("6*9**2", "power"),
    ("2^6*9", "power"),
    ("6*9!", "factorial, or an exclamation"),
    ("6*9%", "the factor is 9%"),
    ("50% * 6*9", "chain"),
    ("7%6*9", "remainder"),
    ("√6*9", "root"),
    ("2^-6*9", "(2^-6)*9"),
    ("3/-6*9", "(3/-6)*9"),
    ("1e-6*9", "scientific notation"),
    ("**6*9**", "bold text that touches it reads as a power"),
    # wrong or unclear results
    ("6*9=55", "wrong"),
    ("6*9=540", "wrong"),
    ("6*9=5", "wrong"),
    ("6*9=54.5", "wrong"),
    ("6*9=54.0", "right, but rewriting would lose the decimals"),
    ("6*9=54,000", "wrong"),
    ("6*9=54 1/2", "wrong"),
    ("6*9=054", "not as the fact has it"),
    ("6*9=-54", "wrong"),
    ("6 * 9 = $55", "wrong amount"),
    ("6*9=54%", "wrong"),
    ("6*9=54cm", "the unit is part of the result"),
    ("6*9=54*2", "the result is 108"),
    ("6*9=54 + 3", "the result is 57"),
    ("6*9=54 x 2", "the result is 108"),
    # layout
    ("6\n* 9", "two lines"),
    ("6 *\n9", "two lines"),
    ("6  *  9", "columns: more than one space"),
    # nothing to do
    ("", "empty"),
    ("no product here, at 9 x most", "prose"),
    (T, "already rewritten"),
    (f"{T}=54", "already rewritten"),
    (f"6*9={T}", "a token on the right is a result; a product may not vanish into it"),
    (f"{T}*2*3", "chain that begins with a token"),
]


@pytest.mark.parametrize(("text", "expected"), [row[:2] for row in REWRITTEN], ids=[row[0] for row in REWRITTEN])
def test_weak_rewrites(text, expected):
    assert MulExpressionInjector().inject(text) == expected


@pytest.mark.parametrize("text", [row[0] for row in KEPT])
@pytest.mark.parametrize("mode", ["weak", "strict"])
def test_text_is_kept_as_the_same_object(text, mode):
    assert MulExpressionInjector(mode).inject(text) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6*9", "6*9"),
        ("6*9=54", T),
        ("6 * 9 = <<6*9=54>>54", f"6 * 9 = <<{T}>>54"),
        ("$6 x 9 = $54", f"${T} = $54"),
        ("2+6*9=56", "2+6*9=56"),
        ("-6*9=-54", "-6*9=-54"),
        ("6*9+1=55", "6*9+1=55"),
    ],
)
def test_strict_rewrites_only_with_a_right_result(text, expected):
    assert MulExpressionInjector("strict").inject(text) == expected


def test_every_fact_in_every_form():
    mul_facts = MulFactTokens()
    injector = MulExpressionInjector()
    for a in range(1, 10):
        for b in range(1, 10):
            for operator in ("*", " * ", "×", " × ", "x", " x "):
                for result in ("", f"={a * b}", f" = {a * b}"):
                    assert injector.inject(f"So {a}{operator}{b}{result}.") == f"So {mul_facts.token(a, b)}."


def test_stats_count_each_product_once():
    text = "6*9=54, 6*9, 6*9=55, 6*9*2 and 16*9; then 7x8 = $56"
    _, weak = MulExpressionInjector().inject_with_stats(text)
    # 6*9*2 is found as 6*9 alone: its second link shares the 9.
    assert weak == InjectionStats(with_result=2, bare=1, wrong_result=1, refused=2)
    assert weak.injected == 3
    _, strict = MulExpressionInjector("strict").inject_with_stats(text)
    assert strict == InjectionStats(with_result=2, bare=0, wrong_result=1, refused=3)
    assert weak + strict == InjectionStats(with_result=4, bare=1, wrong_result=2, refused=5)


FRAGMENTS = st.sampled_from(
    [
        *"0123456789",
        *"*×xX=.,-+/%^$<>()! \n\t_'\u00a0–·²",
        *("6*9", "2*3", "7 x 8", "3×4=12", "=54", "= 6", " = $", "<<", ">>", "**", " 1/2"),
        *("<MUL_6_9_54>", "<MUL_2_3_6>", "a", " of "),
    ]
)


@settings(max_examples=400)
@given(st.lists(FRAGMENTS, max_size=14).map("".join), st.sampled_from(["weak", "strict"]))
def test_injecting_twice_equals_injecting_once(text, mode):
    injector = MulExpressionInjector(mode)
    once = injector.inject(text)
    assert injector.inject(once) is once


def _value(expression: str) -> float:
    for token, (a, b, _) in _FACT_OF_TOKEN.items():
        expression = expression.replace(token, f"({a}*{b})")
    # Floats, so that a tower of powers overflows instead of filling the memory.
    return eval(re.sub(r"\d+(\.\d+)?", lambda number: f"{float(number[0])}", expression).translate(_PYTHON))


_PYTHON = str.maketrans({"×": "*", "^": "**"})
_FACT_OF_TOKEN = {
    token: MulFactTokens().fact(i) for token, i in zip(MulFactTokens().tokens, MulFactTokens().ids, strict=True)
}
NUMBERS = st.sampled_from(["1", "2", "3", "6", "9", "12", "2.5", "(2+3)", "0.6"])
OPERATORS = st.sampled_from(["*", " * ", "×", "+", " + ", "-", " - ", "/", " / ", "%", "^", "*-", "/-", "^-"])


@settings(max_examples=400)
@given(st.lists(st.tuples(NUMBERS, OPERATORS), min_size=1, max_size=4), NUMBERS)
def test_rewriting_keeps_the_value_of_an_expression(links, last):
    expression = "".join(number + operator for number, operator in links) + last
    try:
        value = _value(expression)
    except ArithmeticError:
        return
    if isinstance(value, complex) or abs(value) > 1e9:
        return
    assert _value(MulExpressionInjector().inject(expression)) == pytest.approx(value, rel=1e-9, abs=1e-9)


@settings(max_examples=200)
@given(
    st.integers(0, 20),
    st.sampled_from(["", "-", "2+", "7 - ", "3*", "8/"]),
    st.sampled_from(["", "+1", "*2", " - 4"]),
)
def test_a_statement_stays_as_true_or_false_as_it_was(difference, left, right):
    """`left 6*9 = right`: whatever is removed with the result, the two sides differ by what they differed before."""
    true_value = round(_value(f"{left}6*9"))
    statement = f"{left}6*9 = {true_value + difference - 10}{right}"
    before = [_value(side) for side in statement.split("=")]
    after = MulExpressionInjector().inject(statement).split("=")
    if len(after) == 1:
        assert before[0] == before[1]
    else:
        assert [_value(side) for side in after] == before
