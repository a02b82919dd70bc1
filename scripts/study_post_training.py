"""A study's sections on GRPO, mul tokens, edited facts, and what training did to everything else."""

from statistics import fmean
from typing import Any

from common.files import read_json
from scripts.report_blocks import Block, Paragraph, Table
from scripts.report_plots import curves_plot
from scripts.report_post_training import MEASURES, grpo_plots
from scripts.report_wording import (
    change_text,
    p_cell,
    p_text,
    percent_text,
    points_text,
    range_text,
    short_title,
    title_of,
)
from scripts.stage_runs import benchmark_kind, curve
from scripts.study_numbers import Seed
from tokenizer.mul_facts import CONDITIONS

METRICS = {"acc_norm_token": None, "acc_norm_char": "acc_norm_char", "acc": "acc"}  # and where a benchmark keeps them


def grpo_blocks(study: dict[str, Any], seeds: list[Seed]) -> list[Block]:
    """Of each condition the change over the seeds, each seed's with its exact test, and the curves of all runs."""
    changes = study["grpo"]["conditions"]
    if not changes:
        return []
    tested = {c: change["over_seeds"] for c, change in changes.items() if "over_seeds" in change}
    blocks: list[Block] = [Paragraph(_grpo_sentence(condition, found)) for condition, found in tested.items()]
    if gain := study["grpo"]["gain"]:
        text = f"The change in mul_tokens minus that in baseline: {points_text(gain['difference'])} points"
        blocks.append(Paragraph(f"{text}{_over_seeds(gain)}."))
    rows = [
        [seed, condition, *_grpo_cells(run)]
        for i, seed in enumerate(study["seeds"])
        for condition, run in ((c, change["per_seed"][i]) for c, change in changes.items())
    ]
    header = ["seed", "condition", "test problems", "points", "lost, won", "McNemar p", "held out", "reward", "weights"]
    note = (
        "All before and after. Test problems: greedy; lost and won: answered only before, only after, exact McNemar. "
        "Held out: train problems that are never drawn; they choose which iteration's weights are kept (0: those it "
        "started from, nothing changed). Reward: mean of the first and the last fifth of the iterations."
    )
    blocks.append(Table("Each seed's GRPO run", header, rows, note, wide=True))
    logs = {c: [seed.both[c].logs.get("grpo", []) for seed in seeds] for c in changes}
    if all(all(of) for of in logs.values()):
        blocks += grpo_plots(logs)
        used = {
            "mul_tokens": [curve(log, "mul_tokens_per_response", "iteration") for log in logs.get("mul_tokens", [])]
        }
        if any(steps for steps, _ in used["mul_tokens"]):
            caption = "Mean over all responses sampled in an iteration."
            blocks.append(curves_plot("Mul tokens in GRPO", caption, used, "iteration", "mul tokens per response"))
    return blocks


def token_use_blocks(study: dict[str, Any]) -> list[Block]:
    """How often mul tokens are generated, and how often rightly, benchmark by benchmark and seed by seed; then those of
    other families."""
    families = {"mul": study["mul_tokens"]} | study["token_families"]
    return [_token_use_table(name, study, found) for name, found in families.items() if found]


def _token_use_table(family: str, study: dict[str, Any], found: dict[str, Any]) -> Table:
    rows = []
    for name, sides in found.items():
        title = short_title(name, study["benchmarks"][name])
        for seed, use in zip(study["seeds"], sides["mul_tokens"], strict=True):
            shares = [_share(use.get(key), use["total"]) for key in ("right", "placed", "grounded")]
            rows.append([title, seed, f"{use['total'] / use['n']:.2f}", _share(use["responses"], use["n"]), *shares])
    header = ["benchmark", "seed", "per response", "responses with one", "right", "placed", "grounded"]
    baseline = sum(use["total"] for sides in found.values() for use in sides["baseline"])
    note = (
        "Condition mul_tokens. Right: nothing contradicts it; placed: it stands where an expression may; grounded: "
        f"its operands were there before it (eval/fact_use.py). baseline generated {baseline:,} {family} tokens in all."
    )
    return Table(f"{family.capitalize()} tokens in responses", header, rows, note, wide=True)


def editing_blocks(study: dict[str, Any]) -> list[Block]:
    """How the edits took in each seed, their means, the differences over seeds, and the side effects."""
    editing = study["editing"]
    if not editing:
        return []
    runs = [(seed, c, editing["conditions"][c][i]) for i, seed in enumerate(study["seeds"]) for c in CONDITIONS]
    if len(study["seeds"]) > 1:
        runs += [("mean", c, mean_run(editing["conditions"][c])) for c in CONDITIONS]
    rows = [[seed, condition, *_edit_cells(run)] for seed, condition, run in runs]
    header = ["seed", "condition", *(label.partition(",")[0] for label in MEASURES), "harmonic mean"]
    edits = runs[0][2]["edits"]
    note = (
        f"{edits} facts edited at once, before and after. ES: the new target is likelier than the old one; PS: so too "
        "after paraphrases; NS: of unedited neighbors the old one stays likelier. Harmonic mean: of the three."
    )
    blocks: list[Block] = [Table("Edited facts (MEMIT)", header, rows, note, wide=True)]
    if editing["differences"]:
        rows = [
            [label, points_text(found["difference"]), *_limits(found)]
            for label, key in MEASURES.items()
            for found in [editing["differences"][key]]
        ]
        header = ["measure", "mul_tokens minus baseline, points", "95% over seeds", "p"]
        note = "Each edit counts the same. p-values are not corrected for their number."
        blocks.append(Table("Edits that took: difference over seeds", header, rows, note, wide=True))
    rows = [[seed, condition, *_effect_cells(run)] for seed, condition, run in runs]
    header = ["seed", "condition", "perplexity of held-out text", "arithmetic probes", "HellaSwag"]
    return [*blocks, Table("Everything else, before and after the edits", header, rows, wide=True)]


