"""Checkpoints of a run, `model_{step}.pt`: weights and everything else that the next step depends on.

One file per checkpoint, written beside and renamed, so it is there whole or not at all, and a run killed while saving
resumes from the one before. Loaded with weights_only: tensors and plain values, no code.
"""

import pickle
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import atomic_path
from pretrain.model import GPT, GPTConfig

NAME = re.compile(r"model_(\d+)\.pt")


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return output_dir / f"model_{step:06d}.pt"


def checkpoints(output_dir: Path) -> dict[int, Path]:
    """The run's checkpoints by step, lowest first. Unfinished ones have other names."""
    found = {int(match[1]): path for path in output_dir.glob("model_*.pt") if (match := NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def latest_checkpoint(output_dir: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    return max(checkpoints(output_dir).items(), default=(0, None))[1]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) to `path`, or leave `path` as it was."""
    with atomic_path(path) as partial, open(partial, "wb") as file:
        torch.save(state, file)  # through a file of Python's, whose errors say when the disk is full


def prune_checkpoints(output_dir: Path, keep_last: int | None, keep_every: int | None) -> None:
    """Delete all but the newest `keep_last` and, of the older ones, those of a step that `keep_every` divides.

    Also what killed processes left half-written. keep_last None deletes no checkpoint.
    """
    for partial in output_dir.glob(".model_*.pt.*.partial"):
        partial.unlink()
    steps = list(checkpoints(output_dir))
    for step in steps[: -keep_last if keep_last else 0]:
        if not keep_every or step % keep_every:
            checkpoint_path(output_dir, step).unlink()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in `path`, on the CPU. Raises UserError when it is not a checkpoint of ours."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; name one that pretrain/train.py wrote") from None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} cannot be read as a checkpoint ({reason}); remove it, the one before takes its place"
        ) from None
    if not isinstance(state, dict) or not {"model", "model_config", "step"} <= state.keys():
        raise UserError(f"{path} is not a checkpoint that pretrain/train.py wrote; name another")
    return state


def model_from_checkpoint(state: dict[str, Any]) -> GPT:
    """The GPT that `state` holds."""
    model = GPT(GPTConfig(**state["model_config"]))
    model.load_state_dict(state["model"])
    return model


def rng_state() -> dict[str, Any]:
    """The state of every generator of random numbers, as plain values."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), position, has_gauss, cached],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every generator back to where `rng_state` found it."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
