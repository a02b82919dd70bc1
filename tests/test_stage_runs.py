"""scripts/stage_runs.py: the results of every SFT stage reach the comparison, whatever their file is called."""

import sys

import pytest

from common.files import read_json, write_json, write_jsonl
from scripts import compare_runs, report_plots
from tests.helpers import ROOT
from tests.stage_directories import SFT_CONFIG, make_stages, write_record
from tokenizer.mul_facts import CONDITIONS

RESULTS = {
    "sft_tulu": "tulu_sft_results.json",
    "sft_transition": "transition_sft_results.json",
    "sft_tinygsm": "tinygsm_sft_results.json",
    "sft_reasoning": "sft_results.json",
    "sft_curriculum": "sft_results.json",
}


def test_every_sft_stage_is_in_comparison_and_report(tmp_path, monkeypatch):
    monkeypatch.setattr(report_plots, "_png", lambda draw, colours: b"")
    sides = {}
    for condition in CONDITIONS:
        stages = make_stages(tmp_path, condition)
        for number, (stage, name) in enumerate(RESULTS.items()):
            directory = stages[stage] = tmp_path / f"{stage}_{condition}"
            write_record(directory, stage, condition, SFT_CONFIG, parent=stages["export"])
            write_json(directory / name, {"train_loss": 1.5, "eval_loss": 4 + number / 8})
            write_jsonl(directory / "log.jsonl", [{"step": 1, "loss": 3.0}, {"step": 1, "eval_loss": 2.0}])
        sides[condition] = [str(stages[stage]) for stage in ("sft_gsm8k", *RESULTS)]
    flags = ["--baseline", *sides["baseline"], "--mul-tokens", *sides["mul_tokens"]]
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", *flags, "--output-dir", str(tmp_path / "out")])
    compare_runs.main()
    training = read_json(tmp_path / "out/comparison.json")["training"]
    assert training.keys() == {"sft_gsm8k", *RESULTS}
    report = (tmp_path / "out/report.md").read_text()
    for number, stage in enumerate(RESULTS):
        assert training[stage]["mul_tokens"]["eval_loss"] == 4 + number / 8
        assert f"{4 + number / 8:.4f}" in report


@pytest.mark.parametrize("stage", RESULTS)
def test_the_names_are_those_that_the_scripts_write(stage):
    assert f'"{RESULTS[stage]}"' in (ROOT / f"sft/{stage}.py").read_text()
