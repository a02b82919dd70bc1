"""From the runs of both conditions to the numbers of the comparison (comparison.json)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from common.errors import UserError
from common.record import chain_of
from eval.fact_use import USE_MEASURES, families_counted
from eval.power import detectable_mean_difference, minimum_detectable_difference
from eval.repetition import REPETITIVE_SHARE
from eval.resampling import MeanDifference, bootstrap_mean, cluster_means, paired_bootstrap
from eval.responses import SKIPPED
from eval.stats import PairedDifference, holm, paired_difference, wilson_interval
from scripts.compute_match import audit, mismatches
from scripts.stage_runs import ConditionRuns, benchmark_kind, common_benchmarks, common_stages, parent_stage, stage_kind

SIGNIFICANCE = 0.05
# Other ways of counting an item as right, by the key of their accuracy and that of the response.
OTHER_SCORES = {"flexible": "correct_flexible", "acc_norm_char": "correct_acc_norm_char", "acc": "correct_acc"}
# Responses that something is true of, and the key of a row that says it.
RESPONSE_KEYS = {"in_format": "format_ok", "repetitive": "repeated_share", "skipped": "finish_reason"}
RESPONSE_COUNTS: dict[str, Callable[[list[dict]], int]] = {
    "in_format": lambda rows: sum(row["format_ok"] for row in rows),
    "repetitive": lambda rows: sum(row["repeated_share"] >= REPETITIVE_SHARE for row in rows),
    "skipped": lambda rows: sum(row["finish_reason"] == SKIPPED for row in rows),
}


def compare(baseline: ConditionRuns, mul_tokens: ConditionRuns) -> dict[str, Any]:
    """Every number of the report, JSON-ready. Raises UserError when the conditions have no stage in common.

    Paired tests are there only when the audit finds the runs comparable.
    """
    both = {"baseline": baseline, "mul_tokens": mul_tokens}
    common = common_stages(baseline, mul_tokens)
    if not common:
        given = "; ".join(f"{name} has {', '.join(runs.records) or 'none'}" for name, runs in both.items())
        raise UserError(f"the two conditions have no stage in common ({given}); give the same stages of both")
    rows = audit(baseline, mul_tokens)
    reasons = mismatches(rows)
    benchmarks = {name: _benchmark(name, both, not reasons) for name in common_benchmarks(**both)}
    _correct_for_many(benchmarks)
    return {
        "comparable": not reasons,
        "mismatches": reasons,
        "stages": common,
        "only_in_one": {name: sorted(set(runs.records) - set(common)) for name, runs in both.items()},
        "data_sources": _data_sources(both),
        "benchmarks": benchmarks,
        "training": _training(both, common),
        "grpo": _grpo(both),
        "editing": _editing(both),
        "data": {name: _data_seen(runs) for name, runs in both.items()},
        "runs": {name: _run_facts(runs, common) for name, runs in both.items()},
        "audit": [vars(row) for row in rows],
    }


def accuracy(rows: list[dict], key: str = "correct") -> dict[str, Any]:
    """{n, correct, accuracy, low, high} of the responses' boolean `key`, with its 95% interval.

    Wilson's for one response to each item; of several, the bootstrap's over items, and `items` says how many there are.
    """
    correct = sum(bool(row[key]) for row in rows)
    if not _several_samples(rows):
        low, high = wilson_interval(correct, len(rows))
        return {"n": len(rows), "correct": correct, "accuracy": correct / len(rows), "low": low, "high": high}
    found = bootstrap_mean([row[key] for row in rows], [row["index"] for row in rows])
    counts = {"n": len(rows), "correct": correct, "items": found.n}
    return counts | {"accuracy": found.mean, "low": found.low, "high": found.high}


def paired_counts(baseline: list[dict], mul_tokens: list[dict]) -> dict[str, int]:
    """How many items both, only one or neither condition got right; both lists hold the same items in order."""
    pairs = [(bool(a["correct"]), bool(b["correct"])) for a, b in zip(baseline, mul_tokens, strict=True)]
    return {
        "both": pairs.count((True, True)),
        "only_baseline": pairs.count((True, False)),
        "only_mul_tokens": pairs.count((False, True)),
        "neither": pairs.count((False, False)),
    }


def _benchmark(name: str, both: dict[str, ConditionRuns], comparable: bool) -> dict[str, Any]:
    responses = {condition: runs.responses[name] for condition, runs in both.items()}
    result: dict[str, Any] = {condition: _summary(rows) for condition, rows in responses.items()}
    a, b = responses["baseline"], responses["mul_tokens"]
    if [_identity(row) for row in a] == [_identity(row) for row in b]:
        if _several_samples(a):
            result["test"] = _test_of_samples(a, b) if comparable else None
        else:
            result["paired"] = paired_counts(a, b)
            result["test"] = _test(a, b, result["paired"]) if comparable else None
    categories = dict.fromkeys(row["category"] for row in a + b if "category" in row)
    result["categories"] = {
        category: {
            condition: accuracy(subset) if subset else None
            for condition, rows in responses.items()
            for subset in [[row for row in rows if row.get("category") == category]]
        }
        for category in categories
    }
    return result


def _summary(rows: list[dict]) -> dict[str, Any]:
    summary = accuracy(rows)
    summary |= {name: accuracy(rows, key) for name, key in OTHER_SCORES.items() if key in rows[0]}
    if "mul_tokens" in rows[0]:  # HellaSwag is chosen, not generated
        summary["mul_tokens"] = _token_use(rows, "mul_tokens")
        if others := families_counted(rows[0]):
            summary["token_families"] = {name: _token_use(rows, f"{name}_tokens") for name in others}
    if "response_tokens" in rows[0]:
        lengths = [row["response_tokens"] for row in rows]
        p50, p95 = np.percentile(lengths, [50, 95])
        summary["response_tokens"] = {"median": float(p50), "p95": float(p95), "max": max(lengths)}
        summary["limit_hits"] = sum(row["finish_reason"] == "length" for row in rows)
        summary |= {key: count(rows) for key, count in RESPONSE_COUNTS.items() if RESPONSE_KEYS[key] in rows[0]}
        if "thinking_tokens" in rows[0]:
            summary["mean_thinking_tokens"] = sum(row["thinking_tokens"] for row in rows) / len(rows)
    return summary


def _token_use(rows: list[dict], column: str) -> dict[str, int]:
    """How many tokens of a family there are, in how many responses, and what older evaluations do not say of them."""
    counts = [row[column] for row in rows]
    use = {"total": sum(counts), "responses": sum(count > 0 for count in counts)}
    measures = [measure for measure in USE_MEASURES if f"{column}_{measure}" in rows[0]]
    return use | {measure: sum(row[f"{column}_{measure}"] for row in rows) for measure in measures}


def _test(a: list[dict], b: list[dict], counts: dict[str, int]) -> dict[str, Any]:
    pair = paired_difference([row["correct"] for row in a], [row["correct"] for row in b])
    discordant = (counts["only_baseline"] + counts["only_mul_tokens"]) / pair.n
    return _difference(pair, "exact McNemar") | {
        "discordant_share": discordant,
        "detectable_difference": minimum_detectable_difference(pair.n, discordant) if discordant else None,
    }


def _test_of_samples(a: list[dict], b: list[dict]) -> dict[str, Any]:
    """Of several responses to each item: the difference of the items' shares of right ones."""
    shares = [cluster_means([row["correct"] for row in rows], [row["index"] for row in rows]) for rows in (a, b)]
    pair = paired_bootstrap(*shares)
    deviation = float(np.std(shares[1] - shares[0], ddof=1)) if pair.n > 1 else 0.0
    return _difference(pair, "permutation test of the items' shares") | {
        "discordant_share": float(np.mean(shares[0] != shares[1])),
        "detectable_difference": detectable_mean_difference(deviation, pair.n) if deviation else None,
    }


