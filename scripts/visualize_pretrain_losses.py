"""Draw the training and validation losses of pretraining runs: one, both conditions, or any number.

    uv run python scripts/visualize_pretrain_losses.py
    uv run python scripts/visualize_pretrain_losses.py --runs outputs/seed0/pretrain_baseline \
        outputs/seed1/pretrain_baseline --output outputs/seeds.png

Writes the picture and, beside it, the numbers behind it: .json (every curve as logged) and .csv (one row per logged
value). A run that is still going may be drawn. Unless --runs names others, the runs are outputs/pretrain_baseline and
outputs/pretrain_mul_tokens, those of them that exist.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_json
from pretrain.run_log import whole_rows
from scripts.figure_files import check_output, distinct_labels, write_figure
from scripts.report_plots import draw_losses, smoothing_note, smoothing_window, standalone_png
from scripts.stage_runs import curve, pretraining_runs

NOTE = (
    "Nats per token. Injection changes what the tokens are: the losses of the two conditions are over different token "
    "streams and do not say which model is better."
)


@dataclass
class LossesConfig:
    """Draw the training and validation losses of pretraining runs."""

    runs: list[Path] = field(default_factory=list)  # directories of pretrain/train.py; default outputs/pretrain_*
    output: Path = Path("outputs/pretrain_losses.png")  # the picture; .json and .csv go beside it
    smoothing: int | None = None  # logged steps of the running mean; 1: none; default a fortieth of all
    title: str = "Pretraining losses"  # above the picture


def main() -> None:
    config = parse_config(LossesConfig)
    if config.smoothing is not None and config.smoothing < 1:
        raise UserError(f"--smoothing {config.smoothing}: expected at least 1")
    check_output(config.output)
    directories = pretraining_runs(config.runs)
    runs = dict(zip(distinct_labels(directories, map(condition_of, directories)), directories, strict=True))

    logs = {label: whole_rows(directory / "log.jsonl") for label, directory in runs.items()}
    train = {label: curve(log, "loss") for label, log in logs.items()}
    validation = {label: curve(log, "val_loss") for label, log in logs.items()}
    for label, (steps, _) in train.items():
        if not steps:
            raise UserError(f"{runs[label] / 'log.jsonl'} holds no training loss yet; draw it later")

    window = config.smoothing or smoothing_window(train)
    caption = smoothing_note(window) + (NOTE if len(runs) > 1 else "Nats per token.")
    picture = standalone_png(
        config.title, caption, lambda axes, colours: draw_losses(axes, colours, train, validation, window)
    )
    rows = [
        {"run": label, "kind": kind, "step": step, "loss": loss}
        for kind, curves in (("train", train), ("validation", validation))
        for label, (steps, losses) in curves.items()
        for step, loss in zip(steps, losses, strict=True)
    ]
    write_figure(config.output, picture, numbers(runs, train, validation, window), rows)

    for label, (steps, losses) in train.items():
        validated = "".join(f", validation {loss:.4f}" for loss in validation[label][1][-1:])
        print(f"{label}: step {steps[-1]}, training loss {losses[-1]:.4f}{validated}")
    print(f"wrote {config.output}, .json and .csv")


def condition_of(directory: Path) -> str:
    """The condition of a pretraining run, from its config. Raises UserError for another kind of directory."""
    if not (directory / "log.jsonl").is_file():
        raise UserError(f"{directory} holds no log.jsonl; give directories that pretrain/train.py wrote")
    return read_json(directory / "config.json")["condition"]


def numbers(runs: dict[str, Path], train: dict, validation: dict, window: int) -> dict[str, Any]:
    """What was drawn, and from where, JSON-ready."""
    curves = {
        label: {
            "directory": str(directory),
            "train": dict(zip(("steps", "losses"), train[label], strict=True)),
            "validation": dict(zip(("steps", "losses"), validation[label], strict=True)),
        }
        for label, directory in runs.items()
    }
    return {"unit": "nats per token", "running_mean_of_logged_steps": window, "runs": curves}


if __name__ == "__main__":
    run_script(main)
