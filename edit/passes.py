"""Partial passes through the GPT: block by block up to a token, or from a layer and a token on.

An edit changes the residual stream after one block at one token. Everything below that block and before that token
stays as it was: `Stream` keeps what is below while the edits climb, `Suffix` computes only what is above and behind.
Both run on packs, so that nothing is padding and a context is computed once, however many prompts stand behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edit.packs import Pack, Rows, attend, climb, project
from edit.prompts import EditPrompt
from pretrain.model import GPT, Block

ROW_BATCH = 512  # prompts of a stream in one pack: what memory is for


def padded(sequences: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(B, T), padded on the right with id 0: under causal attention no token sees what is behind it."""
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *([0] * (longest - len(sequence)))] for sequence in sequences], device=device)


def embed(model: GPT, ids: Tensor) -> Tensor:
    """The residual stream (B, T, C) of ids (B, T) below the first block."""
    return model.wte(ids) + model.wpe(_positions(ids))


def run_blocks(model: GPT, x: Tensor, start: int, stop: int) -> Tensor:
    """The residual stream (B, T, C) after blocks start to stop - 1, of whole sequences with x below them."""
    for layer in range(start, stop):
        x = model.h[layer](x, None, layer, _positions(x), None)
    return x


def attended(block: Block, x: Tensor) -> Tensor:
    """The stream (B, T, C) of whole sequences between the halves of a block that has x below it."""
    return x + block.attn(block.ln_1(x), None, 0, _positions(x), None)


def _positions(x: Tensor) -> Tensor:
    return torch.arange(x.size(1), device=x.device)[None]


class Stream:
    """The residual stream of prompts up to their positions, below block `depth`; the same whatever follows there.

    Prompts that are equal up to there are one, so that two edits of a subject have the same key to the last bit.
    """

    def __init__(self, model: GPT, depth: int, parts: list[tuple[Pack, Tensor]], rows: Tensor):
        self.model, self.depth, self.parts = model, depth, parts  # packs that end with the positions, and x (N, C)
        self.rows = rows  # (B,): which of their prompts each prompt is

    @classmethod
    @torch.no_grad()
    def of(cls, model: GPT, prompts: Sequence[EditPrompt]) -> "Stream":
        """The embeddings of `prompts`."""
        device = model.wte.weight.device
        texts = [(*prompt.ids[: prompt.position + 1], prompt.context) for prompt in prompts]
        row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        distinct = [EditPrompt(list(ids), len(ids) - 1, context) for *ids, context in row]
        batches = [distinct[start : start + ROW_BATCH] for start in range(0, len(distinct), ROW_BATCH)]
        packs = [Pack(batch, device) for batch in batches]
        rows = torch.tensor([row[text] for text in texts], device=device)
        return cls(model, 0, [(pack, pack.embed(model)) for pack in packs], rows)

    @torch.no_grad()
    def up_to(self, depth: int) -> "Stream":
        """The stream below block `depth`, through blocks with the weights that they have now."""
        parts = self.parts
        for block in self.model.h[self.depth : depth]:
            parts = [(pack, climb(block, x, pack.before + pack.behind)) for pack, x in parts]
        return Stream(self.model, depth, parts, self.rows)

    @torch.no_grad()
    def keys(self) -> Tensor:
        """(B, 4C): the inner activations of block `depth`'s MLP at the prompts' positions."""
        block, found = self.model.h[self.depth], []
        for pack, x in self.parts:
            qkv = project(block, x)
            y = attend(block, qkv[pack.length_before :], pack.behind, [rows.gather(qkv) for rows in pack.behind])
            x = x[pack.at] + block.attn.c_proj(y[pack.at - pack.length_before])
            found.append(block.mlp.inner(block.ln_2(x)))
        return torch.cat(found)[self.rows]

    def ends(self) -> Tensor:
        """(B, C): the stream at the prompts' positions."""
        return torch.cat([x[pack.at] for pack, x in self.parts])[self.rows]


@dataclass
class Suffix:
    """The part of a batch of prompts that an edit after some block at their positions can change.

    Its N tokens are the prompts' from their positions on, those of row b from place at[b] on.
    """

    blocks: list[Block]  # above the edit
    groups: list[Rows]
    pasts: list[list[Tensor]]  # by block and group: keys and values (b, P, 2C) of the tokens before the positions
    start: Tensor  # (N, C): the clean stream below these blocks
    qkv: Tensor  # (N, 3C): its projections in the first of them
    at: Tensor  # (B,)

    @classmethod
    @torch.no_grad()
    def of(cls, model: GPT, prompts: Sequence[EditPrompt], layer: int) -> "Suffix":
        """Of an edit after block `layer`, by a clean pass; above it only of what is before the positions."""
        pack = Pack(prompts, model.wte.weight.device)
        x = pack.embed(model)
        for block in model.h[: layer + 1]:
            x = climb(block, x, pack.before + pack.behind)
        before, start = x.split([pack.length_before, len(x) - pack.length_before])
        blocks, pasts = list(model.h[layer + 1 :]), []
        for block in blocks:
            qkv = project(block, before)
            pasts.append([rows.gather(qkv) for rows in pack.behind])
            if block is not blocks[-1]:
                before = climb(block, before, pack.before)
        qkv = project(blocks[0], start) if blocks else start
        return cls(blocks, pack.behind, pasts, start, qkv, pack.at - pack.length_before)

    def starts(self) -> Tensor:
        """(B, C): the clean stream after the edited block at the rows' positions."""
        return self.start[self.at]

    def select(self, rows: Tensor) -> "Suffix":
        """The suffix of the rows for which `rows` (B,) is true, numbered anew."""
        new_number = rows.cumsum(0) - 1
        keep = [rows[group.numbers] for group in self.groups]
        kept = [i for i, some in enumerate(keep) if some.any()]
        tokens = torch.cat([some.repeat_interleave(g.mask.size(2)) for some, g in zip(keep, self.groups, strict=True)])
        return Suffix(
            self.blocks,
            [self.groups[i].select(keep[i], new_number) for i in kept],
            [[pasts[i][keep[i]] for i in kept] for pasts in self.pasts],
            self.start[tokens],
            self.qkv[tokens],
            (tokens.cumsum(0) - 1)[self.at[rows]],
        )

    def read(self, delta: Tensor, where: Tensor, slots: Tensor) -> Tensor:
        """The stream (R, C) after the last block at `slots` (R,) of the rows `where` (R,), no place twice, with delta
        (B, C) added at the rows' positions. Slot 0 is the position.
        """
        read = self.at[where] + slots
        x = self.start.index_add(0, self.at, delta)
        for depth, block in enumerate(self.blocks):
            last = block is self.blocks[-1]  # there, keys and values apart, only what is read is computed
            if depth == 0:  # only the positions differ from the clean pass
                qkv = self.qkv.index_copy(0, self.at, project(block, x.index_select(0, self.at)))
            else:
                qkv = project(block, x, read if last else None)
            y = attend(block, qkv, self.groups, self.pasts[depth])
            x = block.finish(x.index_select(0, read), y.index_select(0, read)) if last else block.finish(x, y)
        return x if self.blocks else x.index_select(0, read)
