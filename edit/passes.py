"""Partial passes through the GPT: block by block up to a token, or from a layer and a token on.

An edit changes the residual stream after one block at one token. Everything below that block and before that token
stays as it was: `Stream` keeps what is below while the edits climb, `Suffix` computes only what is above and behind.
Rows of like length stand together, so that little of a pass is padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edit.prompts import EditPrompt
from pretrain.model import GPT, Block

ROW_BATCH = 64  # rows of a pass at a time


def padded(sequences: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(B, T), padded on the right with id 0: under causal attention no token sees what is behind it."""
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *([0] * (longest - len(sequence)))] for sequence in sequences], device=device)


def embed(model: GPT, ids: Tensor) -> Tensor:
    """The residual stream (B, T, C) of ids (B, T) below the first block."""
    return model.wte(ids) + model.wpe(_positions(ids))


def run_blocks(model: GPT, x: Tensor, start: int, stop: int, cache: "PrefixCache | None" = None) -> Tensor:
    """The residual stream (B, T, C) after blocks start to stop - 1, of whole sequences with x below them."""
    for layer in range(start, stop):
        x = model.h[layer](x, cache, layer, _positions(x), None)
    return x


def attended(block: Block, x: Tensor) -> Tensor:
    """The stream (B, T, C) of whole sequences between the halves of a block that has x below it."""
    return x + block.attn(block.ln_1(x), None, 0, _positions(x), None)


def _positions(x: Tensor) -> Tensor:
    return torch.arange(x.size(1), device=x.device)[None]


class Stream:
    """The residual stream of prompts up to their positions, below block `depth`; the same whatever follows there."""

    def __init__(self, model: GPT, depth: int, groups: list[tuple[Tensor, Tensor, Tensor]]):
        self.model, self.depth = model, depth
        self.groups = groups  # rows (b,), their positions (b,), and x (b, T, C)

    @classmethod
    @torch.no_grad()
    def of(cls, model: GPT, prompts: Sequence[EditPrompt]) -> "Stream":
        """The embeddings of `prompts`."""
        device = model.wte.weight.device
        order = sorted(range(len(prompts)), key=lambda row: prompts[row].position)
        groups = []
        for start in range(0, len(order), ROW_BATCH):
            rows = order[start : start + ROW_BATCH]
            at = torch.tensor([prompts[row].position for row in rows], device=device)
            x = embed(model, padded([prompts[row].ids[: prompts[row].position + 1] for row in rows], device))
            groups.append((torch.tensor(rows, device=device), at, x))
        return cls(model, 0, groups)

    @torch.no_grad()
    def up_to(self, depth: int) -> "Stream":
        """The stream below block `depth`, through blocks with the weights that they have now."""
        moved = [(rows, at, run_blocks(self.model, x, self.depth, depth)) for rows, at, x in self.groups]
        return Stream(self.model, depth, moved)

    @torch.no_grad()
    def keys(self) -> Tensor:
        """(B, 4C): the inner activations of block `depth`'s MLP at the prompts' positions."""
        block, found = self.model.h[self.depth], []
        for _, at, x in self.groups:
            x = attended(block, x)[torch.arange(len(x), device=x.device), at]
            found.append(block.mlp.inner(block.ln_2(x)))
        return self._in_order(found)

    def ends(self) -> Tensor:
        """(B, C): the stream at the prompts' positions."""
        return self._in_order([x[torch.arange(len(x), device=x.device), at] for _, at, x in self.groups])

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        rows = torch.cat([rows for rows, _, _ in self.groups])
        return torch.cat(parts)[rows.argsort()]


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

    def cut(self, P: int) -> None:
        """Keep the first P tokens, and from now on only look at them."""
        for kept in (self.keys, self.values):
            for layer, tensor in kept.items():
                kept[layer] = tensor[:, :, :P].contiguous()
        self.filled = True

    def select(self, rows: Tensor) -> "PrefixCache":
        """The cache of some of the rows (long)."""
        chosen = PrefixCache()
        chosen.filled = True
        chosen.keys = {layer: keys[rows] for layer, keys in self.keys.items()}
        chosen.values = {layer: values[rows] for layer, values in self.values.items()}
        return chosen


