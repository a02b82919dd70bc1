"""How facts stand in texts: for each form its patterns, and what around it forbids a rewrite.

tokenizer/inject_mul.py has the procedure and, as an example, all rules of the product. `fact` below is the pattern of
how a token of the choice begins: a token is a number too, so what stands beside one that was rewritten already is
judged as it was beside its digits.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_SPACE = "[ \u00a0\u202f\u2009]"
_GAP = "[ \t\u00a0\u202f\u2009]*"
_LETTER = r"[^\W\d_]"
# Between two digits these make one number: 6.5  6,000  6'000, and 6 000 with a hard space.
_JOINT = "[.,'’\u00a0\u202f]"
_TIMES = "*×·⋅∙"
_MINUS = r"\-−–‐‑"
_STRONG = f"/÷^%√{_TIMES}"
_MONEY = "$€£¥"

# Ends of the text before an expression, starts of the text after it, that forbid a rewrite.
_FORBIDDEN_BEFORE = (
    rf"(?:[\w.\\)\]}}]|\d(?:{_JOINT}|[eE][+{_MINUS}])"
    rf"|(?:[{_STRONG}]|\S{_GAP}(?:[{_STRONG}]|(?<!{_LETTER})x){_GAP})[+±{_MINUS}]*)\Z"
)
_FORBIDDEN_AFTER = rf"[\w(!⁄]|{_JOINT}\d|/\d|{_GAP}(?:[%^{_TIMES}]|\d+[/⁄]\d|x(?!{_LETTER}))"
_TIED_BEFORE = re.compile(rf"[{_MINUS}]\Z")
_TIED_AFTER = re.compile(rf"[{_MINUS}]\S|[/.]{_LETTER}")
# A dash that opens a line and has a space behind it is a list's, not a minus.
_SIGN_BEFORE = rf"(?:[+±{_MINUS}]|\S{_GAP}[+±{_MINUS}]{_GAP})\Z"
_FORBIDDEN_AFTER_RESULT = rf"[\w(%]|{_GAP}(?:\d+[/⁄]\d|(?:[/÷^+{_TIMES}{_MINUS}]+|x){_GAP}[\d.(<{_MONEY}])"

_CHINESE = "零一二三四五六七八九"
_CHINESE_DIGIT = f"[{_CHINESE[1:]}]"
_CHINESE_NUMERAL = f"[{_CHINESE}十百千万亿两〇]"

# How many characters before an expression decide about it; gaps are seldom longer than one or two.
WINDOW = 16


@dataclass(frozen=True)
class Form:
    """The patterns of one form, in the order in which the injector asks them."""

    written: str  # a text of {a}, {b} and {c} that this form rewrites to the fact's token
    signs: tuple[re.Pattern[str], ...]  # a text in which none of these occurs has no such expression
    expression: re.Pattern[str]
    operands: tuple[int, int]  # the groups of `expression` that hold the fact's operands
    forbidden_before: re.Pattern[str]
    forbidden_after: re.Pattern[str]
    result: re.Pattern[str]  # groups: what stands before the number, the number
    forbidden_after_result: re.Pattern[str]
    sign_before: re.Pattern[str] | None = None  # the result then belongs to more than this expression
    refuses: Callable[[str, re.Match[str], str], bool] | None = None  # of text, expression and the text before it
    commutes: bool = False  # operands stand in either order
    needs_result: bool = False  # in weak mode too
    operand_text: Callable[[int], str] = str  # how numbers are written
    result_text: Callable[[int], str] = str

    def write(self, a: int, b: int, c: int) -> str:
        """The expression of a fact: operands a and b, value c."""
        return self.written.format(a=self.operand_text(a), b=self.operand_text(b), c=self.result_text(c))


def infix_product(fact: str) -> Form:
    """`6*9`, `6 × 9`, `6x9 = 54`; tokenizer/inject_mul.py has the rules."""
    # Two matches that share a digit would be a chain, whose links are all refused, so none is missed.
    return Form(
        written="{a}*{b}",
        signs=_signs("[1-9]", "[1-9]", r"\*", "×", "x"),
        expression=re.compile(f"([1-9])({_SPACE}?)([*×x])({_SPACE}?)([1-9])"),
        operands=(1, 5),
        forbidden_before=re.compile(_FORBIDDEN_BEFORE),
        forbidden_after=re.compile(_FORBIDDEN_AFTER),
        result=_result(fact),
        forbidden_after_result=re.compile(_FORBIDDEN_AFTER_RESULT),
        sign_before=re.compile(_SIGN_BEFORE),
        refuses=_is_tied_to_a_word,
        commutes=True,
    )


def infix_sum(fact: str) -> Form:
    """`6+9=15`. A bare `6+9` is often a score or a list. Signs bind no tighter than this one does, so none may stand
    before it, nor money, which the token would swallow."""
    return Form(
        written="{a}+{b}={c}",
        signs=_signs("[1-9]", "[1-9]", r"\+"),
        expression=re.compile(rf"([1-9]){_SPACE}?\+{_SPACE}?([1-9])"),
        operands=(1, 2),
        forbidden_before=re.compile(rf"{_FORBIDDEN_BEFORE}|{_SIGN_BEFORE}|[{_MONEY}]\Z"),
        forbidden_after=re.compile(_FORBIDDEN_AFTER),
        result=_result(fact),
        forbidden_after_result=re.compile(_FORBIDDEN_AFTER_RESULT),
        commutes=True,
        needs_result=True,
    )


def infix_quotient(fact: str) -> Form:
    """`54 ÷ 6`, `54÷6 = 9`. Only exact quotients are facts; a division behind it would divide the token."""
    return Form(
        written="{a}÷{b}",
        signs=_signs("[0-9]", "[2-9]", "÷"),
        expression=re.compile(f"([1-9][0-9]?){_SPACE}?÷{_SPACE}?([2-9])"),
        operands=(1, 2),
        forbidden_before=re.compile(_FORBIDDEN_BEFORE),
        forbidden_after=re.compile(rf"{_FORBIDDEN_AFTER}|{_GAP}[/÷]"),
        result=_result(fact),
        forbidden_after_result=re.compile(_FORBIDDEN_AFTER_RESULT),
        sign_before=re.compile(_SIGN_BEFORE),
    )


def slash_quotient(fact: str) -> Form:
    """`54/6 = 9`. A bare `54/6` is often a fraction, a date or a rate; behind a number it is a mixed number's part."""
    return Form(
        written="{a}/{b}={c}",
        signs=_signs("[0-9]", "[2-9]", "/"),
        expression=re.compile(f"([1-9][0-9]?){_SPACE}?/{_SPACE}?([2-9])"),
        operands=(1, 2),
        forbidden_before=re.compile(rf"{_FORBIDDEN_BEFORE}|[\d²>]{_GAP}\Z"),
        forbidden_after=re.compile(rf"{_FORBIDDEN_AFTER}|{_GAP}[/÷]"),
        result=_result(fact),
        forbidden_after_result=re.compile(_FORBIDDEN_AFTER_RESULT),
        sign_before=re.compile(_SIGN_BEFORE),
        needs_result=True,
    )


