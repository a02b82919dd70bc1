"""The numbers of a study over paired seeds: every difference between the conditions, with the luck of training in it.

A study is a list of seeds, each a finished folder of the pipeline with its comparison.json. A difference is tested by
the paired t-test over the seeds' differences, with a standard error no smaller than the items allow
(eval/resampling.py: aggregate_seeds); its interval over the test items, for these seeds, stands beside it. Several
responses to an item count as one.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import read_json
from eval.power import detectable_mean_difference
from eval.resampling import SeedDifference, aggregate_seeds, cluster_means, paired_bootstrap
from eval.stats import holm
from scripts.comparison import SIGNIFICANCE, responses_of
from scripts.stage_runs import OF, RECORD_NAMES, ConditionRuns, load_condition, parent_stage
from tokenizer.mul_facts import CONDITIONS

EDIT_SHARES = {"efficacy": ("success", None), "paraphrase": ("paraphrases_right", "paraphrases")}
EDIT_SHARES |= {"neighborhood": ("neighbors_right", "neighbors")}  # of an edit: how many were right, of how many
SIDE_EFFECTS = ("perplexity", "probes", "hellaswag")

Rows = list[dict[str, Any]]  # the responses to a benchmark


@dataclass
class Seed:
    """One seed's finished folder: its comparison.json and the stage directories of both conditions."""

    folder: Path
    comparison: dict[str, Any]
    both: dict[str, ConditionRuns]

    def responses(self, benchmark: str, condition: str) -> Rows:
        """The responses to a benchmark of the comparison, in the order of the items."""
        rows = self.both[condition].responses.get(benchmark)
        if rows is None:
            raise UserError(f"{self.folder} has no {benchmark} of {condition} any more; run that evaluation again")
        if sum(row["correct"] for row in rows) != self.comparison["benchmarks"][benchmark][condition]["correct"]:
            raise UserError(
                f"{self.folder}/comparison.json is older than {benchmark} of {condition}; compare them again"
            )
        return sorted(rows, key=lambda row: (row["index"], row.get("sample", 0)))


def load_seeds(folders: list[Path]) -> list[Seed]:
    """Read the folders of a study. Raises UserError for one whose conditions are not comparable, with what differs."""
    seeds = []
    for folder in folders:
        comparison = read_json(folder / "comparison.json")
        if not comparison["comparable"]:
            raise UserError(f"{folder} is not comparable: {comparison['mismatches'][0]}; run its stages again")
        both = {c: load_condition(c, _directories(folder, comparison["runs"][c], c)) for c in CONDITIONS}
        seeds.append(Seed(folder, comparison, both))
    return seeds


def study_numbers(seeds: list[Seed], description: str) -> dict[str, Any]:
    """Everything that the report says of benchmarks, training, GRPO, mul tokens and edits, JSON-ready (study.json)."""
    first, *others = [seed.comparison["benchmarks"] for seed in seeds]
    benchmarks = {name: _benchmark(name, seeds) for name in first if all(name in other for other in others)}
    tested = [result for result in benchmarks.values() if result["p_value"] is not None]
    for result, p_value in zip(tested, holm([result["p_value"] for result in tested]), strict=True):
        result |= {"p_holm": p_value, "significant": p_value < SIGNIFICANCE}
    return {
        "seeds": [seed.folder.name for seed in seeds],
        "data_description": description,
        "benchmarks": benchmarks,
        "training": _training(seeds),
        "grpo": _grpo(seeds),
        "mul_tokens": _token_use(list(benchmarks), seeds, lambda side: side.get("mul_tokens")),
        "token_families": _other_families(list(benchmarks), seeds),
        "editing": _editing(seeds),
    }


def difference_over_seeds(name: str, a: list[Rows], b: list[Rows]) -> dict[str, Any]:
    """Accuracy of b minus accuracy of a, seed by seed and over the seeds; `name` is for the error.

    a, b: each seed's responses. Raises UserError when they are not to the same items.
    """
    questions = {tuple({row["index"]: row["question"] for row in rows}.items()) for rows in a + b}
    if len(questions) > 1:
        raise UserError(f"{name}: the seeds were asked different items; give the study one data_seed")
    right_a, right_b = ([_shares_right(rows) for rows in side] for side in (a, b))
    return _with_power(aggregate_seeds(right_a, right_b)) | {
        "accuracies": [[float(right.mean()) for right in side] for side in (right_a, right_b)],
        "items": len(questions.pop()),
    }


def _directories(folder: Path, runs: dict[str, Any], condition: str) -> list[Path]:
    """The directories of a condition that hold a run record: first those that give a benchmark its plain name."""
    plain_first = sorted(runs, key=lambda stage: OF in stage)
    compared = [folder / runs[stage]["directory"] for stage in plain_first if runs[stage]["directory"]]
    there = [path for path in (*compared, *sorted(folder.glob(f"eval_*_{condition}"))) if path.is_dir()]
    return [path for path in dict.fromkeys(there) if any((path / name).is_file() for name in RECORD_NAMES)]


def _benchmark(name: str, seeds: list[Seed]) -> dict[str, Any]:
    a, b = ([seed.responses(name, condition) for seed in seeds] for condition in CONDITIONS)
    record = seeds[0].both["baseline"].records.get(f"eval_{name}")
    categories = dict.fromkeys(row["category"] for row in a[0] if "category" in row)
    return _by_condition(difference_over_seeds(name, a, b)) | {
        "model": parent_stage(record) if record else None,  # the stage that made it
        "categories": {
            category: _by_condition(
                difference_over_seeds(name, *([_only(rows, category) for rows in s] for s in (a, b)))
            )
            for category in categories
        },
    }


