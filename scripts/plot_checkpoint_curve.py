"""Draw HellaSwag accuracy over training, both conditions on one plot.

    uv run python scripts/plot_checkpoint_curve.py
    uv run python scripts/plot_checkpoint_curve.py --evals outputs/checkpoint_evals/baseline --x steps --metric acc

Reads what scripts/eval_checkpoints.py wrote, and writes outputs/checkpoint_evals/curve.png with the numbers behind it
beside it (.json, .csv). Bands are 95% Wilson intervals of each point alone: two checkpoints answer the same items, so
two curves may differ although their bands overlap; scripts/compare_runs.py tests the difference on the pairs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_json
from scripts.figure_files import check_output, distinct_labels, write_figure
from scripts.report_plots import LINES, MARKERS, TEXT, looks_of, standalone_png
from tokenizer.mul_facts import CONDITIONS

CHANCE = 0.25  # four endings
TOKEN_UNITS = ((1e9, "tokens (billions)"), (1e6, "tokens (millions)"), (1, "tokens"))
# OpenAI's GPT-2 124M on all 10,042 validation items.
GPT2_124M = {
    "acc_norm_token": (0.2955, "hellaswag.py of karpathy/build-nanogpt at 6104ab1"),
    "acc": (0.2859, "hellaswag.py of karpathy/build-nanogpt at 6104ab1"),
    "acc_norm_char": (0.3114, "lm-evaluation-harness, as quoted by karpathy/build-nanogpt's hellaswag.py"),
}


@dataclass
class CurveConfig:
    """Draw HellaSwag accuracy over training."""

    evals: list[Path] = field(default_factory=list)  # folders with a summary.json; default outputs/checkpoint_evals/*
    output: Path = Path("outputs/checkpoint_evals/curve.png")  # the picture; .json and .csv go beside it
    x: Literal["tokens", "steps"] = "tokens"  # what the horizontal axis counts
    metric: Literal["acc_norm_token", "acc_norm_char", "acc"] = "acc_norm_token"  # which of the three scores


def main() -> None:
    config = parse_config(CurveConfig)
    check_output(config.output)
    default = [Path("outputs/checkpoint_evals") / condition for condition in CONDITIONS]
    folders = config.evals or [folder for folder in default if (folder / "summary.json").is_file()]
    if not folders:
        raise UserError(
            "outputs/checkpoint_evals holds no results; run scripts/eval_checkpoints.py first or name --evals"
        )
    summaries = [read_json(folder / "summary.json") for folder in folders]
    if len({summary["items_sha256"] for summary in summaries}) > 1:
        raise UserError(f"{', '.join(map(str, folders))} are of different items; evaluate them on the same ones")
    labels = distinct_labels(folders, [summary["condition"] for summary in summaries])
    curves = {label: curve_of(summary, config.metric) for label, summary in zip(labels, summaries, strict=True)}

    reference, source = GPT2_124M[config.metric]
    n = summaries[0]["n"]
    items = f"{n:,} items" if n == 10_042 else f"{n:,} of the 10,042 validation items"
    caption = (
        f"{config.metric} on {items}; bands: 95% Wilson intervals of each point alone. "
        f"GPT-2 124M: {reference} on all 10,042 items ({source}). One training seed per curve."
    )
    picture = standalone_png(
        "HellaSwag over training", caption, lambda axes, colours: draw(axes, colours, curves, config.x, reference)
    )
    numbers = {"metric": config.metric, "n": n, "items_sha256": summaries[0]["items_sha256"], "chance": CHANCE}
    numbers |= {"gpt2_124m": {"value": reference, "source": source}, "curves": curves}
    rows = [{"run": label, **point} for label, points in curves.items() for point in points]
    write_figure(config.output, picture, numbers, rows)

    for label, points in curves.items():
        last = points[-1]
        print(f"{label}: {config.metric} {last['value']:.4f} ± {last['stderr']:.4f} at step {last['steps']}")
    print(f"wrote {config.output}, .json and .csv")


def curve_of(summary: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    """One point per checkpoint: steps, tokens, the metric's value, standard error and 95% interval."""
    points = []
    for checkpoint in summary["checkpoints"]:
        result = checkpoint[metric]
        low, high = result["wilson_95"]
        where = {"steps": checkpoint["step"], "tokens": checkpoint["tokens"]}
        points.append(where | {"value": result["value"], "stderr": result["stderr"], "low": low, "high": high})
    return points


def draw(
    axes: Axes, colours: dict[str, str], curves: dict[str, list[dict[str, Any]]], x: str, reference: float
) -> None:
    """Each curve with its band, and the two lines that it is read against."""
    looks = looks_of(curves)
    largest = max(point["tokens"] for points in curves.values() for point in points)
    unit, name = next((unit, name) for unit, name in TOKEN_UNITS if largest >= unit) if x == "tokens" else (1, "step")
    for label, points in curves.items():
        position = [point[x] / unit for point in points]
        look = {"color": colours[looks[label]]}
        axes.fill_between(position, *([p[key] for p in points] for key in ("low", "high")), alpha=0.16, lw=0, **look)
        values = [point["value"] for point in points]
        line = {"ls": LINES.get(looks[label], "-"), "lw": 1.8, "marker": MARKERS[looks[label]], "ms": 4.5}
        axes.plot(position, values, label=label, **line, **look)
    for level, text in ((reference, "OpenAI GPT-2 124M"), (CHANCE, "chance")):
        axes.axhline(level, color=colours["ink"], lw=1, ls=(0, (2, 3)))
        axes.annotate(
            text,
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    axes.set_xlabel(name)
    axes.set_ylabel("HellaSwag accuracy")
    axes.set_xlim(left=0)
    axes.legend(**TEXT, loc="upper left")


if __name__ == "__main__":
    run_script(main)
