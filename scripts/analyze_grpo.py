"""What a GRPO run did: whether it learned, what went wrong, and its curves.

    uv run python scripts/analyze_grpo.py --run-dir outputs/grpo_mul_tokens
    uv run python scripts/analyze_grpo.py --run-dir outputs/grpo_mul_tokens --output-dir outputs/analysis

Reads the run's log.jsonl, of a run that still goes too. Prints a diagnosis, and writes into --output-dir (the run's
directory) analysis.json, with every number that was printed, and curves.png.

Sampled accuracy and reward are means over the first and the last fifth of the iterations; the interval of their
difference draws iterations anew, so it holds for this run's problems and says nothing about another seed. The
held-out accuracies are of the same problems before and after, greedily answered; their Wilson intervals are each of
one accuracy alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_path, write_json
from eval.stats import wilson_interval
from pretrain.run_log import whole_rows
from rl.alarms import Alarms
from rl.curves import curves_of, plot_curves

ENOUGH = 5  # iterations in a fifth, for an interval of their mean to mean something
DRAWS = 10_000
DEAD = 0.5  # share of groups without a difference from which on most of the sampling is for nothing
LONGER = 1.5  # times as many tokens as at first
LOST_ENTROPY = 0.5  # of what there was at first
FAR = 0.1  # nats per token from the reference
CUT = 0.2  # share of responses cut


@dataclass
class AnalyzeConfig:
    """Diagnose a GRPO run from its log."""

    run_dir: Path  # directory of rl/grpo_train.py
    output_dir: Path | None = None  # where analysis.json and curves.png go; default: the run's directory


def main() -> None:
    config = parse_config(AnalyzeConfig)
    log = config.run_dir / "log.jsonl"
    if not log.is_file():
        raise UserError(f"{config.run_dir} holds no log.jsonl; give a directory that rl/grpo_train.py wrote")
    rows = whole_rows(log)
    if not any("reward_mean" in row for row in rows):
        raise UserError(f"{log} holds no iteration of GRPO yet; ask again later")
    analysis = analyze(rows)
    output_dir = config.output_dir or config.run_dir
    with atomic_path(output_dir / "curves.png") as partial:
        plot_curves(rows, partial)
    write_json(output_dir / "analysis.json", analysis)
    for line in report(analysis):
        print(line)
    print(f"written to {output_dir}: analysis.json, curves.png")


def analyze(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The diagnosis of a log's rows: changes, held-out accuracy, findings and alarms."""
    iterations = [row for row in rows if "reward_mean" in row]
    alarms = Alarms()
    given = [{"iteration": row["iteration"], "text": text} for row in iterations for text in alarms.check(row)]
    columns = ("accuracy", "reward_mean", "kept_fraction", "entropy", "kl", "response_tokens", "truncated")
    changes = {column: change(iterations, column) for column in (*columns, "mul_tokens_per_response")}
    held_out = held_out_accuracy([row for row in rows if "eval_accuracy" in row])
    return {
        "iterations": len(iterations),
        "verdict": verdict(changes["accuracy"], held_out),
        "changes": {column: found for column, found in changes.items() if found},
        "held_out": held_out,
        "groups_all_right": sum(row.get("groups_all_right") or 0 for row in iterations),
        "groups_all_wrong": sum(row.get("groups_all_wrong") or 0 for row in iterations),
        "iterations_without_update": sum(row.get("grad_norm") is None for row in iterations),
        "findings": findings(changes, iterations),
        "alarms": given,
    }


