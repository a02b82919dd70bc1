"""Several models' answers to one benchmark, GRPO and edits in comparison and report."""

import sys

import pytest

from common.files import read_json
from scripts import compare_runs, report_plots
from tests.stage_directories import add_post_training, change, make_stages
from tokenizer.mul_facts import CONDITIONS


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Runs the comparison over everything, or over what `choose` picks of a condition's directories."""
    monkeypatch.setattr(report_plots, "_png", lambda draw, colours: b"")
    directories = {c: [*make_stages(tmp_path, c).values(), *add_post_training(tmp_path, c)] for c in CONDITIONS}

    def run(choose=lambda stages: stages):
        flags = []
        for condition in CONDITIONS:
            flags += [f"--{condition.replace('_', '-')}", *map(str, choose(directories[condition]))]
        monkeypatch.setattr(sys, "argv", ["compare_runs.py", *flags, "--output-dir", str(tmp_path / "out")])
        compare_runs.main()
        return read_json(tmp_path / "out/comparison.json"), (tmp_path / "out/report.md").read_text()

    run.directories = directories
    return run


def test_each_models_answers_are_a_benchmark_of_their_own(compare):
    comparison, report = compare()
    benchmarks = comparison["benchmarks"]
    assert list(benchmarks)[:3] == ["gsm8k", "gsm8k of sft_reasoning", "gsm8k of grpo"]
    correct = {name: result["baseline"]["correct"] for name, result in benchmarks.items()}
    assert (correct["gsm8k"], correct["gsm8k of sft_reasoning"], correct["gsm8k of grpo"]) == (6, 3, 9)
    assert "GSM8K-format accuracy after grpo" in report


def test_grpo_is_compared_with_the_model_that_it_started_from(compare):
    comparison, report = compare()
    change = comparison["grpo"]["mul_tokens"]
    assert (change["before"]["correct"], change["after"]["correct"]) == (3, 9)
    assert change["test"]["p_value"] == pytest.approx(2 * 0.5**6)  # six problems, all on one side
    assert "baseline: GRPO changes greedy accuracy on the test problems: 30.0% → 90.0%" in report
    assert "25.0% → 75.0%" in report and "0.100 → 0.600" in report


def test_without_the_answers_before_there_is_no_claim(compare):
    comparison, report = compare(lambda stages: [path for path in stages if "eval_sft_reasoning" not in path.name])
    assert "test" not in comparison["grpo"]["baseline"] and "GRPO changes" not in report
    assert "25.0% → 75.0%" in report


def test_edits_and_what_they_did_to_everything_else(compare):
    comparison, report = compare()
    assert comparison["editing"]["baseline"]["memit"]["overall"]["after"]["edits"] == 10
    assert "10 facts edited at once" in report and "10.0% → 90.0%" in report
    assert "12.00 → 12.25" in report and "4.00 → 3.90" in report
    assert "| capitals | 10 | 90% | 90% |" in report


def test_another_seed_of_grpo_in_one_condition_is_no_comparison(compare):
    [grpo] = [path for path in compare.directories["mul_tokens"] if path.name.startswith("grpo")]
    change(grpo / "run.json", ["seed"], 1)
    with pytest.raises(SystemExit):
        compare()


def test_two_evaluations_of_one_model_are_refused(compare):
    """Which of the two is meant is not for the report to choose."""
    from common.errors import UserError

    with pytest.raises(UserError, match="eval_gsm8k"):
        compare(lambda stages: [*stages, *[path for path in stages if path.name.startswith("eval_grpo")]])
