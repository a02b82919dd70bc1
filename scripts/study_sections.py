"""The report of a study: the verdict on the main benchmark first, then every table and plot over the seeds."""

from statistics import fmean
from typing import Any

from scripts.report_blocks import Block, Paragraph, Plot, Report, Section, Table
from scripts.report_content import sample_blocks
from scripts.report_plots import curves_plot, difference_plot, smoothed, smoothing_note, smoothing_window
from scripts.report_records import LOSS_NOTE
from scripts.report_wording import (
    category_of,
    number_text,
    p_cell,
    p_text,
    percent_text,
    points_text,
    range_text,
    short_title,
    title_of,
)
from scripts.stage_runs import benchmark_kind, curve, stage_kind
from scripts.study_numbers import Seed
from scripts.study_post_training import breadth_blocks, editing_blocks, grpo_blocks, token_use_blocks
from scripts.study_provenance import audit_blocks, command_blocks, contamination_blocks, time_blocks
from tokenizer.mul_facts import CONDITIONS

MAIN = "gsm8k"  # word problems in the chat format
SMALL = 100e6  # parameters; below, a reader may take the result for one about GPT-2's 124M
FEW_ITEMS = 20  # fewer in a category: an interval over seeds would fill the whole range
SAMPLES = {"gsm8k": 1, "domains": 1}  # of each outcome
FINAL = ("val_bits_per_byte", "final_val_loss", "final_train_loss", "eval_loss", "train_loss")


def build_study_report(study: dict[str, Any], seeds: list[Seed], command: str, gpu_hour_price: float) -> Report:
    """The report as blocks. study: the numbers of study_numbers; command: how the report was made."""
    benchmarks = study["benchmarks"]
    sections = [
        Section("Every difference at a glance", [_difference_plot(benchmarks)]),
        Section("Seed by seed, stage after stage", _seed_tables(study)),
        Section("By category", _category_tables(benchmarks)),
        Section("Learning curves", _curve_blocks(study, seeds)),
        Section("What GRPO changed", grpo_blocks(study, seeds)),
        Section("Use of mul tokens", token_use_blocks(study)),
        Section("Edited facts", editing_blocks(study)),
        Section("HellaSwag and prose", breadth_blocks(study, seeds)),
        Section(
            f"Responses side by side, {study['seeds'][0]}", sample_blocks(seeds[0].comparison, seeds[0].both, SAMPLES)
        ),
        Section("Compute match", audit_blocks(seeds)),
        Section("Contamination", contamination_blocks(seeds)),
        Section("Hardware, time and cost", time_blocks(seeds, gpu_hour_price)),
        Section("How it was made", command_blocks(seeds, command)),
    ]
    return Report("baseline and mul_tokens over paired seeds", _head(study), [s for s in sections if s.blocks])


def verdict(name: str, result: dict[str, Any], tests: int) -> str:
    """Whether a difference is shown, with its intervals, and what the design would have found."""
    seeds = len(result["per_seed"])
    means = {c: percent_text(fmean(result["accuracies"][c])) for c in CONDITIONS}
    difference, items = points_text(result["difference"]), range_text(result["items_low"], result["items_high"])
    numbers = f"mul_tokens {means['mul_tokens']}, baseline {means['baseline']}, difference {difference} points"
    if result["p_value"] is None:
        where = "in one seed" if seeds == 1 else f"in each of {seeds} seeds and on every item"
        return f"{title_of(name)}: no test over seeds; {numbers} {where} (95% interval over items {items})."
    shown = "no difference shown"
    if result["significant"]:
        shown = f"{'mul_tokens' if result['difference'] > 0 else 'baseline'} is better"
    interval = f"95% interval over {seeds} seeds {_limits(result)}"
    corrected = f", {p_text(result['p_holm'])} after Holm's correction for {tests} benchmarks" if tests > 1 else ""
    smallest = _detectable(result)
    power = f" With seeds of this spread, a true difference of {smallest} points is found in 4 of 5 studies."
    if smallest == "none":
        power = (
            " With seeds of this spread, so few of them would not find even the largest difference that there can be."
        )
    return f"{title_of(name)}: {shown}; {numbers} ({interval}), {p_text(result['p_value'])}{corrected}.{power}"


