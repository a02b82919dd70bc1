"""From logits to token ids: greedy, temperature, top-k, top-p, and the random numbers that decide.

One random number chooses one token by inverting the cumulative distribution, so a choice depends on its own row and its
own number, whatever else the batch holds. The vocabulary is read in blocks: of 50,349 candidates only the block in
which the number falls is summed up one by one. Float64 copies and sequential sums of all of them took longer than the
model itself at small widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # vocabulary entries that are summed at once


@dataclass(frozen=True)
class Sampling:
    """How to choose a token from logits. `temperature` 0 is greedy."""

    temperature: float
    top_k: int | None
    top_p: float | None

    def choose(self, logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Choose one id per column of `logits` (V, R) float32, column r by its random number `uniforms[r]` in [0, 1).

        V is a multiple of BLOCK; entries behind the vocabulary are -inf. The vocabulary comes first because the head
        is fastest that way round on a CPU; `logits` is overwritten.

        Returns ids (R,) and their log-probabilities (R,) under softmax(logits / temperature), which top-k and top-p
        do not change; greedy decoding counts as temperature 1. Of equal maxima greedy decoding takes the lowest id.
        """
        blocks = logits.view(-1, BLOCK, logits.size(1))
        maxima = blocks.amax(1)  # (V / BLOCK, R)
        logits -= maxima.amax(0)
        if self.temperature not in (0, 1):
            logits *= 1 / self.temperature
        ids = None
        if self.temperature == 0 or self.top_k == 1:
            block = maxima.argmax(0)
            ids = block * BLOCK + _block(blocks, block).argmax(-1)
        elif self.top_k is not None or self.top_p is not None:
            ids = self._among_candidates(logits.t().contiguous(), uniforms)
        weights = logits.exp_()
        if ids is None:
            ids, total = _inverted(blocks, uniforms)
        else:
            total = blocks.sum(1).sum(0, dtype=uniforms.dtype)
        chosen = weights.gather(0, ids[None])[0]
        return ids, (chosen.log() - total.log()).float()

    def _among_candidates(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Ids (R,) from logits (R, V): of the `top_k` likeliest, of those that reach `top_p`, or of what both leave."""
        size = logits.size(-1)
        logits, candidates = logits.topk(min(self.top_k or size, size))
        probabilities = logits.softmax(-1)
        if self.top_p is not None:
            # A candidate stays while those before it have not yet reached top_p, so the first always stays.
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.where(before < self.top_p, 0)
        cumulative = probabilities.cumsum(-1, dtype=uniforms.dtype)
        return candidates.gather(-1, _first_above(cumulative, uniforms * cumulative[:, -1])[:, None])[:, 0]


def _inverted(blocks: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (R,) where the cumulative weights reach a share `uniforms` (R,) of their total (R,), and that total.

    blocks: the weights (V / BLOCK, BLOCK, R).
    """
    if len(blocks) == 1:
        cumulative = blocks[0].t().contiguous().cumsum(-1, dtype=uniforms.dtype)
        total = cumulative[:, -1]
        return _first_above(cumulative, uniforms * total), total
    cumulative = blocks.sum(1).to(uniforms.dtype).cumsum(0).t().contiguous()  # (R, V / BLOCK)
    total = cumulative[:, -1]
    targets = uniforms * total
    block = _first_above(cumulative, targets)
    before = F.pad(cumulative, (1, 0)).gather(-1, block[:, None])[:, 0]
    inside = _block(blocks, block).cumsum(-1, dtype=uniforms.dtype)
    return block * BLOCK + _first_above(inside, targets - before), total


def _first_above(cumulative: Tensor, targets: Tensor) -> Tensor:
    """The first entry (R,) of each row of `cumulative` (R, N) above its target.

    A target is kept strictly below the row's total: the entry found then adds to the sum, so it has a probability above
    zero, also when the last ones have none.
    """
    below = cumulative[:, -1] * (1 - torch.finfo(cumulative.dtype).eps)
    return torch.searchsorted(cumulative, targets.minimum(below)[:, None], right=True)[:, 0]


def _block(blocks: Tensor, index: Tensor) -> Tensor:
    """Block `index[r]` of column r: (V / BLOCK, BLOCK, R) -> (R, BLOCK)."""
    return blocks[index, :, torch.arange(len(index), device=index.device)]


def uniform_numbers(seed: int, samples: Sequence[tuple[int, int]], steps: int) -> np.ndarray:
    """Random numbers (R, steps) float64 in [0, 1): each (seed, prompt, sample) has a stream of its own."""
    return np.stack([np.random.default_rng((seed, *sample)).random(steps) for sample in samples])
