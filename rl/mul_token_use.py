"""Which multiplication facts of a solution are used where they belong: what the mul-token bonus may pay for.

A token <MUL_a_b_c> is always true, so that writing one is no merit. A fact is *used* when

- both factors are known where it stands: numbers of the question, or results of true equations before it;
- a chain of true equations leads from its product to the stated answer;
- no equation says it wrong (`<MUL_6_9_54> = 55`).

A mention is *stray* when it says a fact wrong, when its product goes into nothing else, or when there are too many.
What is neither, a fact whose product went into an addition that came out wrong, costs nothing and earns nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eval.stated_numbers import stated_numbers
from rl.equations import Fact, Sentence
from tokenizer.mul_facts import MulFactTokens

MENTIONS = 4  # of one fact that are no spam: a solution writes `<F> = <<<F>>>54`, and perhaps once more
IDLE_FACTS = 3  # facts with a product in some calculation, true or not, but in no chain to the answer


@dataclass(frozen=True)
class MulTokenUse:
    """`used` facts, the `idle` ones that are neither used nor stray, and how many mentions are `stray`."""

    used: frozenset[Fact] = frozenset()
    idle: frozenset[Fact] = frozenset()
    stray: int = 0


def generated_facts(ids: Sequence[int]) -> Counter[Fact]:
    """The facts among generated ids, with how often each is there."""
    mul_facts = MulFactTokens()
    return Counter(mul_facts.fact(i) for i in ids if mul_facts.is_mul_id(i))


def mul_token_use(
    question: str, sentences: list[Sentence], generated: Counter[Fact], answer: float | None
) -> MulTokenUse:
    """Judge the `generated` facts of a solution, read into `sentences`, that states `answer` (None: none)."""
    if not generated:
        return MulTokenUse()
    said_wrong = {fact for sentence in sentences for e in sentence.equations if not e.holds for fact in e.lone_facts}
    used = _leading_to(answer, sentences, known_numbers(question)) & set(generated) - said_wrong
    calculated = {number for s in sentences for e in s.equations if not e.lone_facts for number in e.operands}
    idle = [fact for fact in generated if fact not in used | said_wrong and fact[2] in calculated][:IDLE_FACTS]
    in_place = used.union(idle)
    stray = sum(max(0, count - MENTIONS) if fact in in_place else count for fact, count in generated.items())
    return MulTokenUse(frozenset(used), frozenset(idle), stray)


def known_numbers(question: str) -> set[float]:
    """The numbers that a question gives, in digits or in words such as "twice"."""
    return {value for _, value in stated_numbers(question)}


def _leading_to(answer: float | None, sentences: list[Sentence], known: set[float]) -> set[Fact]:
    """The facts with factors among the `known` numbers from which a chain of true equations leads to `answer`."""
    known = set(known)
    grounded: list[list[Fact]] = []
    for sentence in sentences:
        for equation in sentence.equations:
            if equation.holds and not known.isdisjoint(equation.operands):
                known.add(equation.value)
        grounded.append([fact for fact in sentence.facts if fact[0] in known and fact[1] in known])
        known.update(float(fact[2]) for fact in grounded[-1])
    if answer is None:
        return set()
    needed, used = {answer}, set()
    for sentence, facts in zip(reversed(sentences), reversed(grounded), strict=True):
        for equation in reversed(sentence.equations):
            if equation.holds and equation.value in needed:
                needed.update(equation.operands)
        for fact in facts:
            if fact[2] in needed:
                used.add(fact)
                needed.update(map(float, fact[:2]))
    return used