@dataclass
class SuffixGroup:
    """Rows whose suffixes are about as long; row b starts at its position."""

    rows: Tensor  # (b,): which of the batch they are
    start: Tensor  # (b, S, C): the clean residual stream below the suffix's blocks, from the position on
    mask: Tensor  # (b, 1, S, P + S): what each token of the suffix sees
    prefix: PrefixCache  # of the blocks above, P tokens

    @classmethod
    def of(cls, model: GPT, prompts: Sequence[EditPrompt], rows: list[int], first: int) -> "SuffixGroup":
        """By one clean pass; `first` is the first block that an edit can change."""
        device = model.wte.weight.device
        P = max(prompt.position for prompt in prompts)
        S = max(len(prompt.ids) - prompt.position for prompt in prompts)
        at = torch.tensor([prompt.position for prompt in prompts], device=device)[:, None]
        prefix = PrefixCache()
        stream = run_blocks(model, embed(model, padded([prompt.ids for prompt in prompts], device)), 0, first)
        run_blocks(model, stream, first, model.config.n_layer, prefix)
        prefix.cut(P)
        # Slots behind a row's end repeat its last token; nobody reads them, and nothing before them sees them.
        slots = (at + torch.arange(S, device=device)).clamp(max=stream.size(1) - 1)
        start = stream.gather(1, slots[:, :, None].expand(-1, -1, stream.size(2)))
        seen_prefix = (torch.arange(P, device=device) < at)[:, None, :].expand(-1, S, -1)  # (b, S, P)
        causal = torch.ones(S, S, dtype=torch.bool, device=device).tril().expand(len(prompts), -1, -1)
        return cls(torch.tensor(rows, device=device), start, torch.cat([seen_prefix, causal], 2)[:, None], prefix)

    def select(self, keep: Tensor, new_row: Tensor) -> "SuffixGroup":
        """The rows for which `keep` (b,) is true, with the numbers new_row (B,) for the batch's."""
        rows = keep.nonzero()[:, 0]
        return SuffixGroup(new_row[self.rows[rows]], self.start[rows], self.mask[rows], self.prefix.select(rows))


class Suffix:
    """The part of a batch of prompts that an edit after block `layer` at their positions can change."""

    def __init__(self, model: GPT, layer: int, groups: list[SuffixGroup]):
        self.model, self.layer, self.groups = model, layer, groups

    @classmethod
    @torch.no_grad()
    def of(cls, model: GPT, prompts: Sequence[EditPrompt], layer: int) -> "Suffix":
        """One clean pass over `prompts`, ROW_BATCH at a time from short suffixes to long ones."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row].ids) - prompts[row].position)
        groups = []
        for start in range(0, len(order), ROW_BATCH):
            rows = order[start : start + ROW_BATCH]
            groups.append(SuffixGroup.of(model, [prompts[row] for row in rows], rows, layer + 1))
        return cls(model, layer, groups)

    def starts(self) -> Tensor:
        """(B, C): the clean stream after `layer` at the rows' positions."""
        rows = torch.cat([group.rows for group in self.groups])
        return torch.cat([group.start[:, 0] for group in self.groups])[rows.argsort()]

    def select(self, rows: Tensor) -> "Suffix":
        """The suffix of the rows for which `rows` (B,) is true, numbered anew."""
        new_row = rows.cumsum(0) - 1
        kept = [(group, rows[group.rows]) for group in self.groups]
        return Suffix(self.model, self.layer, [group.select(keep, new_row) for group, keep in kept if keep.any()])

    def read(self, delta: Tensor, where: Tensor, slots: Tensor) -> Tensor:
        """The stream (R, C) after the last block at `slots` (R,) of the rows `where` (R,), with delta (B, C) added at
        the rows' positions. Slot 0 is the position. In the last block, only what is read goes through the MLP.
        """
        blocks = list(enumerate(self.model.h))[self.layer + 1 :]
        found, places = [], []
        local = torch.zeros(len(delta), dtype=torch.long, device=delta.device)
        for group in self.groups:
            x = torch.cat([group.start[:, :1] + delta[group.rows][:, None], group.start[:, 1:]], 1)
            nowhere = torch.zeros(1, 1, device=x.device)  # positions are in `start` already
            for layer, block in blocks[:-1]:
                x = block(x, group.prefix, layer, nowhere, group.mask)
            [place] = torch.isin(where, group.rows).nonzero(as_tuple=True)
            local[group.rows] = torch.arange(len(group.rows), device=x.device)
            for layer, block in blocks[-1:]:
                x = x + block.attn(block.ln_1(x), group.prefix, layer, nowhere, group.mask)
            x = x[local[where[place]], slots[place]]
            for _, block in blocks[-1:]:
                x = x + block.mlp(block.ln_2(x))
            found.append(x)
            places.append(place)
        return torch.cat(found)[torch.cat(places).argsort()]
