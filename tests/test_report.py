"""scripts/report.py on small studies made here: the benchmarks over seeds, and mistakes."""

import math
import shutil
from statistics import stdev

import pytest
from scipy.stats import t

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from scripts.study_sections import verdict
from tests.stage_directories import EVAL_CONFIG, add_hellaswag, change, make_stages, response_row, write_record
from tests.study_runs import compare
from tokenizer.mul_facts import CONDITIONS

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
    row = next(line for line in head.splitlines() if line.startswith("| Arithmetic-probe (sft_gsm8k) | +10.0 [−20.6"))
    assert row.count("|") == 8 and "| 30.0% | 40.0% | 0.295 |" in row
    assert "nothing follows for another size" in head


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


def test_what_two_wild_seeds_cannot_show_is_said_within_what_is_possible():
    result = {"difference": 0.1, "per_seed": [0.6, -0.4], "low": -6.3, "high": 6.5, "p_value": 0.9, "p_holm": 0.9}
    result |= {"significant": False, "items_low": 0.0, "items_high": 0.2, "detectable_difference": 7.0}
    text = verdict("gsm8k", result | {"accuracies": {"baseline": [0.1, 0.7], "mul_tokens": [0.7, 0.3]}}, 2)
    assert "(95% interval over 2 seeds −100.0 to +100.0)" in text
    assert "would not find even the largest difference" in text


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
