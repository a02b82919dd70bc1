"""The SFT stages under torchrun: two processes equal one."""

import pytest
import torch
from safetensors.torch import load_file

from common.files import read_json, read_jsonl, write_jsonl
from sft import sft_gsm8k
from sft.training import quiet_libraries
from tests import helpers
from tests.sft_parents import EXAMPLES, TOY, stop_in_step, write_parent


def test_two_gloo_processes_equal_one(tmp_path, monkeypatch):
    """Of 9 examples the last step of a pass has one, so one process has none; and they go on from a checkpoint of one
    process, which lies in the middle of the second pass."""
    quiet_libraries()
    write_parent(tmp_path / "parent", "mul_tokens")
    write_jsonl(tmp_path / "train.jsonl", EXAMPLES)
    (tmp_path / "toy.yaml").write_text(TOY)
    paths = {"model-path": "parent", "config": "toy.yaml", "data-path": "train.jsonl"}
    common = [f"--{flag}={tmp_path / path}" for flag, path in paths.items()]
    common += ["--condition=mul_tokens", "--inject-mul-tokens", "--device=cpu"]
    common += ["--eval.fraction=0.44", "--training.micro-batch-size=2", "--training.epochs=3"]
    one, two = ([*common, f"--output-dir={tmp_path / name}"] for name in ("one", "two"))
    monkeypatch.setattr("sys.argv", ["sft_gsm8k.py", *one])
    sft_gsm8k.main()
    stop_in_step(5, monkeypatch, sft_gsm8k.main, two)
    helpers.run("sft/sft_gsm8k.py", *two, "--resume", processes=2)

    rows, expected = (read_jsonl(tmp_path / name / "log.jsonl") for name in ("two", "one"))
    for key in ("loss", "eval_loss"):
        assert [row.get(key) for row in rows] == pytest.approx([row.get(key) for row in expected], abs=1e-4)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-3, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    counts = [read_json(tmp_path / name / "sft_results.json") for name in ("two", "one")]
    for key in ("steps", "tokens", "labelled_tokens", "mul_tokens_seen", "epochs"):
        assert counts[0][key] == counts[1][key]
