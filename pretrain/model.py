"""GPT-2, exactly: learned positions, pre-LayerNorm, tanh GELU, biases everywhere, head tied to the token embedding.

The only transformer of the project. Pretraining calls it with targets and gets a loss; generation, GRPO and editing
call `hidden` with a KVCache and `logits` on the positions they read. On the same weights it equals transformers'
GPT2LMHeadModel (tests/test_model.py), so models move between the two without loss (pretrain/hf_weights.py).
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pretrain.loss import chunked_cross_entropy
from tokenizer.mul_facts import VOCAB_SIZE

FEW_ROWS, WIDE = 128, 768  # batch x time up to which, and inputs from which, decoding multiplies W x^T on a CPU


@dataclass
class GPTConfig:
    n_layer: int = 12  # transformer blocks
    n_head: int = 12  # attention heads per block
    n_embd: int = 768  # width; a multiple of n_head
    block_size: int = 1024  # longest sequence, in tokens
    vocab_size: int = VOCAB_SIZE  # the same in both conditions


class KVCache:
    """Keys and values of the tokens seen so far, right-padded: row b holds lengths[b] tokens from position 0 on.

    kv: (L, B, 2H, S, D), first the H heads' keys, then their values, as the projections have them side by side;
    allocated once for S = room tokens per row. Rows may differ in length; whoever appends sees to it that every row
    has room left.
    """

    def __init__(self, config: GPTConfig, batch_size: int, room: int, device: torch.device, dtype=torch.float32):
        head_dim = config.n_embd // config.n_head
        shape = (config.n_layer, batch_size, 2 * config.n_head, room, head_dim)
        self.kv = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.rows = torch.arange(batch_size, device=device)[:, None]
        self.extent = 0  # no row is longer than this; kept on the host, so that reading it never waits for a GPU

    @property
    def room(self) -> int:
        """Tokens that a row can hold."""
        return self.kv.size(3)

    def select(self, rows: Tensor, room: int) -> "KVCache":
        """A copy of `rows` (long, any order, repeats allowed), with no more than `room` tokens per row."""
        selected = copy.copy(self)
        selected.kv, selected.lengths = self.kv[:, :, :, :room].index_select(1, rows), self.lengths[rows]
        selected.rows = torch.arange(len(rows), device=rows.device)[:, None]
        return selected

    def part(self, start: int, stop: int, extent: int = 0) -> "KVCache":
        """Rows `start` to `stop`, none longer than `extent`, as a cache that shares their storage with this one."""
        part = copy.copy(self)
        part.kv, part.lengths = self.kv[:, start:stop], self.lengths[start:stop]
        part.rows, part.extent = self.rows[: stop - start], extent
        return part

    def copy_rows(self, start: int, stop: int, source: "KVCache", source_row: int, length: int) -> None:
        """Make rows `start` to `stop` the `length` tokens of a row of `source`, which may be this cache."""
        self.kv[:, start:stop, :, :length] = source.kv[:, source_row : source_row + 1, :, :length]
        self.lengths[start:stop] = length

    def append(self, layer: int, kv: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store kv (B, T, 2H, D) at `positions` (B, T); return all keys and values so far, (B, H, S, D)."""
        # With an index for rows and one for positions, the indexed dimensions come first, as they do in kv.
        self.kv[layer][self.rows, :, positions] = kv.to(self.kv.dtype)
        return self.kv[layer, :, :, : self.extent_after(kv.size(1))].chunk(2, dim=1)

    def extent_after(self, T: int) -> int:
        """The extent once T more tokens per row are stored."""
        return min(self.extent + T, self.room)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, else -inf: attention turns truth values into these numbers, but it does so once per layer."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


