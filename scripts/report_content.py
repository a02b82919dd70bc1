"""What the report says and in which order: the numbers of comparison.py as sections, tables and sentences."""

import json
from typing import Any

from scripts.compute_match import AuditRow
from scripts.report_blocks import Block, Listing, Paragraph, Report, Sample, Section, Table
from scripts.report_plots import Plot, accuracy_plot, loss_plot
from scripts.report_post_training import editing_blocks, grpo_blocks
from scripts.stage_runs import ConditionRuns, benchmark_kind, curve, model_stage, stage_kind
from tokenizer.mul_facts import CONDITIONS

TITLES = {
    "gsm8k": "GSM8K-format accuracy",
    "probes": "Arithmetic-probe accuracy",
    "word_problems": "One-step word-problem accuracy, new names and objects",
    "sanity": "Simple-arithmetic accuracy",
    "hellaswag": "HellaSwag accuracy (acc_norm_token)",
    "domains": "Non-math prompts answered without a calculation",
}
LABELS = {"gsm8k": "GSM8K-\nformat", "probes": "Arithmetic-\nprobe", "word_problems": "One-step\nproblems"}
LABELS |= {"sanity": "Simple\narithmetic", "hellaswag": "HellaSwag", "domains": "Non-math\nprompts"}
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
CATEGORIES = {
    "mul_table": "times table",
    "mul_multidigit": "two digits × one",
    "addition": "addition",
    "one_product": "one product",
    "one_sum": "one sum",
}
SAMPLES = {
    "gsm8k": 2,
    "probes": 1,
    "word_problems": 1,
    "domains": 1,
}  # of each outcome: only one condition right, both, neither
LOSS_NOTE = (
    "A loss per token is an average over the condition's own tokens, and injection changes what those are: one mul "
    "token takes the place of several ordinary ones. The two losses are over different token streams and do not say "
    "which model is better. Bits per byte, where given, are per byte of the text before injection, the same text for "
    "both; but a mul token also drops the order of the factors and the spaces, which the baseline has to predict."
)


def build_report(comparison: dict[str, Any], both: dict[str, ConditionRuns], description: str, command: str) -> Report:
    """The whole report as blocks. `description` says what the data is, `command` how the report was made."""
    sections = [
        Section("Benchmarks", _benchmark_blocks(comparison)),
        Section("Losses", _loss_blocks(comparison)),
        Section("GRPO", grpo_blocks(comparison, both)),
        Section("Edited facts", editing_blocks(comparison)),
        Section("Mul tokens and response lengths", _response_blocks(comparison)),
        Section("Plots", _plots(comparison, both)),
        Section("Responses side by side", _samples(comparison, both)),
        Section("Compute match", _audit_blocks(comparison)),
        Section("Text seen in pretraining", _data_blocks(comparison)),
        Section("Wall time and hardware", _time_blocks(comparison)),
        Section("How it was made", _configs(comparison, command)),
    ]
    head = _head(comparison, description)
    return Report("baseline and mul_tokens compared", head, [section for section in sections if section.blocks])


def title_of(name: str) -> str:
    """The heading of a benchmark; "gsm8k of grpo" says whose model it is about."""
    stage = model_stage(name)
    return TITLES[benchmark_kind(name)] + (f" after {stage}" if stage else "")


def label_of(name: str) -> str:
    """The same, short enough to stand below a bar."""
    stage = model_stage(name)
    return LABELS[benchmark_kind(name)] + (f"\n{stage}" if stage else "")


def verdict(title: str, result: dict[str, Any]) -> str:
    """One sentence: whether a difference is shown, and the paired difference with its interval and p-value.

    With several benchmarks in the report, a difference is shown when Holm's p-value over all of them is below 5%.
    """
    test = result["test"]
    baseline, mul_tokens = (_percent(result[condition]["accuracy"]) for condition in CONDITIONS)
    difference, low, high = (_points(test[key]) for key in ("difference", "low", "high"))
    numbers = (
        f"mul_tokens {mul_tokens}, baseline {baseline}, paired difference {difference} points "
        f"(95% interval {low} to {high}), {test['method']} {_p(test['p'])} over {test['n']} items"
    )
    if test["tests"] > 1:
        numbers += f", {_p(test['p_holm'])} after Holm's correction for {test['tests']} benchmarks"
    if test["significant"]:
        ahead = "mul_tokens" if test["difference"] > 0 else "baseline"
        return f"{title}: {ahead} is better; {numbers}."
    disagree = f"with {_percent(test['discordant_share'])} of them answered better by one condition"
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
                    CATEGORIES.get(category, category),
                    *(_with_interval(sides[condition]) for condition in CONDITIONS),
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
    rows = [[label, str(result["paired"][key]), _percent(result["paired"][key] / n)] for key, label in labels.items()]
    test = result["test"]
    note = f"Exact McNemar test on the two middle rows: {_p(test['p'])}." if test else "No test: not comparable."
    return Table(title, ["outcome", "items", "share"], rows, note)


