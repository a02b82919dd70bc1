"""Rewriting expressions to facts: `6*9`, `6 × 9`, `6x9 = 54` become `<MUL_6_9_54>`, and so for other token families.

A rewrite must not change what the text says. The token stands for the number 54, so it may replace `6*9` only where
`(6*9)` could. Hence the rules of each form. Those of the product, of which tests/test_inject_mul.py has the cases, are
below; tokenizer/forms.py has the patterns and says what other forms do differently.

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

from tokenizer.families import DEFAULT_FAMILIES, Family, chosen_families
from tokenizer.forms import FORMS, WINDOW, Form

InjectionMode = Literal["weak", "strict"]


@dataclass(frozen=True)
class InjectionStats:
    """Expressions found in a text, by what became of them. Stats of several texts add up with `+`."""

    with_result: int = 0  # rewritten; a right result was there
    bare: int = 0  # rewritten; no result of its own
    wrong_result: int = 0  # left as text: another number follows the equals sign
    refused: int = 0  # left as text: part of something longer, or bare in strict mode

    @property
    def injected(self) -> int:
        """Expressions rewritten."""
        return self.with_result + self.bare

    def __add__(self, other: "InjectionStats") -> "InjectionStats":
        return InjectionStats(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class MulExpressionInjector:
    """Rewrites the expressions of the chosen families to their tokens, `6*9` to `<MUL_6_9_54>`, by the rules above."""

    def __init__(self, mode: InjectionMode = "weak", families: str = DEFAULT_FAMILIES) -> None:
        self.mode = mode
        chosen = chosen_families(families)
        prefixes = dict.fromkeys(family.prefix for family in chosen)
        fact = f"(?:{'|'.join(prefixes)})" if len(prefixes) > 1 else "".join(prefixes)
        # Of every form its patterns, and by operands, as they are written, the token and the result.
        self._forms = [(form := FORMS[name](fact), _tokens(form, family)) for family in chosen for name in family.forms]

    def inject(self, text: str) -> str:
        """`text` with its expressions rewritten; the same object when there are none."""
        return self.inject_with_stats(text)[0]

    def inject_with_stats(self, text: str) -> tuple[str, InjectionStats]:
        """As `inject`, with the counts of what was rewritten and what was not."""
        found = []
        for both in self._forms:
            for sign in both[0].signs:
                if sign.search(text):
                    found.append(both)
                    break
        if not found:
            return text, InjectionStats()
        counts = dict.fromkeys(("with_result", "bare", "wrong_result", "refused"), 0)
        rewrites = []  # (start, end, token, what it counts as)
        for form, tokens in found:
            a, b = form.operands
            for expression in form.expression.finditer(text):
                fact = tokens.get(expression.group(a, b))
                if fact is None:
                    continue  # 7/2 is no fact
                kind, end = self._judge(text, form, expression, fact[1])
                counts[kind] += 1
                if end is not None:
                    rewrites.append((expression.start(), end, fact[0], kind))
        if len(found) > 1:
            rewrites.sort()
        if not rewrites:
            return text, InjectionStats(**counts)
        pieces = []
        done = 0  # text[:done] is in `pieces`
        for start, end, token, kind in rewrites:
            if start < done:  # two forms share characters: the first one has them
                counts[kind] -= 1
                counts["refused"] += 1
                continue
            pieces += (text[done:start], token)
            done = end
        pieces.append(text[done:])
        return "".join(pieces), InjectionStats(**counts)

    def _judge(self, text: str, form: Form, expression: re.Match[str], value: str) -> tuple[str, int | None]:
        """What an expression counts as, and where the text that its token replaces ends (None: no rewrite)."""
        start, end = expression.span()
        before = text[max(0, start - WINDOW) : start]
        if form.forbidden_before.search(before) or form.forbidden_after.match(text, end):
            return "refused", None
        if form.refuses and form.refuses(text, expression, before):
            return "refused", None
        bare = ("bare", end) if self.mode == "weak" and not form.needs_result else ("refused", None)
        if form.sign_before and form.sign_before.search(before):
            return bare
        result = form.result.match(text, end)
        if result is None:
            return bare
        money = result[1] in ("$", "€", "£", "¥")
        if result[2] != value or (result[1] and not money) or form.forbidden_after_result.match(text, result.end()):
            return "wrong_result", None
        return "with_result", end if money else result.end()


def _tokens(form: Form, family: Family) -> dict[tuple[str, str], tuple[str, str]]:
    tokens = {}
    for fact in family.facts:
        a, b = map(form.operand_text, fact.operands)
        tokens[a, b] = (fact.token, form.result_text(fact.value))
        if form.commutes:
            tokens[b, a] = tokens[a, b]
    return tokens
