"""scripts/analyze_grpo.py and rl/curves.py on logs made here."""

import json
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from common.errors import UserError
from common.files import read_json, write_jsonl
from rl.curves import curves_of, plot_curves, running_mean
from scripts import analyze_grpo
from scripts.analyze_grpo import analyze, change


def log(iterations=100, start=0.3, end=0.3, **columns):
    """Rows as rl/grpo_train.py writes them, of a quiet run whose accuracy goes from `start` to `end`."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(iterations):
        at = i / max(iterations - 1, 1)
        accuracy = start + (end - start) * at + rng.normal(0, 0.03)
        row = {"iteration": i, "reward_mean": accuracy + 0.1, "reward_std": 0.4, "accuracy": accuracy}
        row |= {"parts": {"correct": accuracy, "short": 0.1}, "kept_fraction": 0.8, "tries": 1, "groups_all_right": 1}
        row |= {"groups_all_wrong": 0, "clip_low": 0.0, "clip_high": 0.01, "ratio_mean": 1.0, "ratio_max": 1.1}
        row |= {"kl": 0.01, "entropy": 0.5, "response_tokens": 40.0, "truncated": 0.01, "mul_tokens_per_response": 1.5}
        row |= {"grad_norm": 0.5, "learning_rate": 1e-5, "seconds_generate": 1.0, "seconds_reward": 0.1}
        row |= {"seconds_update": 2.0} | {column: value(at) for column, value in columns.items()}
        if i % 25 == 0:
            rows.append({"iteration": i, "eval_accuracy": start + (end - start) * at, "eval_n": 200})
        rows.append(row)
    return [*rows, {"iteration": iterations, "eval_accuracy": end, "eval_n": 200}]


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [(0.3, 0.6, "improved"), (0.6, 0.3, "worse"), (0.3, 0.3, "undecided: the interval holds 0")],
)
def test_verdict(start, end, said):
    analysis = analyze(log(start=start, end=end))
    assert analysis["verdict"].split(";")[0] == said
    assert ("within the noise" in analysis["verdict"]) is (start == end)
    assert analysis["findings"] == [] and analysis["alarms"] == []


def test_few_iterations_decide_nothing():
    analysis = analyze(log(iterations=24, start=0.1, end=0.9))
    assert analysis["verdict"].startswith("undecided: fewer than 25 iterations")
    assert analysis["changes"]["accuracy"]["low"] is None and analysis["changes"]["accuracy"]["difference"] > 0.5


def test_the_change_is_of_the_fifths_and_its_interval_is_the_standard_error_s():
    """200 normal values on either side: the bootstrap interval is the mean difference +- 1.96 standard errors."""
    values = np.random.default_rng(1).normal(0, 1, 1000)
    values[-200:] += 0.5
    found = change([{"iteration": i, "kl": value} for i, value in enumerate(values)], "kl")
    difference = values[-200:].mean() - values[:200].mean()
    error = np.sqrt(values[-200:].var() / 200 + values[:200].var() / 200)
    assert found["difference"] == pytest.approx(difference, abs=1e-6)
    assert found["low"] == pytest.approx(difference - 1.96 * error, abs=0.02)
    assert found["high"] == pytest.approx(difference + 1.96 * error, abs=0.02)


def test_iterations_without_update_leave_no_values():
    late = {key: lambda at: None if at < 0.5 else 0.05 for key in ("kl", "entropy", "grad_norm")}
    analysis = analyze(log(**late))
    assert analysis["changes"]["kl"]["first_fifth"] == analysis["changes"]["entropy"]["first_fifth"] == 0.05
    assert analysis["iterations_without_update"] == 50
    nothing = {key: lambda at: None for key in ("kl", "entropy", "grad_norm")}
    assert not {"kl", "entropy"} & set(analyze(log(**nothing))["changes"])
    assert any("made no update" in line for line in analyze_grpo.report(analysis))


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("kept_fraction", lambda at: 0.3, "dead groups: 70%"),
        ("entropy", lambda at: 0.5 * (1 - 0.8 * at), "entropy collapse: 0.462"),
        ("response_tokens", lambda at: 40 * (1 + at), "length explosion: 44 -> 76"),
        ("kl", lambda at: 0.3 * at, "far from the start: KL 0.27"),
        ("truncated", lambda at: 0.3 * at, "cut responses: 27%"),
    ],
)
def test_findings(column, value, named):
    [found] = analyze(log(**{column: value}))["findings"]
    assert found.startswith(named)


def test_dead_groups_say_on_which_side():
    wrong = {"kept_fraction": lambda at: 0.0, "groups_all_right": lambda at: 0, "groups_all_wrong": lambda at: 8}
    assert "take easier problems" in analyze(log(**wrong))["findings"][0]
    assert "take harder problems" in analyze(log(kept_fraction=lambda at: 0.0))["findings"][0]
    assert [alarm["iteration"] for alarm in analyze(log(**wrong))["alarms"]] == [9]


def test_held_out_accuracy_is_that_of_the_evaluations():
    rows = log(start=0.25, end=0.5)
    next(row for row in rows if row["iteration"] == 50 and "eval_n" in row)["eval_accuracy"] = 0.75
    found = analyze(rows)["held_out"]
    assert [found[name]["accuracy"] for name in ("first", "best", "last")] == [0.25, 0.75, 0.5]
    assert found["best"]["iteration"] == 50 and found["last"]["wilson_95"] == pytest.approx([0.431, 0.569], abs=1e-3)
    assert analyze([row for row in rows if "eval_n" not in row])["held_out"] is None


# ---- the script


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["analyze_grpo.py", *map(str, arguments)])
    analyze_grpo.main()


def test_the_script_prints_and_writes(tmp_path, monkeypatch, capsys):
    write_jsonl(tmp_path / "log.jsonl", log(end=0.6, kl=lambda at: at))
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"iteration": 100, "rew')  # a run that is being killed, or goes on
    run(monkeypatch, "--run-dir", tmp_path)
    out = capsys.readouterr().out
    assert "100 iterations: improved; held out 30.0% -> 60.0%" in out and "far from the start" in out
    assert "alarm at iteration" in out and "accuracy" in out
    assert read_json(tmp_path / "analysis.json")["verdict"].startswith("improved")
    assert imread(tmp_path / "curves.png").shape[0] > 1000
    run(monkeypatch, "--run-dir", tmp_path, "--output-dir", tmp_path / "elsewhere")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["analysis.json", "curves.png"]


def test_mistakes(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"holds no log\.jsonl"):
        run(monkeypatch, "--run-dir", tmp_path)
    for text in ("", json.dumps({"step": 1, "loss": 2.0}) + "\n"):
        (tmp_path / "log.jsonl").write_text(text)
        with pytest.raises(UserError, match="no iteration of GRPO yet"):
            run(monkeypatch, "--run-dir", tmp_path)


# ---- the picture


def test_curves_of_a_column_and_of_the_parts():
    rows = [{"iteration": 3, "kl": 1.0, "parts": {"a": 1, "b": 2}}, {"iteration": 4, "kl": None, "parts": {"a": 0}}]
    assert curves_of(rows, "kl") == {"kl": ([3], [1.0])} and curves_of(rows, "entropy") == {}
    assert curves_of(rows, "parts") == {"a": ([3, 4], [1, 0]), "b": ([3], [2])}


def test_a_log_of_one_row_or_none_is_drawn(tmp_path):
    for name, rows in (("one.png", log(iterations=1)[1:2]), ("none.png", [])):
        plot_curves(rows, tmp_path / name)
        assert imread(tmp_path / name).ndim == 3


@pytest.mark.parametrize("window", [1, 2, 3, 5, 9])
def test_running_mean(window):
    values = [1.0, 2.0, 6.0, 7.0, 4.0]
    means = running_mean(values, window)
    around = [range(i - window // 2, i + (window - 1) // 2 + 1) for i in range(5)]
    assert means == pytest.approx([np.mean([values[k] for k in those if 0 <= k < 5]) for those in around])