def mean_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over seeds of every number that all of the runs have, nested as they are; None for the others."""
    return {key: _mean_value([run[key] for run in runs]) for key in runs[0]}


def breadth_blocks(study: dict[str, Any], seeds: list[Seed]) -> list[Block]:
    """HellaSwag's three metrics, and the prose that SFT on word problems may have made less likely."""
    blocks: list[Block] = []
    for name in study["benchmarks"]:
        if benchmark_kind(name) != "hellaswag":
            continue
        sides = {c: [seed.comparison["benchmarks"][name][c] for seed in seeds] for c in CONDITIONS}
        rows = [
            [
                metric,
                *(_percents_of([(side[key] if key else side)["accuracy"] for side in sides[c]]) for c in CONDITIONS),
            ]
            for metric, key in METRICS.items()
        ]
        note = "Mean, and each seed. Of four endings the likeliest by token, by character, in sum. Chance: 25%."
        blocks.append(Table(title_of(name).removesuffix(" (acc_norm_token)"), ["metric", *CONDITIONS], rows, note))
    rows = []
    for seed in seeds:
        for condition in CONDITIONS:
            directory = seed.both[condition].directories.get("eval_domains")
            prose = read_json(directory / "domains_results.json").get("prose") or {} if directory else {}
            if "change" in prose:
                sides = [f"{prose[when]['bits_per_byte']:.3f}" for when in ("before", "after")]
                change = prose["change"]
                low, high = change["bits_per_byte_95"]
                rows.append(
                    [seed.folder.name, condition, *sides, f"{change['bits_per_byte']:+.3f} [{low:+.3f} to {high:+.3f}]"]
                )
    if rows:
        note = "Everyday prose without arithmetic, before and after SFT; intervals over paragraphs, for this seed."
        header = ["seed", "condition", "before", "after", "change [95% interval]"]
        blocks.append(Table("Bits per byte of prose", header, rows, note, wide=True))
    return blocks


def _grpo_sentence(condition: str, found: dict[str, Any]) -> str:
    before, after = map(fmean, found["accuracies"])
    return (
        f"{condition}: greedy accuracy on the test problems {change_text(before, after)}, "
        f"{points_text(found['difference'])} points on average{_over_seeds(found)}; over problems, for these seeds, "
        f"{range_text(found['items_low'], found['items_high'])}, {p_text(found['p_items'])} by exchanging each "
        "problem's answers of all seeds at once."
    )


def _over_seeds(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return "" if found["difference"] else " in every seed"
    limits = range_text(found["low"], found["high"])
    return f" (95% interval over {len(found['per_seed'])} seeds {limits}, {p_text(found['p_value'])})"


def _grpo_cells(run: dict[str, Any]) -> list[str]:
    results = run["results"]
    tested = ["not asked"] * 4
    if "test" in run:
        test = run["test"]
        tested = [change_text(run["before"]["accuracy"], run["after"]["accuracy"]), points_text(test["difference"])]
        tested += [f"{test['only_a']}, {test['only_b']}", p_cell(test["p_value"])]
    held_out = change_text(results["eval_accuracy_first"], results["eval_accuracy_last"])
    reward = f"{results['reward_first_fifth']:.3f} → {results['reward_last_fifth']:.3f}"
    return [*tested, held_out, reward, str(results["written_iteration"])]


def _edit_cells(run: dict[str, Any]) -> list[str]:
    return [change_text(run["before"][key], run["after"][key]) for key in (*MEASURES.values(), "score")]


def _effect_cells(run: dict[str, Any]) -> list[str]:
    cells = ["not measured"] * 3
    if run["perplexity"]:
        before, after = run["perplexity"]["before"], run["perplexity"]["after"]
        cells[0] = f"{before:.2f} → {after:.2f} ({100 * (after / before - 1):+.1f}%)"
    for i, key in enumerate(("probes", "hellaswag"), start=1):
        if run[key]:
            cells[i] = change_text(run[key]["before"], run[key]["after"])
    return cells


def _limits(found: dict[str, Any]) -> list[str]:
    return (
        ["n/a", "n/a"] if found["low"] is None else [range_text(found["low"], found["high"]), p_cell(found["p_value"])]
    )


def _mean_value(values: list[Any]) -> Any:
    if all(isinstance(value, dict) for value in values):
        return mean_run(values)
    return None if any(value is None or isinstance(value, list | dict) for value in values) else fmean(values)


def _percents_of(values: list[float]) -> str:
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    return f"{percent_text(fmean(values))} [{each}]" if len(values) > 1 else percent_text(values[0])


def _share(count: int | None, of: int) -> str:
    return "n/a" if count is None or not of else percent_text(count / of)
