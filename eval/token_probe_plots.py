"""The pictures of run_token_probes.py, each a PNG that stands alone."""

import io
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from eval.token_probes import MUL

FACTORS = [fact.operands for fact in MUL.facts]
NAMES = [f"{a}×{b}" for a, b in FACTORS]


def embedding_map(cosines: dict[str, np.ndarray], caption: str) -> bytes:
    """Cosines (45, 45) between the rows of the facts, a panel per model, in the order of the ids."""
    figure, panels = _figure("Cosine of the facts' embeddings, their mean taken out", caption, len(cosines), 5.2)
    limit = max(float(np.abs(values[~np.eye(len(values), dtype=bool)]).max()) for values in cosines.values())
    for panel, (label, values) in zip(panels, cosines.items(), strict=True):
        shown = np.where(np.eye(len(values), dtype=bool), np.nan, values)
        image = panel.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.set_title(label, fontsize=10)
        starts = [i for i, (a, b) in enumerate(FACTORS) if a == b]
        panel.set_xticks(starts, [NAMES[i] for i in starts], fontsize=7, rotation=90)
        panel.set_yticks(starts, [NAMES[i] for i in starts], fontsize=7)
        figure.colorbar(image, ax=panel, shrink=0.75)
    return _png(figure)


def rank_map(rows: list[dict[str, Any]], caption: str) -> bytes:
    """The rank of the right fact for each product a × b, a panel per lead-in; 1 is best of 45."""
    leads = list(dict.fromkeys(row["lead_in"] for row in rows))
    figure, panels = _figure("Rank of the right fact among the 45", caption, len(leads), 3.4)
    for panel, lead in zip(panels, leads, strict=True):
        grid = np.full((9, 9), np.nan)
        for row in rows:
            if row["lead_in"] == lead:
                grid[row["a"] - 1, row["b"] - 1] = row["rank"]
        panel.imshow(np.log(grid), cmap="viridis_r", vmin=0, vmax=np.log(45))
        for a in range(9):
            for b in range(9):
                colour = "k" if grid[a, b] <= 8 else "w"
                panel.text(b, a, f"{grid[a, b]:.0f}", ha="center", va="center", fontsize=7, color=colour)
        panel.set_xticks(range(9), range(1, 10), fontsize=8)
        panel.set_yticks(range(9), range(1, 10), fontsize=8)
        panel.set_xlabel("second factor", fontsize=8)
        panel.set_title(textwrap.fill(lead.replace("\n", " ").replace("Assistant:", "… A:"), 34), fontsize=7.5)
    panels[0].set_ylabel("first factor", fontsize=8)
    return _png(figure)


def attention_map(attention: dict[str, Any], caption: str) -> bytes:
    """Mean attention by layer and head: to the factors of a fact, and from the `>>` behind a noted fact to it."""
    titles = {
        "choice_to_factors": "where the fact is chosen, to its factors",
        "fact_to_factors": "from the fact to its factors",
        "result_to_fact": "from “>>” to the fact before it",
    }
    figure, panels = _figure("Attention from and to the facts", caption, len(titles), 4.4)
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        values = np.array(attention[key])
        image = panel.imshow(values, cmap="magma", vmin=0, vmax=1, aspect="auto")
        for layer in range(values.shape[0]):
            for head in range(values.shape[1]):
                colour = "k" if values[layer, head] > 0.6 else "w"
                panel.text(
                    head, layer, f"{values[layer, head]:.2f}", ha="center", va="center", fontsize=6.5, color=colour
                )
        panel.set_xticks(range(values.shape[1]))
        panel.set_yticks(range(values.shape[0]))
        panel.set_xlabel("head")
        panel.set_ylabel("layer")
        panel.set_title(f"{title}\n(equal attention: {attention[f'{key}_uniform']:.2f})", fontsize=10)
        figure.colorbar(image, ax=panel, shrink=0.8)
    return _png(figure)


def _figure(title: str, caption: str, panels: int, width: float) -> tuple[Figure, list]:
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(max(width * panels, 6), width + 1), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    figure.supxlabel(textwrap.fill(caption, int(14 * max(width * panels, 6))), x=0.01, ha="left", fontsize=8.5)
    return figure, list(axes)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()