def _difference(pair: PairedDifference | MeanDifference, method: str) -> dict[str, Any]:
    numbers = {"n": pair.n, "difference": pair.difference, "low": pair.low, "high": pair.high, "p": pair.p_value}
    return numbers | {"method": method}


def _correct_for_many(benchmarks: dict[str, dict[str, Any]]) -> None:
    """Add Holm's p-value over all benchmarks to each test, and whether it shows a difference."""
    tests = [result["test"] for result in benchmarks.values() if result.get("test")]
    for test, p_value in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test |= {"p_holm": p_value, "tests": len(tests), "significant": p_value < SIGNIFICANCE}


def _identity(row: dict) -> tuple:
    return row["index"], row.get("sample", 0), row["question"]


def _several_samples(rows: list[dict]) -> bool:
    return any(row.get("sample", 0) for row in rows)


def _training(both: dict[str, ConditionRuns], stages: list[str]) -> dict[str, dict[str, Any]]:
    return {
        stage: {name: runs.results[stage] for name, runs in both.items()}
        for stage in stages
        if stage_kind(stage) in ("pretrain", "sft") and all(stage in runs.results for runs in both.values())
    }


def _grpo(both: dict[str, ConditionRuns]) -> dict[str, dict[str, Any]]:
    """What GRPO changed, within each condition: its parent's and its own greedy answers to the same problems."""
    changes = {}
    for condition, runs in both.items():
        if "grpo" not in runs.results:
            continue
        changes[condition] = {"results": runs.results["grpo"]}
        parent = parent_stage(runs.records["grpo"])
        names = [responses_of(runs, "gsm8k", stage) for stage in (parent, "grpo")]
        if all(names):
            before, after = (runs.responses[name] for name in names)
            same = [_identity(row) for row in before] == [_identity(row) for row in after]
            if same and not _several_samples(after):
                sides = [[row["correct"] for row in rows] for rows in (before, after)]
                pair = paired_difference(*sides)
                changes[condition] |= {"before": accuracy(before), "after": accuracy(after), "test": vars(pair)}
    return changes


