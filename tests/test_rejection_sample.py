"""rl/rejection_sample.py: what is kept, that the SFT stages read it as it was said, and what wrong input gets."""

import sys
from collections import Counter
from decimal import Decimal

import pytest
import torch

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data.chat_rows import read_rows
from data.encoding import tokenizer_of
from data.reasoning import question_reasoning_answer
from eval.answer_formats import FORMATS
from eval.engine import Completion
from eval.run_gsm8k import Problem
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from rl import rejection_sample
from rl.verified_rows import verified_rows
from sft.examples import chat_example, load_gsm8k_train, reasoning_example, tokenize_examples
from tests.rollouts import GOLD, HONEST, PLAIN, QUESTION
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import ANSWER_CLOSE, EOT_ID, REASONING_TAGS

PROBLEM = Problem(QUESTION, GOLD, "#### 59")
THOUGHT = "<think>There are <MUL_6_9_54> = 54, and 54 + 5 = 59.</think><answer>59</answer>"
WRONG = HONEST.replace("59", "58")


def said(text, condition="mul_tokens", finish_reason="stop"):
    ids = tokenizer_of(condition).encode(text, allow_special=False)
    ends = finish_reason == "stop" and not text.endswith(ANSWER_CLOSE)
    return Completion(ids + [EOT_ID] * ends, [0.0] * (len(ids) + ends), finish_reason)


def verify(*completions, format="chat", most=4, problem=PROBLEM, condition="mul_tokens"):
    rows, outcomes = verified_rows(problem, list(completions), FORMATS[format], tokenizer_of(condition), most)
    assert sum(outcomes.values()) == len(completions) and outcomes["kept"] == len(rows)
    return rows, +outcomes


def test_only_right_whole_and_different_responses_are_kept():
    cut = said(HONEST, finish_reason="length")
    rows, outcomes = verify(
        said(HONEST), said(WRONG), cut, said(HONEST + " "), said(PLAIN), said(f"{HONEST}\nUser: so?")
    )
    assert rows == [{"question": QUESTION, "answer": text.strip()} for text in (HONEST, PLAIN)]
    assert outcomes == Counter(kept=2, wrong=1, not_in_format=2, repeated=1)


def test_what_is_said_oftener_comes_first():
    rows, outcomes = verify(said("pens\n#### 59"), *[said("6 + 53 = 59\n#### 59")] * 2, said("x\n#### 59"), most=2)
    assert [row["answer"] for row in rows] == ["6 + 53 = 59\n#### 59", "pens\n#### 59"]
    assert outcomes == Counter(kept=2, repeated=1, more_than_wanted=1)


def test_a_false_step_to_the_right_number_is_left_out():
    for text in ("6 * 9 = 55 and\n#### 59", "<MUL_6_9_54> = <<<MUL_6_9_54>>>55\n#### 59"):
        assert verify(said(text)) == ([], Counter(false_equation=1))


def test_what_cannot_be_trained_as_it_was_said_is_left_out():
    spelled = said(HONEST, "baseline")
    broken = Completion([*said(" It").ids[:-1], 447, *said("\n#### 59").ids], [], "stop")  # half a character
    assert verify(spelled, broken) == ([], Counter(not_trainable=2))


def test_reasoning_rows():
    rows, outcomes = verify(said(THOUGHT), said(THOUGHT.replace("59<", "58<")), said(HONEST), format="reasoning")
    thoughts = THOUGHT.removeprefix("<think>").partition("</think>")[0]
    assert rows == [{"question": QUESTION, "reasoning": thoughts, "answer": "59"}]
    assert outcomes == Counter(kept=1, wrong=2)


@pytest.mark.parametrize("format", ["chat", "reasoning"])
def test_the_sft_stage_trains_the_very_tokens(format, tmp_path):
    """Through its own reader, injection included: a right response comes back id by id."""
    completion = said(HONEST if format == "chat" else THOUGHT)
    write_jsonl(tmp_path / "train.jsonl", verify(completion, format=format)[0])
    if format == "chat":
        examples = [chat_example(**row) for row in load_gsm8k_train(tmp_path, "").rows]
    else:
        examples = [reasoning_example(**row) for row in read_rows(tmp_path, question_reasoning_answer).rows]
    [row] = tokenize_examples(build_hf_tokenizer("mul_tokens"), examples, 256, MulExpressionInjector().inject).rows
    trained = row["labels"][row["labels"] != -100].tolist()
    assert trained == completion.ids + [EOT_ID] * (completion.ids[-1] == REASONING_TAGS[ANSWER_CLOSE])


# ---- the script

