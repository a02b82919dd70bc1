"""The results of a batch of edits: overall, by group, and edit by edit; as JSON values and as tables."""

from collections.abc import Sequence
from typing import Any

from edit.editing import Edited
from edit.records import EditRecord, edited_elsewhere
from edit.scoring import summarise

MEASURES = {"ES": "efficacy", "PS": "paraphrase", "NS": "neighborhood"}


def edit_results(
    records: Sequence[EditRecord], before: list[dict[str, Any]], after: list[dict[str, Any]], edited: Edited
) -> dict[str, Any]:
    """{"overall", "groups", "edits", "residual_left", "update_norms"} from score_records' rows before and after."""
    results = compare(records, before, after)
    for i, row in enumerate(results["edits"]):
        row["loss_before"] = round(float(edited.values.first_loss[i]), 6)
        row["loss"] = round(float(edited.values.loss[i]), 6)
        row["steps"] = int(edited.values.steps[i])
    norms = {str(layer): round(norm, 6) for layer, norm in edited.update_norms.items()}
    return results | {"residual_left": round(edited.residual_left, 6), "update_norms": norms}


def compare(records: Sequence[EditRecord], before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """{"overall": {"before", "after"}, "groups": {group: the same}, "edits": [a row per record]}."""
    apart = edited_elsewhere(records)

    def both(chosen: list[int]) -> dict[str, Any]:
        outs = [apart[i] for i in chosen]
        return {
            "before": summarise([before[i] for i in chosen], outs),
            "after": summarise([after[i] for i in chosen], outs),
        }

    groups = dict.fromkeys(record.group for record in records)
    return {
        "overall": both(list(range(len(records)))),
        "groups": {group: both([i for i, r in enumerate(records) if r.group == group]) for group in groups},
        "edits": [edit_row(*each) for each in zip(records, before, after, apart, strict=True)],
    }


def edit_row(record: EditRecord, before: dict[str, Any], after: dict[str, Any], apart: list[bool]) -> dict[str, Any]:
    """One edit: probabilities and ranks of its targets, and how many of its paraphrases and neighbors are right."""
    neighbors = [each for each, out in zip(after["neighbors"], apart, strict=True) if not out]
    return {
        "id": record.id,
        "group": record.group,
        "subject": record.subject,
        "prompt": record.prompt,
        "target_old": record.target_old,
        "target_new": record.target_new,
        "new_before": round(before["prompt"]["new"], 6),
        "new_after": round(after["prompt"]["new"], 6),
        "old_before": round(before["prompt"]["old"], 6),
        "old_after": round(after["prompt"]["old"], 6),
        "new_rank_before": before["prompt"]["new_rank"],
        "new_rank_after": after["prompt"]["new_rank"],
        "success": after["prompt"]["new"] > after["prompt"]["old"],
        "paraphrases_right": sum(each["new"] > each["old"] for each in after["paraphrases"]),
        "paraphrases": len(after["paraphrases"]),
        "neighbors_right": sum(each["old"] > each["new"] for each in neighbors),
        "neighbors": len(neighbors),
    }


def markdown(results: dict[str, Any], title: str) -> str:
    """The report of edit_results as Markdown: overall and groups, then every edit."""
    parts = {"all": results["overall"], **(results["groups"] if len(results["groups"]) > 1 else {})}
    lines = [
        f"# {title}",
        "",
        "| group | edits | ES | PS | NS | S | p(new) before → after |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in parts.items():
        shares = " | ".join(_before_after(part, measure) for measure in MEASURES.values())
        p = [part[when]["efficacy"]["probability"] for when in ("before", "after")]
        score = part["after"]["score"]
        score = "" if score is None else f"{score:.1%}"
        lines.append(f"| {name} | {part['after']['edits']} | {shares} | {score} | {p[0]:.4f} → {p[1]:.4f} |")
    lines += ["", "| prompt | old | new | p(new) | rank | p(old) | success |", "|---|---|---|---|---|---|---|"]
    for row in results["edits"]:
        cells = [row["prompt"], row["target_old"], row["target_new"]]
        cells += [f"{row[f'{which}_before']:.4f} → {row[f'{which}_after']:.4f}" for which in ("new", "old")]
        cells.insert(4, f"{row['new_rank_before']} → {row['new_rank_after']}")
        cells.append("yes" if row["success"] else "no")
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def print_summary(results: dict[str, Any]) -> None:
    """One line per measure: before, after, interval, count."""
    print(f"\n{'':<22} {'before':>8} {'after':>8} {'95% interval':>16} {'right':>10} {'argmax':>8} {'magnitude':>10}")
    before, after = results["overall"]["before"], results["overall"]["after"]
    for name in (*MEASURES.values(), "neighborhood_edited"):
        if after[name] is None:
            continue
        low, high = after[name]["wilson_95"]
        counts = f"{after[name]['num_correct']}/{after[name]['num_total']}"
        print(
            f"{name:<22} {before[name]['success']:>8.1%} {after[name]['success']:>8.1%} "
            f"{f'{low:.1%} - {high:.1%}':>16} {counts:>10} "
            f"{after[name]['argmax']:>8.1%} {after[name]['magnitude']:>+10.3f}"
        )
    if after["score"] is not None:
        print(f"{'S (harmonic mean)':<22} {before['score']:>8.1%} {after['score']:>8.1%}")


def _before_after(part: dict[str, Any], measure: str) -> str:
    if part["after"][measure] is None:
        return ""
    return f"{part['before'][measure]['success']:.1%} → {part['after'][measure]['success']:.1%}"
