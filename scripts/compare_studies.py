"""Studies beside each other: a main one and its ablations, which were asked the same items.

    uv run python scripts/compare_studies.py --output-dir outputs/ablations \
        --studies outputs/study_cpu outputs/ablation_none outputs/ablation_strict

Of every benchmark that all have: each study's difference between its conditions, as its own report has it (study.json),
and the difference between its mul_tokens models and those of the study that was named first, seed by seed on the same
items. The second one is what an ablation asks; two lines of the first kind are not tested against each other. Both are
over seeds (eval/resampling.py: aggregate_seeds), with p-values corrected for the number of tests in the whole table.
Writes compare_studies.json, .md and .png.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_path, read_json, write_json, write_text
from eval.stats import holm
from scripts.report_blocks import Paragraph, Report, Section, Table, to_markdown
from scripts.report_plots import standalone_png
from scripts.report_wording import p_cell, percent_text, points_text, range_text, title_of
from scripts.study_numbers import Seed, difference_over_seeds, load_seeds
from tokenizer.mul_facts import CONDITIONS

NAME = "compare_studies"
KEYS = ("difference", "per_seed", "low", "high", "items_low", "items_high", "p_value")


@dataclass
class CompareStudiesConfig:
    """Compare studies that were asked the same items."""

    studies: list[Path]  # folders of finished studies, the main one first
    output_dir: Path  # where compare_studies.json, .md and .png go


def main() -> None:
    config = parse_config(CompareStudiesConfig)
    if len(config.studies) < 2 or len({path.name for path in config.studies}) < len(config.studies):
        raise UserError("--studies needs two or more folders with different names, the main study's first")
    table = compare_studies(config.studies)
    write_json(config.output_dir / f"{NAME}.json", table)
    write_text(config.output_dir / f"{NAME}.md", to_markdown(build(table)))
    with atomic_path(config.output_dir / f"{NAME}.png") as partial:
        partial.write_bytes(draw(table))
    print(f"wrote {config.output_dir / NAME}.md, .json and .png: {len(table['benchmarks'])} benchmarks")


def compare_studies(folders: list[Path]) -> dict[str, Any]:
    """{studies: {name: its data}, benchmarks: {benchmark: {study: its two differences}}}, JSON-ready.

    Raises UserError for studies with other seeds, other items or no benchmark in common.
    """
    studies = {folder.name: read_json(folder / "study.json") for folder in folders}
    first, *others = studies
    for name in others:
        if studies[name]["seeds"] != studies[first]["seeds"]:
            sides = [", ".join(studies[study]["seeds"]) for study in (first, name)]
            raise UserError(f"{first} has {sides[0]} and {name} {sides[1]}; seeds are compared in pairs, run the same")
    common = [b for b in studies[first]["benchmarks"] if all(b in study["benchmarks"] for study in studies.values())]
    if not common:
        raise UserError(f"{', '.join(studies)} have no benchmark in common; run the same evaluations in all")
    seeds = {folder.name: load_seeds([folder / seed for seed in studies[first]["seeds"]]) for folder in folders}
    benchmarks: dict[str, Any] = {}
    for benchmark in common:
        benchmarks[benchmark] = {}
        for name, study in studies.items():
            own = study["benchmarks"][benchmark]
            row = {key: own[key] for key in KEYS} | {"accuracies": own["accuracies"], "items": own["items"]}
            row["against_first"] = None if name == first else against(benchmark, seeds, first, name)
            benchmarks[benchmark][name] = row
    correct_for_many(benchmarks)
    described = {name: study["data_description"] for name, study in studies.items()}
    return {"studies": described, "seeds": studies[first]["seeds"], "benchmarks": benchmarks}


def against(benchmark: str, seeds: dict[str, list[Seed]], first: str, name: str) -> dict[str, Any]:
    """Accuracy of one study's mul_tokens models minus that of the first one's."""
    sides = [[seed.responses(benchmark, "mul_tokens") for seed in seeds[study]] for study in (first, name)]
    asked = [[(row["index"], row.get("sample", 0), row["question"]) for row in rows[0]] for rows in sides]
    if asked[0] != asked[1]:
        raise UserError(f"{benchmark}: {first} and {name} were asked different items; give them one data_seed and size")
    found = difference_over_seeds(benchmark, *sides)
    return {key: found[key] for key in KEYS}


def correct_for_many(benchmarks: dict[str, Any]) -> None:
    """Add Holm's p-value over all tests of the table to each."""
    rows = [row for of_benchmark in benchmarks.values() for row in of_benchmark.values()]
    tests = [test for row in rows for test in (row, row["against_first"]) if test and test["p_value"] is not None]
    for test, p_value in zip(tests, holm([test["p_value"] for test in tests]), strict=True):
        test |= {"p_holm": p_value, "tests": len(tests)}


