"""The report's sections on GRPO and on edited facts."""

from typing import Any

from matplotlib.axes import Axes

from scripts.report_blocks import Block, Paragraph, Table
from scripts.report_plots import LINES, MARKERS, TEXT, Plot, draw_plot, running_mean
from scripts.report_wording import change_text
from scripts.stage_runs import ConditionRuns

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
        blocks += [_reward_plot(logs), _accuracy_plot(logs)]
    return blocks


def _sentence(condition: str, change: dict[str, Any]) -> str:
    test = change["test"]
    verb = "changes" if test["p_value"] < 0.05 else "shows no change of"
    return (
        f"{condition}: GRPO {verb} greedy accuracy on the test problems: "
        f"{change_text(change['before']['accuracy'], change['after']['accuracy'])}, "
        f"difference {100 * test['difference']:+.1f} points (95% interval {100 * test['low']:+.1f} to "
        f"{100 * test['high']:+.1f}), exact McNemar p = {test['p_value']:.2g} over {test['n']} problems. "
        "One run: the luck of its seed is not in the interval."
    )


def _reward_plot(logs: dict[str, list[dict]]) -> Plot:
    def draw(axes: Axes, colours: dict[str, str]) -> None:
        for condition, log in logs.items():
            rows = [row for row in log if "reward_mean" in row]
            steps = [row["iteration"] for row in rows]
            rewards = running_mean([row["reward_mean"] for row in rows], REWARD_WINDOW)
            axes.plot(steps, rewards, color=colours[condition], ls=LINES[condition], lw=1.6, label=condition)
        axes.set_xlabel("iteration")
        axes.set_ylabel("mean reward")
        axes.legend(**TEXT)

    caption = f"Mean over all responses sampled in an iteration; running mean of {REWARD_WINDOW} iterations."
    return draw_plot("Reward in GRPO", caption, draw)


def _accuracy_plot(logs: dict[str, list[dict]]) -> Plot:
    def draw(axes: Axes, colours: dict[str, str]) -> None:
        for condition, log in logs.items():
            rows = [row for row in log if "eval_accuracy" in row]
            look = {"color": colours[condition], "ls": LINES[condition], "marker": MARKERS[condition], "mfc": "none"}
            accuracy = [100 * row["eval_accuracy"] for row in rows]
            axes.plot([row["iteration"] for row in rows], accuracy, label=condition, **look)
        axes.set_xlabel("iteration")
        axes.set_ylabel("greedy accuracy, held out (%)")
        axes.legend(**TEXT)

    return draw_plot("Held-out accuracy in GRPO", "Train problems that are never drawn, answered greedily.", draw)


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
