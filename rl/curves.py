"""The curves of a GRPO run as one picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe-Ito colours: colour-blind readers tell them apart; line styles serve grey print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1f2328", "#8c6d1f", "#7f7f7f")
STYLES = ("-", "--", ":", "-.")
SMOOTHED_SHARE = 1 / 40  # of the iterations, in the running mean; the values themselves are drawn faintly behind it
PANELS: dict[str, Sequence[str]] = {  # title: columns of the log
    "Accuracy": ("accuracy", "eval_accuracy"),
    "Reward": ("reward_mean", "reward_std"),
    "Parts of the reward": ("parts",),
    "Share of groups whose rewards vary": ("kept_fraction",),
    "Entropy (nats per token)": ("entropy",),
    "KL to the reference (nats per token)": ("kl",),
    "Share of tokens clipped": ("clip_low", "clip_high"),
    "Gradient norm": ("grad_norm",),
    "Tokens per response": ("response_tokens",),
    "Share of responses cut": ("truncated",),
    "Mul tokens per response": ("mul_tokens_per_response",),
    "Seconds per iteration": ("seconds_generate", "seconds_reward", "seconds_update"),
}


def plot_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the rows of a run's log.jsonl into the PNG `path`, a panel for each of PANELS that has a value.

    Values that are None, as the update's are in an iteration without one, leave gaps.
    """
    curves = {title: {label: xy for column in columns for label, xy in curves_of(rows, column).items()}
              for title, columns in PANELS.items()}  # fmt: skip
    curves = {title: lines for title, lines in curves.items() if lines} or {"Accuracy": {}}
    height = math.ceil(len(curves) / 3)
    figure = Figure(figsize=(12, 2.9 * height), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(height, 3, squeeze=False).flat, curves.items(), strict=False):
        _draw(axes, title, lines)
    for axes in figure.axes[len(curves) :]:
        axes.remove()
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def curves_of(rows: list[dict[str, Any]], column: str) -> dict[str, tuple[list[int], list[float]]]:
    """Iterations and values of a column that has any; of the column `parts` one curve for each part."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        value = row.get(column)
        for label, number in value.items() if isinstance(value, dict) else [(column, value)]:
            if number is not None:
                iterations, values = found.setdefault(label, ([], []))
                iterations.append(row["iteration"])
                values.append(number)
    return found


def _draw(axes: Axes, title: str, lines: dict[str, tuple[list[int], list[float]]]) -> None:
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for i, (label, (iterations, values)) in enumerate(lines.items()):
        look = {"color": COLOURS[i % len(COLOURS)], "label": label}
        if label == "eval_accuracy":
            axes.plot(iterations, values, marker="o", ms=4, lw=1.2, **look)
            continue
        window = max(1, round(len(values) * SMOOTHED_SHARE))
        if window > 1:
            axes.plot(iterations, values, color=look["color"], lw=0.5, alpha=0.3)
        axes.plot(iterations, running_mean(values, window), ls=STYLES[i % len(STYLES)], lw=1.5, **look)
    axes.set_xlabel("iteration", fontsize=8.5)
    axes.tick_params(labelsize=8.5)
    if len(lines) > 1:
        axes.legend(fontsize=7.5, frameon=False)


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Mean of the `window` values around each; at the ends of those there are."""
    weights = np.ones(window)
    count = np.convolve(np.ones(len(values)), weights, mode="full")
    sums = np.convolve(values, weights, mode="full")
    start = (window - 1) // 2
    return (sums / count)[start : start + len(values)]
