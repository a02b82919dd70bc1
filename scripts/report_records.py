"""The report's sections on what the run records say: losses, responses, the audit, data, time, configs."""

import json
from collections.abc import Iterable
from typing import Any

from scripts.compute_match import AuditRow
from scripts.report_blocks import Block, Listing, Paragraph, Table
from scripts.report_wording import cell_text, is_number, number_text, seconds_text, title_of
from tokenizer.mul_facts import CONDITIONS

LOSS_NOTE = (
    "A loss per token is an average over the condition's own tokens, and injection changes what those are: one mul "
    "token takes the place of several ordinary ones. The two losses are over different token streams and do not say "
    "which model is better. Bits per byte, where given, are per byte of the text before injection, the same text for "
    "both; but a mul token also drops the order of the factors and the spaces, which the baseline has to predict."
)
USE_LABELS = {  # of a family's tokens (eval/fact_use.py)
    "total": "generated",
    "right": "with a right result",
    "placed": "in an expression's place",
    "grounded": "whose operands were there",
}


def loss_blocks(comparison: dict[str, Any]) -> list[Block]:
    """The training stages' results, condition beside condition."""
    blocks: list[Block] = []
    for stage, sides in comparison["training"].items():
        keys = dict.fromkeys(key for side in sides.values() for key, value in side.items() if is_number(value))
        # What can be compared across conditions comes first.
        ordered = sorted(keys, key=lambda key: "bits_per_byte" not in key)
        rows = [[key.replace("_", " "), *(number_text(sides[c].get(key)) for c in CONDITIONS)] for key in ordered]
        blocks.append(Table(stage, ["measure", *CONDITIONS], rows))
    return [*blocks, Paragraph(LOSS_NOTE, "note")] if blocks else []


def response_blocks(comparison: dict[str, Any]) -> list[Block]:
    """How long the responses are and how many mul tokens they hold, benchmark by benchmark."""
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
    rows = _use_rows("mul", [side["mul_tokens"] for side in sides], tuple(USE_LABELS)[1:])
    for family in sides[0].get("token_families", {}):
        rows += _use_rows(family, [side.get("token_families", {}).get(family, {}) for side in sides])
    if all("mean_thinking_tokens" in side for side in sides):
        rows.append(["mean chain of thought (tokens)", *(f"{side['mean_thinking_tokens']:.1f}" for side in sides)])
    labels = {"in_format": "in the form that was taught", "repetitive": "repetitive", "skipped": "prompt too long"}
    for key, label in labels.items():
        if all(key in side for side in sides) and (key != "skipped" or any(side[key] for side in sides)):
            rows.append([label, *(str(side[key]) for side in sides)])
    return rows


def _use_rows(family: str, sides: list[dict[str, Any]], measures: Iterable[str] = USE_LABELS) -> list[list[str]]:
    return [
        [f"{family} tokens {USE_LABELS[measure]}", *(f"{side[measure]:,}" for side in sides)]
        for measure in measures
        if all(measure in side for side in sides)
    ]


def audit_blocks(comparison: dict[str, Any]) -> list[Block]:
    """Every field of the compute-match audit."""
    rows = [AuditRow(**row) for row in comparison["audit"]]
    order = {"differs": 0, "ok": 1, "may differ": 2}
    rows.sort(key=lambda row: order[row.status])
    words = {"ok": "yes", "differs": "NO", "may differ": "may differ"}
    cells = [
        [f"{row.stage}: {row.field}", cell_text(row.baseline), cell_text(row.mul_tokens), words[row.status]]
        for row in rows
    ]
    equal, free, differing = ([row.status for row in rows].count(status) for status in ("ok", "may differ", "differs"))
    text = f"{len(rows)} fields compared: {equal} are equal, {free} differ as they may, {differing} forbid a verdict."
    note = "May differ: paths, the condition and its injection, the token data made from it, device and logging."
    marked = {i for i, row in enumerate(rows) if row.status == "differs"}
    return [
        Paragraph(text),
        Table("Field by field", ["field", *CONDITIONS, "equal"], cells, note, marked, wide=True),
    ]


def data_blocks(comparison: dict[str, Any]) -> list[Table]:
    """What the token budget of pretraining amounted to in text."""
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


def time_blocks(comparison: dict[str, Any]) -> list[Block]:
    """Wall time of each stage, and where it ran."""
    facts = [comparison["runs"][condition] for condition in CONDITIONS]
    stages = [stage for stage in facts[0] if stage in facts[1]]
    seconds = [[side[stage]["wall_seconds"] for stage in stages] for side in facts]
    rows = [[stage, *(seconds_text(column[i]) for column in seconds)] for i, stage in enumerate(stages)]
    rows.append(["all stages", *(seconds_text(sum(value or 0 for value in column)) for column in seconds)])
    # Stages on the same machine and code share a row.
    places: dict[tuple[str, str], list[str]] = {}
    for condition, side in zip(CONDITIONS, facts, strict=True):
        for stage in stages:
            place = hardware_text(side[stage]), (side[stage]["git_commit"] or "n/a")[:10]
            places.setdefault(place, []).append(f"{stage} ({condition})")
    machines = [[*place, ", ".join(where)] for place, where in places.items()]
    return [
        Table("Wall time", ["stage", *CONDITIONS], rows),
        Table("Where each stage ran", ["hardware", "commit", "stages"], machines, wide=True),
    ]


def hardware_text(facts: dict[str, Any]) -> str:
    """Accelerators, processor and threads of a run record."""
    hardware = facts["hardware"] or {}
    count = hardware.get("accelerators") or 0
    device = f"{count} × {hardware['accelerator']}, " if count else ""
    return f"{device}{hardware.get('cpu') or 'unknown processor'}, {hardware.get('threads', '?')} threads"


def config_blocks(comparison: dict[str, Any], command: str) -> list[Block]:
    """The command of the report and every stage's config, folded away."""
    blocks: list[Block] = [Listing("The command of this report", command)]
    for condition in CONDITIONS:
        for stage, facts in comparison["runs"][condition].items():
            where = f" ({facts['directory']})" if facts["directory"] else " (from the record of a later stage)"
            config = json.dumps(facts["config"], indent=2, ensure_ascii=False)
            blocks.append(Listing(f"Config of {stage}, {condition}{where}", config))
    return blocks
