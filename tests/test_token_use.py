"""The reward's terms for tokens: what is used, what is stray, and what becomes of a policy that spams them."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.encoding import tokenizer_of
from rl.equations import read_sentences
from rl.rewards import RewardConfig, Rollout, build_reward
from rl.token_use import TokenUse, generated_facts, known_numbers, token_use
from tests.rollouts import GOLD, HONEST, PLAIN, QUESTION, rollout
from tokenizer.families import read_families
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import MulFactTokens

ALL = "mul+add+square+div+digits"
reward = build_reward(RewardConfig(kind="shaped"), "chat", tokenizer_of("mul_tokens"), 256)
rewards_of_all = build_reward(RewardConfig(kind="shaped"), "chat", tokenizer_of("mul_tokens", ALL), 256)

PLAIN_STORIES = {  # question, solution as text, answer
    "mul": (QUESTION, PLAIN, 59),
    "add": (
        "Ann has 6 red and 9 blue pens. She loses 4. How many has she?",
        " Ann has 6 + 9 = <<6+9=15>>15 pens.\nThen 15 - 4 = <<15-4=11>>11 pens are left.\n#### 11",
        11,
    ),
    "square": (
        "Each of 7 rows has as many roses as there are rows. There are 5 more beside them. How many roses are there?",
        " In the rows are 7^2 = <<7^2=49>>49 roses.\nThere are 49 + 5 = <<49+5=54>>54 roses.\n#### 54",
        54,
    ),
    "div": (
        "6 boys share 54 pens. Then each finds 4 more. How many has each?",
        " Each gets 54 / 6 = <<54/6=9>>9 pens.\nThen 9 + 4 = <<9+4=13>>13 pens.\n#### 13",
        13,
    ),
}
FAMILIES = list(PLAIN_STORIES)
STORIES = {  # as the training text of a family has them
    family: {"question": question, "gold": gold, "honest": MulExpressionInjector(families=family).inject(solution)}
    for family, (question, solution, gold) in PLAIN_STORIES.items()
}


def reward_of_all(text, **given):
    return rewards_of_all(rollout(text, families=ALL, **given))


def use(solution, answer=59.0, question=QUESTION):
    ids = rollout(solution, families=ALL).ids
    return token_use(question, read_sentences(solution), generated_facts(ids), answer)


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


SUMS = "Ann has 6 red and 9 blue pens. She loses 4. How many has she?"
SQUARES = "7 rows of 7 roses, and 5 more?"
QUOTIENTS = "6 boys share 54 pens. Then each finds 4 more. How many has each?"


@pytest.mark.parametrize(
    ("question", "answer", "solution", "found"),
    [
        # sums
        (SUMS, 11, "<ADD_6_9_15> = 15. 15 - 4 = 11", (1, 0)),
        (SUMS, 11, "6 + 9 = <<<ADD_6_9_15>>>15. 15 - 4 = <<15-4=11>>11", (1, 0)),
        (SUMS, 11, "<ADD_6_9_15> - 4 = 11", (1, 0)),  # behind an operator's other side
        (SUMS, 11, "<ADD_6_9_15> = 16. 15 - 4 = 11", (0, 1)),  # said wrong
        (SUMS, 11, "<ADD_6_9_15> = 15. 15 - 4 = 12", (0, 0)),  # no chain to the answer, but no spam
        (SUMS, 11, "<ADD_6_9_15>", (0, 1)),  # into nothing
        (SUMS, 11, "<ADD_7_8_15> = 15. 15 - 4 = 11", (0, 0)),  # 7 and 8 come from nowhere
        (SUMS, 11, "<ADD_6_9_15>" * 10 + ". 15 - 4 = 11", (1, 6)),
        # squares
        (SQUARES, 54, "<SQUARE_7_49> = 49. 49 + 5 = 54", (1, 0)),
        (SQUARES, 54, "<SQUARE_7_49> + 5 = 54", (1, 0)),
        (SQUARES, 54, "<SQUARE_7_49> = 48. 49 + 5 = 54", (0, 1)),
        (SQUARES, 54, "<SQUARE_8_64> = 64. 64 - 10 = 54", (0, 0)),
        (SQUARES, 54, "<SQUARE_1_1> <SQUARE_2_4>", (0, 2)),
        # quotients
        (QUOTIENTS, 13, "<DIV_54_6_9> = 9. 9 + 4 = 13", (1, 0)),
        (QUOTIENTS, 13, "<DIV_54_6_9> + 4 = 13", (1, 0)),
        (QUOTIENTS, 13, "<DIV_54_6_9> = 8. 9 + 4 = 13", (0, 1)),
        (QUOTIENTS, 13, "<DIV_81_9_9> = 9. 9 + 4 = 13", (0, 0)),
        # two families in one chain
        ("6 boxes of 9 pens for 6 boys and 6 girls?", 4.5, "<MUL_6_9_54> / <ADD_6_6_12> = 4.5", (2, 0)),
        ("6 boxes of 6 eggs, shared by 4", 9, "<SQUARE_6_36> = 36. <DIV_36_4_9> = 9", (2, 0)),
        # of facts that undo each other, or say the same, one counts
        (QUESTION, 59, "<MUL_6_9_54> = 54 <DIV_54_6_9>. 54 + 5 = 59", (1, 1)),
        (QUESTION, 59, "<DIV_54_9_6> <MUL_6_9_54> = 54 <DIV_54_6_9>. 54 + 5 = 59", (1, 1)),
        (SQUARES, 54, "<SQUARE_7_49> <MUL_7_7_49>. 49 + 5 = 54", (1, 0)),
        ("2 and 2, and 1 more?", 5, "<ADD_2_2_4> <MUL_2_2_4> <SQUARE_2_4>. 4 + 1 = 5", (1, 0)),
    ],
)
def test_use_of_other_families(question, answer, solution, found):
    judged = use(solution, float(answer), question)
    assert (len(judged.used), judged.stray) == found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_training_text_of_a_family_is_paid_for_its_fact(family):
    story = STORIES[family]
    given = {"question": story["question"], "gold": story["gold"]}
    honest = reward_of_all(story["honest"], **given)
    assert honest.correct and (honest.parts["mul_tokens"], honest.parts["stray_mul_tokens"]) == (0.1, 0.0)
    text = reward_of_all(PLAIN_STORIES[family][1], **given)
    assert text.correct and text.parts["mul_tokens"] == 0 and honest.total > text.total


def test_without_an_answer_nothing_is_used():
    assert use("<MUL_6_9_54> = 54. 54 + 5 = 59", answer=None) == TokenUse(idle=frozenset({"<MUL_6_9_54>"}))


def test_more_facts_than_any_solution_leaves_lying_are_stray():
    solution = "".join(f"<MUL_{a}_9_{9 * a}> + 1 = 3. " for a in range(1, 9))
    assert (use(solution).used, use(solution).stray) == (frozenset(), 8 - 3)


def test_words_are_numbers_too():
    assert known_numbers("Twice a week three men eat 1,200 nuts, half of 2.5 kg") == {2, 7, 3, 1200, 2.5}
    question = "Ann writes twice a week. How many letters in 9 weeks?"
    assert use("<MUL_2_9_18> = 18", answer=18.0, question=question).used == {"<MUL_2_9_18>"}


def test_each_fact_is_paid_once_up_to_the_cap():
    question = "2 boxes of 3 pens, 4 boxes of 5 pens, 6 boxes of 7 pens: how many pens?"
    facts = ("<MUL_2_3_6>", "<MUL_4_5_20>", "<MUL_6_7_42>")
    for count, pays in ((0, 0.0), (1, 0.1), (2, 0.2), (3, 0.2)):
        sums = [fact if i < count else value_of(fact) for i, fact in enumerate(facts)]
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


def value_of(fact):
    return fact[5:-1].rpartition("_")[2]


def spam(text, count, rng, form, family):
    """`text` with `count` facts added, of values that it does not calculate with, in one of several ways."""
    numbers = re.findall("[0-9]+", text)
    others = [token for token in tokens_of(family) if value_of(token) not in numbers]
    added = [form.format(fact=token, value=value_of(token)) for token in rng.choices(others, k=count)]
    head, mark, answer = text.rpartition("\n####")
    if rng.random() < 0.5:
        return head + "".join(added) + mark + answer
    words = head.split(" ")
    for piece in added:
        words.insert(rng.randrange(len(words) + 1), piece)
    return " ".join(words) + mark + answer


def tokens_of(family):
    return [fact.token for fact in read_families()[family].facts]


SPAM = [" {fact}", "{fact}", "\n{fact} = {value}.\n", "\n{fact} = <<{fact}>>{value}.\n", "\n{fact} = 77.\n"]
WRONG = [text.replace("59", "58") for text in (HONEST, PLAIN)] + [HONEST.replace("59", "12"), "\n#### 3"]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=100)
@given(
    st.sampled_from([HONEST, PLAIN, *WRONG]),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
    st.sampled_from(SPAM),
)
def test_who_spams_scores_lower_than_who_does_not(family, text, count, rng, form):
    """Right and wrong answers alike, however many tokens, wherever they are put, of whatever family."""
    plain, spammed = reward_of_all(text), reward_of_all(spam(text, count, rng, form, family))
    assert spammed.correct == plain.correct
    assert spammed.total < plain.total - 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_who_spams_a_familys_own_solution_scores_lower(family):
    story, rng = STORIES[family], random.Random(0)
    given = {"question": story["question"], "gold": story["gold"]}
    honest = reward_of_all(story["honest"], **given)
    for count in (1, 2, 5, 30):
        for form in SPAM[2:]:  # on lines of their own
            spammed = reward_of_all(spam(story["honest"], count, rng, form, family), **given)
            assert spammed.correct and spammed.total < honest.total - 0.05


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
        text = " ".join(rng.choice(MulFactTokens().tokens) for _ in range(count))
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
    assert generated_facts(ids) == Counter({"<MUL_6_9_54>": 2})
    digits_add_and_div = [50261, 50300, 50349, 50485]
    assert generated_facts(digits_add_and_div) == Counter({"<ADD_1_1_2>": 1, "<DIV_81_9_9>": 1})
