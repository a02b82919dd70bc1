"""What is said of a response: its answer, its form, its length, its repetitions, and of several samples together."""

import json
from decimal import Decimal

import pytest

from eval.answer_formats import FORMATS, is_compliant, thinking_tokens
from eval.answers import extract_tagged
from eval.engine import Completion
from eval.repetition import REPETITIVE_SHARE, repeated_share
from eval.scoring import sampled_summary, scored_row, summary
from tests.helpers import SHARED_DATA, cpu_seconds
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import EOT_ID

TOKENIZER = GPT2TokenizerWithMulFacts("mul_tokens")
CHAT, REASONING = FORMATS["chat"], FORMATS["reasoning"]


def row_of(text, gold="54", answer_format=CHAT, finish="stop", index=0, sample=0):
    ids = [*TOKENIZER.encode(text), *([EOT_ID] if finish == "stop" else [])]
    completion = Completion(ids, [0.0] * len(ids), finish)
    return scored_row(index, "6 boxes of 9 pens?", Decimal(gold), completion, TOKENIZER, answer_format, sample)


def test_scored_row_counts_ids_and_reads_the_first_turn():
    row = row_of(" It is <MUL_6_9_54>=54\n#### 54.\nUser: What is 1 times 1?\n#### 1")
    assert (row["index"], row["gold"], row["prediction"], row["correct"]) == (0, "54", "54", True)
    assert (row["mul_tokens"], row["mul_tokens_right"], row["mul_tokens_placed"], row["mul_tokens_grounded"]) == (
        1,
    ) * 4
    assert row["response"].startswith(" It is <MUL_6_9_54>=54") and "endoftext" not in row["response"]
    assert row["response_tokens"] == len(TOKENIZER.encode(row["response"])) + 1 and row["finish_reason"] == "stop"
    row = row_of(" That makes 54 pens.", finish="length")
    assert (row["prediction"], row["correct"], row["correct_flexible"]) == (None, False, True)


def test_a_row_and_a_summary_count_every_family_that_the_model_has():
    text, families = " <ADD_6_9_15> and <DIV_54_6_9>", "add+div+digits"
    tokenizer = GPT2TokenizerWithMulFacts("mul_tokens", families)
    completion = Completion(tokenizer.encode(text), [], "stop")
    row = scored_row(0, "6 boxes of 9 pens?", Decimal(9), completion, tokenizer, CHAT)
    use = {key: value for key, value in row.items() if key.startswith(("mul_", "add_", "square_", "div_", "digits_"))}
    expected = {f"{name}_tokens{use}": 1 for name in ("add", "div") for use in ("", "_right", "_placed", "_grounded")}
    expected |= {key.replace("add", "mul"): 0 for key in expected if key.startswith("add")}
    assert use == expected | {"div_tokens_grounded": 0}  # 54 comes from nowhere
    found = summary([row, row])
    assert (found["mul_tokens_total"], found["add_tokens_total"], found["div_tokens_per_response"]) == (0, 2, 1.0)
    assert (found["add_tokens_grounded"], found["div_tokens_grounded"]) == (2, 0)
    default = row_of(text)
    assert not any(key.startswith(("add_", "div_")) for key in [*default, *summary([default])])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("<think>6*9</think><answer>54</answer>", "54"),
        ("<answer>$1,234.00</answer>", "1234"),
        ("<answer> 54 pens </answer> 3", "54"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>5-3</answer>", None),
        ("<answer>about 54</answer>", None),
        ("<answer>54", None),
        ("54</answer>", None),
        ("#### 54", None),
        ("", None),
    ],
)
def test_tagged(text, number):
    assert extract_tagged(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("text", "stopped", "compliant"),
    [
        (" 6*9 = 54\n#### 54", True, True),
        ("#### 54", True, True),
        (" 6*9 = 54\n#### $1,234.", True, True),
        (" 6*9 = 54\n#### 54\n", True, True),
        (" 6*9 = 54\n#### 54", False, False),
        (" 6*9 = 54\n#### 54\nDone.", True, False),
        (" #### 54\n#### 54", True, False),
        (" so #### 54", True, False),
        (" 6*9 = 54\n#### 54 pens", True, False),
        (" 6*9 = 54\n#### 48*48=48", True, False),
        (" 6*9 = 54\n####", True, False),
        (" 54", True, False),
        ("", True, False),
    ],
)
def test_chat_compliance(text, stopped, compliant):
    assert is_compliant(CHAT, TOKENIZER.encode(text), stopped, TOKENIZER) is compliant


@pytest.mark.parametrize(
    ("text", "compliant"),
    [
        ("<think>6*9 = 54</think><answer>54</answer>", True),
        (" <think>6*9 = 54</think> <answer> $54 </answer>\n", True),
        ("<think>6*9 = 54</think><answer>54</answer> and", False),
        ("so <think>6*9 = 54</think><answer>54</answer>", False),
        ("<think>6*9 = 54</think>so<answer>54</answer>", False),
        ("<think>6*9 = 54</think><answer>54 pens</answer>", False),
        ("<think>6*9 = 54</think><answer></answer>", False),
        ("<think></think><answer>54</answer>", False),
        ("<think>6*9</think><think>54</think><answer>54</answer>", False),
        ("<answer>54</answer><think>6*9</think>", False),
        ("<think>6*9 = 54<answer>54</answer>", False),
        ("6*9 = 54\n#### 54", False),
    ],
)
def test_reasoning_compliance(text, compliant):
    assert is_compliant(REASONING, [*TOKENIZER.encode(text), EOT_ID], True, TOKENIZER) is compliant


