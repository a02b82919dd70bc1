"""Reading a numeric answer out of generated text.

Two readings, both reported by the benchmarks: strict, the number where the format wants it (after the last `####`,
GSM8K's own convention, or between <answer> and </answer>), and flexible, which also accepts other forms. Numbers are
compared by value, as Decimals: `18`, `$18`, `18.` and `18.00` are one answer, `1,234` is 1234, `50%` is 50. Every
function takes time linear in the text's length.
"""

import re
from collections import deque
from decimal import Decimal

from tokenizer.families import fact_begin, fact_pattern

ANSWER_MARK = "####"
NEXT_TURN = "\nUser:"

# Thousands are grouped in threes or not at all; each group checks its own end, so no text makes the pattern backtrack.
_UNSIGNED = r"(?>[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_MINUS = r"[-\u2212\u2013]"
# After a digit, a word, a bracket, a percent sign or a mul token a minus subtracts: 5-3 ends in 3, not in -3.
# After the `>>` of a calculator note it is a sign.
_SIGN = rf"(?:(?<![\w.)\]%])(?<!\w>){_MINUS})?"
_NUMBER = rf"(?P<sign>{_SIGN})(?:[$€£](?P<inner_sign>{_MINUS}?))?(?P<digits>(?<![\w.]){_UNSIGNED})"
# `#### 48/2` or `#### 5-3` is an expression that was never worked out, `#### 1,2345` and `#### 10:30` are no numbers.
_NOT_AN_EXPRESSION = rf"(?![.,:]?[0-9]|[ \t]*(?:[+*/×÷=^]|{_MINUS})[ \t]*(?:[$€£]?[0-9]|{fact_begin()}))"

_STRICT = re.compile(rf"[ \t]*{_NUMBER}{_NOT_AN_EXPRESSION}")
# A mul token stands for the number 54 (tokenizer/inject_mul.py), so as the last thing said it says 54; so do others.
_ANYWHERE = re.compile(rf"{fact_pattern()}|{_NUMBER}")


def extract_strict(text: str) -> Decimal | None:
    """The number right after the last `####` on its line, or None when there is no mark or no number after it."""
    mark = text.rfind(ANSWER_MARK)
    if mark == -1:
        return None
    match = _STRICT.match(text, mark + len(ANSWER_MARK))
    return _value(match) if match else None


def extract_tagged(text: str) -> Decimal | None:
    """The number with which the last <answer>..</answer> begins, or None when there is no such part or no number."""
    inside = _last_tagged(text)
    match = _STRICT.match(inside.strip()) if inside is not None else None
    return _value(match) if match else None


def extract_flexible(text: str) -> Decimal | None:
    """The strict answer, else the last number inside the last <answer>..</answer>, else the last number in `text`.

    None when `text` holds no number at all.
    """
    strict = extract_strict(text)
    if strict is not None:
        return strict
    inside = _last_tagged(text)
    tagged = last_number(inside) if inside is not None else None
    return tagged if tagged is not None else last_number(text)


def last_number(text: str) -> Decimal | None:
    """The last number in `text`; a fact token counts as its result, digits inside a word (`x2`) are no number."""
    matches = deque(_ANYWHERE.finditer(text), maxlen=1)
    return _value(matches[0]) if matches else None


def first_turn(text: str) -> str:
    """`text` up to where the model, not having stopped, starts to write the user's next question."""
    return text.split(NEXT_TURN, 1)[0]


def as_text(number: Decimal | None) -> str | None:
    """A number for a json file: plain digits, no exponent. None stays None, which means no answer."""
    return None if number is None else format(number, "f")


def _last_tagged(text: str) -> str | None:
    """What stands in the last <answer>..</answer>, if there is one."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return None if start == -1 else text[start + len("<answer>") : end]


def _value(match: re.Match[str]) -> Decimal:
    groups = match.groupdict()
    if groups.get("value"):
        return Decimal(groups["value"])
    number = Decimal(groups["digits"].replace(",", ""))
    return number.copy_negate() if groups["sign"] or groups["inner_sign"] else number
