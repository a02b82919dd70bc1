"""The tokens of many prompts in one list, without padding and with what they share only once.

Everything in a block but attention takes the list as it is. Attention takes rows of one length at a time, each behind
the keys and values of the tokens that it follows, wherever these stand in the list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from edit.prompts import EditPrompt
from pretrain.model import GPT, Block


@dataclass(frozen=True)
class Rows:
    """b pieces of S tokens each, one behind the other in the list, that follow up to P tokens elsewhere in it."""

    numbers: Tensor  # (b,): which of the pieces that were laid together
    past: Tensor  # (b, P): places in the list of the tokens that each piece follows, padded with 0
    mask: Tensor  # (b, 1, S, P + S): what each token sees

    @classmethod
    def of(cls, numbers: list[int], pasts: list[list[int]], S: int, device: torch.device) -> "Rows":
        """Every token sees its piece's past, itself and what is before it in the piece."""
        past = pad_sequence([torch.tensor(places, dtype=torch.long) for places in pasts], batch_first=True).to(device)
        b, P = past.shape
        seen = torch.arange(P, device=device) < torch.tensor([len(places) for places in pasts], device=device)[:, None]
        causal = torch.ones(S, S, dtype=torch.bool, device=device).tril()
        mask = torch.cat([seen[:, None].expand(b, S, P), causal.expand(b, S, S)], 2)
        return cls(torch.tensor(numbers, device=device), past, mask[:, None])

    def select(self, keep: Tensor, new_number: Tensor) -> "Rows":
        """The pieces for which `keep` (b,) is true, with the numbers `new_number` gives to theirs."""
        return Rows(new_number[self.numbers[keep]], self.past[keep], self.mask[keep])

    @property
    def size(self) -> int:
        """Tokens of the pieces together."""
        return self.mask.size(0) * self.mask.size(2)

    def gather(self, qkv: Tensor) -> Tensor:
        """(b, P, 2C): keys and values of each piece's past among projections (N, 3C)."""
        C = qkv.size(1) // 3
        return qkv[:, C:].index_select(0, self.past.flatten()).unflatten(0, self.past.shape)


class Pack:
    """Prompts in one list: every context once; what stands between context and position; the position and the rest."""

    def __init__(self, prompts: Sequence[EditPrompt], device: torch.device):
        self.device = device
        self.ids: list[int] = []
        self.positions: list[int] = []  # where each token stands in its text
        contexts = list(dict.fromkeys(tuple(prompt.ids[: prompt.context]) for prompt in prompts))
        first, places = self._lay([([], context) for context in contexts])
        shared = dict(zip(contexts, places, strict=True))
        pasts = [shared[tuple(prompt.ids[: prompt.context])] for prompt in prompts]
        own = [prompt.ids[prompt.context : prompt.position] for prompt in prompts]
        second, places = self._lay(list(zip(pasts, own, strict=True)))
        self.before, self.length_before = first + second, len(self.ids)  # rows and tokens before the positions
        pasts = [past + between for past, between in zip(pasts, places, strict=True)]
        rest = [prompt.ids[prompt.position :] for prompt in prompts]
        self.behind, places = self._lay(list(zip(pasts, rest, strict=True)))  # rows that begin with the positions
        self.at = torch.tensor([row[0] for row in places], device=device)  # (B,): the places of the positions

    def _lay(self, pieces: list[tuple[list[int], Sequence[int]]]) -> tuple[list[Rows], list[list[int]]]:
        """Append pieces (the places that they follow, their ids), the equally long together; say where they stand."""
        groups: list[Rows] = []
        places: list[list[int]] = [[] for _ in pieces]
        lengths = [(len(ids), len(past)) for past, ids in pieces]
        order = sorted((i for i, (S, _) in enumerate(lengths) if S), key=lengths.__getitem__)
        for S, same in groupby(order, key=lambda i: lengths[i][0]):
            numbers = list(same)
            for i in numbers:
                past, ids = pieces[i]
                places[i] = list(range(len(self.ids), len(self.ids) + S))
                self.ids += ids
                self.positions += range(len(past), len(past) + S)
            groups.append(Rows.of(numbers, [pieces[i][0] for i in numbers], S, self.device))
        return groups, places

    def embed(self, model: GPT) -> Tensor:
        """The residual stream (N, C) below the first block."""
        ids, positions = (torch.tensor(each, device=self.device) for each in (self.ids, self.positions))
        return model.wte(ids) + model.wpe(positions)


def project(block: Block, x: Tensor, queries: Tensor | None = None) -> Tensor:
    """Queries, keys and values (N, 3C) of the stream (N, C) below a block; given places, 0 for all other queries."""
    x = block.ln_1(x)
    if queries is None:
        return block.attn.c_attn(x)
    C, weight, bias = x.size(1), block.attn.c_attn.weight, block.attn.c_attn.bias
    q = F.linear(x.index_select(0, queries), weight[:C], bias[:C])
    q = torch.zeros_like(x).index_copy(0, queries, q)
    return torch.cat([q, F.linear(x, weight[C:], bias[C:])], 1)


def attend(block: Block, qkv: Tensor, groups: Sequence[Rows], pasts: Sequence[Tensor]) -> Tensor:
    """What the heads read (N, C), side by side, with the projections (N, 3C) of the groups' tokens in their order.

    pasts: for each group the keys and values (b, P, 2C) of what it follows.
    """
    C = qkv.size(1) // 3
    read = [qkv[:0, :C]]  # there may be no groups: prompts with nothing before their positions
    for rows, past, own in zip(groups, pasts, qkv.split([rows.size for rows in groups]), strict=True):
        read.append(block.attn.read(own.view(len(past), -1, 3 * C), past, rows.mask).flatten(0, 1))
    return torch.cat(read)


def climb(block: Block, x: Tensor, groups: Sequence[Rows]) -> Tensor:
    """The stream (N, C) of the groups' tokens through a whole block; they follow no others."""
    qkv = project(block, x)
    return block.finish(x, attend(block, qkv, groups, [rows.gather(qkv) for rows in groups]))
