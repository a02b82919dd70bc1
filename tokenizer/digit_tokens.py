"""Numbers spelled in digit tokens and back: `54` is `<DIGIT_5_1><DIGIT_4_0>`, five tens and four ones.

This is a way to encode text, not a rewrite of expressions: it changes prompts as well as training text, and decoding
takes it back. Spelled are whole numbers of one to four digits; part of a word, a decimal, a thousands group, a longer
number or a token, digits stay as they are, and so does a number with a leading zero.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from tokenizer.families import read_families

_TOKEN = r"<[A-Z]+_[0-9_]+>"
_BETWEEN = "[.,'’\u00a0\u202f]"  # between two digits these make one number
_NUMBER = re.compile(rf"{_TOKEN}|(?<![\w.])(?<!\d{_BETWEEN})(0|[1-9][0-9]{{0,3}})(?![\w⁄]|{_BETWEEN}\d)")
_FACTS = read_families()["digits"].facts
_TOKEN_OF = {fact.operands: fact.token for fact in _FACTS}
DIGIT_OF_ID = {fact.id: fact.operands for fact in _FACTS}  # (digit, place)


def spell_numbers(text: str) -> str:
    """`text` with its numbers in digit tokens. Spelling twice equals spelling once."""
    return _NUMBER.sub(_spelled, text)


def read_numbers(ids: Sequence[int], id_of_digit: Sequence[int]) -> list[int]:
    """`ids` with every spelled number as ordinary digits, `id_of_digit[d]` for the digit d.

    Only what `spell_numbers` writes is a number: a run of digit tokens from the first one's place down to the ones,
    without a leading zero. Other runs stay as they are, so that they are not scored as a number.
    """
    read: list[int] = []
    for is_digit, run in groupby(ids, DIGIT_OF_ID.__contains__):
        run = list(run)
        digits = [DIGIT_OF_ID[i] for i in run] if is_digit else []
        places = [place for _, place in digits]
        if digits and places == list(range(len(digits)))[::-1] and (digits[0][0] > 0 or len(digits) == 1):
            run = [id_of_digit[digit] for digit, _ in digits]
        read += run
    return read


def count_digits(text: str) -> int:
    """Digits of the numbers that `spell_numbers` would spell: the tokens that it adds are at most so many."""
    return sum(len(match[1] or "") for match in _NUMBER.finditer(text))


def _spelled(match: re.Match[str]) -> str:
    number = match[1]
    if number is None:
        return match[0]  # a token
    return "".join(_TOKEN_OF[int(digit), len(number) - 1 - i] for i, digit in enumerate(number))
