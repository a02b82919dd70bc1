"""The benchmark of the SFT step, at toy size."""

import sys
from dataclasses import replace

import pytest

from common.errors import UserError
from common.files import read_json, write_jsonl, write_text
from scripts import bench_sft
from sft.examples import chat_example
from sft.packing import IGNORED
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer

TOY = "model: {n_layer: 1, n_head: 2, n_embd: 8, block_size: 16}\ntraining: {batch_size: 2}\n"


def test_two_contenders_are_timed_on_the_same_batches(tmp_path, monkeypatch, capsys):
    write_text(tmp_path / "toy.yaml", TOY)
    arguments = ["--batch-size=4", "--micro-batch-size=2", "--steps=2", "--device=cpu"]
    paths = [f"--recipe={tmp_path / 'toy.yaml'}", f"--output={tmp_path / 'figures.json'}"]
    monkeypatch.setattr(sys, "argv", ["bench_sft.py", *arguments, *paths])
    bench_sft.main()
    figures = read_json(tmp_path / "figures.json")
    speeds = figures["useful_tokens_per_second"]
    assert speeds["ours"] > speeds["padded"] > 0 and figures["ratio"] > 1 and "ratio: " in capsys.readouterr().out
    assert figures["real_share"]["padded"] < figures["real_share"]["ours"] <= 1


def test_gsm8k_is_trained_as_its_stage_does(tmp_path):
    answers = ["It is one.\n#### 1", "Long. " * 10 + "\n#### 2", "2 * 3 = 6\n#### 6"]
    rows = [{"question": f"What is it, the {n}th time?", "answer": answers[n % 3]} for n in range(6)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    config = bench_sft.BenchConfig(data_path=tmp_path, batch_size=2, steps=2)
    batches = bench_sft.gsm8k_batches(config)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    tokenizer = build_hf_tokenizer("baseline")
    texts = sorted(tokenizer.decode(row["input_ids"]) for batch in batches for row in batch)
    assert texts == sorted(chat_example(**row).text for row in rows)
    with pytest.raises(UserError, match="has 6 items; 3 steps need 8"):
        bench_sft.gsm8k_batches(replace(config, steps=3))


def test_the_examples_have_gsm8k_s_lengths():
    rows = [row for seed in range(40) for row in bench_sft.random_examples(32, seed)]
    lengths = [len(row["input_ids"]) for row in rows]
    assert 150 < sum(lengths) / len(lengths) < 170 and max(lengths) <= 442
    prompts = sum(int((row["labels"] == IGNORED).sum()) for row in rows)
    assert 0.37 < prompts / sum(lengths) < 0.40


def test_rows_too_short_for_the_examples_are_an_error(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_sft.py", "--max-length=256"])
    with pytest.raises(UserError, match="the longest example has 442 tokens"):
        bench_sft.main()
