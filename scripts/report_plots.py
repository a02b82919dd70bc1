"""The report's plots as PNG bytes, each drawn twice: for a light and for a dark page."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe-Ito colours are told apart by colour-blind readers too; line style, marker and hatch serve grey print.
LIGHT = {"ink": "#1f2328", "grid": "#d0d7de", "baseline": "#0072b2", "mul_tokens": "#d55e00"}
DARK = {"ink": "#e6edf3", "grid": "#3d444d", "baseline": "#56b4e9", "mul_tokens": "#e69f00"}
MARKERS = {"baseline": "o", "mul_tokens": "s"}

Curve = tuple[list[int], list[float]]  # steps, losses


@dataclass
class Plot:
    """A finished plot: its title and caption in words, and its two pictures as PNG."""

    title: str
    caption: str
    light: bytes
    dark: bytes


def loss_plot(title: str, train: dict[str, Curve], validation: dict[str, Curve]) -> Plot:
    """Training loss, smoothed, and validation loss as marks, of each condition, in nats per token."""
    window = max(1, max((len(steps) for steps, _ in train.values()), default=1) // 40)

    def draw(axes: Axes, colours: dict[str, str]) -> None:
        for condition, (steps, losses) in train.items():
            style = "-" if condition == "baseline" else (0, (4, 1.5))
            label = f"{condition}, train"
            axes.plot(steps, running_mean(losses, window), color=colours[condition], ls=style, lw=1.6, label=label)
        for condition, (steps, losses) in validation.items():
            if not steps:
                continue
            mark = {"marker": MARKERS[condition], "ms": 5, "mfc": "none", "mew": 1.4, "ls": "none"}
            axes.plot(steps, losses, color=colours[condition], label=f"{condition}, validation", **mark)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")
        axes.set_xlim(left=0)
        axes.legend(frameon=False, fontsize=9.5)

    smoothing = f"Training loss is a running mean over {window} logged steps. " if window > 1 else ""
    caption = f"{smoothing}The two conditions predict different token streams: see the note on losses."
    return _plot(title, caption, draw)


def accuracy_plot(title: str, groups: dict[str, dict[str, dict[str, Any]]]) -> Plot:
    """Bars of accuracy in percent with 95% intervals; groups: {label: {condition: {accuracy, low, high}}}."""

    def draw(axes: Axes, colours: dict[str, str]) -> None:
        width = 0.36
        for offset, condition in ((-width / 2, "baseline"), (width / 2, "mul_tokens")):
            rows = [group[condition] for group in groups.values()]
            heights = np.array([100 * row["accuracy"] for row in rows])
            below = heights - [100 * row["low"] for row in rows]
            above = np.array([100 * row["high"] for row in rows]) - heights
            x = np.arange(len(rows)) + offset
            hatch = None if condition == "baseline" else "///"
            style = {
                "color": colours[condition],
                "hatch": hatch,
                "edgecolor": colours["page"],
                "linewidth": 0,
            }
            bars = {"yerr": np.maximum([below, above], 0), "ecolor": colours["ink"], "capsize": 4}
            axes.bar(x, heights, width, label=condition, **style, **bars)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.set_ylabel("accuracy (%)")
        axes.set_ylim(0, 100)
        axes.grid(visible=False, axis="x")
        axes.legend(frameon=False, fontsize=9.5, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _plot(title, "Whiskers: 95% Wilson intervals of each condition alone, not of the difference.", draw)


def running_mean(values: list[float], window: int) -> np.ndarray:
    """Mean of the values within half a window on either side; at the ends of those there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + (window - 1) // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _plot(title: str, caption: str, draw: Callable[[Axes, dict[str, str]], None]) -> Plot:
    light = _png(draw, LIGHT | {"page": "#ffffff"})
    return Plot(title, caption, light, _png(draw, DARK | {"page": "#161b22"}))


def _png(draw: Callable[[Axes, dict[str, str]], None], colours: dict[str, str]) -> bytes:
    ink = {key: colours["ink"] for key in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
    with mpl.rc_context({"font.size": 11, "axes.edgecolor": colours["grid"], "hatch.linewidth": 0.6, **ink}):
        # Narrow and with large letters, so that it can still be read when a phone shows it 350 pixels wide.
        figure = Figure(figsize=(5.2, 3.5), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color=colours["grid"], linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, colours)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=170, transparent=True, metadata={"Software": None})
    return file.getvalue()
