"""eval/run_hellaswag.py as a user runs it, and beside lm-evaluation-harness where that is installed."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch

from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data.benchmark_texts import hellaswag_texts, texts_sha256
from eval import run_hellaswag
from eval.hellaswag import (
    METRICS,
    preprocess,
)
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPTConfig
from scripts import bench_hellaswag
from tests.hellaswag_rows import ORIGINAL, PLAIN, items_of
from tests.helpers import random_gpt, run
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

CPU = torch.device("cpu")
TOKENIZER = GPT2TokenizerWithMulFacts("baseline")


@pytest.fixture(scope="module")
def model():
    return random_gpt(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=64)).eval()


@pytest.fixture
def items(tmp_path):
    return items_of(ORIGINAL + PLAIN, tmp_path)


# --- the script


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, model):
    root = tmp_path_factory.mktemp("hellaswag")
    save_model_dir(model, root / "hf_baseline", "baseline")
    write_json(root / "hf_baseline" / "run.json", {"stage": "export", "condition": "baseline"})
    write_jsonl(root / "rows.jsonl", ORIGINAL + PLAIN)
    return root


def arguments(workspace, output, *flags) -> list[str]:
    common = ["--model-path", workspace / "hf_baseline", "--data-path", workspace / "rows.jsonl", "--device", "cpu"]
    return [str(flag) for flag in (*common, "--output-dir", output, *flags)]


def script(monkeypatch, *given):
    monkeypatch.setattr(sys, "argv", ["run_hellaswag.py", *arguments(*given)])
    run_script(run_hellaswag.main)


def test_the_script_on_two_processes_equals_one(workspace, items, tmp_path, monkeypatch, capsys):
    script(monkeypatch, workspace, tmp_path / "one", "--dtype", "float32")
    printed = capsys.readouterr().out
    assert all(metric in printed for metric in METRICS)
    flags = arguments(workspace, tmp_path / "two", "--dtype", "float32")
    run("eval/run_hellaswag.py", *flags, processes=2)
    one, two = (read_jsonl(tmp_path / name / "hellaswag_responses.jsonl") for name in ("one", "two"))
    assert [row["id"] for row in one] == [row["id"] for row in two] == [item.id for item in items]
    for a, b in zip(one, two, strict=True):
        assert (a["choices"], a["correct"]) == (b["choices"], b["correct"])
        np.testing.assert_allclose(a["raw_logprobs"], b["raw_logprobs"], rtol=1e-5)
    results = read_json(tmp_path / "one" / "hellaswag_results.json")
    assert results == read_json(tmp_path / "two" / "hellaswag_results.json")
    for metric in METRICS:
        assert results[metric]["num_correct"] == sum(row["correct"][metric] for row in one)
    assert results["num_truncated"] == 0 and not any(row["truncated"] for row in one)
    record = read_json(tmp_path / "one" / "run_hellaswag.json")
    assert (record["stage"], record["condition"], record["data"]["items"]) == ("eval_hellaswag", "baseline", 8)
    assert record["parent"]["run"]["stage"] == "export" and record["results"] == results


def test_contexts_that_are_cut_are_counted(workspace, tmp_path, monkeypatch, capsys):
    write_jsonl(tmp_path / "rows.jsonl", [*PLAIN, PLAIN[0] | {"ind": 9, "ctx": "On and on she went. " * 30}])
    script(monkeypatch, workspace, tmp_path / "out", "--data-path", tmp_path / "rows.jsonl")
    assert read_json(tmp_path / "out/hellaswag_results.json")["num_truncated"] == 1
    rows = read_jsonl(tmp_path / "out/hellaswag_responses.jsonl")
    assert [row["id"] for row in rows if row["truncated"]] == ["9"]
    assert "context cut from the left to fit the model: 1 items" in capsys.readouterr().out


def test_the_clean_subset(workspace, items, tmp_path, monkeypatch):
    flagged = {"24": {}, "0": {}}
    part = {"items": 8, "sha256": texts_sha256(hellaswag_texts(items)), "flagged": flagged}
    write_json(tmp_path / "contamination.json", {"n": 13, "sources": [], "benchmarks": {"hellaswag": part}})
    script(monkeypatch, workspace, tmp_path / "out", "--contamination", tmp_path / "contamination.json")
    results = read_json(tmp_path / "out" / "hellaswag_results.json")
    rows = read_jsonl(tmp_path / "out" / "hellaswag_responses.jsonl")
    for metric in METRICS:
        expected = [row["correct"][metric] for row in rows if row["id"] not in flagged]
        assert (results["clean"][metric]["n"], results["clean"][metric]["num_correct"]) == (6, sum(expected))

    write_json(tmp_path / "all.json", {"benchmarks": {"hellaswag": part | {"flagged": {i.id: {} for i in items}}}})
    script(monkeypatch, workspace, tmp_path / "none_clean", "--contamination", tmp_path / "all.json")
    assert read_json(tmp_path / "none_clean" / "hellaswag_results.json")["clean"] == {}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data-path", "absent.jsonl"], "absent.jsonl does not exist"),
        (["--max-samples", "0"], "--max-samples 0: expected at least 1"),
        (["--condition", "mul_tokens"], "is a model of baseline"),
    ],
)
def test_wrong_input_is_one_line(workspace, tmp_path, monkeypatch, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        script(monkeypatch, workspace, tmp_path, *flags)
    stderr = capsys.readouterr().err
    assert stop.value.code == 2
    assert stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1


# --- the harness itself, where it is installed


def test_texts_are_the_harness_own(items):
    utils = pytest.importorskip("lm_eval.tasks.hellaswag.utils")
    datasets = pytest.importorskip("datasets")
    docs = utils.process_docs(datasets.Dataset.from_list(ORIGINAL))
    for doc, item in zip(docs, items, strict=False):
        assert doc["query"] == preprocess(item.labelled_context)
        assert doc["choices"] == [preprocess(ending) for ending in item.endings]


def test_choices_equal_the_harness_on_every_item(workspace, tmp_path):
    pytest.importorskip("lm_eval")
    done = run(
        "scripts/bench_hellaswag.py",
        *("--model-path", workspace / "hf_baseline", "--data-path", workspace / "rows.jsonl", "--device", "cpu"),
        *("--rounds", 1, "--batch-sizes", 4, "--output", tmp_path / "bench.json"),
    )
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["equal_choices"] == {"acc": 8, "acc_norm_char": 8}, done.stdout
    assert figures["ratio"] > 0 and figures["largest_difference"] < 1e-3


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm_eval is installed")
def test_without_the_harness_the_benchmark_says_how_to_get_it(workspace, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_hellaswag.py", "--model-path", str(workspace / "hf_baseline")])
    with pytest.raises(UserError, match=r"uv pip install 'lm_eval\[hf\]==0\.4\.13'"):
        bench_hellaswag.main()
