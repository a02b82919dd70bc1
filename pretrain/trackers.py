"""Experiment trackers: the rows of log.jsonl, also sent to TensorBoard or Weights & Biases where asked for."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from common.files import write_text

Row = dict[str, Any]


def open_tracker(
    name: Literal["none", "tensorboard", "wandb"], output_dir: Path, config: Row, resumed_at: int
) -> Callable[[Row], None]:
    """A function that takes the log's rows. Raises UserError when the package is not installed.

    A run that was resumed after step `resumed_at` goes on in the same curves.
    """
    if name == "none":
        return lambda row: None
    try:
        return (to_tensorboard if name == "tensorboard" else to_wandb)(output_dir, config, resumed_at)
    except ImportError:
        raise UserError(
            f"logging.tracker is {name}, which is not installed; `uv pip install {name}` or set it to none"
        ) from None


def to_tensorboard(output_dir: Path, config: Row, resumed_at: int) -> Callable[[Row], None]:
    """Scalars to `output_dir`/tensorboard; what a killed process wrote beyond its checkpoint is hidden."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(output_dir / "tensorboard"), purge_step=resumed_at + 1 if resumed_at else None)
    writer.add_text("config", str(config))

    def log(row: Row) -> None:
        for key, value in numbers(row).items():
            writer.add_scalar(key, value, row["step"])
        writer.flush()

    return log


def to_wandb(output_dir: Path, config: Row, resumed_at: int) -> Callable[[Row], None]:
    """Scalars to the project domain-token-gpt2, in a run named after the directory; WANDB_* variables apply."""
    import wandb

    path = output_dir / "wandb_id"
    if not resumed_at:
        write_text(path, uuid.uuid4().hex)
    identity = {"project": "domain-token-gpt2", "name": output_dir.name, "id": path.read_text(encoding="utf-8")}
    run = wandb.init(**identity, resume="allow", dir=str(output_dir), config=config)
    return lambda row: run.log(numbers(row), step=row["step"])


def numbers(row: Row) -> dict[str, float]:
    """The row's numbers, less its step and what is unknown."""
    return {key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)}
