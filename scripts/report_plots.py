"""Plots as PNG bytes: of a report, each drawn twice, for a light and a dark page; or one file with its own caption."""

import io
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rl.curves import running_mean
from tokenizer.mul_facts import CONDITIONS

# Okabe-Ito colours are told apart by colour-blind readers too; line style, marker and hatch serve grey print.
LIGHT = {"ink": "#1f2328", "grid": "#d0d7de", "baseline": "#0072b2", "mul_tokens": "#d55e00"}
LIGHT |= {"other 0": "#009e73", "other 1": "#cc79a7", "other 2": "#e69f00", "other 3": "#56b4e9"}
DARK = {"ink": "#e6edf3", "grid": "#3d444d", "baseline": "#56b4e9", "mul_tokens": "#e69f00"}
DARK |= {"other 0": "#3fb98a", "other 1": "#d9a0c0", "other 2": "#f0e442", "other 3": "#0072b2"}
LINES = {"baseline": "-", "mul_tokens": (0, (4, 1.5)), "other 0": (0, (1, 1)), "other 1": (0, (5, 1, 1, 1))}
MARKERS = {"baseline": "o", "mul_tokens": "s", "other 0": "^", "other 1": "D", "other 2": "v", "other 3": "P"}
OTHERS = 4
TEXT = {"fontsize": 9.5, "frameon": False}

Curve = tuple[list[int], list[float]]  # steps, losses
Draw = Callable[[Axes, dict[str, str]], None]


@dataclass
class Plot:
    """A finished plot: its title and caption in words, and its two pictures as PNG."""

    title: str
    caption: str
    light: bytes
    dark: bytes


def loss_plot(title: str, train: dict[str, Curve], validation: dict[str, Curve]) -> Plot:
    """Training loss, smoothed, and validation loss as marks, of each condition, in nats per token."""
    window = smoothing_window(train)
    caption = f"{smoothing_note(window)}The two conditions predict different token streams: see the note on losses."
    return draw_plot(title, caption, lambda axes, colours: draw_losses(axes, colours, train, validation, window))


def draw_losses(
    axes: Axes, colours: dict[str, str], train: dict[str, Curve], validation: dict[str, Curve], window: int
) -> None:
    """Draw the curves of each run under its label; `window` is the running mean's, in logged steps."""
    looks = looks_of(train)
    for label, (steps, losses) in train.items():
        look = {"color": colours[looks[label]], "ls": LINES.get(looks[label], "-"), "lw": 1.6}
        axes.plot(steps, running_mean(losses, window), label=f"{label}, train", **look)
    for label, (steps, losses) in validation.items():
        if steps:
            mark = {"marker": MARKERS[looks[label]], "ms": 5, "mfc": "none", "mew": 1.4, "ls": "none"}
            axes.plot(steps, losses, color=colours[looks[label]], label=f"{label}, validation", **mark)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_xlim(left=0)
    axes.legend(**TEXT)