def _loss_blocks(comparison: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for stage, sides in comparison["training"].items():
        keys = dict.fromkeys(key for side in sides.values() for key, value in side.items() if _is_number(value))
        # What can be compared across conditions comes first.
        ordered = sorted(keys, key=lambda key: "bits_per_byte" not in key)
        rows = [[key.replace("_", " "), *(_number(sides[c].get(key)) for c in CONDITIONS)] for key in ordered]
        blocks.append(Table(stage, ["measure", *CONDITIONS], rows))
    return [*blocks, Paragraph(LOSS_NOTE, "note")] if blocks else []


def _response_blocks(comparison: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for name, result in comparison["benchmarks"].items():
        sides = [result[condition] for condition in CONDITIONS]
        if any("mul_tokens" not in side for side in sides):
            continue
        rows = [
            ["responses", *(str(side["n"]) for side in sides)],
            ["of which with a mul token", *(str(side["mul_tokens"]["responses"]) for side in sides)],
            ["mul tokens generated", *(f"{side['mul_tokens']['total']:,}" for side in sides)],
        ]
        if all("response_tokens" in side for side in sides):
            for key, label in (
                ("median", "median length (tokens)"),
                ("p95", "95th percentile"),
                ("max", "longest"),
            ):
                rows.append([label, *(f"{side['response_tokens'][key]:.0f}" for side in sides)])
            rows.append(["cut off by the limit", *(str(side["limit_hits"]) for side in sides)])
        rows += _more_rows(sides)
        blocks.append(Table(title_of(name).replace("accuracy", "responses"), ["measure", *CONDITIONS], rows))
    return blocks


def _more_rows(sides: list[dict[str, Any]]) -> list[list[str]]:
    """What newer evaluations say of responses besides; rows that both conditions have, and none that is all zero."""
    rows = []
    for use, label in (
        ("right", "mul tokens with a right result"),
        ("placed", "mul tokens in an expression's place"),
        ("grounded", "mul tokens whose factors were there"),
    ):
        if all(use in side["mul_tokens"] for side in sides):
            rows.append([label, *(f"{side['mul_tokens'][use]:,}" for side in sides)])
    if all("mean_thinking_tokens" in side for side in sides):
        rows.append(["mean chain of thought (tokens)", *(f"{side['mean_thinking_tokens']:.1f}" for side in sides)])
    labels = {"in_format": "in the form that was taught", "repetitive": "repetitive", "skipped": "prompt too long"}
    for key, label in labels.items():
        if all(key in side for side in sides) and (key != "skipped" or any(side[key] for side in sides)):
            rows.append([label, *(str(side[key]) for side in sides)])
    return rows


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
    return CATEGORIES.get(category, category).replace(" ", "\n", 1)


def _samples(comparison: dict[str, Any], both: dict[str, ConditionRuns]) -> list[Block]:
    blocks: list[Block] = []
    for name, result in comparison["benchmarks"].items():
        if "paired" not in result or name not in SAMPLES:
            continue
        wanted = {(True, False): "only baseline right", (False, True): "only mul_tokens right"}
        wanted |= {(True, True): "both right", (False, False): "neither right"}
        pairs = list(zip(*(runs.responses[name] for runs in both.values()), strict=True))
        for outcome, label in wanted.items():
            chosen = [pair for pair in pairs if (bool(pair[0]["correct"]), bool(pair[1]["correct"])) == outcome]
            blocks += [_sample(title_of(name), label, pair) for pair in chosen[: SAMPLES[name]]]
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


def _audit_blocks(comparison: dict[str, Any]) -> list[Block]:
    rows = [AuditRow(**row) for row in comparison["audit"]]
    order = {"differs": 0, "ok": 1, "may differ": 2}
    rows.sort(key=lambda row: order[row.status])
    words = {"ok": "yes", "differs": "NO", "may differ": "may differ"}
    cells = [
        [f"{row.stage}: {row.field}", _cell(row.baseline), _cell(row.mul_tokens), words[row.status]] for row in rows
    ]
    equal, free, differing = ([row.status for row in rows].count(status) for status in ("ok", "may differ", "differs"))
    text = f"{len(rows)} fields compared: {equal} are equal, {free} differ as they may, {differing} forbid a verdict."
    note = "May differ: paths, the condition and its injection, the token data made from it, device and logging."
    marked = {i for i, row in enumerate(rows) if row.status == "differs"}
    return [
        Paragraph(text),
        Table("Field by field", ["field", *CONDITIONS, "equal"], cells, note, marked, wide=True),
    ]


def _data_blocks(comparison: dict[str, Any]) -> list[Block]:
    sides = [comparison["data"][condition] for condition in CONDITIONS]
    if not all(sides):
        return []
    labels = {
        "tokens_seen": "tokens",
        "text_bytes_seen": "bytes of text, before injection",
        "documents_seen": "documents",
        "mul_tokens_seen": "mul tokens",
        "split_tokens": "tokens in the training data",
        "epochs": "passes over it",
    }
    rows = [
        [label, *(f"{side[key]:.2f}" if key == "epochs" else f"{side[key]:,}" for side in sides)]
        for key, label in labels.items()
        if all(key in side for side in sides)
    ]
    note = "The budget is equal in tokens; injection shortens the text, so the same tokens carry more of it."
    return [Table("Read while training", ["measure", *CONDITIONS], rows, note)]


def _time_blocks(comparison: dict[str, Any]) -> list[Block]:
    facts = [comparison["runs"][condition] for condition in CONDITIONS]
    stages = [stage for stage in facts[0] if stage in facts[1]]
    seconds = [[side[stage]["wall_seconds"] for stage in stages] for side in facts]
    rows = [[stage, *(_seconds(column[i]) for column in seconds)] for i, stage in enumerate(stages)]
    rows.append(["all stages", *(_seconds(sum(value or 0 for value in column)) for column in seconds)])
    # Stages on the same machine and code share a row.
    places: dict[tuple[str, str], list[str]] = {}
    for condition, side in zip(CONDITIONS, facts, strict=True):
        for stage in stages:
            place = _hardware(side[stage]), (side[stage]["git_commit"] or "n/a")[:10]
            places.setdefault(place, []).append(f"{stage} ({condition})")
    machines = [[*place, ", ".join(where)] for place, where in places.items()]
    return [
        Table("Wall time", ["stage", *CONDITIONS], rows),
        Table("Where each stage ran", ["hardware", "commit", "stages"], machines, wide=True),
    ]


def _hardware(facts: dict[str, Any]) -> str:
    hardware = facts["hardware"] or {}
    count = hardware.get("accelerators") or 0
    device = f"{count} × {hardware['accelerator']}, " if count else ""
    return f"{device}{hardware.get('cpu') or 'unknown processor'}, {hardware.get('threads', '?')} threads"


def _configs(comparison: dict[str, Any], command: str) -> list[Block]:
    blocks: list[Block] = [Listing("The command of this report", command)]
    for condition in CONDITIONS:
        for stage, facts in comparison["runs"][condition].items():
            where = f" ({facts['directory']})" if facts["directory"] else " (from the record of a later stage)"
            config = json.dumps(facts["config"], indent=2, ensure_ascii=False)
            blocks.append(Listing(f"Config of {stage}, {condition}{where}", config))
    return blocks


def _accuracy_row(label: str, side: dict[str, Any]) -> list[str]:
    return [label, _percent(side["accuracy"]), _interval(side), f"{side['correct']}/{side['n']}"]


def _with_interval(side: dict[str, Any] | None) -> str:
    return f"{_percent(side['accuracy'])} [{_interval(side)}]" if side else "n/a"


def _interval(side: dict[str, Any]) -> str:
    # No-break spaces: on a phone a cell may break between a number and its interval, not within one.
    return f"{100 * side['low']:.1f}\u00a0to\u00a0{100 * side['high']:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "n/a"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> str:
    if not _is_number(value):
        return "n/a"
    if isinstance(value, int):
        return f"{value:,}"
    # Learning rates need their leading digits, speeds do not need decimals.
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _cell(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    # A hash is recognised by its first digits.
    return f"{text[:16]}…" if len(text) == 64 and " " not in text else text
