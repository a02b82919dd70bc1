"""The replay of published counts, and the check against lm-evaluation-harness as far as it goes without it."""

import importlib.util
import sys

import pytest

from common.errors import UserError
from common.files import read_json, write_jsonl
from eval.stats import mcnemar_exact
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPTConfig
from scripts import check_against_lm_eval, replay_history
from tests.hellaswag_rows import ORIGINAL
from tests.helpers import random_gpt

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None


def run(script, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, flags)])
    script.main()


def test_what_the_counts_say(tmp_path, monkeypatch, capsys):
    run(replay_history, monkeypatch, "--output", tmp_path / "history.json")
    rows = {row["name"]: row for row in read_json(tmp_path / "history.json")}
    gsm8k = rows["GSM8K after SFT, baseline and mul_tokens"]
    assert (gsm8k["a"], gsm8k["b"], gsm8k["n"]) == (33, 27, 1319)
    assert gsm8k["low"] < 0 < gsm8k["high"] and gsm8k["p"] > 0.4
    assert gsm8k["least_paired_p"] == mcnemar_exact(6, 0) < 0.05 < gsm8k["independent_paired_p"]
    assert gsm8k["detectable_difference"] > abs(gsm8k["difference"])
    significant = [name for name, row in rows.items() if row["p_holm"] < 0.05]
    assert significant == ["probes after SFT: multiplication table"]
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == len(rows) + 1
    assert "33 of 1319 | 27 of 1319 | −0.45 [−1.63, +0.71]" in lines[2]


def test_shares_that_were_published_are_the_counts():
    shares = {"HellaSwag after 10B tokens": (0.3034, 0.3077), "probes after SFT: all": (0.2206, 0.1566)}
    shares |= {"probes after SFT: multiplication table": (0.6790, 0.3704)}
    for row in replay_history.PUBLISHED:
        if row.name in shares:
            assert (round(row.a / row.n, 4), round(row.b / row.n, 4)) == shares[row.name]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("lm_eval")
    save_model_dir(random_gpt(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=128)), root / "model", "baseline")
    write_jsonl(root / "hellaswag.jsonl", ORIGINAL)
    write_jsonl(root / "gsm8k.jsonl", [{"question": f"{i} and {i}?", "answer": f"#### {2 * i}"} for i in range(3)])
    return root


def flags_of(files):
    paths = {"model-path": "model", "hellaswag": "hellaswag.jsonl", "gsm8k": "gsm8k.jsonl"}
    return [f"--{flag}={files / name}" for flag, name in paths.items()] + ["--max-new-tokens=4"]


@pytest.mark.skipif(HAS_HARNESS, reason="lm-evaluation-harness is installed")
def test_without_the_harness_it_says_so(files, monkeypatch, capsys):
    run(check_against_lm_eval, monkeypatch, *flags_of(files))
    assert "skipped: lm-evaluation-harness is not installed" in capsys.readouterr().out


@pytest.mark.skipif(not HAS_HARNESS, reason="lm-evaluation-harness is not installed")
def test_with_the_harness_it_is_the_same(files, monkeypatch, capsys):
    run(check_against_lm_eval, monkeypatch, *flags_of(files))
    out = capsys.readouterr().out
    assert "HellaSwag: " in out and "GSM8K: 3 greedy texts" in out and "the same" in out


@pytest.mark.skipif(not HAS_HARNESS, reason="lm-evaluation-harness is not installed")
def test_a_difference_is_found(files, monkeypatch, capsys):
    score = check_against_lm_eval.score_items
    ours = check_against_lm_eval.generate

    def another_model(model, *arguments, **options):
        other = random_gpt(model.config, seed=1).eval()
        return (score if "metrics" in options else ours)(other, *arguments, **options)

    monkeypatch.setattr(check_against_lm_eval, "score_items", another_model)
    monkeypatch.setattr(check_against_lm_eval, "generate", another_model)
    with pytest.raises(SystemExit, match="1"):
        run(check_against_lm_eval, monkeypatch, *flags_of(files))
    out = capsys.readouterr().out
    assert "DIFFERS: HellaSwag item" in out and "DIFFERS: GSM8K item" in out


def test_nothing_to_check(files, monkeypatch):
    with pytest.raises(UserError, match="nothing to check"):
        run(check_against_lm_eval, monkeypatch, f"--model-path={files / 'model'}")
