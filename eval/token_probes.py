"""What a model knows of its multiplication facts: in their embeddings, in what it predicts, in what it attends to.

Embeddings. Facts that share a factor, or a product, may lie close to each other. The statistic is the mean cosine of
such pairs less that of all other pairs; the permutation test draws which fact has which row anew, so it asks only
whether the names fit the rows. In `baseline` the same 45 rows were never trained on text: they are the null.

Prediction. A fact is asked for where injected training text would have it, behind the beginning of an answer: "Each of
the 6 boxes holds 9 pens. Altogether that is ", with the blank that GPT-2's BPE leaves before an added token. Then which
of the 45 has the highest log-probability? And the other way: behind `<MUL_6_9_54> = <<<MUL_6_9_54>>>`, as the
calculator notes of injected word problems have it, which product? Spelled prefixes, `<MUL_6_9_`, are asked of both
conditions: no training text spells a fact, so a model completes them only by what it knows of numbers.

Attention. Weights are computed from the queries and keys that each layer makes (pretrain/model.py does not keep them).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.continuations import continuation_logprobs
from eval.resampling import bootstrap_mean
from eval.stats import wilson_interval
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import MulFactTokens

PERMUTATIONS = 10_000
FACTS = [MulFactTokens().fact(i) for i in MulFactTokens().ids]
PRODUCTS = sorted({product for *_, product in FACTS})

# (context, what follows it up to the fact). Each names the factors in the order a, b.
LEAD_INS = (
    "User: There are {a} boxes with {b} pens in each. How many pens are there?\nAssistant: There are",
    "User: What is {a} times {b}?\nAssistant:",
    "Each of the {a} boxes holds {b} pens. Altogether that is",
    "{a} times {b} is",
)


def embedding_clusters(model: GPT, seed: int = 0) -> dict[str, Any]:
    """Do the embeddings of facts cluster by factor, by product, by size of the product?

    Per relation: `statistic` (mean cosine of related pairs minus that of the others; for `size` the correlation of
    cosine and closeness of the products' logarithms), `p` (one-sided permutation test), and how many pairs are
    related.
    """
    cosines = fact_cosines(model)
    upper = np.triu_indices(len(FACTS), 1)
    a, b, c = np.array(FACTS).T
    shared = (a[:, None] == a) | (a[:, None] == b) | (b[:, None] == a) | (b[:, None] == b)
    relations = {"factor": shared.astype(float), "product": (c[:, None] == c).astype(float)}
    relations["size"] = -np.abs(np.log(c)[:, None] - np.log(c))
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(len(FACTS)) for _ in range(PERMUTATIONS)])
    found = {}
    for name, related in relations.items():
        weights = _contrast(related[upper], cosines[upper])
        statistic = float(cosines[upper] @ weights)
        exchanged = np.array([cosines[order][:, order][upper] @ weights for order in orders])
        p = (1 + int((exchanged >= statistic - 1e-12).sum())) / (1 + PERMUTATIONS)
        found[name] = {"statistic": round(statistic, 6), "p": round(p, 6)}
        if name != "size":
            found[name]["related_pairs"] = int(related[upper].sum())
    return found


def fact_cosines(model: GPT) -> np.ndarray:
    """Cosines (45, 45) of the facts' embeddings less their mean: what all share says nothing of who is near whom."""
    rows = model.wte.weight.detach().float().cpu().numpy()[MulFactTokens().ids]
    directions = _directions(rows - rows.mean(0))
    return directions @ directions.T


def nearest_number(model: GPT, tokenizer: GPT2TokenizerWithMulFacts) -> dict[str, Any]:
    """Is the number whose embedding is nearest to a fact's (by cosine, of " 1" to " 81") its product, or a factor?"""
    numbers = [n for n in range(1, 82) if len(tokenizer.encode(f" {n}")) == 1]
    weights = model.wte.weight.detach().float().cpu().numpy()
    own = weights[[tokenizer.encode(f" {n}")[0] for n in numbers]]
    facts = weights[MulFactTokens().ids]
    cosines = _directions(facts - facts.mean(0)) @ _directions(own - own.mean(0)).T
    nearest = [numbers[i] for i in cosines.argmax(1)]
    product = [n == fact[2] for n, fact in zip(nearest, FACTS, strict=True)]
    factor = [n in fact[:2] for n, fact in zip(nearest, FACTS, strict=True)]
    return {"is_product": _share(product), "is_factor": _share(factor), "chance_product": round(1 / len(numbers), 6)}


def fact_choices(model: GPT, tokenizer: GPT2TokenizerWithMulFacts, device: torch.device) -> list[dict[str, Any]]:
    """For each lead-in and each of the 81 products: how the 45 facts rank behind it.

    Rows: lead_in, a, b, `rank` of the right fact (1 is first), `mass` (probability of all facts together) and
    `logprob` of the right one.
    """
    asked = [(lead, a, b) for lead in LEAD_INS for a in range(1, 10) for b in range(1, 10)]
    contexts = [tuple(tokenizer.encode(f"{lead.format(a=a, b=b)} ", allow_special=False)) for lead, a, b in asked]
    mul_facts = MulFactTokens()
    logprobs = _choices(model, contexts, [(i,) for i in mul_facts.ids], device)
    rows = []
    for (lead, a, b), found in zip(asked, logprobs, strict=True):
        right = found[mul_facts.id_of(a, b) - mul_facts.ids[0]]
        rank = 1 + int((found > right).sum())
        rows.append({"lead_in": lead, "a": a, "b": b, "rank": rank, "mass": float(np.exp(found).sum())})
        rows[-1]["logprob"] = float(right)
    return rows


def product_choices(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, device: torch.device, spelled: bool
) -> list[dict[str, Any]]:
    """For each fact: how the 36 different products rank behind its calculator note, or behind a spelled `<MUL_6_9_`.

    Products compete by their summed log-probability, in the second case with the closing bracket. Rows: a, b, `rank`
    of the right product and the product that came `first`.
    """
    if spelled:
        # In pieces, or mul_tokens would read the whole name as one token, were it to come about.
        contexts = [tuple(tokenizer.encode("<MUL") + tokenizer.encode(f"_{a}_{b}_")) for a, b, _ in FACTS]
        endings = [tuple(tokenizer.encode(f"{c}>")) for c in PRODUCTS]
    else:
        contexts = [tuple(tokenizer.encode(f"There are {_note(a, b)}")) for a, b, _ in FACTS]
        endings = [tuple(tokenizer.encode(f"{c}")) for c in PRODUCTS]
    logprobs = _choices(model, contexts, endings, device)
    rows = []
    for (a, b, c), found in zip(FACTS, logprobs, strict=True):
        rank = 1 + int((found > found[PRODUCTS.index(c)]).sum())
        rows.append({"a": a, "b": b, "rank": rank, "first": PRODUCTS[int(found.argmax())]})
    return rows


def rank_summary(rows: Sequence[dict[str, Any]], choices: int) -> dict[str, Any]:
    """Share of rank 1 and mean reciprocal rank, each with its interval, and what chance would give.

    Both are means over facts, whose rows (several lead-ins, both orders of the factors) are no facts more: the share's
    interval is wilson_95 where every fact has one row, else bootstrap_95 over facts. n counts rows, n_facts facts.
    """
    facts = [frozenset((row["a"], row["b"])) for row in rows]
    found = bootstrap_mean([1 / row["rank"] for row in rows], facts)
    first = [row["rank"] == 1 for row in rows]
    if found.n == len(rows):
        summary = _share(first)
    else:
        share = bootstrap_mean(first, facts)
        summary = {"share": round(share.mean, 6), "bootstrap_95": [round(share.low, 6), round(share.high, 6)]}
    summary |= {"chance": round(1 / choices, 6), "n": len(rows), "n_facts": found.n}
    summary |= {"mean_reciprocal_rank": round(found.mean, 6)}
    summary |= {"mean_reciprocal_rank_95": [round(found.low, 6), round(found.high, 6)]}
    if "mass" in rows[0]:
        summary["mean_mass"] = round(sum(row["mass"] for row in rows) / len(rows), 8)
    return summary


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
            ids = tokenizer.encode(f"{LEAD_INS[0].format(a=a, b=b)} {_note(a, b)}")
            first = ids.index(MulFactTokens().id_of(a, b))
            numbers = [tokenizer.encode(f" {n}")[0] for n in (a, b)]
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


def _note(a: int, b: int) -> str:
    """A product as injected word problems have it, up to its result: `<MUL_6_9_54> = <<<MUL_6_9_54>>>`."""
    token = MulFactTokens().token(a, b)
    return f"{token} = <<{token}>>"


def _choices(model: GPT, contexts: Sequence[tuple], endings: Sequence[tuple], device: torch.device) -> np.ndarray:
    """Log-probabilities (contexts, endings)."""
    pairs = [(context, ending) for context in contexts for ending in endings]
    return np.array(continuation_logprobs(model, pairs, device, torch.float32)).reshape(len(contexts), len(endings))


def _contrast(related: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weights whose product with `values` (in any order) is the difference of means between related pairs and others;
    for `related` that is not 0 and 1, Pearson's correlation.
    """
    if set(np.unique(related)) <= {0.0, 1.0}:
        return related / related.sum() - (1 - related) / (1 - related).sum()
    centred = related - related.mean()
    return centred / (np.linalg.norm(centred) * np.linalg.norm(values - values.mean()))


def _directions(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _share(values: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson_interval(sum(values), len(values))
    return {"share": round(sum(values) / len(values), 6), "wilson_95": [round(low, 6), round(high, 6)]}