def curves_plot(
    title: str, caption: str, runs: dict[str, list[Curve]], xlabel: str, ylabel: str, marked: bool = False
) -> Plot:
    """The curves of each condition's runs, one for each seed: of several, thin, with their mean thick on top."""

    def draw(axes: Axes, colours: dict[str, str]) -> None:
        for condition, curves in runs.items():
            look = {"color": colours[condition], "ls": LINES[condition]}
            if len(curves) > 1:
                for steps, values in curves:
                    axes.plot(steps, values, color=colours[condition], lw=0.8, alpha=0.5)
            mark = {"marker": MARKERS[condition], "mfc": "none"} if marked else {}
            axes.plot(*mean_curve(curves), lw=1.6 if len(curves) == 1 else 2.4, label=condition, **look, **mark)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.legend(**TEXT)

    return draw_plot(title, caption, draw)


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean of several runs, at the steps that all of them have."""
    points = [dict(zip(steps, values, strict=True)) for steps, values in curves]
    steps = sorted(set.intersection(*map(set, points))) if points else []
    return steps, [float(np.mean([of_run[step] for of_run in points])) for step in steps]


def difference_plot(title: str, caption: str, rows: dict[str, dict[str, Any]]) -> Plot:
    """Differences in points with their intervals, row by row, and each seed's as a small mark.

    rows: {label: {difference, low, high, per_seed}} as shares; low and high may be None.
    """

    def draw(axes: Axes, colours: dict[str, str]) -> None:
        axes.figure.set_figheight(1.1 + 0.42 * len(rows))
        for y, row in enumerate(rows.values()):
            if row["low"] is not None:
                limits = [100 * max(row["low"], -1.0), 100 * min(row["high"], 1.0)]  # of accuracies: there is no more
                axes.plot(limits, [y, y], color=colours["ink"], lw=1.4)
            axes.plot([100 * value for value in row["per_seed"]], [y] * len(row["per_seed"]), **seed_mark(colours))
            axes.plot(100 * row["difference"], y, "D", ms=5.5, color=colours["ink"])
        axes.axvline(0, color=colours["ink"], lw=0.8, ls=":")
        axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("mul_tokens minus baseline, points")

    def seed_mark(colours: dict[str, str]) -> dict[str, Any]:
        return {"ls": "none", "marker": "o", "ms": 4.5, "mfc": "none", "mew": 1.2, "mec": colours["mul_tokens"]}

    return draw_plot(title, caption, draw)


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
        axes.set_xticks(range(len(groups)), list(groups), fontsize=11 if len(groups) < 5 else 8.5)
        axes.set_ylabel("accuracy (%)")
        axes.set_ylim(0, 100)
        axes.grid(visible=False, axis="x")
        axes.legend(**TEXT, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return draw_plot(title, "Whiskers: 95% Wilson intervals of each condition alone, not of the difference.", draw)


def looks_of(labels: Iterable[str]) -> dict[str, str]:
    """For each label the name of its colour, line and marker: the conditions keep their own, others share the rest."""
    others = [label for label in labels if label not in CONDITIONS]
    return {label: label for label in CONDITIONS} | {label: f"other {i % OTHERS}" for i, label in enumerate(others)}


def smoothed(points: Curve, window: int) -> Curve:
    """The curve with the running mean of its values."""
    return points[0], list(running_mean(points[1], window))


def smoothing_window(curves: dict[str, Curve]) -> int:
    """A fortieth of the longest curve, in logged steps."""
    return max(1, max((len(steps) for steps, _ in curves.values()), default=1) // 40)


def smoothing_note(window: int) -> str:
    """What a caption says of the running mean; nothing where there is none."""
    return f"Training loss is a running mean over {window} logged steps. " if window > 1 else ""


def standalone_png(title: str, caption: str, draw: Draw) -> bytes:
    """A picture that needs no page around it: white, with its title above and its caption below."""
    return _png(draw, LIGHT | {"page": "#ffffff"}, title, caption, size=(8, 5.4), transparent=False)


def draw_plot(title: str, caption: str, draw: Draw) -> Plot:
    """A plot for a light and a dark page; `draw` is called with the axes and the page's colours."""
    light = _png(draw, LIGHT | {"page": "#ffffff"})
    return Plot(title, caption, light, _png(draw, DARK | {"page": "#161b22"}))


def _png(
    draw: Draw,
    colours: dict[str, str],
    title: str = "",
    caption: str = "",
    # Narrow and with large letters, so that it can still be read when a phone shows it 350 pixels wide.
    size: tuple[float, float] = (5.2, 3.5),
    transparent: bool = True,
) -> bytes:
    ink = {key: colours["ink"] for key in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
    with mpl.rc_context({"font.size": 11, "axes.edgecolor": colours["grid"], "hatch.linewidth": 0.6, **ink}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color=colours["grid"], linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if title:
            axes.set_title(title, loc="left", fontsize=12.5)
        if caption:
            figure.supxlabel(textwrap.fill(caption, 115), x=0.01, ha="left", fontsize=8.5)
        draw(axes, colours)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=170, transparent=transparent, metadata={"Software": None})
    return file.getvalue()
