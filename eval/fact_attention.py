"""Do multiplication facts look at their factors, and what follows at the fact?

Weights are computed from the queries and keys that each layer makes (pretrain/model.py does not keep them).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.token_probes import LEAD_INS, MUL
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import MulFactTokens


@dataclass(frozen=True)
class FactInContext:
    """A question and its answer with a fact: the ids, and where in them the fact, its factors and its reader stand."""

    ids: list[int]
    fact: int  # behind the question
    noted: int  # the same fact in the calculator note
    factors: list[int]
    reader: int  # the `>>` behind the fact: from here the result is predicted


def facts_in_context(tokenizer: GPT2TokenizerWithMulFacts) -> list[FactInContext]:
    """The 81 products in a question and its answer, "There are 6 boxes .. <MUL_6_9_54> = <<<MUL_6_9_54>>>"."""
    contexts = []
    for a in range(1, 10):
        for b in range(1, 10):
            ids = tokenizer.encode(f"{LEAD_INS[0].format(a=a, b=b)} {MUL.note(a, b, a * b)}")
            first = ids.index(MulFactTokens().id_of(a, b))
            numbers = [tokenizer.encode(f" {n}")[-1] for n in (a, b)]
            factors = [i for i, token in enumerate(ids[:first]) if token in numbers]
            contexts.append(FactInContext(ids, first, len(ids) - 2, factors, len(ids) - 1))
    return contexts


def attention_of_facts(model: GPT, contexts: Sequence[FactInContext], device: torch.device) -> dict[str, Any]:
    """Attention weights (L, H), averaged over contexts.

    `choice_to_factors`: from the blank before the fact, where it is chosen, to its factors in the question;
    `fact_to_factors`: from the fact itself; `result_to_fact`: from the `>>` where the result is read to the noted fact.
    Each with `.._uniform`, what equal attention to all that is seen would be.
    """
    config = model.config
    names = ("choice_to_factors", "fact_to_factors", "result_to_fact")
    sums = {name: np.zeros((config.n_layer, config.n_head)) for name in names}
    uniform = dict.fromkeys(names, 0.0)
    for context in contexts:
        weights = attention_weights(model, torch.tensor([context.ids], device=device))[:, 0].cpu().numpy()
        looks = (
            (context.fact - 1, context.factors),
            (context.fact, context.factors),
            (context.reader, [context.noted]),
        )
        for name, (position, seen) in zip(names, looks, strict=True):
            sums[name] += weights[:, :, position, seen].sum(-1)
            uniform[name] += len(seen) / (position + 1)
    n = len(contexts)
    found: dict[str, Any] = {name: (values / n).round(6).tolist() for name, values in sums.items()}
    return found | {f"{name}_uniform": round(value / n, 6) for name, value in uniform.items()}


@torch.no_grad()
def attention_weights(model: GPT, idx: Tensor) -> Tensor:
    """Attention weights (L, B, H, T, T) of token ids (B, T): row t says where position t looks."""
    projections: list[Tensor] = []
    handles = [
        block.attn.c_attn.register_forward_hook(lambda module, inputs, output: projections.append(output.detach()))
        for block in model.h
    ]
    try:
        model.hidden(idx)
    finally:
        for handle in handles:
            handle.remove()
    B, T = idx.shape
    heads = model.config.n_head
    causal = torch.ones(T, T, dtype=torch.bool, device=idx.device).tril()
    weights = []
    for projection in projections:
        q, k, _ = (part.view(B, T, heads, -1).transpose(1, 2).float() for part in projection.chunk(3, dim=2))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.size(-1))
        weights.append(scores.masked_fill(~causal, -math.inf).softmax(-1))
    return torch.stack(weights)
