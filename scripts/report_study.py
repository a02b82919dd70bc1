"""The report over the seeds of a study: what differs between the conditions once the luck of training counts too.

    uv run python scripts/report_study.py --seeds outputs/study_cpu/seed_{0,1,2} --output-dir outputs/study_cpu

Each folder is a finished run of the pipeline with its comparison.json. A benchmark's verdict is a paired t-test over
the seeds' differences, with a standard error no smaller than the items allow (eval/resampling.py: aggregate_seeds); its
interval over the test items, for these seeds, stands beside it. Several responses to an item count as one. A seed whose
conditions are not comparable ends the report with what differs. Writes study.json, study.md and study.html.
"""

import math
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_json, write_json, write_text
from eval.power import detectable_mean_difference
from eval.resampling import aggregate_seeds, cluster_means
from eval.stats import holm
from scripts.report_blocks import Block, Paragraph, Report, Section, Table, to_markdown
from scripts.report_html import to_html
from scripts.report_wording import title_of
from scripts.stage_runs import benchmark_kind, load_condition, model_stage
from tokenizer.mul_facts import CONDITIONS

SIGNIFICANCE = 0.05


@dataclass
class StudyReportConfig:
    """Report over the seeds of a study."""

    seeds: list[Path]  # the folders of the seeds, each with comparison.json and the stages' directories
    output_dir: Path  # where study.json, study.md and study.html go
    data_description: str = ""  # printed at the top, such as "synthetic: generated world"


def main() -> None:
    config = parse_config(StudyReportConfig)
    comparisons = {path.name: read_json(path / "comparison.json") for path in config.seeds}
    for path, comparison in zip(config.seeds, comparisons.values(), strict=True):
        if not comparison["comparable"]:
            raise UserError(f"{path} is not comparable: {comparison['mismatches'][0]}; run its stages again")
    names = [
        n
        for n in next(iter(comparisons.values()))["benchmarks"]
        if all(n in c["benchmarks"] for c in comparisons.values())
    ]
    seeds = list(zip(config.seeds, comparisons.values(), strict=True))
    results = {name: over_seeds(name, seeds) for name in names}
    tested = [result for result in results.values() if result["p_value"] is not None]
    for result, p_value in zip(tested, holm([result["p_value"] for result in tested]), strict=True):
        result |= {"p_holm": p_value, "significant": p_value < SIGNIFICANCE}
    study = {"seeds": list(comparisons), "benchmarks": results, "data_description": config.data_description}
    report = build(study, comparisons, shlex.join(["uv", "run", "python", "scripts/report_study.py", *sys.argv[1:]]))
    write_json(config.output_dir / "study.json", study)
    write_text(config.output_dir / "study.md", to_markdown(report))
    write_text(config.output_dir / "study.html", to_html(report))
    for block in report.head:
        print(block.text)


