"""Steering vectors: a direction in the residual stream that tells two sets of texts apart, added while a model runs.

The difference of the mean hidden states of positive and negative texts after a block (contrastive activation addition;
Rimsky et al. 2024). The weights stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.errors import UserError
from common.files import atomic_path
from edit.passes import embed, padded, run_blocks
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

Reduce = Literal["last", "mean"]


@dataclass(frozen=True)
class SteeringVector:
    """What to add after block `layer`: (C,)."""

    layer: int
    vector: Tensor


@torch.no_grad()
def steering_vector(
    model: GPT,
    tokenizer: GPT2TokenizerWithMulFacts,
    positive: Sequence[str],
    negative: Sequence[str],
    layer: int,
    reduce: Reduce = "last",
) -> SteeringVector:
    """Mean over positive minus mean over negative texts of the state at the last token, or of the mean over tokens."""
    if not positive or not negative:
        raise UserError("a steering vector needs at least one positive and one negative text")
    if not 0 <= layer < model.config.n_layer:
        raise UserError(f"layer {layer}: the model has layers 0 to {model.config.n_layer - 1}")
    means = [_states(model, tokenizer, texts, layer, reduce).mean(0) for texts in (positive, negative)]
    return SteeringVector(layer, means[0] - means[1])


@contextmanager
def steered(model: GPT, steering: SteeringVector, alpha: float) -> Iterator[GPT]:
    """While open, `alpha` times the vector is added after its block at every token; gone afterwards, come what may."""
    added = alpha * steering.vector.to(model.wte.weight.device)
    hook = model.h[steering.layer].register_forward_hook(lambda _module, _inputs, output: output + added)
    try:
        yield model
    finally:
        hook.remove()


def save_steering_vector(path: Path, steering: SteeringVector) -> None:
    """Write the vector and its layer as safetensors."""
    with atomic_path(path) as partial:
        save_file({"vector": steering.vector.cpu().contiguous()}, partial, metadata={"layer": str(steering.layer)})


def load_steering_vector(path: Path) -> SteeringVector:
    """Read what `save_steering_vector` wrote. Raises UserError for anything else."""
    try:
        with safe_open(path, "pt") as file:
            return SteeringVector(int(file.metadata()["layer"]), file.get_tensor("vector"))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no steering vector ({error}); edit/run_steering.py writes one") from None


def _states(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, texts: Sequence[str], layer: int, reduce: Reduce
) -> Tensor:
    ids = tokenizer.encode_batch(list(texts), allow_special=False)
    if not all(0 < len(row) <= model.config.block_size for row in ids):
        raise UserError(f"every text needs 1 to {model.config.block_size} tokens")
    device = model.wte.weight.device
    x = run_blocks(model, embed(model, padded(ids, device)), 0, layer + 1)
    lengths = torch.tensor([len(row) for row in ids], device=device)
    if reduce == "last":
        return x[torch.arange(len(ids), device=device), lengths - 1]
    real = torch.arange(x.size(1), device=device) < lengths[:, None]
    return (x * real[:, :, None]).sum(1) / lengths[:, None]