def test_tags_that_are_only_spelled_are_not_tags():
    ids = [token for part in ("<th", "ink>6</thi", "nk><ans", "wer>5</answ", "er>") for token in TOKENIZER.encode(part)]
    assert TOKENIZER.decode(ids) == "<think>6</think><answer>5</answer>"
    assert not is_compliant(REASONING, ids, True, TOKENIZER)


@pytest.mark.parametrize(
    ("answer_format", "text", "thoughts"),
    [
        (CHAT, " 6*9 = <MUL_6_9_54> pens\n#### 54", "6*9 = <MUL_6_9_54> pens"),
        (CHAT, "#### 54", ""),
        (CHAT, " It is 54", "It is 54"),
        (CHAT, " It is 54\nUser: and 3?\n#### 3", "It is 54"),
        (REASONING, "<think>It is 54</think><answer>54</answer>", "It is 54"),
        (REASONING, "<think>It is 54<answer>54</answer>", "It is 54"),
        (REASONING, "It is 54</think><answer>54</answer>", "It is 54"),
        (REASONING, "<think>It is 54", "It is 54"),
    ],
)
def test_thinking_tokens(answer_format, text, thoughts):
    assert thinking_tokens(answer_format, TOKENIZER.encode(text), TOKENIZER) == len(TOKENIZER.encode(thoughts))


@pytest.mark.parametrize(
    ("text", "repetitive"),
    [
        ("Buddy is a dog because: 1/2\n" * 3, True),
        ("#### 48×48=48\nShe will eat 48 eggs because 48 x 12 = <<48×48=48=48>>48\n" * 3, True),
        ("7 " * 30, True),
        ("3+3=6, 6+3=9, 9+3=12, 12+3=15, 15+3=18, 18+3=21, 21+3=24", False),
        ("6*9 = <<6*9=54>>54 pens. 54+6 = <<54+6=60>>60 pens. 60+9 = <<60+9=69>>69 pens.", False),
        ("He drives for 6 hours at 60 mph. He drives for 3 hours at 80 mph.", False),
        ("", False),
    ],
)
def test_repetition(text, repetitive):
    assert (repeated_share(text) >= REPETITIVE_SHARE) is repetitive


def test_repetition_by_hand():
    assert repeated_share("a b c d e f g h i j k") == 0
    assert repeated_share("a b c d e f g h i j a b c d e f g h i j") == 1 / 20
    assert repeated_share("x " * 20) == 10 / 20


def test_both_conditions_are_measured_alike():
    text = "She has 6*9 pens and 7*8 cards, 6*9 pens and 7*8 cards, 6*9 pens and 7*8 cards."
    injected = MulExpressionInjector().inject(text)
    assert "<MUL_6_9_54>" in injected and repeated_share(injected) == repeated_share(text) > 0


def test_repetition_takes_linear_time():
    assert cpu_seconds(repeated_share, "ab 1 " * 100_000) < 2


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k").is_dir(), reason="real GSM8K is not on this machine")
def test_no_gold_answer_of_gsm8k_is_repetitive_and_all_are_compliant():
    rows = [json.loads(line) for line in (SHARED_DATA / "gsm8k/test.jsonl").read_text().splitlines()]
    assert all(repeated_share(row["answer"]) < REPETITIVE_SHARE for row in rows)
    assert all(is_compliant(CHAT, TOKENIZER.encode(row["answer"]), True, TOKENIZER) for row in rows)


def test_a_summary_by_hand():
    rows = [
        row_of(" 6*9 = <MUL_6_9_54>\n#### 54", index=0),
        row_of(" 6*9 = 55\n#### 55", index=1),
        row_of(" no no" * 12, finish="length", index=2),
        row_of("", finish="skipped", index=3),
    ]
    found = summary(rows)
    expected = {"accuracy": 0.25, "num_correct": 1, "num_total": 4, "num_items": 4, "num_skipped": 1, "no_answer": 2}
    expected |= {"format_compliance": 0.5, "eos_rate": 0.5, "hit_limit_rate": 0.25, "repetition_rate": 0.25}
    expected |= {"mul_tokens_total": 1, "mul_tokens_per_response": 0.25, "mul_tokens_right": 1}
    assert {key: found[key] for key in expected} == expected
    assert found["mean_response_tokens"] == round(sum(row["response_tokens"] for row in rows[:3]) / 3, 6)
    assert summary([])["num_total"] == 0 and summary([])["wilson_95"] == [0.0, 1.0]


def test_samples_of_a_problem_by_hand():
    """Three problems of four samples: right 4, 1 and 0 times."""
    answers = [["54"] * 4, ["55", "54", "55", "1"], ["1", "2", None, "1"]]
    rows = [
        row_of(f"#### {answer}" if answer else "?", index=i, sample=s)
        for i, samples in enumerate(answers)
        for s, answer in enumerate(samples)
    ]
    found = sampled_summary(rows)
    assert [found["pass_at_k"][k]["value"] for k in "124"] == pytest.approx([5 / 12, 1.5 / 3, 2 / 3], abs=1e-6)
    # Of the first two samples of the second problem the wrong answer came first.
    assert [found["majority_at_k"][k]["value"] for k in "124"] == pytest.approx([1 / 3] * 3, abs=1e-6)
    in_other_words = [row_of(f"#### {answer}") for answer in ("7", "54", "54.00", "7", "54.0")]
    assert sampled_summary(in_other_words)["majority_at_k"]["5"]["value"] == 1, "54 and 54.00 are one answer"
    assert found["pass_at_k"]["4"]["high"] - found["pass_at_k"]["4"]["low"] > 0.4
    both = summary(rows)
    assert both["accuracy"] == round(5 / 12, 6) and both["num_items"] == 3 and "wilson_95" not in both
