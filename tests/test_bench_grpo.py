"""GRPO's benchmarks beside TRL, at toy size."""

import sys

import numpy as np
import pytest

from common.errors import UserError
from common.files import read_json
from pretrain.model import GPTConfig
from scripts import bench_grpo, bench_grpo_learning
from scripts.bench_grpo_learning import CHARACTERS, EOS, additions, response_to, right

TOY = bench_grpo.Workload(GPTConfig(1, 2, 8, 32, 20), prompts=2, shortest=3, longest=9, new_tokens=4)


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--device=cpu", *map(str, arguments)])
    module.main()


@pytest.mark.parametrize(("dead_share", "kept"), [(0.0, 1.0), (0.99, 0.0)])
def test_both_generate_the_same_number_of_tokens(dead_share, kept, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench_grpo.WORKLOADS, "tiny", TOY)
    output = tmp_path / "figures.json"
    sizes = ["--workloads", "tiny", "--steps=2", "--warmup=1", f"--dead-share={dead_share}"]
    run(bench_grpo, monkeypatch, *sizes, f"--output={output}")
    figures = read_json(output)["tiny"]
    parts = {f"{who}{part}" for who in ("ours", "trl") for part in ("", "_generate", "_cpu")}
    assert {part: len(times) for part, times in figures["seconds"].items()} == dict.fromkeys(parts, 2)
    for who in ("ours", "trl"):
        seconds = figures["median_seconds"]
        assert 0 < seconds[f"{who}_generate"] < seconds[who] == pytest.approx(1 / figures["iterations_per_second"][who])
    assert figures["kept"] == kept
    assert f"ratio {figures['ratio']:.2f}" in capsys.readouterr().out


def test_counts_that_make_no_sense_are_named(monkeypatch):
    with pytest.raises(UserError, match="--steps must be at least 1"):
        run(bench_grpo, monkeypatch, "--steps=0")
    with pytest.raises(UserError, match="--group-size must be at least 2"):
        run(bench_grpo_learning, monkeypatch, "--group-size=1")


def test_padded_addition_asks_for_the_digits_of_a_sum():
    problems = additions(300, np.random.default_rng(0))
    texts = ["".join(CHARACTERS[i] for i in problem.prompt) for problem in problems]
    assert len(set(texts)) == 300 and len({len(text) for text in texts}) > 15
    for text, problem in zip(texts, problems, strict=True):
        filler, _, question = text.partition(" ")
        a, b = map(int, question.removesuffix("=").split("+"))
        assert a + b == int(problem.gold) and len(filler) <= 20
    assert right([3, 7, EOS], 37) == 1 and right(response_to(37), 38) == 0
    assert right([3, 7], 37) == 0, "an answer without its end is none"


def test_every_contender_trains_from_the_same_model(tmp_path, monkeypatch, capsys):
    output = tmp_path / "figures.json"
    sizes = ["--n-layer=1", "--n-embd=16", "--sft-steps=60", "--train-items=60", "--eval-items=40"]
    more = ["--seeds", "5", "--iterations=2", "--prompts=2", "--group-size=4", "--start=0"]
    run(bench_grpo_learning, monkeypatch, *sizes, *more, f"--output={output}")
    rows = read_json(output)["runs"]
    assert [row["contender"] for row in rows] == ["refill", "skip", "trl", "trl_positions"]
    for row in rows:
        assert row["sft_steps"] == 25 and row["n"] == 40 and row["right_before"] == rows[0]["right_before"]
        low, high = row["interval_after"]
        assert 0 <= low <= row["accuracy_after"] == row["right_after"] / 40 <= high <= 1
    assert rows[0]["responses"] >= rows[1]["responses"] == rows[2]["responses"] == 16
    assert rows[2]["kept"] is None and 0 <= rows[0]["kept"] <= 1
    table = capsys.readouterr().out
    assert all(name in table for name in ("before", "refill", "trl_positions", "gain"))