def over_seeds(name: str, seeds: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """A benchmark's accuracies, seed by seed, and the difference over the seeds. Raises UserError for other items.

    seeds: each one's folder and comparison.
    """
    answers = {c: [responses(folder, comparison, name, c) for folder, comparison in seeds] for c in CONDITIONS}
    questions = {tuple({row["index"]: row["question"] for row in rows}.items()) for s in answers.values() for rows in s}
    if len(questions) > 1:
        raise UserError(f"{name}: the seeds were asked different items; give the study one data_seed")
    right = {
        c: [cluster_means([row["correct"] for row in rows], [row["index"] for row in rows]) for rows in side]
        for c, side in answers.items()
    }
    found = aggregate_seeds(right["baseline"], right["mul_tokens"])
    detectable = None
    if found.standard_error is not None:
        detectable = detectable_mean_difference(found.standard_error * math.sqrt(len(seeds)), len(seeds))
    return asdict(found) | {
        "accuracies": {c: [float(values.mean()) for values in side] for c, side in right.items()},
        "items": len(questions.pop()),
        "detectable_difference": detectable,
    }


def responses(folder: Path, comparison: dict[str, Any], name: str, condition: str) -> list[dict[str, Any]]:
    """The responses to a benchmark in a seed's folder, as the comparison has them, in the order of the items."""
    kind, model = benchmark_kind(name), model_stage(name)
    if model is None:
        directory = folder / comparison["runs"][condition][f"eval_{kind}"]["directory"]
    else:
        records = sorted(folder.glob(f"eval_*_{condition}/run_{kind}.json"))
        found = [path.parent for path in records if read_json(path)["parent"]["run"]["stage"] == model]
        if not found:
            raise UserError(f"{folder} has no {name} of {condition} any more; run that evaluation again")
        directory = found[0]
    rows = load_condition(condition, [directory]).responses.get(kind, [])
    return sorted(rows, key=lambda row: (row["index"], row.get("sample", 0)))


def build(study: dict[str, Any], comparisons: dict[str, Any], command: str) -> Report:
    """The report as blocks: a sentence per benchmark, then accuracies seed by seed."""
    head: list[Block] = []
    if study["data_description"]:
        synthetic = "synthetic" in study["data_description"]
        head.append(Paragraph(f"Data: {study['data_description']}", "warning" if synthetic else "text"))
    head += [
        Paragraph(verdict(name, result, len(comparisons)), "verdict") for name, result in study["benchmarks"].items()
    ]
    head.append(
        Paragraph(
            "Differences are mul_tokens minus baseline in the same seed. Intervals and p-values are over seeds, by the "
            "paired t-test, with a standard error no smaller than that over the test items; with few seeds they are "
            "wide, as they should be.",
            "note",
        )
    )
    tables: list[Block] = [_table(name, result, study["seeds"]) for name, result in study["benchmarks"].items()]
    grpo = [
        [seed, condition, f"{100 * change['test']['difference']:+.1f}", f"{change['test']['p_value']:.2g}"]
        for seed, comparison in comparisons.items()
        for condition, change in comparison.get("grpo", {}).items()
        if "test" in change
    ]
    sections = [Section("Benchmarks, seed by seed", tables)]
    if grpo:
        header = ["seed", "condition", "points on the test problems", "exact McNemar p"]
        sections.append(Section("What GRPO changed", [Table("Greedy accuracy after minus before", header, grpo)]))
    sections.append(Section("How it was made", [Paragraph(command)]))
    return Report("baseline and mul_tokens over paired seeds", head, sections)


def verdict(name: str, result: dict[str, Any], seeds: int) -> str:
    """One sentence: whether a difference is shown, with its intervals, and what the design would have found."""
    points = {key: f"{100 * result[key]:+.1f}" for key in ("difference", "items_low", "items_high")}
    items = f"over items, for these seeds: {points['items_low']} to {points['items_high']}"
    if result["p_value"] is None:
        where = "in one seed" if seeds == 1 else f"in each of {seeds} seeds and on every item"
        return f"{title_of(name)}: difference {points['difference']} points {where} ({items}); no test over seeds."
    interval = f"95% interval over {seeds} seeds {100 * result['low']:+.1f} to {100 * result['high']:+.1f}; {items}"
    shown = "no difference shown"
    if result["significant"]:
        shown = f"{'mul_tokens' if result['difference'] > 0 else 'baseline'} is better"
    power = ""
    if result["detectable_difference"] is not None:
        power = f" A true difference of {100 * result['detectable_difference']:.1f} points is found four times in five."
    return (
        f"{title_of(name)}: {shown}; difference {points['difference']} points ({interval}), "
        f"p = {result['p_value']:.2g}, {result['p_holm']:.2g} after Holm's correction.{power}"
    )


def _table(name: str, result: dict[str, Any], seeds: list[str]) -> Table:
    rows = [
        [seed, *(f"{100 * result['accuracies'][c][i]:.1f}%" for c in CONDITIONS), f"{100 * result['per_seed'][i]:+.1f}"]
        for i, seed in enumerate(seeds)
    ]
    return Table(title_of(name), ["seed", *CONDITIONS, "difference, points"], rows, f"{result['items']} items.")


if __name__ == "__main__":
    run_script(main)