def build(table: dict[str, Any]) -> Report:
    """A table per benchmark, a line per study."""
    first = next(iter(table["studies"]))
    header = ["study", *CONDITIONS, "difference", "p, corrected", f"mul_tokens against {first}", "p, corrected"]
    tables = []
    for benchmark, rows in table["benchmarks"].items():
        lines = []
        for name, row in rows.items():
            means = [percent_text(fmean(row["accuracies"][condition])) for condition in CONDITIONS]
            other = row["against_first"]
            lines.append([name, *means, *cells(row), *(cells(other) if other else ["", ""])])
        note = f"{next(iter(rows.values()))['items']} items."
        tables.append(Table(title_of(benchmark), header, lines, note, wide=True))
    note = (
        f"Seeds: {', '.join(table['seeds'])}. Differences in points: mul_tokens minus baseline in the same study, and "
        f"mul_tokens minus {first}'s mul_tokens, with 95% intervals over seeds, or, marked *, over the items for these "
        "seeds, where seeds give none. p-values are corrected (Holm) for all tests on this page."
    )
    about = [Paragraph(f"{name}: {text or 'see its report'}") for name, text in table["studies"].items()]
    return Report("Studies beside each other", [*about, Paragraph(note, "note")], [Section("Benchmarks", tables)])


def cells(test: dict[str, Any]) -> list[str]:
    """A difference with its interval, and its p-value."""
    low, high, mark = limits(test)
    p_value = p_cell(test["p_holm"]) if "p_holm" in test else "n/a"
    return [f"{points_text(test['difference'])} [{range_text(low, high)}]{mark}", p_value]


def limits(test: dict[str, Any]) -> tuple[float, float, str]:
    """The interval over seeds, or the one over items with the mark that says so."""
    if test["low"] is None:
        return test["items_low"], test["items_high"], "*"
    return test["low"], test["high"], ""


def draw(table: dict[str, Any]) -> bytes:
    """Differences between the conditions with their intervals, the studies of a benchmark below each other."""
    rows = [(b, name, row) for b, of_benchmark in table["benchmarks"].items() for name, row in of_benchmark.items()]

    def draw_rows(axes: Axes, colours: dict[str, str]) -> None:
        axes.figure.set_figheight(1.6 + 0.24 * len(rows))
        for y, (_, _, row) in enumerate(rows):
            low, high, mark = limits(row)
            style = {"color": colours["mul_tokens"], "lw": 1.4, "ls": ":" if mark else "-"}
            axes.plot([100 * low, 100 * high], [y, y], **style)
            axes.plot(100 * row["difference"], y, "D", ms=4, color=colours["mul_tokens"])
        per_benchmark = len(table["studies"])
        for border in range(per_benchmark, len(rows), per_benchmark):
            axes.axhline(border - 0.5, color=colours["grid"], lw=0.8)
        axes.axvline(0, color=colours["ink"], lw=0.8, ls=":")
        labels = [f"{title_of(b)}: {name}" if i % per_benchmark == 0 else name for i, (b, name, _) in enumerate(rows)]
        axes.set_yticks(range(len(rows)), labels, fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("mul_tokens minus baseline, points")

    caption = "Diamonds: mean over the seeds. Lines: 95% intervals over seeds; dotted: over items, for these seeds."
    return standalone_png("Studies beside each other", caption, draw_rows)


if __name__ == "__main__":
    run_script(main)
