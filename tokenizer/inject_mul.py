"""Rewriting single-digit products to multiplication facts: `6*9`, `6 × 9`, `6x9 = 54` become `<MUL_6_9_54>`.

A rewrite must not change what the text says. The token stands for the number 54, so it may replace `6*9` only where
`(6*9)` could. Hence the rules; tests/test_inject_mul.py has the cases of each.

Factors: single digits 1 to 9 that are whole numbers as written, not part of a longer number (`16*9`, `6.5*9`,
    `6*9,000`), a fraction (`6*9/3`; spaced, `6*9 / 3`, it is a division, which is harmless), a percentage or a
    word (`6x9mm`).
Operators: `*`, `×` and a lower-case x, at most one space on each side, on one line. Neither `X` nor `\\*`. The
    letter also names and measures things, so its spaces must match and no hyphen or file ending may tie it to a
    word.
Neighbours: a link of a chain stays text (`6*9*2`, `6x9x12`), and so does a product that a power, a factorial or
    a division on its left reaches into (`6*9^2`, `3/6*9`). Sums and signs are harmless (`2+6*9`, `-6*9`).
Result: `=54` goes with the product. Any other number after `=` (`=55`, `=540`, `=54.5`, `=54*2`) keeps the whole
    text. An amount of money is checked but stays (`6*9 = $54`). Behind a plus or minus the result is the sum's
    (`2+6*9=56`): it stays, unchecked, and the product counts as bare.
Mode: `weak` rewrites bare products too, `strict` only those with a right result of their own.

No rewrite makes or unmakes another one, so injecting twice equals injecting once.
"""

import re
from dataclasses import astuple, dataclass
from typing import Literal

from tokenizer.mul_facts import MulFactTokens

InjectionMode = Literal["weak", "strict"]

_SPACE = "[ \u00a0\u202f\u2009]"
_GAP = "[ \t\u00a0\u202f\u2009]*"
_LETTER = r"[^\W\d_]"
# Between two digits these make one number: 6.5  6,000  6'000, and 6 000 with a hard space.
_JOINT = "[.,'’\u00a0\u202f]"
_TIMES = "*×·⋅∙"
_MINUS = r"\-−–‐‑"

# Two matches that share a digit would be a chain, whose links are all refused, so none is missed.
_PRODUCT = re.compile(f"([1-9])({_SPACE}?)([*×x])({_SPACE}?)([1-9])")
# Nearly all prose has no product. A pattern that begins with one literal character is found by memchr, so looking
# for products from their operators costs a tenth of a search for _PRODUCT, which only the texts that have one get.
_SIGNS_OF_A_PRODUCT = tuple(
    re.compile(f"{operator}(?:(?<=[1-9]{operator})|(?<=[1-9]{_SPACE}{operator})){_SPACE}?[1-9]")
    for operator in (r"\*", "×", "x")
)

# Ends of the text before a product, starts of the text after it, that forbid a rewrite.
_STRONG = f"/÷^%√{_TIMES}"
_FORBIDDEN_BEFORE = re.compile(
    rf"(?:[\w.\\)\]}}]|\d(?:{_JOINT}|[eE][+{_MINUS}])"
    rf"|(?:[{_STRONG}]|\S{_GAP}(?:[{_STRONG}]|(?<!{_LETTER})x){_GAP})[+±{_MINUS}]*)\Z"
)
_FORBIDDEN_AFTER = re.compile(rf"[\w(!⁄]|{_JOINT}\d|/\d|{_GAP}(?:[%^{_TIMES}]|\d+[/⁄]\d|x(?!{_LETTER}))")
_TIED_BEFORE = re.compile(rf"[{_MINUS}]\Z")
_TIED_AFTER = re.compile(rf"[{_MINUS}]\S|[/.]{_LETTER}")
# A dash that opens a line and has a space behind it is a list's, not a minus.
_SIGN_BEFORE = re.compile(rf"(?:[+±{_MINUS}]|\S{_GAP}[+±{_MINUS}]{_GAP})\Z")

# `<MUL_` is a number too: a product beside an already rewritten one is judged as it was beside its digits.
_RESULT = re.compile(rf"{_GAP}={_GAP}([$€£¥+{_MINUS}]*)(\.?\d+(?:{_JOINT}\d+)*|<MUL_)")
_FORBIDDEN_AFTER_RESULT = re.compile(rf"[\w(%]|{_GAP}(?:\d+[/⁄]\d|(?:[/÷^+{_TIMES}{_MINUS}]+|x){_GAP}[\d.(<$€£¥])")

_WINDOW = 16  # characters before a product that decide about it; gaps are seldom longer than one or two


@dataclass(frozen=True)
class InjectionStats:
    """Products found in a text, by what became of them. Stats of several texts add up with `+`."""

    with_result: int = 0  # rewritten; a right result was there
    bare: int = 0  # rewritten; no result of its own
    wrong_result: int = 0  # left as text: another number follows the equals sign
    refused: int = 0  # left as text: part of something longer, or bare in strict mode

    @property
    def injected(self) -> int:
        """Products rewritten."""
        return self.with_result + self.bare

    def __add__(self, other: "InjectionStats") -> "InjectionStats":
        return InjectionStats(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class MulExpressionInjector:
    """Rewrites products to `<MUL_a_b_c>` by the rules at the top of this module."""

    def __init__(self, mode: InjectionMode = "weak") -> None:
        self.mode = mode
        mul_facts = MulFactTokens()
        self._tokens = {
            (str(a), str(b)): (mul_facts.token(a, b), str(a * b)) for a in range(1, 10) for b in range(1, 10)
        }

    def inject(self, text: str) -> str:
        """`text` with its products rewritten; the same object when there are none."""
        return self.inject_with_stats(text)[0]

    def inject_with_stats(self, text: str) -> tuple[str, InjectionStats]:
        """As `inject`, with the counts of what was rewritten and what was not."""
        if not any(sign.search(text) for sign in _SIGNS_OF_A_PRODUCT):
            return text, InjectionStats()
        counts = dict.fromkeys(("with_result", "bare", "wrong_result", "refused"), 0)
        pieces: list[str] = []
        done = 0  # text[:done] is in `pieces`
        for product in _PRODUCT.finditer(text):
            token, value = self._tokens[product[1], product[5]]
            kind, end = self._judge(text, product, value)
            counts[kind] += 1
            if end is not None:
                pieces += (text[done : product.start()], token)
                done = end
        if not pieces:
            return text, InjectionStats(**counts)
        pieces.append(text[done:])
        return "".join(pieces), InjectionStats(**counts)

    def _judge(self, text: str, product: re.Match[str], value: str) -> tuple[str, int | None]:
        """What a product counts as, and where the text that its token replaces ends (None: no rewrite)."""
        start, end = product.span()
        before = text[max(0, start - _WINDOW) : start]
        if _FORBIDDEN_BEFORE.search(before) or _FORBIDDEN_AFTER.match(text, end):
            return "refused", None
        if product[3] == "x" and (
            product[2] != product[4] or _TIED_BEFORE.search(before) or _TIED_AFTER.match(text, end)
        ):
            return "refused", None
        bare = ("bare", end) if self.mode == "weak" else ("refused", None)
        if _SIGN_BEFORE.search(before):
            return bare
        result = _RESULT.match(text, end)
        if result is None:
            return bare
        money = result[1] in ("$", "€", "£", "¥")
        if result[2] != value or (result[1] and not money) or _FORBIDDEN_AFTER_RESULT.match(text, result.end()):
            return "wrong_result", None
        return "with_result", end if money else result.end()
