"""What a response does with its multiplication facts: are they right, in their place, and called for?

Every fact token says something true, 6*9 is 54 whatever stands around it. What can go wrong is its use:

right     nothing contradicts it: where it is an equation's own left side, `<MUL_6_9_54> = 54` or
          `<<<MUL_6_9_54>>>54`, the number or fact on the right side is its product. Behind an operator
          (`2 + <MUL_6_9_54> = 56`) the result is the sum's, and without one there is nothing to contradict.
placed    it stands where an expression stands: with `6*9` in its place, injection (tokenizer/inject_mul.py) would make
          the token. Glued to a word, a number or another fact, or in a chain of products, it is not.
grounded  both factors were there before it: as numbers of the question or of the response so far, in digits or words,
          or as the product of an earlier fact.

Tokens are found by id, since text cannot tell a token from its spelling.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.stated_numbers import NUMBER, stated_numbers
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import MulFactTokens

WINDOW = 40  # characters on either side that decide about a place

_OWN_RESULT = re.compile(rf"(?:\s?=\s?(?:<<)?|>>)[$€£]?(?:<MUL_[1-9]_[1-9]_(?P<fact>[0-9]+)>|(?P<number>{NUMBER}))")
_CALCULATION_GOES_ON = re.compile(r"\s?[-+*/×÷−]\s?[$€£]?[0-9<]")
_FACT_BEFORE = re.compile(r"<MUL_[1-9]_[1-9]_[0-9]+>\Z")
_BEHIND_AN_OPERATOR = re.compile(r"[-+*/×÷−]\s?[$€£(]?\Z")


@dataclass(frozen=True)
class MulUse:
    """Counts over the fact tokens of one response."""

    total: int
    right: int
    placed: int
    grounded: int


def mul_use(question: str, ids: Sequence[int], tokenizer: GPT2TokenizerWithMulFacts) -> MulUse:
    """The use of the fact tokens among the generated `ids`. Takes time linear in their number."""
    text, spans = _text_and_spans(ids, tokenizer)
    if not spans:
        return MulUse(0, 0, 0, 0)
    injector = MulExpressionInjector()
    known = {value for _, value in stated_numbers(question, articles=True)}
    stated = iter([*stated_numbers(text, articles=True), (len(text) + 1, 0.0)])
    end_of_number, value = next(stated)
    right = placed = grounded = 0
    for start, end, (a, b, product) in spans:
        while end_of_number <= start:
            known.add(value)
            end_of_number, value = next(stated)
        grounded += a in known and b in known
        before, after = text[max(0, start - WINDOW) : start], text[end : end + WINDOW]
        result = None if _BEHIND_AN_OPERATOR.search(before) else _OWN_RESULT.match(after)
        other = result is not None and _value(result) != product
        right += not (other and not _CALCULATION_GOES_ON.match(after, result.end()))
        # Another result would keep injection from the product, but says nothing about the place.
        after = after[result.end() :] if other else after
        placed += _is_placed(before, f"{a}*{b}", after, injector)
    return MulUse(len(spans), right, placed, grounded)


def _is_placed(before: str, product: str, after: str, injector: MulExpressionInjector) -> bool:
    if _FACT_BEFORE.search(before) or after.startswith("<MUL_"):
        return False
    found = injector.inject_with_stats(f"{before}{product}{after}")[1].injected
    return found > injector.inject_with_stats(f"{before}#{after}")[1].injected


def _text_and_spans(
    ids: Sequence[int], tokenizer: GPT2TokenizerWithMulFacts
) -> tuple[str, list[tuple[int, int, tuple[int, int, int]]]]:
    """The text of `ids`, and of each fact token where it starts and ends there and what it says."""
    mul_facts = MulFactTokens()
    pieces, spans, length, run = [], [], 0, []
    for token in [*ids, None]:
        if token is not None and not mul_facts.is_mul_id(token):
            run.append(token)
            continue
        pieces.append(tokenizer.decode(run))
        length, run = length + len(pieces[-1]), []
        if token is not None:
            fact = mul_facts.fact(token)
            pieces.append(mul_facts.token(*fact[:2]))
            spans.append((length, length + len(pieces[-1]), fact))
            length = spans[-1][1]
    return "".join(pieces), spans


def _value(match: re.Match[str]) -> float:
    return float(match["fact"] or match["number"].replace(",", ""))