class Linear(nn.Linear):
    """nn.Linear that multiplies few rows the other way round on a CPU, as W x^T, where that is faster.

    It is where several threads share a wide product: the library splits its longer side among them.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.size(-1)
        few = x.device.type == "cpu" and rows <= FEW_ROWS and not torch.is_grad_enabled()
        if not few or self.in_features < WIDE or torch.get_num_threads() == 1:
            return super().forward(x)
        y = torch.addmm(self.bias[:, None], self.weight, x.flatten(0, -2).t()).t()
        return y.contiguous().unflatten(0, x.shape[:-1])  # attention is slower on vectors that are not


class Attention(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: KVCache | None, layer: int, positions: Tensor, mask: Tensor | None) -> Tensor:
        B, T, C = x.shape
        qkv = self.c_attn(x)
        if cache is not None:
            keys, values = cache.append(layer, qkv[..., C:].view(B, T, 2 * self.n_head, -1), positions)
        if mask is None:  # these are the row's first tokens, and all there is to see
            return self.c_proj(self.read(qkv, None, None))
        q = qkv[..., :C].view(B, T, self.n_head, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, keys.to(q.dtype), values.to(q.dtype), attn_mask=mask)
        return self.c_proj(y.transpose(1, 2).flatten(2))

    def read(self, qkv: Tensor, past: Tensor | None, mask: Tensor | None) -> Tensor:
        """What the heads read (B, T, C), before the projection: for texts that the caller arranges.

        qkv (B, T, 3C): projections of the tokens; past (B, P, 2C): keys and values of those that they follow; mask
        (B, 1, T, P + T): who sees whom, None for all before and itself.
        """
        C = self.c_proj.in_features
        queries, own = qkv.split([C, 2 * C], 2)
        parts = (queries, *(own if past is None else torch.cat([past, own], 1)).split(C, 2))
        q, k, v = (part.unflatten(2, (self.n_head, -1)).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return y.transpose(1, 2).flatten(2)


class MLP(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def inner(self, x: Tensor) -> Tensor:
        """The inner activations (..., 4C)."""
        return F.gelu(self.c_fc(x), approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.inner(x))


class Block(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None, layer: int, positions: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, layer, positions, mask)
        return x + self.mlp(self.ln_2(x))

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream (..., C) above the block, given it below and what the heads read there, y (..., C)."""
        x = x + self.attn.c_proj(y)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Parameters are named as in GPT2LMHeadModel, less its `transformer.` prefix and its copy of the tied head."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """GPT-2's initialisation: normal of deviation 0.02; what writes to the residual stream 0.02 / sqrt(2 L)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name or name.startswith("ln_f"):
                parameter.fill_(1.0)
            elif name.endswith("c_proj.weight"):
                parameter.normal_(std=0.02 / math.sqrt(2 * self.config.n_layer))
            else:
                parameter.normal_(std=0.02)

    def hidden(self, idx: Tensor, cache: KVCache | None = None, lengths: Tensor | None = None) -> Tensor:
        """Final hidden states (B, T, C), after the last LayerNorm, of token ids idx (B, T).

        With a cache, idx continues its rows: row b appends its first lengths[b] tokens (all T when None); what
        follows them is padding, whose output is meaningless. Without one, idx is a whole sequence from position 0.
        """
        B, T = idx.shape
        positions, mask = torch.arange(T, device=idx.device).expand(B, T), None
        if cache is not None and cache.extent > 0:
            positions = cache.lengths[:, None] + positions
            stored = torch.arange(cache.extent_after(T), device=idx.device)
            seen = stored <= positions[:, :, None]  # (B, T, S): each query sees its own row's past
            mask = additive(seen[:, None], self.wte.weight.dtype)
        x = self.wte(idx) + self.wpe(positions if mask is not None else positions[:1])
        for layer, block in enumerate(self.h):
            x = block(x, cache, layer, positions, mask)
        if cache is not None:
            cache.extent = cache.extent_after(T)
            cache.lengths += T if lengths is None else lengths
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V). Call it on the positions that are read, and no others: the head is the widest layer."""
        return F.linear(hidden, self.wte.weight)

    def logits_vocabulary_first(self, hidden: Tensor, out: Tensor) -> None:
        """(R, C) -> `out` (V, R) float32: for few positions a third faster on a CPU than the other way round."""
        if hidden.dtype == out.dtype:
            torch.mm(self.wte.weight, hidden.t(), out=out)
        else:
            out.copy_(self.wte.weight @ hidden.t())

    def loss(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) after idx (B, T); every target counts."""
        return chunked_cross_entropy(self.hidden(idx).flatten(0, 1), self.wte.weight, targets.flatten())

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        """The training loss: what DistributedDataParallel and torch.compile wrap."""
        return self.loss(idx, targets)

    def num_parameters(self) -> int:
        """All parameters, the tied head counted once."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Training FLOPs per token: 6 N + 12 L C T (PaLM, appendix B), N without the position embedding.

        The factor 12 counts attention over the full T, not its causal half; biases and LayerNorms are in N.
        """
        config = self.config
        return 6 * (self.num_parameters() - self.wpe.weight.numel()) + (
            12 * config.n_layer * config.n_embd * config.block_size
        )
