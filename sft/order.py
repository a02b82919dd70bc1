"""The order in which examples are trained, shared out among processes so that none is trained twice in a pass."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_callback import TrainerCallback, TrainerState

from sft.packing import IGNORED


class TrainingOrder(Sampler[int], TrainerCallback):
    """The indices of `examples` in an order of `seed` and the pass; then those of `fillers`, which come behind them.

    Accelerate deals micro-batches to the processes in turn. Where they do not come out even it repeats examples from
    the pass's start, which a single process does not see: fillers take their place, rows that train nothing.
    """

    def __init__(self, examples: int, fillers: int, seed: int) -> None:
        self.examples, self.fillers, self.seed = examples, fillers, seed
        self.epoch = 0

    def on_epoch_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Choose the pass. (Accelerate would do it by `set_epoch`, but not in a pass that several processes resume.)"""
        self.epoch = int(state.epoch)

    def __len__(self) -> int:
        return self.examples + self.fillers

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.examples, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        return iter([*order.tolist(), *range(self.examples, len(self))])


def filler(pad_id: int) -> dict[str, np.ndarray]:
    """A row of one padding token without a label: packed, it is padding like any other."""
    return {"input_ids": np.array([pad_id], dtype=np.int32), "labels": np.array([IGNORED], dtype=np.int32)}
