"""scripts/report.py on small studies made here: numbers over seeds, and what the report says of them."""

import math
import shutil
import sys
from pathlib import Path
from statistics import stdev

import pytest
from scipy.stats import t

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from scripts import compare_runs, report, report_plots
from tests.stage_directories import (
    EVAL_CONFIG,
    add_hellaswag,
    add_post_training,
    change,
    make_stages,
    response_row,
    write_record,
)
from tokenizer.mul_facts import CONDITIONS


def call(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    script.main()


def compare(monkeypatch, folder: Path, sides: dict[str, list[Path]]):
    flags = [word for c in CONDITIONS for word in (f"--{c.replace('_', '-')}", *sides[c])]
    call(monkeypatch, compare_runs, *flags, "--output-dir", folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three finished seeds. In seed s mul_tokens gets s more of ten items right than baseline."""
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_plots, "_png", lambda draw, colours: b"")
        for seed in range(3):
            folder = root / f"seed_{seed}"
            right = {"baseline": range(3), "mul_tokens": range(3 + seed)}
            stages = {c: list(make_stages(folder, c, right).values()) for c in CONDITIONS}
            compare(patch, folder, {c: [*stages[c], *add_post_training(folder, c)] for c in CONDITIONS})
    return root


@pytest.fixture
def seeds(made, tmp_path, pictures) -> list[Path]:
    """A copy of them, which a test may change."""
    shutil.copytree(made, tmp_path / "study")
    return sorted((tmp_path / "study").glob("seed_*"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Runs the report over folders; returns its numbers and its Markdown."""

    def run(folders, *more):
        out = tmp_path / "out"
        call(monkeypatch, report, "--seeds", *folders, "--output-dir", out, *more)
        return read_json(out / "study.json"), (out / "study.md").read_text()

    return run


# ---- benchmarks


def test_the_report_tests_over_seeds(seeds, study):
    numbers, text = study(seeds, "--data-description", "synthetic: toy")
    result = numbers["benchmarks"]["gsm8k"]
    assert result["per_seed"] == pytest.approx([0, 0.1, 0.2])
    assert result["difference"] == pytest.approx(0.1)
    # The seeds' standard error, 0.1 / sqrt(3), is below that of ten items, of which one has a mean difference of 2/3
    # and one of 1/3. Student's t with two degrees of freedom.
    error = stdev([2 / 3, 1 / 3] + [0] * 8) / math.sqrt(10)
    assert result["standard_error"] == pytest.approx(error) and error > 0.1 / math.sqrt(3)
    assert result["p_value"] == pytest.approx(2 * t.sf(0.1 / error, 2))
    assert result["detectable_difference"] > 4 * error
    assert not result["significant"] and result["degrees_of_freedom"] == 2
    assert "| seed_2 | 30.0% | 50.0% | +20.0 |" in text and "| mean | 30.0% | 40.0% | +10.0 |" in text


def test_the_verdict_comes_first_with_interval_and_power(seeds, study):
    _, text = study(seeds, "--data-description", "synthetic: toy")
    head = text.partition("## ")[0]
    assert "**Data: synthetic: toy**" in head
    verdict = next(line for line in head.splitlines() if line.startswith("> **The main benchmark."))
    assert "GSM8K-format accuracy: no difference shown; mul_tokens 40.0%, baseline 30.0%" in verdict
    # Both p-values of 0.3 or so times the number of tests: gsm8k and probes differ, the other two are always equal.
    assert "95% interval over 3 seeds −" in verdict and "after Holm's correction for 2 benchmarks" in verdict
    assert "points is found in 4 of 5 studies." in verdict
    assert "nothing follows for another size" in head and "| Arithmetic-probe (sft_gsm8k) | 30.0% | 40.0% |" in head


def test_a_small_model_says_nothing_about_124m(seeds, study):
    for seed in seeds:
        change(seed / "comparison.json", ["training", "pretrain", "baseline", "parameters"], 5_000_000)
        change(seed / "comparison.json", ["training", "pretrain", "baseline", "tokens"], 20_000)
    _, text = study(seeds)
    assert (
        "5.0 million parameters and were pretrained on 20,000 tokens" in text and "at 124M parameters is open" in text
    )
    for seed in seeds:
        change(seed / "comparison.json", ["training", "pretrain", "baseline", "parameters"], 124_000_000)
    _, text = study(seeds)
    assert "124.0 million parameters" in text and "is open" not in text


def test_a_difference_that_is_shown_says_which_is_better(monkeypatch, tmp_path, pictures, study):
    folders = [tmp_path / f"seed_{seed}" for seed in range(3)]
    for seed, folder in enumerate(folders):
        right = {"baseline": range(seed), "mul_tokens": range(50, 99)}
        compare(monkeypatch, folder, {c: list(make_stages(folder, c, right, n=100).values()) for c in CONDITIONS})
    numbers, text = study(folders)
    assert numbers["benchmarks"]["gsm8k"]["significant"]
    assert "GSM8K-format accuracy: mul_tokens is better; mul_tokens 49.0%, baseline 1.0%" in text


def test_every_kind_of_benchmark_and_several_samples(tmp_path, monkeypatch, pictures, study):
    """HellaSwag of the exported model, domains, and GSM8K sampled twice: baseline 1 of 2, mul_tokens both."""
    folders = [tmp_path / "seed_0", tmp_path / "seed_1"]
    for seed, folder in enumerate(folders):
        sides = {}
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
            bits = {when: {"bits_per_byte": value} for when, value in (("before", 2.0), ("after", 2.25))}
            prose = bits | {"change": {"bits_per_byte": 0.25, "bits_per_byte_95": [0.2, 0.3], "p": 0.01}}
            write_json(directory / "domains_results.json", {"prose": prose})
            sides[condition] = [*stages.values(), add_hellaswag(folder, condition, range(3 + 2 * mul))]
        compare(monkeypatch, folder, sides)
    numbers, text = study(folders)
    found = numbers["benchmarks"]
    assert found["gsm8k"]["accuracies"] == {"baseline": [0.5, 0.5], "mul_tokens": [1.0, 1.0]}
    assert found["gsm8k"]["items"] == 10 and found["gsm8k"]["p_value"] is None  # half a point on every item
    assert found["hellaswag"]["per_seed"] == pytest.approx([0.2, 0.2])
    assert found["hellaswag"]["p_value"] > 0.1 and not found["hellaswag"]["significant"]
    assert found["domains"]["items"] == 9, "a prompt that asks for a number is not counted"
    assert found["domains"]["per_seed"] == pytest.approx([-4 / 9, -5 / 9])
    assert found["domains"]["categories"]["facts"]["per_seed"] == pytest.approx([-4 / 9, -5 / 9])
    assert (found["hellaswag"]["model"], found["domains"]["model"]) == ("export", "sft_gsm8k")
    assert "difference +50.0 points in each of 2 seeds and on every item" in text and "no test over seeds" in text
    assert "| acc_norm_char | 70.0% [70.0, 70.0] | 50.0% [50.0, 50.0] |" in text
    assert "| seed_1 | mul_tokens | 2.000 | 2.250 | +0.250 [+0.200 to +0.300] |" in text
    assert "## What GRPO changed" not in text and "## Edited facts" not in text, "there was none: an early report"


def test_categories_are_described_seed_by_seed(seeds, study):
    numbers, text = study(seeds)
    # Of the four times-table probes baseline has three in every seed, mul_tokens three, four and four.
    assert numbers["benchmarks"]["probes"]["categories"]["mul_table"]["per_seed"] == pytest.approx([0, 0.25, 0.25])
    assert "| times table | 75.0% | 91.7% | +16.7 | +0.0, +25.0, +25.0 | 4 |" in text


def test_one_seed_is_no_test(seeds, study):
    numbers, text = study(seeds[1:2])
    assert "no test over seeds" in text and "difference +10.0 points in one seed" in text
    assert numbers["benchmarks"]["gsm8k"]["p_value"] is None


# ---- what came after SFT


def test_grpo_over_seeds_and_over_problems(seeds, study):
    numbers, text = study(seeds)
    change = numbers["grpo"]["conditions"]["baseline"]["over_seeds"]
    # In every seed problems 3 to 8 are won: the error is that of the problems, six of ten.
    error = stdev([1] * 6 + [0] * 4) / math.sqrt(10)
    assert change["difference"] == pytest.approx(0.6) and change["p_value"] == pytest.approx(2 * t.sf(0.6 / error, 2))
    assert change["p_items"] == pytest.approx(2 * 0.5**6), "a problem's answers of all seeds are one"
    assert numbers["grpo"]["gain"]["per_seed"] == [0, 0, 0] and numbers["grpo"]["gain"]["p_value"] is None
    assert "baseline: greedy accuracy on the test problems 30.0% → 90.0%, +60.0 points on average" in text
    row = "| seed_1 | mul_tokens | 30.0% → 90.0% | +60.0 | 0, 6 | 0.031 | 25.0% → 75.0% | 0.100 → 0.600 | 4 |"
    assert row in text
    assert "Reward in GRPO" in text and "Held-out accuracy in GRPO" in text


def test_how_often_mul_tokens_are_used_and_rightly(seeds, study):
    use = {"total": 8, "responses": 5, "right": 6, "placed": 8, "grounded": 2}
    change(seeds[1] / "comparison.json", ["benchmarks", "gsm8k", "mul_tokens", "mul_tokens"], use)
    _, text = study(seeds)
    assert "| GSM8K-format (sft_gsm8k) | seed_0 | 0.90 | 60.0% | n/a | n/a | n/a |" in text
    assert "| GSM8K-format (sft_gsm8k) | seed_1 | 0.80 | 50.0% | 75.0% | 100.0% | 25.0% |" in text
    assert "baseline generated 0 mul tokens in all" in text


def test_edits_seed_by_seed_with_their_mean_and_difference(seeds, study):
    counts = {"paraphrases_right": 1, "paraphrases": 2, "neighbors_right": 1, "neighbors": 1}
    for number, seed in enumerate(seeds):
        for condition, taken in (("baseline", 1), ("mul_tokens", 2 + number)):
            edits = [{"id": str(i), "success": i < taken, **counts} for i in range(4)]
            change(seed / "comparison.json", ["editing", condition, "memit", "edits"], edits)
        change(seed / "comparison.json", ["editing", "baseline", "effects", "probes"], {"before": 0.5, "after": 0.25})
    after = ["editing", "baseline", "memit", "overall", "after", "efficacy", "success"]
    change(seeds[0] / "comparison.json", after, 0.6)
    numbers, text = study(seeds)
    assert "| seed_0 | baseline | 10.0% → 60.0% | 90.0% → 90.0% |" in text
    assert "| mean | baseline | 10.0% → 80.0% | 90.0% → 90.0% |" in text
    assert "| seed_2 | baseline | 12.00 → 12.25 (+2.1%) | 50.0% → 25.0% | not measured |" in text
    assert numbers["editing"]["differences"]["efficacy"]["per_seed"] == pytest.approx([0.25, 0.5, 0.75])
    assert numbers["editing"]["differences"]["paraphrase"]["difference"] == 0
    assert "| ES, the prompt itself | +50.0 |" in text


# ---- what it rests on


def test_settings_that_differ_between_seeds_are_named(seeds, study):
    _, text = study(seeds)
    assert "Between the seeds no setting of any stage differs but the seed and the folders." in text
    change(seeds[2] / "comparison.json", ["runs", "baseline", "sft_gsm8k", "config", "training", "max_steps"], 51)
    _, text = study(seeds)
    assert "| sft_gsm8k, baseline: training.max_steps | 50 | 50 | 51 |" in text


def test_the_audit_is_counted_in_every_seed(seeds, study):
    audit = read_json(seeds[0] / "comparison.json")["audit"]
    equal = sum(row["status"] == "ok" for row in audit)
    _, text = study(seeds)
    assert f"| seed_0 | {len(audit)} | {equal} | {len(audit) - equal} | 0 |" in text
    assert (
        "**Read while training, seed_0**" in text and "| bytes of text, before injection | 100,000 | 125,000 |" in text
    )


def test_contamination_is_reported_or_said_to_be_unknown(seeds, study, tmp_path):
    statistics = {"left_out": {"gsm8k": 2}, "gsm8k": {"source": "synthetic"}}
    write_json(seeds[0] / "raw/baseline_stats.json", statistics)
    _, text = study(seeds)
    assert "No contamination report" in text and "was left out (2 in all)" in text and "share templates" in text
    found = {"benchmarks": {"gsm8k": {"items": 10, "flagged": {"3": {}}}}}
    write_json(tmp_path / "contamination.json", found)
    record = seeds[1] / "eval_sft_gsm8k_baseline/run_gsm8k.json"
    change(record, ["config", "contamination"], str(tmp_path / "contamination.json"))
    write_json(seeds[0] / "raw/baseline_stats.json", statistics | {"gsm8k": {"source": "data/gsm8k"}})
    _, text = study(seeds)
    assert (
        "| seed_1 | gsm8k | 10 | 1 |" in text
        and "No contamination report" not in text
        and "share templates" not in text
    )


def test_time_is_counted_in_core_hours_and_a_gpu_is_priced(seeds, study):
    _, text = study(seeds)
    # 22 stages of 12.5 s on two threads, all of them started in the same second.
    assert "| seed_0 | 12.5 s | 0.15 | none | not priced |" in text and "| in all | 37.5 s | 0.46 |" in text
    change(seeds[0] / "pretrain_baseline/run.json", ["hardware", "accelerators"], 8)
    change(seeds[0] / "pretrain_baseline/run.json", ["wall_seconds"], 4500.0)
    _, text = study(seeds, "--price-per-gpu-hour", "2")
    assert (
        "| 10.00 | $20.00 |" in text
        and "| pretrain | 25.1 min [12.5 s to 75.0 min] | 12.5 s [12.5 s to 12.5 s] |" in text
    )


def test_every_command_and_config_is_there(seeds, study, tmp_path):
    (seeds[0] / "logs").mkdir()
    (seeds[0] / "logs/commands.txt").write_text("uv run python a.py\nuv run python b.py\nuv run python a.py\n")
    _, text = study(seeds, "--data-description", "two words")
    assert "scripts/report.py --seeds" in text and "--data-description 'two words'" in text
    assert "```text\nuv run python a.py\nuv run python b.py\n```" in text, "a stage that was resumed is told once"
    assert "**Config of grpo, mul_tokens (grpo_mul_tokens)**" in text
    page = (tmp_path / "out/study.html").read_text()
    assert page.count("<figure>") == 5, "differences, two losses, reward, held-out accuracy"
    assert "<script" not in page and "Responses side by side, seed_0" in page


# ---- mistakes


def test_seeds_that_were_asked_other_items_are_no_pairs(seeds, study):
    path = seeds[1] / "eval_sft_gsm8k_baseline/gsm8k_responses.jsonl"
    rows = read_jsonl(path)
    write_jsonl(path, [rows[0] | {"question": "another"}, *rows[1:]])
    with pytest.raises(UserError, match="data_seed"):
        study(seeds)


def test_answers_that_are_newer_than_the_comparison_are_refused(seeds, study):
    path = seeds[1] / "eval_sft_gsm8k_baseline/gsm8k_responses.jsonl"
    write_jsonl(path, [row | {"correct": True} for row in read_jsonl(path)])
    with pytest.raises(UserError, match=r"comparison.json is older than gsm8k of baseline"):
        study(seeds)


def test_an_evaluation_that_was_deleted_is_named(seeds, study):
    shutil.rmtree(seeds[0] / "eval_grpo_mul_tokens")
    with pytest.raises(UserError, match="gsm8k of grpo of mul_tokens"):
        study(seeds)


def test_a_seed_that_is_not_comparable_ends_it(seeds, study):
    comparison = read_json(seeds[2] / "comparison.json")
    write_json(seeds[2] / "comparison.json", comparison | {"comparable": False, "mismatches": ["steps differ"]})
    with pytest.raises(UserError, match="seed_2 is not comparable: steps differ"):
        study(seeds)


def test_the_same_seed_twice_is_no_second_seed(seeds, study):
    with pytest.raises(UserError, match="different names"):
        study([seeds[0], seeds[0]])


# ---- plots


def test_the_mean_of_runs_is_over_the_steps_that_all_have():
    assert report_plots.mean_curve([([1, 2, 3], [1.0, 2.0, 3.0]), ([2, 3, 4], [4.0, 5.0, 6.0])]) == ([2, 3], [3.0, 4.0])
    assert report_plots.mean_curve([]) == ([], [])


def test_plots_over_seeds_are_pictures():
    runs = {c: [([0, 5], [1.0, 2.0]), ([0, 5], [2.0, 2.0])] for c in CONDITIONS}
    curves = report_plots.curves_plot("title", "caption", runs, "step", "loss", marked=True)
    rows = {"a": {"difference": 0.1, "low": None, "high": None, "per_seed": [0.1]}}
    rows |= {"b": {"difference": 0.1, "low": 0.0, "high": 0.2, "per_seed": [0.1, 0.1]}}
    for plot in (curves, report_plots.difference_plot("title", "caption", rows)):
        assert plot.light.startswith(b"\x89PNG") and plot.dark.startswith(b"\x89PNG") and plot.light != plot.dark