ITEMS = [{"question": f"What is {a} + 1?", "answer": f"{a} + 1 = {a + 1}\n#### {a + 1}"} for a in range(1, 7)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A random model, and problems with a test split beside them that nobody may open."""
    root = tmp_path_factory.mktemp("rejection")
    torch.manual_seed(0)
    save_model_dir(GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64)), root / "model", "mul_tokens")
    write_json(root / "model" / "run.json", {"stage": "sft_gsm8k", "condition": "mul_tokens"})
    write_jsonl(root / "data" / "train.jsonl", ITEMS)
    (root / "data" / "test.jsonl").write_text("not to be read")
    return root


def run(monkeypatch, workspace, output_dir, *flags, data="data"):
    argv = ["--model-path", workspace / "model", "--output-dir", output_dir, "--data-path", workspace / data]
    argv += ["--num-samples=2", "--max-new-tokens=8", "--device=cpu", *flags]
    monkeypatch.setattr(sys, "argv", ["rejection_sample.py", *map(str, argv)])
    rejection_sample.main()


def answer_right(monkeypatch):
    """In place of the model: right to the first sample, wrong to the second."""

    def respond(solver, prompts, decoding, *_):
        golds = [int(prompt.split()[3]) + 1 for prompt in prompts]
        return [[said(f" It is {gold}.\n#### {gold}"), said("\n#### 77")] for gold in golds]

    monkeypatch.setattr(rejection_sample, "respond", respond)


def test_the_script_writes_rows_results_and_record(workspace, tmp_path, monkeypatch, capsys):
    answer_right(monkeypatch)
    run(monkeypatch, workspace, tmp_path / "out", "--max-prompts=4", "--seed=1")
    rows, results = read_jsonl(tmp_path / "out/train.jsonl"), read_json(tmp_path / "out/rejection_results.json")
    questions = [item["question"] for item in ITEMS]
    assert len(rows) == 4 and set(row["question"] for row in rows) < set(questions)
    expected = {"problems": 4, "sampled": 8, "right": 4, "kept": 4, "solved": 4, "solved_share": 1.0}
    assert expected.items() <= results.items() and results["pass_at_k"] == {"1": 0.5, "2": 1.0}
    record = read_json(tmp_path / "out/run.json")
    assert record["stage"] == "rejection_sample" and record["condition"] == "mul_tokens"
    assert record["data"]["split"] == "train" and record["data"]["items"] == 4
    assert "pass@2 100.0%" in capsys.readouterr().out
    with pytest.raises(UserError, match="already holds a finished run"):
        run(monkeypatch, workspace, tmp_path / "out")


def test_mul_tokens_are_counted():
    samples = [[said(HONEST), said(WRONG)], [said(PLAIN), said(PLAIN)]]
    found = [verify(*completions) for completions in samples]
    rows = [row for those, _ in found for row in those]
    results = rejection_sample.summarise(samples, [outcomes for _, outcomes in found], rows)
    assert (results["mul_tokens_sampled"], results["mul_tokens_kept"], results["right"]) == (4, 2, 3)


def test_facts_of_other_families_are_counted_and_digits_are_none():
    tokenizer = tokenizer_of("mul_tokens", "mul+add+digits")
    text = " She has <ADD_6_9_15> = <<<ADD_6_9_15>>>15 and <MUL_5_3_15> = 15\n#### 15".replace("5_3", "3_5")
    completion = Completion([*tokenizer.encode(text), EOT_ID], [], "stop")
    false = Completion([*tokenizer.encode(text.replace("= <<", "= 16 <<")), EOT_ID], [], "stop")
    problem = Problem("6 red pens and 9 blue ones?", Decimal(15), "#### 15")
    rows, outcomes = verified_rows(problem, [completion, false], FORMATS["chat"], tokenizer, 4)
    assert +outcomes == Counter(kept=1, false_equation=1) and rows[0]["answer"] == text.strip()
    results = rejection_sample.summarise([[completion]], [outcomes], rows)
    assert (results["mul_tokens_sampled"], results["mul_tokens_kept"]) == (3, 3)


def test_a_model_that_solves_nothing_leaves_results_and_no_rows(workspace, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nothing to train on"):
        run(monkeypatch, workspace, tmp_path / "out")
    assert read_json(tmp_path / "out/rejection_results.json")["outcomes"]["wrong"] == 12
    assert not (tmp_path / "out/train.jsonl").exists() and not (tmp_path / "out/run.json").exists()


@pytest.mark.parametrize(
    ("flags", "data", "named"),
    [
        ([], "data/test.jsonl", "test.jsonl is a test split"),
        (["--num-samples=0"], "data", "--num-samples 0"),
        (["--keep-per-problem=0"], "data", "--keep-per-problem 0"),
        (["--max-prompts=0"], "data", "--max-prompts 0"),
        (["--temperature=0"], "data", "--num-samples needs --temperature above 0"),
        (["--condition=baseline"], "data", "is a model of mul_tokens"),
        ([], "nowhere.jsonl", "nowhere.jsonl does not exist"),
    ],
)
def test_mistakes(workspace, tmp_path, monkeypatch, flags, data, named):
    with pytest.raises(UserError, match=named):
        run(monkeypatch, workspace, tmp_path / "out", *flags, data=data)
    assert not (tmp_path / "out").exists()


def test_gold_numbers_are_compared_by_value():
    problem = Problem("?", Decimal("1234"), "")
    assert verify(said(" 1,000 + 234 = 1,234\n#### 1,234"), problem=problem)[1] == Counter(kept=1)