def scope(study: dict[str, Any]) -> str:
    """What the verdict is about, and what does not follow from it."""
    trained = next((s for name, s in study["training"].items() if stage_kind(name) == "pretrain"), {})
    size = next(iter(trained.get("parameters", {}).get("baseline", [])), None)
    seen = next(iter(trained.get("tokens", {}).get("baseline", [])), None)
    text = "This holds for models of this size, on this data, with this budget; nothing follows for another size."
    if size and seen:
        text = f"The models have {size / 1e6:.1f} million parameters and were pretrained on {seen:,} tokens. {text}"
        if size < SMALL:
            text += " In particular, whether multiplication tokens help GPT-2 at 124M parameters is open."
    return text


def _head(study: dict[str, Any]) -> list[Block]:
    benchmarks = study["benchmarks"]
    description = study["data_description"]
    head: list[Block] = []
    if description:
        head.append(Paragraph(f"Data: {description}", "warning" if "synthetic" in description else "text"))
    tests = sum(result["p_value"] is not None for result in benchmarks.values())
    main = MAIN if MAIN in benchmarks else next(iter(benchmarks), None)
    if main is None:
        return [*head, Paragraph("The seeds have no benchmark in common: no verdict.", "warning")]
    rows = [_overview_row(name, result) for name, result in benchmarks.items()]
    # What matters most comes first: a phone shows three columns.
    header = ["benchmark", "difference [95% interval]", "p, Holm", *CONDITIONS, "p", "detectable"]
    note = (
        f"Means over {len(study['seeds'])} seeds; differences: mul_tokens minus baseline in the same seed, in points. "
        "Intervals and p-values are over seeds, by the paired t-test, with a standard error no smaller than that over "
        "the test items; with few seeds they are wide, as they should be. Holm's correction is for all tests of this "
        "table. Detectable: the smallest true difference, in points, that 80% of such studies would show; none: not "
        "even one of 100 points."
    )
    if len(study["seeds"]) == 1:
        note = (
            "Differences: mul_tokens minus baseline, in points. Intervals and tests over seeds need two or more seeds."
        )
    return [
        *head,
        Paragraph(f"The main benchmark. {verdict(main, benchmarks[main], tests)}", "verdict"),
        Paragraph(scope(study)),
        Table("All benchmarks", header, rows, note, wide=True),
    ]


def _overview_row(name: str, result: dict[str, Any]) -> list[str]:
    tests = {key: p_cell(result[key]) if result["p_value"] is not None else "n/a" for key in ("p_value", "p_holm")}
    return [
        short_title(name, result),
        _with_interval(result),
        tests["p_holm"],
        *(percent_text(fmean(result["accuracies"][c])) for c in CONDITIONS),
        tests["p_value"],
        "n/a" if result["p_value"] is None else _detectable(result),
    ]


def _difference_plot(benchmarks: dict[str, Any]) -> Plot:
    caption = "Diamonds: mean over the seeds, with its 95% interval over seeds. Circles: each seed."
    rows = {short_title(name, result): result for name, result in benchmarks.items()}
    return difference_plot("Difference in accuracy, benchmark by benchmark", caption, rows)


def _seed_tables(study: dict[str, Any]) -> list[Block]:
    """A table of each benchmark, those of one stage's models behind each other."""
    benchmarks = study["benchmarks"]
    models = list(dict.fromkeys(result["model"] for result in benchmarks.values()))
    by_stage = sorted(benchmarks, key=lambda name: models.index(benchmarks[name]["model"]))
    return [_seeds_table(_of_model(name, benchmarks[name]), benchmarks[name], study["seeds"]) for name in by_stage]


def _category_tables(benchmarks: dict[str, Any]) -> list[Block]:
    header = ["category", *CONDITIONS, "difference [95% interval]", "seed by seed", "items"]
    note = "Means over seeds. Intervals over seeds, each for itself: categories describe, they are not tested."
    return [
        Table(_of_model(name, result), header, [_category_row(c, of) for c, of in categories.items()], note, wide=True)
        for name, result in benchmarks.items()
        if (categories := result["categories"])
    ]


