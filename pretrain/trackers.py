"""Experiment trackers: the rows of log.jsonl, also sent to TensorBoard or Weights & Biases where asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError

Row = dict[str, Any]


def open_tracker(name: Literal["none", "tensorboard", "wandb"], output_dir: Path, config: Row) -> Callable[[Row], None]:
    """A function that takes the log's rows. Raises UserError when the package is not installed."""
    if name == "none":
        return lambda row: None
    try:
        return (to_tensorboard if name == "tensorboard" else to_wandb)(output_dir, config)
    except ImportError:
        raise UserError(
            f"logging.tracker is {name}, which is not installed; `uv pip install {name}` or set it to none"
        ) from None


def to_tensorboard(output_dir: Path, config: Row) -> Callable[[Row], None]:
    """Scalars to `output_dir`/tensorboard. A resumed run's rows replace those beyond its checkpoint by their step."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(output_dir / "tensorboard"))
    writer.add_text("config", str(config))

    def log(row: Row) -> None:
        for key, value in numbers(row).items():
            writer.add_scalar(key, value, row["step"])
        writer.flush()

    return log


def to_wandb(output_dir: Path, config: Row) -> Callable[[Row], None]:
    """Scalars to the project domain-token-gpt2, in a run named after the directory; WANDB_* variables apply."""
    import wandb

    run = wandb.init(project="domain-token-gpt2", name=output_dir.name, dir=str(output_dir), config=config)
    return lambda row: run.log(numbers(row), step=row["step"])


def numbers(row: Row) -> dict[str, float]:
    """The row's numbers, less its step and what is unknown."""
    return {key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)}
