"""The report's sections on GRPO and on edited facts."""

from typing import Any

from scripts.comparison import SIGNIFICANCE
from scripts.report_blocks import Block, Paragraph, Table
from scripts.report_plots import Curve, Plot, curves_plot, smoothed
from scripts.report_wording import change_text
from scripts.stage_runs import ConditionRuns, curve

MEASURES = {"ES, the prompt itself": "efficacy", "PS, paraphrases": "paraphrase", "NS, neighbors": "neighborhood"}
REWARD_WINDOW = 5  # iterations of the reward's running mean


def grpo_blocks(comparison: dict[str, Any], both: dict[str, ConditionRuns]) -> list[Block]:
    """What GRPO changed within each condition, and its curves."""
    changes = comparison["grpo"]
    if not changes:
        return []
    tested = {condition: change for condition, change in changes.items() if "test" in change}
    blocks: list[Block] = [Paragraph(_sentence(condition, change)) for condition, change in tested.items()]
    rows = []
    for condition, change in changes.items():
        results = change["results"]
        seconds = sum(results["seconds"].values())
        rows.append(
            [
                condition,
                str(results["iterations"]),
                f"{results['reward_first_fifth']:.3f} → {results['reward_last_fifth']:.3f}",
                change_text(results["eval_accuracy_first"], results["eval_accuracy_last"]),
                f"{100 * results['kept_fraction']:.0f}%",
                str(results["written_iteration"]),
                f"{seconds:.0f} s",
            ]
        )
    header = ["condition", "iterations", "reward, first and last fifth", "held out, before and after"]
    header += ["groups that vary", "weights of iteration", "time"]
    note = "Held out: train problems that are never drawn; they choose the weights. The problems above choose nothing."
    blocks.append(Table("GRPO runs", header, rows, note, wide=True))
    logs = {condition: both[condition].logs.get("grpo", []) for condition in changes}
    if all(logs.values()):
        blocks += grpo_plots({condition: [log] for condition, log in logs.items()})
    return blocks


def _sentence(condition: str, change: dict[str, Any]) -> str:
    test = change["test"]
    verb = "changes" if test["p_value"] < SIGNIFICANCE else "shows no change of"
    return (
        f"{condition}: GRPO {verb} greedy accuracy on the test problems: "
        f"{change_text(change['before']['accuracy'], change['after']['accuracy'])}, "
        f"difference {100 * test['difference']:+.1f} points (95% interval {100 * test['low']:+.1f} to "
        f"{100 * test['high']:+.1f}), exact McNemar p = {test['p_value']:.2g} over {test['n']} problems. "
        "One run: the luck of its seed is not in the interval."
    )


def grpo_plots(logs: dict[str, list[list[dict]]]) -> list[Plot]:
    """Reward and held-out accuracy over the iterations; logs: each condition's, one for each seed."""
    rewards = {
        condition: [smoothed(curve(log, "reward_mean", "iteration"), REWARD_WINDOW) for log in of]
        for condition, of in logs.items()
    }
    accuracies = {
        condition: [_in_percent(curve(log, "eval_accuracy", "iteration")) for log in of]
        for condition, of in logs.items()
    }
    caption = f"Mean over all responses sampled in an iteration; running mean of {REWARD_WINDOW} iterations."
    held_out = "Train problems that are never drawn, answered greedily."
    return [
        curves_plot("Reward in GRPO", caption, rewards, "iteration", "mean reward"),
        curves_plot(
            "Held-out accuracy in GRPO", held_out, accuracies, "iteration", "greedy accuracy, held out (%)", marked=True
        ),
    ]


def _in_percent(points: Curve) -> Curve:
    return points[0], [100 * value for value in points[1]]


def editing_blocks(comparison: dict[str, Any]) -> list[Block]:
    """How a batch of edits took, and what it did to everything else."""
    editing = comparison["editing"]
    if not editing:
        return []
    rows = []
    for condition, parts in editing.items():
        overall = parts["memit"]["overall"]
        for label, key in MEASURES.items():
            before, after = overall["before"][key], overall["after"][key]
            low, high = (f"{100 * limit:.1f}%" for limit in after["wilson_95"])
            counts = f"{after['num_correct']}/{after['num_total']}"
            rows.append([condition, label, change_text(before["success"], after["success"]), f"{low} – {high}", counts])
    edits = next(iter(editing.values()))["memit"]["overall"]["after"]["edits"]
    note = (
        "ES and PS: the new target is likelier than the old one. NS: of a neighbor that no edit names the old one is "
        "likelier than the new one. Intervals: Wilson."
    )
    header = ["condition", "measure", "before and after", "95% interval", "count"]
    blocks: list[Block] = [Table(f"{edits} facts edited at once (MEMIT)", header, rows, note)]
    effects = {condition: parts["effects"] for condition, parts in editing.items() if parts["effects"]}
    if effects:
        rows = [[condition, *_effects(effect)] for condition, effect in effects.items()]
        header = ["condition", "perplexity of held-out text", "n-gram entropy of what is generated"]
        blocks.append(Table("Everything else, before and after the edits", header, rows))
    groups = {condition: parts["memit"]["groups"] for condition, parts in editing.items()}
    names = next(iter(groups.values()))
    rows = [
        [name, str(names[name]["after"]["edits"]), *(_efficacy(sides.get(name)) for sides in groups.values())]
        for name in names
    ]
    blocks.append(Table("Edits that took, by kind of fact", ["kind", "edits", *groups], rows))
    return blocks


def _effects(effect: dict[str, Any]) -> list[str]:
    cells = []
    for key in ("perplexity", "generation_entropy"):
        values = effect.get(key)
        cells.append(f"{values['before']:.2f} → {values['after']:.2f}" if values else "not measured")
    return cells


def _efficacy(group: dict[str, Any] | None) -> str:
    return "" if group is None else f"{100 * group['after']['efficacy']['success']:.0f}%"