def responses_of(runs: ConditionRuns, benchmark: str, stage: str | None) -> str | None:
    """The name of the responses to `benchmark` of the model that `stage` made, or None."""
    for name in runs.responses:
        record = runs.records.get(f"eval_{benchmark}{name.removeprefix(benchmark)}")
        if benchmark_kind(name) == benchmark and record and parent_stage(record) == stage:
            return name
    return None


def _editing(both: dict[str, ConditionRuns]) -> dict[str, dict[str, Any]]:
    """The batch of edits in each condition, and what it did to everything else."""
    return {
        condition: {"memit": runs.results["edit_memit"], "effects": runs.results.get("eval_edit")}
        for condition, runs in both.items()
        if "edit_memit" in runs.results
    }


def _all_records(runs: ConditionRuns, stages: list[str]) -> dict[str, dict[str, Any]]:
    """The records of `stages` and of their ancestors, by stage, in the order in which they ran."""
    records: dict[str, dict[str, Any]] = {}
    for stage in sorted(stages, key=lambda stage: len(chain_of(runs.records[stage])), reverse=True):
        *ancestors, own = chain_of(runs.records[stage])
        for record in ancestors:
            records.setdefault(record["stage"], record)
        records.setdefault(stage, own)  # by its name among the runs: there may be several evaluations of a kind
    return records


def _data_seen(runs: ConditionRuns) -> dict[str, Any] | None:
    """What the pretraining budget amounted to in text, which injection changes: same tokens, more text."""
    records = _all_records(runs, list(runs.records))
    record = next((record for stage, record in records.items() if stage_kind(stage) == "pretrain"), None)
    if record is None or "tokens_seen" not in record.get("data", {}):
        return None
    data = record["data"]
    keys = ("tokens_seen", "text_bytes_seen", "documents_seen", "mul_tokens_seen", "split_tokens")
    return {key: data[key] for key in keys if key in data} | {"epochs": data["tokens_seen"] / data["split_tokens"]}


def _run_facts(runs: ConditionRuns, stages: list[str]) -> dict[str, dict[str, Any]]:
    keys = ("config", "steps", "tokens", "wall_seconds", "started", "git_commit", "hardware", "packages")
    facts = {}
    for stage, record in _all_records(runs, stages).items():
        facts[stage] = {key: record.get(key) for key in keys}
        facts[stage]["directory"] = runs.directories[stage].name if stage in runs.directories else None
    return facts


def _data_sources(both: dict[str, ConditionRuns]) -> list[str]:
    """What the records say of the origin of their data, each once; a generated world is called synthetic."""
    records = [record for runs in both.values() for record in _all_records(runs, list(runs.records)).values()]
    sources = [(record.get("data") or {}).get("source") for record in records]
    return list(dict.fromkeys(str(source) for source in sources if source))