def _of_model(name: str, result: dict[str, Any]) -> str:
    """The heading of a benchmark's table: whose model, and the benchmark's own title."""
    title = title_of(benchmark_kind(name))
    return f"{result['model']}: {title}" if result["model"] else title


def _seeds_table(title: str, result: dict[str, Any], seeds: list[str]) -> Table:
    accuracies = result["accuracies"]
    rows = [
        [seed, *(percent_text(accuracies[c][i]) for c in CONDITIONS), points_text(result["per_seed"][i])]
        for i, seed in enumerate(seeds)
    ]
    if len(seeds) > 1:
        means = [percent_text(fmean(accuracies[c])) for c in CONDITIONS]
        rows.append(["mean", *means, points_text(result["difference"])])
    note = f"{result['items']} items; 95% interval over items, for these seeds: "
    note += f"{range_text(result['items_low'], result['items_high'])} points."
    return Table(title, ["seed", *CONDITIONS, "points"], rows, note)


def _category_row(category: str, result: dict[str, Any]) -> list[str]:
    means = [percent_text(fmean(result["accuracies"][c])) for c in CONDITIONS]
    per_seed = ", ".join(map(points_text, result["per_seed"]))
    difference = _with_interval(result) if result["items"] >= FEW_ITEMS else points_text(result["difference"])
    return [category_of(category), *means, difference, per_seed, str(result["items"])]


def _curve_blocks(study: dict[str, Any], seeds: list[Seed]) -> list[Block]:
    """Validation loss of pretraining, training loss of every SFT stage, and what they ended with."""
    blocks: list[Block] = []
    for stage in study["training"]:
        logs = {c: [seed.both[c].logs[stage] for seed in seeds] for c in CONDITIONS}
        pretraining = stage_kind(stage) == "pretrain"
        key, kind = ("val_loss", "Validation loss") if pretraining else ("loss", "Training loss")
        runs = {c: [curve(log, key) for log in of] for c, of in logs.items()}
        if not all(steps for of in runs.values() for steps, _ in of):
            continue
        caption = "Thin: each seed; thick: their mean. " if len(seeds) > 1 else ""
        if not pretraining:
            window = smoothing_window({c: of[0] for c, of in runs.items()})
            runs = {c: [smoothed(points, window) for points in of] for c, of in runs.items()}
            caption += smoothing_note(window)
        blocks.append(
            curves_plot(f"{kind}, {stage}", caption.strip(), runs, "step", "loss (nats per token)", pretraining)
        )
    rows = [
        [f"{stage}: {key.replace('_', ' ')}", *(_seed_values(measures[key][c]) for c in CONDITIONS)]
        for stage, measures in study["training"].items()
        for key in FINAL
        if key in measures
    ]
    if rows:
        title = "At the end: mean over seeds, and each seed"
        blocks += [Table(title, ["measure", *CONDITIONS], rows, wide=True), Paragraph(LOSS_NOTE, "note")]
    return blocks


def _seed_values(values: list[float | None]) -> str:
    if any(value is None for value in values):
        return "n/a"
    each = ", ".join(map(number_text, values))
    return f"{number_text(fmean(values))} [{each}]" if len(values) > 1 else each


def _with_interval(result: dict[str, Any]) -> str:
    if result["low"] is None:
        return points_text(result["difference"])
    limits = _limits(result).replace(" ", "\u00a0")  # a cell breaks before it, not within
    return f"{points_text(result['difference'])} [{limits}]"


def _limits(result: dict[str, Any]) -> str:
    """The interval over seeds, cut where a difference of accuracies ends; two or three seeds may reach beyond."""
    return range_text(max(result["low"], -1.0), min(result["high"], 1.0))


def _detectable(result: dict[str, Any]) -> str:
    smallest = result["detectable_difference"]
    return f"{100 * smallest:.1f}" if smallest <= 1 else "none"