def _by_condition(result: dict[str, Any]) -> dict[str, Any]:
    return result | {"accuracies": dict(zip(CONDITIONS, result["accuracies"], strict=True))}


def _only(rows: Rows, category: str) -> Rows:
    return [row for row in rows if row.get("category") == category]


def _shares_right(rows: Rows) -> np.ndarray:
    return cluster_means([row["correct"] for row in rows], [row["index"] for row in rows])


def _with_power(found: SeedDifference) -> dict[str, Any]:
    """The difference as a dict, with the true difference that as many seeds of this spread find in 80% of studies."""
    detectable, count = None, len(found.per_seed)
    if found.standard_error is not None:
        detectable = detectable_mean_difference(found.standard_error * math.sqrt(count), count)
    return asdict(found) | {"detectable_difference": detectable}


def _training(seeds: list[Seed]) -> dict[str, Any]:
    """{stage: {measure: {condition: [of each seed]}}} of the numbers that every seed's training stages wrote."""
    found: dict[str, Any] = {}
    for stage in seeds[0].comparison["training"]:
        if not all(stage in seed.comparison["training"] for seed in seeds):
            continue
        sides = {c: [seed.comparison["training"][stage][c] for seed in seeds] for c in CONDITIONS}
        found[stage] = {
            key: {c: [run.get(key) for run in runs] for c, runs in sides.items()}
            for key, value in sides["baseline"][0].items()
            if isinstance(value, int | float)
        }
    return found


def _grpo(seeds: list[Seed]) -> dict[str, Any]:
    """What GRPO changed: of each condition the seeds' runs and the change over seeds; `gain`: how the changes differ.

    The change is tested over seeds and, for these seeds, over problems: p_items exchanges a problem's answers before
    and after, of all seeds at once, because answers to one problem resemble each other.
    """
    changes: dict[str, Any] = {"conditions": {}, "gain": None}
    gains = {}
    for condition in CONDITIONS:
        runs = [seed.comparison["grpo"].get(condition) for seed in seeds]
        if not all(runs):
            continue
        changes["conditions"][condition] = {"per_seed": runs}
        if not all("test" in run for run in runs):
            continue
        before, after = zip(*(_before_and_after(seed.both[condition]) for seed in seeds), strict=True)
        found = difference_over_seeds("GRPO", list(before), list(after))
        shares = [np.array([_shares_right(rows) for rows in side]) for side in (before, after)]
        found["p_items"] = paired_bootstrap(*(side.mean(axis=0) for side in shares)).p_value
        changes["conditions"][condition]["over_seeds"] = found
        gains[condition] = shares[1] - shares[0]
    if len(gains) == len(CONDITIONS):
        changes["gain"] = _with_power(aggregate_seeds(*(gains[c] for c in CONDITIONS), bounds=(-1.0, 1.0)))
    return changes


def _before_and_after(runs: ConditionRuns) -> tuple[Rows, Rows]:
    names = [responses_of(runs, "gsm8k", stage) for stage in (parent_stage(runs.records["grpo"]), "grpo")]
    before, after = (sorted(runs.responses[name], key=lambda row: row["index"]) for name in names)
    return before, after


def _token_use(benchmarks: list[str], seeds: list[Seed], of: Callable[[dict], dict | None]) -> dict[str, Any]:
    """{benchmark: {condition: [of each seed {n, total, responses, right, ...}]}} of a family's generated tokens."""
    found = {}
    for name in benchmarks:
        sides = {c: [seed.comparison["benchmarks"][name][c] for seed in seeds] for c in CONDITIONS}
        if all(of(result) for side in sides.values() for result in side):
            found[name] = {c: [{"n": result["n"], **of(result)} for result in side] for c, side in sides.items()}
    return found


def _other_families(benchmarks: list[str], seeds: list[Seed]) -> dict[str, Any]:
    """The same of each family besides mul that the models have, by family."""
    sides = [seeds[0].comparison["benchmarks"][name]["mul_tokens"] for name in benchmarks]
    families = dict.fromkeys(family for side in sides for family in side.get("token_families", {}))
    return {
        family: _token_use(benchmarks, seeds, lambda side, family=family: side.get("token_families", {}).get(family))
        for family in families
    }


def _editing(seeds: list[Seed]) -> dict[str, Any]:
    """Of each condition and seed the shares of right answers before and after, side effects; differences over seeds."""
    runs = {c: [seed.comparison["editing"].get(c) for seed in seeds] for c in CONDITIONS}
    if not all(all(side) for side in runs.values()):
        return {}
    found: dict[str, Any] = {"conditions": {c: [_edited(run) for run in side] for c, side in runs.items()}}
    edits = {c: [run["memit"]["edits"] for run in side] for c, side in runs.items()}
    named = {tuple(edit["id"] for edit in of_run) for side in edits.values() for of_run in side}
    found["differences"] = {}
    if len(named) == 1 and any(named):
        for measure, keys in EDIT_SHARES.items():
            sides = [[_edit_shares(of_run, *keys) for of_run in edits[c]] for c in CONDITIONS]
            found["differences"][measure] = _with_power(aggregate_seeds(*sides))
    return found


def _edited(run: dict[str, Any]) -> dict[str, Any]:
    sides = run["memit"]["overall"]
    numbers = {when: {key: sides[when][key]["success"] for key in EDIT_SHARES} for when in sides}
    for when in sides:
        numbers[when]["score"] = sides[when].get("score")
    effects = run["effects"] or {}
    return numbers | {"edits": sides["after"]["edits"], **{key: effects.get(key) for key in SIDE_EFFECTS}}


def _edit_shares(edits: Rows, right: str, of: str | None) -> list[float]:
    return [edit[right] / edit[of] if of else float(edit[right]) for edit in edits if of is None or edit[of]]
