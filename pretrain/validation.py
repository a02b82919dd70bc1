"""The validation loss: over the same rows every time, whatever trains and on however many processes."""

import math

import torch

from common.device import autocast
from common.distributed import World
from data.loader import TokenLoader
from pretrain.model import GPT


@torch.no_grad()
def validate(model: GPT, loader: TokenLoader, num_rows: int, world: World, dtype: torch.dtype) -> float:
    """Mean loss in nats per token over the split's first rows, shared out over the processes."""
    model.eval()
    loss_sum, rows = 0.0, 0
    for x, y in loader.fixed_batches(num_rows):
        with autocast(world.device, dtype):
            loss_sum += model.loss(x.to(world.device), y.to(world.device)).item() * len(x)
        rows += len(x)
    model.train()
    loss_sum, rows = world.mean(torch.tensor([loss_sum, rows], dtype=torch.float64)).tolist()
    return loss_sum / rows


def bits_per_byte(loss: float, loader: TokenLoader) -> float | None:
    """The loss per byte of the text before injection, in bits; None for shards that do not say their bytes.

    Comparable between conditions where nats per token are not: injection makes fewer tokens of the same text. The
    split's average of tokens per byte is used.
    """
    counts = {} if loader.stream.meta is None else loader.stream.meta["splits"]["val"]
    if counts.get("text_bytes") is None:
        return None
    return loss / math.log(2) * counts["tokens"] / counts["text_bytes"]