def change(iterations: list[dict[str, Any]], column: str) -> dict[str, Any] | None:
    """Means of the first and last fifth of a column's values, and the 95% bootstrap interval of their difference.

    No interval where a fifth has fewer than ENOUGH values; None where there are no values.
    """
    values = np.array(curves_of(iterations, column).get(column, ([], []))[1], dtype=float)
    if not len(values):
        return None
    fifth = max(1, len(values) // 5)
    first, last = values[:fifth], values[-fifth:]
    found = {"first_fifth": first.mean(), "last_fifth": last.mean(), "difference": last.mean() - first.mean()}
    found |= {"low": None, "high": None}
    if fifth >= ENOUGH:
        interval = scipy.stats.bootstrap(
            (first, last),
            lambda a, b, axis: b.mean(axis) - a.mean(axis),
            n_resamples=DRAWS,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        found |= {"low": interval.low, "high": interval.high}
    return {key: None if value is None else round(float(value), 6) for key, value in found.items()}


def held_out_accuracy(evaluations: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first, best and last evaluation, each with its 95% Wilson interval; None without two of them."""
    if len(evaluations) < 2:
        return None
    chosen = {
        "first": evaluations[0],
        "best": max(evaluations, key=lambda row: row["eval_accuracy"]),
        "last": evaluations[-1],
    }
    return {
        name: {
            "iteration": row["iteration"],
            "accuracy": row["eval_accuracy"],
            "n": row["eval_n"],
            "wilson_95": [
                round(limit, 6) for limit in wilson_interval(round(row["eval_accuracy"] * row["eval_n"]), row["eval_n"])
            ],
        }
        for name, row in chosen.items()
    }


def verdict(accuracy: dict[str, Any] | None, held_out: dict[str, Any] | None) -> str:
    """improved, worse or undecided, by the interval of the sampled accuracy; and what the held-out problems say."""
    if accuracy is None or accuracy["low"] is None:
        said = f"undecided: fewer than {5 * ENOUGH} iterations"
    elif accuracy["low"] > 0:
        said = "improved"
    else:
        said = "worse" if accuracy["high"] < 0 else "undecided: the interval holds 0"
    if held_out:
        first, last = held_out["first"], held_out["last"]
        apart = first["wilson_95"][1] < last["wilson_95"][0] or last["wilson_95"][1] < first["wilson_95"][0]
        said += f"; held out {first['accuracy']:.1%} -> {last['accuracy']:.1%}"
        said += "" if apart else ", within the noise of each alone"
    return said


def findings(changes: dict[str, dict[str, Any] | None], iterations: list[dict[str, Any]]) -> list[str]:
    """What stands out over the whole run, a line each."""
    found = []
    kept = float(np.mean([row["kept_fraction"] for row in iterations]))
    if 1 - kept > DEAD:
        right, wrong = (sum(row.get(f"groups_all_{side}") or 0 for row in iterations) for side in ("right", "wrong"))
        found.append(
            f"dead groups: {1 - kept:.0%} of the groups taught nothing ({right} all right, {wrong} all wrong): take "
            f"{'harder' if right > wrong else 'easier'} problems, larger groups or a partial reward"
        )
    entropy, kl, tokens = changes["entropy"], changes["kl"], changes["response_tokens"]
    if entropy and entropy["last_fifth"] < LOST_ENTROPY * entropy["first_fifth"]:
        found.append(
            f"entropy collapse: {entropy['first_fifth']:.3f} -> {entropy['last_fifth']:.3f} nats per token: lower the "
            "learning rate, raise objective.clip_high, or set an entropy bonus"
        )
    if tokens and tokens["last_fifth"] > LONGER * tokens["first_fifth"]:
        found.append(
            f"length explosion: {tokens['first_fifth']:.0f} -> {tokens['last_fifth']:.0f} tokens per response: set "
            "objective.overlong to penalty, or a reward for short answers"
        )
    if kl and kl["last_fifth"] > FAR:
        found.append(
            f"far from the start: KL {kl['last_fifth']:.3f} nats per token: lower the learning rate or raise "
            "objective.kl_coefficient"
        )
    if changes["truncated"] and changes["truncated"]["last_fifth"] > CUT:
        found.append(
            f"cut responses: {changes['truncated']['last_fifth']:.0%} did not end by themselves: raise "
            "rollout.max_new_tokens, or teach the end in SFT"
        )
    return found


def report(analysis: dict[str, Any]) -> list[str]:
    """The diagnosis in lines."""
    lines = [f"{analysis['iterations']} iterations: {analysis['verdict']}"]
    lines.append(f"{'':<26}{'first fifth':>12}{'last fifth':>12}   difference, 95% interval")
    for column, found in analysis["changes"].items():
        interval = "" if found["low"] is None else f"  [{found['low']:+.4f}, {found['high']:+.4f}]"
        numbers = f"{found['first_fifth']:>12.4f}{found['last_fifth']:>12.4f}   {found['difference']:+.4f}"
        lines.append(f"{column:<26}{numbers}{interval}")
    for name, row in (analysis["held_out"] or {}).items():
        low, high = row["wilson_95"]
        lines.append(
            f"held out, {name:<6} {row['accuracy']:.1%} [{low:.1%}, {high:.1%}] of {row['n']} after iteration "
            f"{row['iteration']}"
        )
    if analysis["iterations_without_update"]:
        lines.append(f"{analysis['iterations_without_update']} iterations had nothing to learn from and made no update")
    lines += [f"found: {line}" for line in analysis["findings"]] or ["found: nothing unusual"]
    lines += [f"alarm at iteration {alarm['iteration']}: {alarm['text']}" for alarm in analysis["alarms"]]
    return lines


if __name__ == "__main__":
    run_script(main)
