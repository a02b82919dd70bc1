"""rl/rewards.py: what each term pays for, and that no weights and no text make a wrong answer worth a right one."""

import dataclasses
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import read_jsonl
from data.encoding import tokenizer_of
from eval.answers import extract_strict
from rl.rewards import RewardConfig, Rollout, build_reward, check_reward, lowest_right
from tests.helpers import SHARED_DATA, cpu_seconds
from tests.rollouts import GOLD, HONEST, PLAIN, QUESTION, rollout
from tokenizer.inject_mul import MulExpressionInjector

SHAPED = RewardConfig(kind="shaped")
COMPOSITE = RewardConfig(kind="composite")
WRONG = HONEST.replace("59", "58")
KINDS = ("binary", "shaped", "composite")


def score(text, config=SHAPED, format="chat", condition="mul_tokens", max_new_tokens=256, **given):
    return build_reward(config, format, tokenizer_of(condition), max_new_tokens)(
        rollout(text, condition=condition, **given)
    )


# ---- right answers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "form", ["#### $18", "#### 18.", "#### 18.00", "####18", "#### 18 dollars a day", "#### 18\nok"]
)
def test_forms_of_a_right_answer(kind, form):
    assert score(f" so\n{form}", RewardConfig(kind=kind), gold=18).correct
    assert not score(f" so\n{form}", RewardConfig(kind=kind), gold=19).correct


def test_thousands_and_the_last_mark_count():
    assert score("#### 1,234", gold=1234).correct
    assert score("#### 7\n#### 8", gold=8).correct and not score("#### 7\n#### 8", gold=7).correct
    assert not score("It is 59.").correct


def test_what_the_model_asks_itself_does_not_count():
    assert not score(" ok\nUser: and 50 + 9?\nAssistant: #### 59").correct


@pytest.mark.parametrize(
    "text", ["<think>a</think><answer>59</answer>", "<answer> $59.00</answer>", "<answer>59 pens</answer>"]
)
def test_in_the_reasoning_format_the_answer_is_inside_its_tags(text):
    assert score(text, COMPOSITE, "reasoning").correct
    for other in ("<think>59</think>", "<think>a</think><answer>58</answer>", "#### 59", "<answer>59", "59</answer>"):
        assert not score(other, COMPOSITE, "reasoning").correct


# ---- parts


def test_binary_pays_the_answer_alone():
    config = RewardConfig(correct=2.0)
    assert score(HONEST, config).parts == {"correct": 2.0} and score(HONEST, config).total == 2.0
    assert score(WRONG, config).total == 0.0


def test_an_honest_solution_earns_every_term():
    assert score(HONEST).parts == {
        "correct": 1.0,
        "near": 0.0,
        "shows_work": 0.1,
        "short": 0.1,
        "repetition": 0.0,
        "mul_tokens": 0.1,  # one of the two facts that are paid for
        "stray_mul_tokens": 0.0,
        "cap": 0.0,
    }


def test_baseline_has_no_terms_of_mul_tokens():
    parts = score(PLAIN, condition="baseline").parts
    assert parts == {key: value for key, value in score(HONEST).parts.items() if "mul_tokens" not in key}


@pytest.mark.parametrize(
    ("answer", "pays"), [("64.9", True), ("65", False), ("53.1", True), ("53", False), ("59", False)]
)
def test_near_is_within_ten_percent(answer, pays):
    assert (score(f"#### {answer}").parts["near"] == 0.3) is pays


def test_nothing_is_near_zero_and_signs_count():
    assert score("#### 0.01", gold=0).parts["near"] == 0
    assert score("#### -95", gold=-100).parts["near"] == 0.3 and score("#### 95", gold=-100).parts["near"] == 0


@pytest.mark.parametrize(
    ("text", "pays"),
    [
        (" 6 + 5 = 11", True),
        (" 6 * 9 = 54", True),
        (" 6 * 9 = 55", False),
        (" = ", False),
        (" 59 = 59", False),
        (" pens = 59", False),
        (" 1 + 1 = 2", False),  # not of this problem
        (" 6 * 1 = 6", False),
        (" 9 + 0 = 9", False),
        (" <MUL_6_9_54> = 54\n#### 54", True),
        (" <MUL_6_9_54> = 54", False),  # leads nowhere
        (" <MUL_6_9_54> = 55\n#### 54", False),
    ],
)
def test_work_is_a_true_equation_with_a_number_of_the_question(text, pays):
    assert (score(text).parts["shows_work"] == 0.1) is pays


