"""A study over paired seeds: its config, its jobs, and the report over the seeds."""

import math
import subprocess
import sys
from statistics import stdev

import pytest
from scipy.stats import t

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from scripts import compare_runs, report_plots, report_study, study
from tests.helpers import ROOT
from tests.stage_directories import (
    EVAL_CONFIG,
    add_hellaswag,
    add_post_training,
    make_stages,
    response_row,
    write_record,
)
from tokenizer.mul_facts import CONDITIONS


@pytest.fixture
def call(monkeypatch):
    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        script.main()

    return run


@pytest.fixture
def seeds(tmp_path, monkeypatch, call):
    """Three finished seeds. In seed s mul_tokens gets s more of ten items right than baseline."""
    monkeypatch.setattr(report_plots, "_png", lambda draw, colours: b"")
    folders = []
    for seed in range(3):
        folder = tmp_path / f"seed_{seed}"
        right = {"baseline": range(3), "mul_tokens": range(3 + seed)}
        flags = []
        for condition in CONDITIONS:
            stages = [*make_stages(folder, condition, right).values(), *add_post_training(folder, condition)]
            flags += [f"--{condition.replace('_', '-')}", *stages]
        call(compare_runs, *flags, "--output-dir", folder)
        folders.append(folder)
    return folders


def test_the_report_tests_over_seeds(seeds, tmp_path, call, capsys):
    call(report_study, "--seeds", *seeds, "--output-dir", tmp_path / "study", "--data-description", "synthetic: toy")
    result = read_json(tmp_path / "study/study.json")["benchmarks"]["gsm8k"]
    assert result["per_seed"] == pytest.approx([0, 0.1, 0.2])
    assert result["difference"] == pytest.approx(0.1)
    # The seeds' standard error, 0.1 / sqrt(3), is below that of ten items, of which one has a mean difference of 2/3
    # and one of 1/3. Student's t with two degrees of freedom.
    error = stdev([2 / 3, 1 / 3] + [0] * 8) / math.sqrt(10)
    assert result["standard_error"] == pytest.approx(error) and error > 0.1 / math.sqrt(3)
    assert result["p_value"] == pytest.approx(2 * t.sf(0.1 / error, 2))
    assert result["detectable_difference"] > 4 * error
    assert not result["significant"] and result["degrees_of_freedom"] == 2
    report = (tmp_path / "study/study.md").read_text()
    assert "Data: synthetic: toy" in report and "no difference shown" in report
    assert "| seed_2 | 30.0% | 50.0% | +20.0 |" in report
    assert "| seed_1 | baseline | +60.0 |" in report, "what GRPO changed"
    assert (tmp_path / "study/study.html").exists()


def test_every_kind_of_benchmark_and_several_samples(tmp_path, monkeypatch, call):
    """HellaSwag of the exported model, domains, and GSM8K sampled twice: baseline 1 of 2, mul_tokens both."""
    monkeypatch.setattr(report_plots, "_png", lambda draw, colours: b"")
    folders = [tmp_path / "seed_0", tmp_path / "seed_1"]
    for seed, folder in enumerate(folders):
        flags = []
        for condition in CONDITIONS:
            stages = make_stages(folder, condition)
            directory, mul = stages["eval"], condition == "mul_tokens"
            rows = [response_row(i, sample == 0 or mul, condition) for i in range(10) for sample in range(2)]
            rows = [row | {"sample": number % 2} for number, row in enumerate(rows)]
            write_jsonl(directory / "gsm8k_responses.jsonl", rows)
            more = {"name": "run_domains.json", "data": {"items": 10, "sha256": "prompts"}}
            write_record(directory, "eval_domains", condition, EVAL_CONFIG, parent=stages["sft_gsm8k"], **more)
            asked = [response_row(i, False, condition) for i in range(10)]
            collapsed = [{"domain": "facts", "numeric": i == 9, "arithmetic": mul and i < 4 + seed} for i in range(10)]
            write_jsonl(directory / "domains_responses.jsonl", [a | c for a, c in zip(asked, collapsed, strict=True)])
            hellaswag = add_hellaswag(folder, condition, range(3 + 2 * mul))
            flags += [f"--{condition.replace('_', '-')}", *stages.values(), hellaswag]
        call(compare_runs, *flags, "--output-dir", folder)
    call(report_study, "--seeds", *folders, "--output-dir", tmp_path / "study")
    found = read_json(tmp_path / "study/study.json")["benchmarks"]
    assert found["gsm8k"]["accuracies"] == {"baseline": [0.5, 0.5], "mul_tokens": [1.0, 1.0]}
    assert found["gsm8k"]["items"] == 10 and found["gsm8k"]["p_value"] is None  # half a point on every item
    assert found["hellaswag"]["per_seed"] == pytest.approx([0.2, 0.2])
    assert found["hellaswag"]["p_value"] > 0.1 and not found["hellaswag"]["significant"]
    assert found["domains"]["items"] == 9, "a prompt that asks for a number is not counted"
    assert found["domains"]["per_seed"] == pytest.approx([-4 / 9, -5 / 9])
    report = (tmp_path / "study/study.md").read_text()
    assert "difference +50.0 points in each of 2 seeds and on every item" in report and "no test over seeds" in report


def test_one_seed_is_no_test(seeds, tmp_path, call):
    call(report_study, "--seeds", seeds[1], "--output-dir", tmp_path / "study")
    assert "no test over seeds" in (tmp_path / "study/study.md").read_text()


def test_seeds_that_were_asked_other_items_are_no_pairs(seeds, tmp_path, call):
    path = seeds[1] / "eval_sft_gsm8k_baseline/gsm8k_responses.jsonl"
    rows = read_jsonl(path)
    write_jsonl(path, [rows[0] | {"question": "another"}, *rows[1:]])
    with pytest.raises(UserError, match="data_seed"):
        call(report_study, "--seeds", *seeds, "--output-dir", tmp_path / "study")


def test_a_seed_that_is_not_comparable_ends_it(seeds, tmp_path, call):
    comparison = read_json(seeds[2] / "comparison.json")
    write_json(seeds[2] / "comparison.json", comparison | {"comparable": False, "mismatches": ["steps differ"]})
    with pytest.raises(UserError, match="seed_2 is not comparable: steps differ"):
        call(report_study, "--seeds", *seeds, "--output-dir", tmp_path / "study")


def test_a_config_becomes_shell_assignments(call, capsys):
    call(study, "--config", ROOT / "scripts/configs/study_cpu.yaml")
    lines = capsys.readouterr().out.splitlines()
    assert "size=demo" in lines and "seeds=(0 1 2)" in lines
    assert any(line.startswith("description=") and "synthetic" in line for line in lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--seeds", "1", "1"], "different"), (["--seeds", "-1"], "at least 0"), (["--size", "demo_real"], "gsm8k")],
)
def test_settings_that_cannot_be(flags, message, call):
    with pytest.raises(UserError, match=message):
        call(study, *flags)


def test_jobs_are_printed_one_per_seed():
    command = ["bash", "scripts/run_study.sh", "scripts/configs/study_cpu.yaml", "--print-jobs"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and len(lines) == 3
    assert all("--only-seed" in line for line in lines)


@pytest.mark.parametrize("arguments", [[], ["--quik"], ["scripts/configs/study_cpu.yaml", "--only-seed", "9"]])
def test_a_wrong_call_is_one_line(arguments):
    command = ["bash", "scripts/run_study.sh", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
