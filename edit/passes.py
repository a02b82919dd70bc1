"""Partial passes through the GPT: up to a layer, or from a layer and a token on.

An edit changes the residual stream after one block at one token. Everything below that block and before that token
stays as it was, so a clean pass is made once and only the rest again (`Suffix`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from edit.prompts import EditPrompt
from pretrain.model import GPT

ROW_BATCH = 64  # rows of a clean pass at a time


def padded(sequences: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(B, T), padded on the right with id 0: under causal attention no token sees what is behind it."""
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *([0] * (longest - len(sequence)))] for sequence in sequences], device=device)


def run_blocks(model: GPT, ids: Tensor, stop: int, cache: "PrefixCache | None" = None) -> Tensor:
    """The residual stream (B, T, C) of ids (B, T) after blocks 0 to stop - 1."""
    positions = torch.arange(ids.size(1), device=ids.device)[None]
    x = model.wte(ids) + model.wpe(positions)
    for layer in range(stop):
        x = model.h[layer](x, cache, layer, positions, None)
    return x


@contextmanager
def recorded_keys(model: GPT, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """While open, each pass leaves the inputs (B, T, 4C) of the layers' mlp.c_proj, which are an edit's keys."""
    seen: dict[int, Tensor] = {}
    hooks = [
        model.h[layer].mlp.c_proj.register_forward_pre_hook(
            lambda _, inputs, layer=layer: seen.__setitem__(layer, inputs[0])
        )
        for layer in layers
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def states_at(
    model: GPT, prompts: Sequence[EditPrompt], layers: Sequence[int], top: int
) -> tuple[dict[int, Tensor], Tensor]:
    """At each prompt's position: the keys (B, 4C) of `layers`, and the residual stream (B, C) after `top`."""
    device = model.wte.weight.device
    keys: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    streams = []
    for start in range(0, len(prompts), ROW_BATCH):
        batch = prompts[start : start + ROW_BATCH]
        rows, at = torch.arange(len(batch)), torch.tensor([prompt.position for prompt in batch])
        with recorded_keys(model, layers) as seen:
            x = run_blocks(model, padded([prompt.ids for prompt in batch], device), top + 1)
        for layer in layers:
            keys[layer].append(seen[layer][rows, at])
        streams.append(x[rows, at])
    return {layer: torch.cat(parts) for layer, parts in keys.items()}, torch.cat(streams)


class PrefixCache:
    """Keys and values of the tokens before the suffix, in place of the model's KVCache, by layer: (B, H, P, D).

    Filled by a clean pass; then every pass over the suffix attends to them and leaves them as they are, so that
    gradients flow through the suffix alone.
    """

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.filled = False

    def append(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What Attention calls: all keys and values for the queries of k, v (B, H, S, D)."""
        if not self.filled:
            self.keys[layer], self.values[layer] = k, v
            return k, v
        return torch.cat([self.keys[layer], k], 2), torch.cat([self.values[layer], v], 2)


@dataclass
class Suffix:
    """The part of a batch that an edit at (layer, position) can change; row b starts at its position."""

    layer: int
    start: Tensor  # (B, S, C): the clean residual stream after `layer`, from the position on
    mask: Tensor  # (B, 1, S, P + S): what each token of the suffix sees
    prefix: PrefixCache  # of the layers above, padded to P tokens

    @classmethod
    @torch.no_grad()
    def of(cls, model: GPT, prompts: Sequence[EditPrompt], layer: int) -> "Suffix":
        """One clean pass over `prompts`, ROW_BATCH at a time."""
        P = max(prompt.position for prompt in prompts)
        S = max(len(prompt.ids) - prompt.position for prompt in prompts)
        parts = [
            cls._clean(model, prompts[start : start + ROW_BATCH], layer, P, S)
            for start in range(0, len(prompts), ROW_BATCH)
        ]
        prefix = PrefixCache()
        prefix.filled = True
        for above in range(layer + 1, model.config.n_layer):
            prefix.keys[above] = torch.cat([part.prefix.keys[above] for part in parts])
            prefix.values[above] = torch.cat([part.prefix.values[above] for part in parts])
        start, mask = (torch.cat([getattr(part, name) for part in parts]) for name in ("start", "mask"))
        return cls(layer, start, mask, prefix)

    @classmethod
    def _clean(cls, model: GPT, prompts: Sequence[EditPrompt], layer: int, P: int, S: int) -> "Suffix":
        device = model.wte.weight.device
        ids = padded([prompt.ids for prompt in prompts], device)
        at = torch.tensor([prompt.position for prompt in prompts], device=device)[:, None]
        seen = PrefixCache()
        x = run_blocks(model, ids, layer + 1)
        positions = torch.arange(ids.size(1), device=device)[None]
        stream = x
        for above in range(layer + 1, model.config.n_layer):
            x = model.h[above](x, seen, above, positions, None)
            for kept in (seen.keys, seen.values):
                kept[above] = torch.nn.functional.pad(kept[above][:, :, :P], (0, 0, 0, P - min(P, ids.size(1))))
        # Slots behind a row's end repeat its last token; nobody reads them, and nothing before them sees them.
        slots = (at + torch.arange(S, device=device)).clamp(max=ids.size(1) - 1)
        start = stream.gather(1, slots[:, :, None].expand(-1, -1, stream.size(2)))
        seen_prefix = (torch.arange(P, device=device) < at)[:, None, :].expand(-1, S, -1)  # (B, S, P)
        causal = torch.ones(S, S, dtype=torch.bool, device=device).tril().expand(len(prompts), -1, -1)
        return cls(layer, start, torch.cat([seen_prefix, causal], 2)[:, None], seen)

    def select(self, rows: Tensor) -> "Suffix":
        """The suffix of some of the rows (long)."""
        prefix = PrefixCache()
        prefix.filled = True
        prefix.keys = {layer: keys[rows] for layer, keys in self.prefix.keys.items()}
        prefix.values = {layer: values[rows] for layer, values in self.prefix.values.items()}
        return Suffix(self.layer, self.start[rows], self.mask[rows], prefix)

    def hidden(self, model: GPT, delta: Tensor) -> Tensor:
        """Residual stream (B, S, C) after the last block when delta (B, C) is added at the position."""
        x = torch.cat([self.start[:, :1] + delta[:, None], self.start[:, 1:]], 1)
        nowhere = torch.zeros(1, 1, device=x.device)  # positions are in `start` already
        for above in range(self.layer + 1, model.config.n_layer):
            x = model.h[above](x, self.prefix, above, nowhere, self.mask)
        return x