def test_short_pays_what_is_short_and_ends_and_shows_work():
    length = len(rollout(HONEST).ids)
    assert score(HONEST, max_new_tokens=length * 2).parts["short"] == 0.1
    assert score(HONEST, max_new_tokens=round(length / 0.8)).parts["short"] == pytest.approx(0.05, abs=0.01)
    assert score(HONEST, max_new_tokens=length).parts["short"] == 0
    assert score(HONEST, finish_reason="length").parts["short"] == 0
    assert score("#### 59").parts["short"] == 0
    assert score(" 6 * 9 = 54").parts["short"] == 0


def test_loops_cost_and_arithmetic_does_not():
    loop = " She makes 48 eggs because 48 x 12 = <<48×48=48=48>>48\n" * 12
    assert score(loop).parts["repetition"] < -0.2 and score(loop).total < 0
    assert score(HONEST).parts["repetition"] == 0


def test_composite_pays_the_format_once():
    good = "<think>6 * 9 = 54, 54 + 5 = 59</think><answer>{}</answer>"
    assert score(good.format(59), COMPOSITE, "reasoning").parts == {
        "correct": 1.0,
        "format": 0.5,
        "length": 0.1,
        "cap": 0.0,
    }
    wrong = score(good.format(5), COMPOSITE, "reasoning")
    assert not wrong.correct and wrong.total == pytest.approx(0.6)
    for text in (
        "<think></think><answer>59</answer>",
        "<answer>59</answer>",
        "<answer>59</answer><think>a</think>",
        "<think>a</think><answer>58</answer><answer>59</answer>",
        "<think>a</think><answer>59</answer> and so on",
        "so <think>a</think><answer>59</answer>",
    ):
        assert score(text, COMPOSITE, "reasoning").parts["format"] == 0, text
    assert score("<think>a</think><answer>no</answer>", COMPOSITE, "reasoning").total == 0
    assert score(HONEST, COMPOSITE).parts["format"] == 0.5
    assert score(HONEST, COMPOSITE, finish_reason="length").parts["format"] == 0


# ---- what no text and no weights can do

WEIGHT = st.floats(0, 3)
CONFIGS = st.builds(
    RewardConfig,
    kind=st.sampled_from(KINDS),
    correct=st.floats(0.01, 3),
    near=WEIGHT,
    shows_work=WEIGHT,
    mul_tokens=WEIGHT,
    mul_tokens_cap=st.integers(1, 4),
    short=WEIGHT,
    repetition=st.floats(-3, 0),
    format=WEIGHT,
    length=WEIGHT,
    short_share=st.floats(0.1, 1),
)
PIECES = [
    " 6 * 9 = <<6*9=54>>54",
    " 54 + 5 = 59",
    " <MUL_6_9_54>",
    " = ",
    "<<<MUL_6_9_54>>>54",
    " <MUL_1_1_1>",
    "\n",
    " pens.",
]
PIECES += [
    "<think>",
    "</think>",
    "<answer>59</answer>",
    "<answer>60</answer>",
    "\n#### 59",
    "\n#### 60",
    "\n#### 7",
    " and",
    "\nUser:",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60)
ENDS = st.sampled_from(["stop", "length"])


@settings(max_examples=400)
@given(CONFIGS, st.sampled_from(["chat", "reasoning"]), TEXTS, TEXTS, ENDS, ENDS)
def test_a_wrong_answer_never_scores_as_much_as_a_right_one(config, format, one, other, one_ends, other_ends):
    try:
        check_reward(config)
    except UserError:
        assume(False)
    right_end = "\n#### 59" if format == "chat" else "<answer>59</answer>"
    reward = build_reward(config, format, tokenizer_of("mul_tokens"), 64)
    scores = [
        reward(rollout(one.replace("\nUser:", "") + right_end, finish_reason=one_ends)),
        reward(rollout(other, finish_reason=other_ends)),
    ]
    assert scores[0].correct and scores[0].total >= lowest_right(config) - 1e-9
    for found in scores:
        assert found.total == pytest.approx(sum(found.parts.values()))
    if not scores[1].correct:
        assert scores[1].total < lowest_right(config) and scores[1].total < scores[0].total


