"""What a response does with its facts: are they right, in their place, and called for?

Every fact token says something true, 6*9 is 54 whatever stands around it. What can go wrong is its use:

right     nothing contradicts it: where it is an equation's own left side, `<MUL_6_9_54> = 54` or
          `<<<MUL_6_9_54>>>54`, the number or fact on the right side is its value. Behind an operator
          (`2 + <MUL_6_9_54> = 56`) the result is the sum's, and without one there is nothing to contradict.
placed    it stands where an expression stands: with its expression in its place (`6*9`; `6+9=15`, as sums are tokens
          only with their result), injection (tokenizer/inject_mul.py) would make the token. Glued to a word, a number
          or another fact, or in a chain of products, it is not.
grounded  its operands were there before it: as numbers of the question or of the response so far, in digits or words,
          or as the value of an earlier fact.

Tokens are found by id, since text cannot tell a token from its spelling. Digit tokens are numbers and no facts.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.stated_numbers import NUMBER, stated_numbers
from tokenizer.families import Fact, fact_begin, fact_families, fact_pattern
from tokenizer.forms import FORMS
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector

USE_MEASURES = ("right", "placed", "grounded")
WINDOW = 40  # characters on either side that decide about a place

_OWN_RESULT = re.compile(rf"(?:\s?=\s?(?:<<)?|>>)[$€£]?(?:{fact_pattern()}|(?P<number>{NUMBER}))")
_CALCULATION_GOES_ON = re.compile(r"\s?(?:[-+*/×÷−]\s?[$€£]?[0-9<]|\^|\*\*|²)")
_FACT_BEFORE = re.compile(rf"{fact_pattern()}\Z")
_FACT_BEHIND = re.compile(fact_begin())
_BEHIND_AN_OPERATOR = re.compile(r"[-+*/×÷−]\s?[$€£(]?\Z")


@dataclass(frozen=True)
class FactUse:
    """Counts over the tokens of one family in one response."""

    total: int = 0
    right: int = 0
    placed: int = 0
    grounded: int = 0


@dataclass(frozen=True)
class _Mention:
    """A fact token from `start` to `end` of a text."""

    family: str
    fact: Fact
    start: int
    end: int


def fact_use(question: str, ids: Sequence[int], tokenizer: GPT2TokenizerWithMulFacts) -> dict[str, FactUse]:
    """The use of the fact tokens among the generated `ids`: of `mul`, and of each other family that the tokenizer has.

    Takes time linear in their number.
    """
    names = dict.fromkeys(("mul", *(family.name for family in fact_families(tokenizer.vocabulary.families))))
    text, mentions = _read(ids, tokenizer)
    if not mentions:
        return dict.fromkeys(names, FactUse())
    known = {value for _, value in stated_numbers(question, to_a_reader=True)}
    stated = iter([*stated_numbers(text, to_a_reader=True), (len(text) + 1, 0.0)])
    end_of_number, value = next(stated)
    judged: dict[str, list[tuple[int, bool, bool, bool]]] = {name: [] for name in names}
    for mention in mentions:
        while end_of_number <= mention.start:
            known.add(value)
            end_of_number, value = next(stated)
        right, placed = _is_right_and_placed(mention, text)
        judged[mention.family].append((1, right, placed, known.issuperset(mention.fact.operands)))
    return {name: FactUse(*map(sum, zip(*found, strict=True))) for name, found in judged.items()}


def families_counted(row: dict[str, Any]) -> list[str]:
    """The families besides `mul` whose use a row of a responses file counts, as in `add_tokens_grounded`."""
    found = [key.removesuffix("_tokens_grounded") for key in row if key.endswith("_tokens_grounded")]
    return [name for name in found if name != "mul"]


def _is_right_and_placed(mention: _Mention, text: str) -> tuple[bool, bool]:
    before, after = text[max(0, mention.start - WINDOW) : mention.start], text[mention.end : mention.end + WINDOW]
    result = None if _BEHIND_AN_OPERATOR.search(before) else _OWN_RESULT.match(after)
    if result is None or _value(result) == mention.fact.value:
        return True, _is_placed(mention, before, after)
    goes_on = _CALCULATION_GOES_ON.match(after, result.end()) is not None
    # Another result would keep injection from the expression, but says nothing about the place.
    return goes_on, _is_placed(mention, before, "" if goes_on else after[result.end() :])


def _is_placed(mention: _Mention, before: str, after: str) -> bool:
    if _FACT_BEFORE.search(before) or _FACT_BEHIND.match(after):
        return False
    injector, expression = _injector(mention.family), _expressions(mention.family)[mention.fact.id]
    found = injector.inject_with_stats(f"{before}{expression}{after}")[1].injected
    return found > injector.inject_with_stats(f"{before}#{after}")[1].injected


def _read(ids: Sequence[int], tokenizer: GPT2TokenizerWithMulFacts) -> tuple[str, list[_Mention]]:
    """The text of `ids`, and its fact tokens."""
    facts = _facts(tokenizer.vocabulary.families)
    pieces, mentions, length, run = [], [], 0, []
    for token in [*ids, None]:
        if token is not None and token not in facts:
            run.append(token)
            continue
        pieces.append(tokenizer.decode(run))
        length, run = length + len(pieces[-1]), []
        if token is not None:
            family, fact = facts[token]
            pieces.append(fact.token)
            mentions.append(_Mention(family, fact, length, length + len(fact.token)))
            length = mentions[-1].end
    return "".join(pieces), mentions


@functools.cache
def _facts(families: str) -> dict[int, tuple[str, Fact]]:
    """Family and fact of every id."""
    return {fact.id: (family.name, fact) for family in fact_families(families) for fact in family.facts}


@functools.cache
def _injector(family: str) -> MulExpressionInjector:
    return MulExpressionInjector(families=family)


@functools.cache
def _expressions(family: str) -> dict[int, str]:
    """What injection rewrites to each token of a family, by id, in the first of the forms."""
    [family] = fact_families(family)
    form = FORMS[family.forms[0]](family.prefix)
    return {fact.id: form.write(*fact.operands, fact.value) for fact in family.facts}


def _value(match: re.Match[str]) -> float:
    return float(match["value"] or match["number"].replace(",", ""))
