"""scripts/report.py on small studies made here: GRPO, mul tokens, editing, and what the results rest on."""

import math
from statistics import stdev

import pytest
from scipy.stats import t

from common.files import read_json, write_json
from scripts import report_plots
from tests.stage_directories import change
from tokenizer.mul_facts import CONDITIONS

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


def test_how_often_facts_of_other_families_are_used(seeds, study):
    use = {"total": 4, "responses": 4, "right": 3, "placed": 2, "grounded": 1}
    for seed in seeds:
        for condition in CONDITIONS:
            of = {"add": use if condition == "mul_tokens" else dict.fromkeys(use, 0)}
            change(seed / "comparison.json", ["benchmarks", "gsm8k", condition, "token_families"], of)
    numbers, text = study(seeds)
    assert list(numbers["token_families"]) == ["add"] and list(numbers["token_families"]["add"]) == ["gsm8k"]
    assert "Add tokens in responses" in text and "baseline generated 0 add tokens in all" in text
    assert "| GSM8K-format (sft_gsm8k) | seed_2 | 0.40 | 40.0% | 75.0% | 50.0% | 25.0% |" in text


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
