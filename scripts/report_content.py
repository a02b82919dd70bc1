"""What the report says and in which order: the numbers of comparison.py as sections, tables and sentences."""

from typing import Any

from scripts.report_blocks import Block, Paragraph, Report, Sample, Section, Table
from scripts.report_plots import Plot, accuracy_plot, loss_plot
from scripts.report_post_training import editing_blocks, grpo_blocks
from scripts.report_records import audit_blocks, config_blocks, data_blocks, loss_blocks, response_blocks, time_blocks
from scripts.report_wording import (
    accuracy_text,
    category_of,
    interval_text,
    label_of,
    p_text,
    percent_text,
    points_text,
    title_of,
)
from scripts.stage_runs import ConditionRuns, benchmark_kind, curve, stage_kind
from tokenizer.mul_facts import CONDITIONS

OTHER_SCORES = {"flexible": "any form", "acc_norm_char": "acc_norm_char", "acc": "acc"}
NOTES = {
    "gsm8k": " Any form: the number counts however it is said, not only after ####.",
    "probes": " Any form: the number counts however it is said, not only after ####.",
    "domains": " Right is a response without any calculation, whatever it says otherwise.",
    "hellaswag": (
        " Of four endings the likeliest is chosen: by mean log-probability per token (acc_norm_token, the one that is "
        "tested), per character (acc_norm_char), or in sum (acc). Chance is 25%."
    ),
}
PLOTTED_CATEGORIES = ("probes", "word_problems")  # those of the others have too few items each
SAMPLES = {"gsm8k": 2, "probes": 1, "word_problems": 1, "domains": 1}  # of each outcome: one right, both, neither


def build_report(comparison: dict[str, Any], both: dict[str, ConditionRuns], description: str, command: str) -> Report:
    """The whole report as blocks. `description` says what the data is, `command` how the report was made."""
    sections = [
        Section("Benchmarks", _benchmark_blocks(comparison)),
        Section("Losses", loss_blocks(comparison)),
        Section("GRPO", grpo_blocks(comparison, both)),
        Section("Edited facts", editing_blocks(comparison)),
        Section("Mul tokens and response lengths", response_blocks(comparison)),
        Section("Plots", _plots(comparison, both)),
        Section("Responses side by side", sample_blocks(comparison, both)),
        Section("Compute match", audit_blocks(comparison)),
        Section("Text seen in pretraining", data_blocks(comparison)),
        Section("Wall time and hardware", time_blocks(comparison)),
        Section("How it was made", config_blocks(comparison, command)),
    ]
    head = _head(comparison, description)
    return Report("baseline and mul_tokens compared", head, [section for section in sections if section.blocks])


def verdict(title: str, result: dict[str, Any]) -> str:
    """One sentence: whether a difference is shown, and the paired difference with its interval and p-value.

    With several benchmarks in the report, a difference is shown when Holm's p-value over all of them is below 5%.
    """
    test = result["test"]
    baseline, mul_tokens = (percent_text(result[condition]["accuracy"]) for condition in CONDITIONS)
    difference, low, high = (points_text(test[key]) for key in ("difference", "low", "high"))
    numbers = (
        f"mul_tokens {mul_tokens}, baseline {baseline}, paired difference {difference} points "
        f"(95% interval {low} to {high}), {test['method']} {p_text(test['p'])} over {test['n']} items"
    )
    if test["tests"] > 1:
        numbers += f", {p_text(test['p_holm'])} after Holm's correction for {test['tests']} benchmarks"
    if test["significant"]:
        ahead = "mul_tokens" if test["difference"] > 0 else "baseline"
        return f"{title}: {ahead} is better; {numbers}."
    disagree = f"with {percent_text(test['discordant_share'])} of them answered better by one condition"
    if test["detectable_difference"] is None:
        return f"{title}: no difference shown; {numbers}; {disagree}, too few to show any."
    smallest = f"a true difference of {100 * test['detectable_difference']:.1f} points is found four times in five"
    return f"{title}: no difference shown; {numbers}; {disagree}, {smallest}."


def _head(comparison: dict[str, Any], description: str) -> list[Block]:
    head: list[Block] = []
    origin = description or ", ".join(s for s in comparison["data_sources"] if "synthetic" in s.lower())
    if origin:
        head.append(Paragraph(f"Data: {origin}", "warning" if "synthetic" in origin.lower() else "text"))
    if not comparison["comparable"]:
        head += [Paragraph(f"not comparable: {reason}", "warning") for reason in comparison["mismatches"]]
        head.append(Paragraph("No verdict is given. The tables below describe each condition for itself."))
    tested = {name: result for name, result in comparison["benchmarks"].items() if result.get("test")}
    head += [Paragraph(verdict(title_of(name), result), "verdict") for name, result in tested.items()]
    if tested:
        head.append(
            Paragraph(
                "Differences are mul_tokens minus baseline. There is one trained model per condition: intervals and "
                "p-values cover the choice of test items, not the luck of the training seed.",
                "note",
            )
        )
    for condition, stages in comparison["only_in_one"].items():
        if stages:
            head.append(Paragraph(f"Only given for {condition}, so not compared: {', '.join(stages)}.", "note"))
    return head