def power_of_two(fact: str) -> Form:
    """`7²`, `7^2`, `7**2 = 49`. It binds tighter than `* / + -`, whose result is not its own; a sign of its own would
    be squared in some notations and not in others, and a power below or above it makes another number."""
    operators = rf"+±{_MINUS}/÷{_TIMES}"
    return Form(
        written="{a}²",
        signs=tuple(re.compile(sign) for sign in ("²", rf"\^{_SPACE}?2", rf"\*\*{_SPACE}?2")),
        expression=re.compile(rf"(20|1[0-9]|[1-9])(?:²|{_SPACE}?(?:\^|\*\*){_SPACE}?2)"),
        operands=(1, 1),
        forbidden_before=re.compile(
            rf"(?:[\w.\\)\]}}√]|\d(?:{_JOINT}|[eE][+{_MINUS}])|[\^%]{_GAP}|\*\*{_GAP}"
            rf"|(?:\A|[^\w)\]}}>\s]){_GAP}[±{_MINUS}]+|[+±{_MINUS}]{_GAP}[+±{_MINUS}]+)\Z"
        ),
        forbidden_after=re.compile(rf"[\w(!⁄]|{_JOINT}\d|{_GAP}(?:[%^]|\*\*|\d+[/⁄]\d)"),
        result=_result(fact),
        forbidden_after_result=re.compile(_FORBIDDEN_AFTER_RESULT),
        sign_before=re.compile(rf"(?:[{operators}]|\S{_GAP}(?:[{operators}]|(?<!{_LETTER})x){_GAP})\Z"),
    )


def chinese_table(fact: str) -> Form:
    """`六九五十四`, `二三得六`: the table as it is recited, the smaller factor first, its result always with it."""
    return Form(
        written="{a}{b}{c}",
        signs=(re.compile("得"), re.compile("十")),
        expression=re.compile(f"({_CHINESE_DIGIT})({_CHINESE_DIGIT})(?=得|{_CHINESE_DIGIT}?十)"),
        operands=(1, 2),
        forbidden_before=re.compile(rf"{_CHINESE_NUMERAL}\Z"),
        forbidden_after=re.compile(r"(?!)"),
        result=re.compile(f"()(得{_CHINESE_DIGIT}|{_CHINESE_DIGIT}?十{_CHINESE_DIGIT}?)"),
        forbidden_after_result=re.compile(_CHINESE_NUMERAL),
        operand_text=lambda number: _CHINESE[number],
        result_text=recited,
        needs_result=True,
    )


FORMS: dict[str, Callable[[str], Form]] = {
    "infix_product": infix_product,
    "infix_sum": infix_sum,
    "infix_quotient": infix_quotient,
    "slash_quotient": slash_quotient,
    "power_of_two": power_of_two,
    "chinese_table": chinese_table,
}


def _signs(before: str, after: str, *operators: str) -> tuple[re.Pattern[str], ...]:
    """Nearly all prose has no expression. A pattern that begins with one literal character is found by memchr, so
    looking for expressions from their operators costs a tenth of a search for them, which only texts with one get."""
    return tuple(
        re.compile(f"{sign}(?:(?<={before}{sign})|(?<={before}{_SPACE}{sign})){_SPACE}?{after}") for sign in operators
    )


def _result(fact: str) -> re.Pattern[str]:
    return re.compile(rf"{_GAP}={_GAP}([{_MONEY}+{_MINUS}]*)(\.?\d+(?:{_JOINT}\d+)*|{fact})")


def _is_tied_to_a_word(text: str, product: re.Match[str], before: str) -> bool:
    """The letter x also names and measures things: its spaces must match, and nothing may tie it to a word."""
    if product[3] != "x":
        return False
    return bool(product[2] != product[4] or _TIED_BEFORE.search(before) or _TIED_AFTER.match(text, product.end()))


def recited(product: int) -> str:
    """A product as the table ends with it: 得六, 一十, 十二, 五十四."""
    tens, ones = divmod(product, 10)
    if tens == 0:
        return f"得{_CHINESE[ones]}"
    leading = _CHINESE[tens] if tens > 1 or ones == 0 else ""
    return f"{leading}十{_CHINESE[ones] if ones else ''}"
