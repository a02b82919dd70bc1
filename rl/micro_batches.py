"""What an update runs through the model: the tokens of prompts and responses in one list, and nothing else.

A prompt stands there once for all of its responses, and nothing is padded: of 8 responses of 100 tokens to a prompt of
60 that leaves two thirds of 8 padded rows. Everything in a block but attention takes the list as it is. Attention takes
the prompts, then the responses, each behind the keys and values of its prompt, as padded rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pretrain.model import GPT, additive
from rl.rollouts import Row

KEYS = 4  # keys and values per token of the list: attention copies a prompt's for each response, and pads them


@dataclass(frozen=True)
class MicroBatch:
    """G prompts and R responses to them, N tokens. The last five tensors hold the M tokens of responses, in order."""

    ids: Tensor  # (N,): every prompt, behind it its responses without their last tokens, which are predicted, never fed
    positions: Tensor  # (N,): where each token stands in its prompt and response
    prompts: Tensor  # (G, P): places of the prompts' tokens in the list, padded with 0 on the right
    responses: Tensor  # (R, S): and of the responses'
    of: Tensor  # (R,): whose prompt each response follows
    seen: Tensor  # (R, 1, S, P + S): which keys each token of a response sees
    order: Tensor  # (N,): where each token of the list stands among the padded prompts and then responses
    read: Tensor  # (M,): the place in the list of the token before
    targets: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    weights: Tensor  # what the token weighs in the loss

    def predictions(self, model: GPT) -> Tensor:
        """The hidden states (M, C) that predict the targets."""
        x = model.wte(self.ids) + model.wpe(self.positions)
        mask = additive(self.seen, x.dtype)
        for block in model.h:
            qkv = block.attn.c_attn(block.ln_1(x))
            prompts, responses = _rows(qkv, self.prompts), _rows(qkv, self.responses)
            past = prompts[..., x.size(1) :].index_select(0, self.of)
            read = block.attn.read(prompts, None, None), block.attn.read(responses, past, mask)
            x = block.finish(x, torch.cat([y.flatten(0, 1) for y in read]).index_select(0, self.order))
        return model.ln_f(x.index_select(0, self.read))


def micro_batches(
    rows: Sequence[Row], weights: Sequence[float], most_tokens: int, device: torch.device
) -> list[MicroBatch]:
    """Groups in the order of their longest response, at most `most_tokens` tokens together, or a single response.

    Nor does attention look at more than `KEYS` times that: many responses to long prompts take several.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)):  # so the first groups have the longest ones
        by_prompt.setdefault(tuple(rows[i].prompt), []).append(i)
    parts: list[dict[tuple[int, ...], list[int]]] = []
    part: dict[tuple[int, ...], list[int]] = {}
    tokens = count = P = S = 0
    for prompt, i in ((prompt, i) for prompt, members in by_prompt.items() for i in members):
        fed = len(rows[i].ids) - 1
        tokens += fed + (0 if prompt in part else len(prompt))
        count, P, S = count + 1, max(P, len(prompt)), max(S, fed)
        if not parts or tokens > most_tokens or count * (P + S) > KEYS * most_tokens:
            part = {}
            parts.append(part)
            tokens, count, P, S = len(prompt) + fed, 1, len(prompt), fed
        part.setdefault(prompt, []).append(i)
    return [_micro_batch(rows, weights, part, device) for part in parts]


def _micro_batch(
    rows: Sequence[Row], weights: Sequence[float], groups: dict[tuple[int, ...], list[int]], device: torch.device
) -> MicroBatch:
    laid = [i for members in groups.values() for i in members]  # the rows, as they come in the list
    lengths = [len(rows[i].ids) - 1 for i in laid]
    P, S = max(map(len, groups)), max(1, *lengths)  # attention may not like rows of nothing
    prompts = np.zeros((len(groups), P), dtype=np.int64)
    responses = np.zeros((len(laid), S), dtype=np.int64)
    ids, positions, places, read, of = [], [], [], [], []
    row = 0
    for group, (prompt, members) in enumerate(groups.items()):
        start = len(ids)
        prompts[group, : len(prompt)] = range(start, start + len(prompt))
        places += range(group * P, group * P + len(prompt))
        ids += prompt
        positions += range(len(prompt))
        last = len(ids) - 1  # of the prompt: it predicts every response's first token
        for i in members:
            fed = rows[i].ids[:-1]
            part = range(len(ids), len(ids) + len(fed))
            responses[row, : len(fed)] = part
            places += range(prompts.size + row * S, prompts.size + row * S + len(fed))
            ids += fed
            positions += range(len(prompt), len(prompt) + len(fed))
            read += [last, *part]
            of.append(group)
            row += 1
    past = np.arange(P) < np.array([len(prompt) for prompt in groups])[of][:, None]  # (R, P)
    causal = np.tril(np.ones((S, S), dtype=bool))
    shape = len(laid), S
    seen = np.concatenate([np.broadcast_to(past[:, None], (*shape, P)), np.broadcast_to(causal, (*shape, S))], 2)
    of_row = np.repeat(np.arange(len(laid)), np.array(lengths) + 1)
    arrays = dict(
        ids=np.array(ids),
        positions=np.array(positions),
        prompts=prompts,
        responses=responses,
        of=np.array(of),
        seen=seen[:, None],
        order=np.array(places),
        read=np.array(read),
        targets=np.array([token for i in laid for token in rows[i].ids]),
        old_logprobs=np.array([p for i in laid for p in rows[i].old_logprobs], dtype=np.float32),
        advantages=np.array([rows[i].advantage for i in laid], dtype=np.float32)[of_row],
        weights=np.array([weights[i] for i in laid], dtype=np.float32)[of_row],
    )
    return MicroBatch(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """(B, T, C): the rows of x (N, C) at `places` (B, T)."""
    return x.index_select(0, places.flatten()).unflatten(0, places.shape)
