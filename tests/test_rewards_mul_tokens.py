"""The mul-token terms: what is used, what is stray, and what becomes of a policy that spams tokens."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.encoding import tokenizer_of
from rl.equations import read_sentences
from rl.mul_token_use import MulTokenUse, generated_facts, known_numbers, mul_token_use
from rl.rewards import RewardConfig, Rollout, build_reward
from tests.rollouts import GOLD, HONEST, PLAIN, QUESTION, rollout
from tokenizer.mul_facts import MulFactTokens

FACTS = MulFactTokens().tokens
reward = build_reward(RewardConfig(kind="shaped"), "chat", tokenizer_of("mul_tokens"), 256)


def use(solution, answer=59.0, question=QUESTION):
    ids = rollout(solution).ids
    return mul_token_use(question, read_sentences(solution), generated_facts(ids), answer)


@pytest.mark.parametrize(
    ("solution", "found"),
    [
        ("<MUL_6_9_54> = 54. 54 + 5 = 59", (1, 0)),
        ("<MUL_6_9_54> = <<<MUL_6_9_54>>>54. 54 + 5 = <<54+5=59>>59", (1, 0)),
        ("<MUL_6_9_54> + 5 = 59", (1, 0)),
        ("6 boxes * 9 pens = <<<MUL_6_9_54>>>54\n5 + 54 = 59", (1, 0)),
        ("There are <MUL_6_9_54> pens\n54 + 2 = 56\n56 + 3 = 59", (1, 0)),
        ("6 - 3 = 3\n<MUL_3_9_27> = 27\n27 + 32 = 59", (1, 0)),  # 3 is the result of a true equation
        ("<MUL_6_9_54> = 54. 54 + 5 = 58", (0, 0)),  # the sum is wrong: no chain to the answer, but no spam
        ("<MUL_6_9_54> = 54. 54 + 6 = 59", (0, 0)),  # nor is there one through a sum that is wrong
        ("<MUL_6_9_54> = 55. 54 + 5 = 59", (0, 1)),
        ("<MUL_6_9_54> = <<<MUL_6_9_54>>>45. 54 + 5 = 59", (0, 2)),
        ("<MUL_6_9_54>", (0, 1)),
        ("<MUL_6_9_54> = 54", (0, 1)),
        ("<MUL_6_9_54> = 54 = 54 and 6 + 53 = 59", (0, 1)),
        ("<MUL_7_8_56> = 56. 56 + 3 = 59", (0, 0)),  # 7 and 8 come from nowhere
        ("<MUL_1_1_1> <MUL_1_2_2> <MUL_2_2_4>", (0, 3)),
        ("<MUL_6_9_54>" * 10 + "\n54 + 5 = 59", (1, 6)),
        ("54 + 5 = 59", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_use(solution, found):
    judged = use(solution)
    assert (len(judged.used), judged.stray) == found


def test_without_an_answer_nothing_is_used():
    assert use("<MUL_6_9_54> = 54. 54 + 5 = 59", answer=None) == MulTokenUse(idle=frozenset({(6, 9, 54)}))


def test_more_facts_than_any_solution_leaves_lying_are_stray():
    solution = "".join(f"<MUL_{a}_9_{9 * a}> + 1 = 3. " for a in range(1, 9))
    assert (use(solution).used, use(solution).stray) == (frozenset(), 8 - 3)


def test_words_are_numbers_too():
    assert known_numbers("Twice a week three men eat 1,200 nuts, half of 2.5 kg") == {2, 7, 3, 1200, 2.5}
    question = "Ann writes twice a week. How many letters in 9 weeks?"
    assert use("<MUL_2_9_18> = 18", answer=18.0, question=question).used == {(2, 9, 18)}


def test_each_fact_is_paid_once_up_to_the_cap():
    question = "2 boxes of 3 pens, 4 boxes of 5 pens, 6 boxes of 7 pens: how many pens?"
    facts = ("<MUL_2_3_6>", "<MUL_4_5_20>", "<MUL_6_7_42>")
    for count, pays in ((0, 0.0), (1, 0.1), (2, 0.2), (3, 0.2)):
        sums = [fact if i < count else product_of(fact) for i, fact in enumerate(facts)]
        text = f" {' + '.join(sums)} = 68\n" * 2 + "#### 68"
        assert reward(rollout(text, question, 68)).parts["mul_tokens"] == pytest.approx(pays)


def test_a_spelled_fact_is_no_token():
    """The ids spell it; the decoded text is the same."""
    spelled = Rollout(QUESTION, GOLD, rollout(HONEST, condition="baseline").ids, HONEST, "stop")
    assert reward(spelled).parts["mul_tokens"] == 0 and reward(rollout(HONEST)).parts["mul_tokens"] == 0.1
    both = Rollout(QUESTION, GOLD, rollout(HONEST).ids + spelled.ids, HONEST + HONEST, "stop")
    assert reward(both).parts["mul_tokens"] == 0
    only = Rollout(QUESTION, GOLD, spelled.ids, " <MUL_6_9_54> = 54\n#### 54", "stop")
    assert reward(only).parts["shows_work"] == 0


# ---- the spammer: takes an answer and adds tokens to it


def product_of(fact):
    return fact[5:-1].rpartition("_")[2]


def spam(text, count, rng, form):
    """`text` with `count` facts added, of products that it does not calculate with, in one of several ways."""
    numbers = re.findall("[0-9]+", text)
    others = [fact for fact in FACTS if product_of(fact) not in numbers]
    added = [form.format(fact=fact, product=product_of(fact)) for fact in rng.choices(others, k=count)]
    head, mark, answer = text.rpartition("\n####")
    if rng.random() < 0.5:
        return head + "".join(added) + mark + answer
    words = head.split(" ")
    for piece in added:
        words.insert(rng.randrange(len(words) + 1), piece)
    return " ".join(words) + mark + answer


SPAM = [" {fact}", "{fact}", "\n{fact} = {product}.\n", "\n{fact} = <<{fact}>>{product}.\n", "\n{fact} = 77.\n"]
WRONG = [text.replace("59", "58") for text in (HONEST, PLAIN)] + [HONEST.replace("59", "12"), "\n#### 3"]


@settings(max_examples=200)
@given(
    st.sampled_from([HONEST, PLAIN, *WRONG]),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
    st.sampled_from(SPAM),
)
def test_who_spams_scores_lower_than_who_does_not(text, count, rng, form):
    """Right and wrong answers alike, however many tokens, wherever they are put."""
    plain, spammed = reward(rollout(text)), reward(rollout(spam(text, count, rng, form)))
    assert spammed.correct == plain.correct
    assert spammed.total < plain.total - 0.05


def test_facts_of_other_numbers_in_the_solution_earn_nothing_and_soon_cost():
    """5 and 54 are in the sum, but 1*5 is not where the 5 is from."""
    one = HONEST.replace("\n####", " <MUL_1_5_5>\n####")
    assert reward(rollout(one)).total == reward(rollout(HONEST)).total
    assert reward(rollout(one.replace("<MUL_1_5_5>", "<MUL_1_5_5>" * 7))).total < reward(rollout(HONEST)).total


def test_repeating_the_right_fact_pays_no_more_than_using_it():
    for extra in (" <MUL_6_9_54>", "\n<MUL_6_9_54> = <<<MUL_6_9_54>>>54", "\n<MUL_6_9_54> + 5 = 59."):
        totals = [
            reward(rollout(HONEST.replace("\n####", extra * count + "\n####"))).total for count in (0, 4, 20, 100)
        ]
        assert totals[0] > totals[1] > totals[2] >= totals[3]


def test_nothing_but_tokens_is_worth_less_than_nothing():
    rng = random.Random(0)
    for count in (1, 5, 100):
        text = " ".join(rng.choice(FACTS) for _ in range(count))
        assert reward(rollout(text)).total < 0
        assert reward(rollout(f"{text}\n#### 7")).total < reward(rollout("\n#### 7")).total


def test_a_policy_that_learns_by_these_rewards_uses_tokens_and_does_not_spam():
    """Of five ways to answer, the one with tokens in their place has the highest reward, spam the lowest."""
    spammed = HONEST.replace("\n####", " <MUL_1_1_1> <MUL_2_2_4> <MUL_7_7_49>\n####")
    ways = {
        "tokens": HONEST,
        "text": PLAIN,
        "spam": spammed,
        "wrong": WRONG[0],
        "wrong spam": spammed.replace("59", "58"),
    }
    totals = {way: reward(rollout(text)).total for way, text in ways.items()}
    assert sorted(totals, key=totals.get, reverse=True) == ["tokens", "text", "spam", "wrong", "wrong spam"]


def test_generated_facts():
    mul_facts = MulFactTokens()
    ids = [5, mul_facts.id_of(9, 6), mul_facts.id_of(6, 9), 50303]
    assert generated_facts(ids) == Counter({(6, 9, 54): 2})