def _benchmark_blocks(comparison: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for name, result in comparison["benchmarks"].items():
        rows = [_accuracy_row(condition, result[condition]) for condition in CONDITIONS]
        for score, label in OTHER_SCORES.items():
            sides = ((condition, result[condition].get(score)) for condition in CONDITIONS)
            rows += [_accuracy_row(f"{condition}, {label}", side) for condition, side in sides if side]
        header = ["condition", "accuracy", "95% interval", "correct"]
        note = NOTES.get(benchmark_kind(name), "") if len(rows) > 2 or benchmark_kind(name) == "domains" else ""
        method = "bootstrap over items, several samples each" if "items" in result["baseline"] else "Wilson"
        blocks.append(Table(title_of(name), header, rows, f"Intervals: {method}.{note}"))
        if "paired" in result:
            blocks.append(_paired_table(f"{title_of(name)}, item by item", result))
        if result["categories"]:
            rows = [
                [
                    category_of(category),
                    *(accuracy_text(sides[condition]) for condition in CONDITIONS),
                ]
                for category, sides in result["categories"].items()
            ]
            blocks.append(Table(f"{title_of(name)} by category", ["category", *CONDITIONS], rows))
    return blocks


def _paired_table(title: str, result: dict[str, Any]) -> Table:
    labels = {
        "both": "both right",
        "only_baseline": "only baseline right",
        "only_mul_tokens": "only mul_tokens right",
        "neither": "neither right",
    }
    n = result["baseline"]["n"]
    rows = [
        [label, str(result["paired"][key]), percent_text(result["paired"][key] / n)] for key, label in labels.items()
    ]
    test = result["test"]
    note = f"Exact McNemar test on the two middle rows: {p_text(test['p'])}." if test else "No test: not comparable."
    return Table(title, ["outcome", "items", "share"], rows, note)


def _plots(comparison: dict[str, Any], both: dict[str, ConditionRuns]) -> list[Block]:
    plots: list[Plot] = []
    for stage in comparison["training"]:
        train = {name: curve(runs.logs[stage], "loss") for name, runs in both.items()}
        key = "val_loss" if stage_kind(stage) == "pretrain" else "eval_loss"
        validation = {name: curve(runs.logs[stage], key) for name, runs in both.items()}
        if all(steps for steps, _ in train.values()):
            plots.append(loss_plot(f"Loss, {stage}", train, validation))
    bars, parts = {}, {}
    for name, result in comparison["benchmarks"].items():
        bars[label_of(name)] = {condition: result[condition] for condition in CONDITIONS}
        shown = result["categories"] if name in PLOTTED_CATEGORIES else {}
        parts |= {_label(key): sides for key, sides in shown.items() if all(sides.values())}
    titles = {"Accuracy": bars, "Accuracy by category": parts}
    return [*plots, *(accuracy_plot(title, groups) for title, groups in titles.items() if groups)]


def _label(category: str) -> str:
    return category_of(category).replace(" ", "\n", 1)


def sample_blocks(
    comparison: dict[str, Any], both: dict[str, ConditionRuns], counts: dict[str, int] = SAMPLES
) -> list[Block]:
    """The first items of each outcome with both responses; `counts` says of which benchmark how many."""
    blocks: list[Block] = []
    for name, result in comparison["benchmarks"].items():
        if "paired" not in result or name not in counts:
            continue
        wanted = {(True, False): "only baseline right", (False, True): "only mul_tokens right"}
        wanted |= {(True, True): "both right", (False, False): "neither right"}
        pairs = list(zip(*(runs.responses[name] for runs in both.values()), strict=True))
        for outcome, label in wanted.items():
            chosen = [pair for pair in pairs if (bool(pair[0]["correct"]), bool(pair[1]["correct"])) == outcome]
            blocks += [_sample(title_of(name), label, pair) for pair in chosen[: counts[name]]]
    intro = "The first items, in the order of the file, of each outcome."
    return [Paragraph(intro), *blocks] if blocks else []


def _sample(title: str, label: str, pair: tuple[dict, dict]) -> Sample:
    sides = dict(zip(CONDITIONS, pair, strict=True))
    return Sample(
        f"{title.replace('accuracy', 'item')} {pair[0]['index']}: {label}",
        pair[0]["question"],
        str(pair[0]["gold"]),
        {condition: row["response"].strip() for condition, row in sides.items()},
        {condition: bool(row["correct"]) for condition, row in sides.items()},
    )


def _accuracy_row(label: str, side: dict[str, Any]) -> list[str]:
    return [label, percent_text(side["accuracy"]), interval_text(side), f"{side['correct']}/{side['n']}"]
