"""Where in the network are facts read? Causal traces, their average, and the layers that they point to.

    uv run python edit/run_causal_trace.py --model-path outputs/facts_baseline
    uv run python edit/run_causal_trace.py --model-path outputs/hf_baseline --edits counterfact.json --max-prompts 100

For each record whose old target the model says: noise on the subject, then each (layer, token) restored
(edit/causal_trace.py). Writes causal_trace.png, the average heat map of blocks, MLPs and attention; trace_00.png and so
on for the first prompts; and causal_trace.json with all numbers and `layers`, those whose MLPs count at --token:
candidates for update.layers of a config with that update.token.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import torch
from torch import Tensor
from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_path, write_json
from common.record import RunRecord
from edit.causal_trace import (
    KINDS,
    ROLES,
    Trace,
    TracePrompt,
    by_role,
    effect_at,
    embedding_deviation,
    layers_to_edit,
    trace,
    trace_prompt,
)
from edit.directories import load_parent
from edit.records import load_edits
from edit.scoring import score_targets
from edit.settings import Token
from tokenizer.mul_facts import Condition

matplotlib.use("Agg")
import matplotlib.pyplot as plt

XL_LAYERS, XL_WINDOW = 48, 10  # the windows of the paper


@dataclass
class TraceConfig:
    """Causal traces of the facts in a file of edits."""

    model_path: str = ""  # a GPT-2 model directory, or a hub id such as openai-community/gpt2
    edits: Path = Path("edit/facts.json")  # records whose prompts and old targets are traced
    output_dir: Path | None = None  # default: outputs/trace_{name of the model directory}
    max_prompts: int = 50  # only the first so many that the model knows
    pictures: int = 3  # prompts that get a picture of their own
    noise: float = 3.0  # standard deviations of the subjects' embeddings
    samples: int = 10  # draws of noise
    token: Token = "subject"  # where edits are to be made, as update.token: its MLPs decide on `layers`
    window: int | None = None  # layers that MLP and attention are restored at; default 10 for 48 layers, in proportion
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if it is there, else the CPU
    seed: int = 0  # of the noise


def main() -> None:
    config = parse_config(TraceConfig)
    if min(config.max_prompts, config.samples) < 1 or (config.window is not None and config.window < 1):
        raise UserError("--max-prompts, --samples and --window: expected at least 1")
    parent = load_parent(config.model_path, config.condition, config.device)
    model, tokenizer = parent.model, parent.tokenizer
    output_dir = config.output_dir or Path("outputs") / f"trace_{parent.path.resolve().name}"
    if config.token == "subject" and model.config.n_layer == 1:
        raise UserError("the model has one block, and one must follow an edit at the subject; give --token prompt")
    records = load_edits(config.edits)
    window = config.window or max(1, round(model.config.n_layer * XL_WINDOW / XL_LAYERS))
    run = RunRecord("causal_trace", config, tokenizer.condition, config.seed, parent.path)

    scores = score_targets(model, tokenizer, [(record.prompt, record.target_old) for record in records])
    known = [record for record, score in zip(records, scores, strict=True) if score.rank == 1][: config.max_prompts]
    if not known:
        raise UserError(
            f"{config.model_path} says the old target of none of the {len(records)} records; nothing to trace"
        )
    sigma = config.noise * embedding_deviation(model, tokenizer, [record.subject for record in records])
    traces: list[tuple[TracePrompt, Trace]] = []
    for record in tqdm(known, desc="tracing", unit="prompt"):
        prompt = trace_prompt(tokenizer, record.prompt, record.subject, record.target_old, model.config.block_size)
        traces.append((prompt, trace(model, prompt, sigma, config.samples, window, config.seed)))

    stacked = [by_role(found, prompt) for prompt, found in traces]
    average = {kind: torch.stack([each[kind] for each in stacked]).nanmean(0) for kind in KINDS}
    layers = layers_to_edit(effect_at(average["mlp"], config.token), config.token)
    clean, corrupted = (sum(getattr(t, name) for _, t in traces) / len(traces) for name in ("clean", "corrupted"))
    results: dict[str, Any] = {
        "prompts": len(traces),
        "known": sum(score.rank == 1 for score in scores),
        "records": len(records),
        "sigma": round(sigma, 6),
        "window": window,
        "clean": round(clean, 6),
        "corrupted": round(corrupted, 6),
        "token": config.token,
        "layers": layers,
        "roles": list(ROLES),
        "average_indirect_effect": {kind: _numbers(values) for kind, values in average.items()},
        "traces": [
            {"prompt": record.prompt, "target": record.target_old, "clean": found.clean, "corrupted": found.corrupted}
            | {"restored": {kind: _numbers(values) for kind, values in found.restored.items()}}
            for record, (_, found) in zip(known, traces, strict=True)
        ],
    }
    write_json(output_dir / "causal_trace.json", results)
    title = f"average over {len(traces)} facts: p {clean:.2f}, under noise {corrupted:.3f}"
    draw(output_dir / "causal_trace.png", average, list(ROLES), title)
    for i, (record, (prompt, found)) in enumerate(list(zip(known, traces, strict=True))[: config.pictures]):
        labels = [
            tokenizer.decode([token]) + ("*" if t in prompt.subject else "") for t, token in enumerate(prompt.ids)
        ]
        effects = {kind: values - found.corrupted for kind, values in found.restored.items()}
        draw(output_dir / f"trace_{i:02d}.png", effects, labels, f"{record.prompt} {record.target_old}")
    run.save(output_dir, {key: results[key] for key in ("prompts", "clean", "corrupted", "layers")})
    by_layer = ", ".join(f"{value:.3f}" for value in effect_at(average["mlp"], config.token).tolist())
    print(f"{title}; MLP at the last {config.token} token by layer: {by_layer}")
    print(f"layers to edit: {layers}\nwritten to {output_dir}")


def draw(path: Path, effects: dict[str, Tensor], rows: list[str], title: str) -> None:
    """Three heat maps side by side, tokens (or their roles) down and layers across."""
    figure, axes = plt.subplots(1, len(KINDS), figsize=(11, 1.2 + 0.32 * len(rows)), layout="constrained")
    for axis, kind in zip(axes, KINDS, strict=True):
        image = axis.imshow(effects[kind].T.numpy(), aspect="auto", cmap="Purples", vmin=0)
        axis.set_title(f"{kind} restored", fontsize=9)
        axis.set_xlabel("layer", fontsize=9)
        axis.set_xticks(range(effects[kind].size(0)))
        axis.set_yticks(range(len(rows)), rows if kind == KINDS[0] else [""] * len(rows), fontsize=8)
        figure.colorbar(image, ax=axis, shrink=0.9).ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)


def _numbers(values: Tensor) -> list[list[float | None]]:
    return [[None if value != value else round(value, 6) for value in row] for row in values.tolist()]


if __name__ == "__main__":
    run_script(main)
