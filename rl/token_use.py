"""Which facts of a solution are used where they belong: what the bonus for tokens may pay for.

A token such as <MUL_a_b_c>, of whatever family, is always true, so that writing one is no merit. A fact is *used* when

- its operands are known where it stands: numbers of the question, or results of true equations before it;
- a chain of true equations leads from its value to the stated answer;
- no equation says it wrong (`<MUL_6_9_54> = 55`).

Of facts that say the same of the same numbers, as 6*9 and 54/6 do, one is used: a quotient that takes a product apart
again leads nowhere. A mention is *stray* when it says a fact wrong, when its value goes into nothing else, or when
there are too many. What is neither, a fact whose value went into an addition that came out wrong, costs nothing and
earns nothing.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eval.stated_numbers import stated_numbers
from rl.equations import Fact, Sentence, operands_of, value_of
from tokenizer.families import fact_families, read_families

MENTIONS = 4  # of one fact that are no spam: a solution writes `<F> = <<<F>>>54`, and perhaps once more
IDLE_FACTS = 3  # facts with a value in some calculation, true or not, but in no chain to the answer


@dataclass(frozen=True)
class TokenUse:
    """`used` facts, the `idle` ones that are neither used nor stray, and how many mentions are `stray`."""

    used: frozenset[Fact] = frozenset()
    idle: frozenset[Fact] = frozenset()
    stray: int = 0


def generated_facts(ids: Sequence[int]) -> Counter[Fact]:
    """The facts among generated ids, with how often each is there."""
    facts = _fact_of_id()
    return Counter(facts[i] for i in ids if i in facts)


@functools.cache
def _fact_of_id() -> dict[int, Fact]:
    """Of every family: ids are never used twice, so a model's own families need not be known."""
    return {fact.id: fact.token for family in fact_families("+".join(read_families())) for fact in family.facts}


def token_use(question: str, sentences: list[Sentence], generated: Counter[Fact], answer: float | None) -> TokenUse:
    """Judge the `generated` facts of a solution, read into `sentences`, that states `answer` (None: none)."""
    if not generated:
        return TokenUse()
    said_wrong = {fact for sentence in sentences for e in sentence.equations if not e.holds for fact in e.lone_facts}
    chained = _leading_to(answer, sentences, known_numbers(question)) & set(generated) - said_wrong
    # The first mentioned of those with the same numbers.
    used = {_numbers_of(fact): fact for fact in reversed(generated) if fact in chained}.values()
    calculated = {number for s in sentences for e in s.equations if not e.lone_facts for number in e.operands}
    elsewhere = said_wrong.union(used)
    idle = [fact for fact in generated if fact not in elsewhere and value_of(fact) in calculated][:IDLE_FACTS]
    in_place = {*used, *idle}
    stray = sum(max(0, count - MENTIONS) if fact in in_place else count for fact, count in generated.items())
    return TokenUse(frozenset(used), frozenset(idle), stray)


def known_numbers(question: str) -> set[float]:
    """The numbers that a question gives, in digits or in words such as "twice"."""
    return {value for _, value in stated_numbers(question)}


def _numbers_of(fact: Fact) -> frozenset[float]:
    return frozenset((*operands_of(fact), value_of(fact)))


def _leading_to(answer: float | None, sentences: list[Sentence], known: set[float]) -> set[Fact]:
    """The facts with operands among the `known` numbers from which a chain of true equations leads to `answer`."""
    known = set(known)
    grounded: list[list[Fact]] = []
    for sentence in sentences:
        for equation in sentence.equations:
            if equation.holds and not known.isdisjoint(equation.operands):
                known.add(equation.value)
        grounded.append([fact for fact in sentence.facts if known.issuperset(operands_of(fact))])
        known.update(map(value_of, grounded[-1]))
    if answer is None:
        return set()
    needed, used = {answer}, set()
    for sentence, facts in zip(reversed(sentences), reversed(grounded), strict=True):
        for equation in reversed(sentence.equations):
            if equation.holds and equation.value in needed:
                needed.update(equation.operands)
        for fact in facts:
            if value_of(fact) in needed:
                used.add(fact)
                needed.update(operands_of(fact))
    return used