@given(CONFIGS, st.sampled_from(["chat", "reasoning"]), st.text(alphabet=" \n\t"), ENDS)
def test_an_empty_completion_earns_nothing(config, format, text, ends):
    config = dataclasses.replace(config, correct=10.0)
    assert build_reward(config, format, tokenizer_of("mul_tokens"), 64)(rollout(text, finish_reason=ends)).total <= 0
    empty = Rollout(QUESTION, GOLD, [], "", "length")
    assert build_reward(config, format, tokenizer_of("mul_tokens"), 64)(empty).total <= 0


def test_the_cap_is_named_in_the_parts():
    config = dataclasses.replace(SHAPED, near=3.0)
    near = score("#### 58", config)
    assert near.parts["cap"] == pytest.approx(0.45 - 3.0) and near.total == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"correct": 0.4}, "reward.correct 0.4"),
        ({"mul_tokens": 0.8}, "reward.correct 1.0"),
        ({"repetition": 0.3}, "reward.repetition 0.3"),
        ({"near": -0.1}, "reward.near -0.1"),
        ({"format": float("nan")}, "reward.format nan"),
        ({"mul_tokens_cap": 0}, "reward.mul_tokens_cap 0"),
        ({"short_share": 0.0}, "reward.short_share 0.0"),
        ({"short_share": 1.5}, "reward.short_share 1.5"),
    ],
)
def test_weights_that_make_no_sense_are_refused(changes, named):
    with pytest.raises(UserError, match=named):
        check_reward(dataclasses.replace(SHAPED, **changes))


def test_only_terms_that_are_in_use_are_weighed():
    check_reward(RewardConfig(kind="binary", correct=0.1))
    check_reward(SHAPED)


# ---- real problems, and time


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k").is_dir(), reason="real GSM8K is not on this machine")
@pytest.mark.parametrize("condition", ["baseline", "mul_tokens"])
def test_gold_answers_score_full(condition):
    """All are right in every kind and format; of the partial terms nearly all earn what there is."""
    items = [item for name in ("train", "test") for item in read_jsonl(SHARED_DATA / f"gsm8k/{name}.jsonl")]
    binary = build_reward(RewardConfig(), "chat", tokenizer_of(condition), 512)
    inject = MulExpressionInjector().inject if condition == "mul_tokens" else str
    for item in items:
        gold = Decimal(item["answer"].split("####")[1].strip().replace(",", ""))
        text = inject(" " + item["answer"])
        assert binary(Rollout(item["question"], gold, [0], text, "stop")).total == 1.0
    shaped = build_reward(SHAPED, "chat", tokenizer_of(condition), 512)
    sums = dict.fromkeys(("shows_work", "short", "repetition", "stray_mul_tokens"), 0.0)
    some = items[::10]
    for item in some:
        given = {"gold": extract_strict(item["answer"]), "condition": condition}
        reward = shaped(rollout(inject(" " + item["answer"].strip()), item["question"], **given))
        assert reward.total >= 1.0 - 0.25
        for part in sums:
            sums[part] += reward.parts.get(part, 0.0) / len(some)
    assert sums["shows_work"] > 0.095 and sums["short"] > 0.095
    assert sums["repetition"] > -0.005 and sums["stray_mul_tokens"] > -0.005


@pytest.mark.parametrize("kind", KINDS)
def test_time_is_linear(kind):
    """Ten thousand tokens take about 20 ms; twice as many, twice that."""
    line = "Day {0}: <MUL_6_9_54> = <<<MUL_6_9_54>>>54 and {0} + 54 = <<{0}+54={0}>>99 pens ( here.\n"
    reward = build_reward(RewardConfig(kind=kind), "chat", tokenizer_of("mul_tokens"), 256)
    seconds = []
    for count in (10_000, 20_000):
        ids = tokenizer_of("mul_tokens").encode("".join(line.format(i) for i in range(count)))[:count]
        given = Rollout(QUESTION, GOLD, ids, tokenizer_of("mul_tokens").decode(ids), "length")
        seconds.append(cpu_seconds(reward, given, repeats=5))
    assert seconds[0] < 0.1 and seconds[1] < 4 * seconds[0]
