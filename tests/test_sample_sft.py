"""scripts/sample_sft.py: one question, several, and token by token."""

import builtins
import sys

import pytest
import torch

from common.errors import UserError
from eval.engine import Completion
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from scripts import sample_sft
from tests.helpers import random_gpt
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID, FIRST_MUL_ID

TOKENIZER = GPT2TokenizerWithMulFacts("mul_tokens")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "model"
    save_model_dir(random_gpt(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64)), path, "mul_tokens")
    return path


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["sample_sft.py", *map(str, flags)])
    sample_sft.main()


def test_a_transcript_marks_tags_and_facts():
    prompt = TOKENIZER.encode("What is 6*9?")
    ids = [*TOKENIZER.encode("<think>It is <MUL_6_9_54></think><answer>54</answer>"), EOT_ID]
    lines = sample_sft.transcript(prompt, Completion(ids, [], "stop"), TOKENIZER).splitlines()
    assert lines[0] == f"--- prompt ({len(prompt)} tokens) ---" and lines[1] == "[   0] id= 2061  'What'"
    generated = lines[len(prompt) + 1 :]
    assert generated[0] == f"--- generated ({len(ids)} tokens) ---"
    assert generated[1] == f"[{len(prompt):>4}] id=50257  *** <think> ***"
    marked = [line.split("*** ")[1].split(" ***")[0] for line in generated if "***" in line]
    assert marked == ["<think>", "<MUL_6_9_54>", "</think>", "<answer>", "</answer>", "<|endoftext|>"]
    assert f"id={FIRST_MUL_ID + 38}" in "\n".join(generated)


def test_samples_with_a_seed(model_path, monkeypatch, capsys):
    flags = ("--model-path", model_path, "--question", "What is 7 times 8?", "--max-new-tokens", 5)
    sampled = (*flags, "--num-samples", 3, "--temperature", 1.0)
    outputs = []
    for more in (sampled, sampled, (*sampled, "--seed", 1), flags):
        run(monkeypatch, *more)
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[0].count("[answer: ") == 3 and "--- 3 of 3 ---" in outputs[0]
    assert outputs[3].count("[answer: ") == 1 and "5 tokens" in outputs[3]


def test_interactive_asks_until_an_empty_line(model_path, monkeypatch, capsys):
    questions = iter(["What is 2 times 3?", "word " * 100, "Why?", ""])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(questions))
    run(monkeypatch, "--model-path", model_path, "--interactive", "--max-new-tokens", 3, "--transcript")
    out = capsys.readouterr().out
    assert out.count("[answer: ") == 2 and out.count("--- prompt (") == 2
    assert "error: the question makes a prompt of" in out, "a question that is too long does not end it"
    monkeypatch.setattr(builtins, "input", _end_of_input)
    run(monkeypatch, "--model-path", model_path, "--interactive")


def _end_of_input(prompt):
    raise EOFError


def test_reasoning_stops_behind_the_answer(tmp_path, monkeypatch, capsys):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64))
    with torch.no_grad():
        model.ln_f.bias.fill_(1.0)
        model.wte.weight[TOKENIZER.encode("</answer>")[0]] = 2.0
    save_model_dir(model, tmp_path / "model", "baseline")
    run(monkeypatch, "--model-path", tmp_path / "model", "--format", "reasoning", "--question", "Why?")
    assert "1 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --question or --interactive"),
        (["--question", "a", "--interactive"], "either --question or --interactive"),
        (["--question", "a", "--num-samples", 2], "--num-samples needs --temperature"),
        (["--question", "a", "--num-samples", 0], "--num-samples 0: expected at least 1"),
        (["--question", "word " * 70], "the model's context takes 1 to 63"),
        (["--question", " "], "the question makes a prompt"),
        (["--question", "a", "--condition", "baseline"], "is a model of mul_tokens"),
    ],
)
def test_what_makes_no_sense(model_path, monkeypatch, flags, message):
    with pytest.raises(UserError, match=message):
        run(monkeypatch, "--model-path", model_path, *flags)
