"""What a model knows of its facts: in their embeddings, and in what it predicts (attention: eval/fact_attention.py).

Embeddings. Facts that share an operand, or a result, may lie close to each other. The statistic is the mean cosine of
such pairs less that of all other pairs; the permutation test draws which fact has which row anew, so it asks only
whether the names fit the rows. In `baseline` the same rows were never trained on text: they are the null.

Prediction. A fact is asked for where injected training text would have it, behind the beginning of an answer: "Each of
the 6 boxes holds 9 pens. Altogether that is ", with the blank that GPT-2's BPE leaves before an added token. Then which
of the family's has the highest log-probability? And the other way: behind `<MUL_6_9_54> = <<<MUL_6_9_54>>>`, as the
calculator notes of injected word problems have it, which result? Spelled prefixes, `<MUL_6_9_`, are asked of both
conditions: no training text spells a fact, so a model completes them only by what it knows of numbers.

Every family of facts is asked alike; what its lead-ins and notes are says data/world/family_arithmetic.py.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.world.family_arithmetic import NOTES, QUESTIONS
from eval.continuations import continuation_logprobs
from eval.resampling import bootstrap_mean
from eval.stats import wilson_interval
from pretrain.model import GPT
from tokenizer.families import Fact, fact_families
from tokenizer.forms import FORMS
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector

PERMUTATIONS = 10_000

# What stands before a product. Each names the factors in the order a, b.
LEAD_INS = (
    "User: There are {a} boxes with {b} pens in each. How many pens are there?\nAssistant: There are",
    "User: What is {a} times {b}?\nAssistant:",
    "Each of the {a} boxes holds {b} pens. Altogether that is",
    "{a} times {b} is",
)


@dataclass(frozen=True)
class Probed:
    """A family's facts, and how they are asked for."""

    name: str
    facts: tuple[Fact, ...]
    asked: tuple[tuple[Fact, int, int], ...]  # with the operands in each order that texts have
    lead_ins: tuple[str, ...]
    written: str  # a calculator note, which injection rewrites

    @property
    def ids(self) -> list[int]:
        """The facts' ids, which follow one another."""
        return [fact.id for fact in self.facts]

    @property
    def results(self) -> list[int]:
        """Their different results, in order."""
        return sorted({fact.value for fact in self.facts})

    def note(self, a: int, b: int, c: int) -> str:
        """A note as injected word problems have it, up to its result: `<MUL_6_9_54> = <<<MUL_6_9_54>>>`."""
        injected = _injector(self.name).inject(self.written.format(a=a, b=b, c=c))
        return injected.removesuffix(str(c))

    def before_fact(self, fact: Fact, a: int, b: int) -> str:
        """What stands in the note before the token: nothing, but `6 + 9 = <<` for sums."""
        return self.note(a, b, fact.value).partition(fact.token)[0]


@functools.cache
def _injector(family: str) -> MulExpressionInjector:
    return MulExpressionInjector(families=family)


@functools.cache
def probed(name: str) -> Probed:
    """The family `name` as it is asked for."""
    [family] = fact_families(name)
    orders = {(*fact.operands, fact) for fact in family.facts}
    if FORMS[family.forms[0]](family.prefix).commutes:
        orders |= {(b, a, fact) for a, b, fact in orders}
    asked = tuple((fact, a, b) for a, b, fact in sorted(orders, key=lambda order: order[:2]))
    if name == "mul":
        return Probed(name, family.facts, asked, LEAD_INS, "{a} * {b} = <<{a}*{b}={c}>>{c}")
    _, a, b = asked[0]
    # Of `What is 54 ÷ 6?` injection makes a question that holds the token that is asked for.
    in_words = [q for q in QUESTIONS[name] if "<" not in _injector(name).inject(q.format(a=a, b=b))]
    lead_ins = tuple(f"User: {question}\nAssistant:" for question in in_words)
    return Probed(name, family.facts, asked, lead_ins, NOTES[name])


MUL = probed("mul")


def embedding_clusters(model: GPT, seed: int = 0, family: Probed = MUL) -> dict[str, Any]:
    """Do the embeddings of facts cluster by operand, by result, by size of the result?

    Per relation: `statistic` (mean cosine of related pairs minus that of the others; for `size` the correlation of
    cosine and closeness of the results' logarithms), `p` (one-sided permutation test), and how many pairs are
    related. In `mul` the relations are called factor and product; one that no pair has is left out.
    """
    n = len(family.facts)
    cosines = fact_cosines(model, family)
    upper = np.triu_indices(n, 1)
    a, b, c = np.array([(*fact.operands, fact.value) for fact in family.facts]).T
    shared = (a[:, None] == a) | (a[:, None] == b) | (b[:, None] == a) | (b[:, None] == b)
    operand, result = ("factor", "product") if family.name == "mul" else ("operand", "result")
    relations = {operand: shared.astype(float), result: (c[:, None] == c).astype(float)}
    relations["size"] = -np.abs(np.log(c)[:, None] - np.log(c))
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(n) for _ in range(PERMUTATIONS)])
    found = {}
    for name, related in relations.items():
        if not related[upper].any():
            continue  # no two squares share a number
        weights = _contrast(related[upper], cosines[upper])
        statistic = float(cosines[upper] @ weights)
        exchanged = np.array([cosines[order][:, order][upper] @ weights for order in orders])
        p = (1 + int((exchanged >= statistic - 1e-12).sum())) / (1 + PERMUTATIONS)
        found[name] = {"statistic": round(statistic, 6), "p": round(p, 6)}
        if name != "size":
            found[name]["related_pairs"] = int(related[upper].sum())
    return found


def fact_cosines(model: GPT, family: Probed = MUL) -> np.ndarray:
    """Cosines (n, n) of the facts' embeddings less their mean: what all share says nothing of who is near whom."""
    rows = model.wte.weight.detach().float().cpu().numpy()[family.ids]
    directions = _directions(rows - rows.mean(0))
    return directions @ directions.T


def nearest_number(model: GPT, tokenizer: GPT2TokenizerWithMulFacts) -> dict[str, Any]:
    """Is the number whose embedding is nearest to a product's (by cosine, of " 1" to " 81") its result, or a factor?"""
    numbers = [n for n in range(1, 82) if len(tokenizer.encode(f" {n}")) == 1]
    weights = model.wte.weight.detach().float().cpu().numpy()
    own = weights[[tokenizer.encode(f" {n}")[0] for n in numbers]]
    facts = weights[MUL.ids]
    cosines = _directions(facts - facts.mean(0)) @ _directions(own - own.mean(0)).T
    nearest = [numbers[i] for i in cosines.argmax(1)]
    product = [n == fact.value for n, fact in zip(nearest, MUL.facts, strict=True)]
    factor = [n in fact.operands for n, fact in zip(nearest, MUL.facts, strict=True)]
    return {"is_product": _share(product), "is_factor": _share(factor), "chance_product": round(1 / len(numbers), 6)}


def fact_choices(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, device: torch.device, family: Probed = MUL
) -> list[dict[str, Any]]:
    """For each lead-in and each way to write a fact (81 products): how the family's facts rank behind it.

    Rows: lead_in, a, b, `rank` of the right fact (1 is first), `mass` (probability of all facts together) and
    `logprob` of the right one.
    """
    asked = [(lead, *each) for lead in family.lead_ins for each in family.asked]
    texts = [f"{lead.format(a=a, b=b)} {family.before_fact(fact, a, b)}" for lead, fact, a, b in asked]
    contexts = [tuple(tokenizer.encode(text, allow_special=False)) for text in texts]
    logprobs = _choices(model, contexts, [(i,) for i in family.ids], device)
    rows = []
    for (lead, fact, a, b), found in zip(asked, logprobs, strict=True):
        right = found[fact.id - family.ids[0]]
        rank = 1 + int((found > right).sum())
        rows.append({"lead_in": lead, "a": a, "b": b, "rank": rank, "mass": float(np.exp(found).sum())})
        rows[-1]["logprob"] = float(right)
    return rows


def product_choices(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, device: torch.device, spelled: bool, family: Probed = MUL
) -> list[dict[str, Any]]:
    """For each fact: how the different results (36 products) rank behind its calculator note, or behind `<MUL_6_9_`.

    They compete by their summed log-probability, in the second case with the closing bracket. Rows: a, b, `rank`
    of the right result and the one that came `first`.
    """
    if spelled:
        # In pieces, or mul_tokens would read the whole name as one token, were it to come about.
        halves = [fact.token.rpartition("_")[0].partition("_") for fact in family.facts]
        contexts = [tuple(tokenizer.encode(name) + tokenizer.encode(f"_{operands}_")) for name, _, operands in halves]
        endings = [tuple(tokenizer.encode(f"{c}>")) for c in family.results]
    else:
        notes = [family.note(*fact.operands, fact.value) for fact in family.facts]
        contexts = [tuple(tokenizer.encode(f"There are {note}")) for note in notes]
        endings = [tuple(tokenizer.encode(f"{c}")) for c in family.results]
    logprobs = _choices(model, contexts, endings, device)
    rows = []
    for fact, found in zip(family.facts, logprobs, strict=True):
        rank = 1 + int((found > found[family.results.index(fact.value)]).sum())
        a, b = fact.operands
        rows.append({"a": a, "b": b, "rank": rank, "first": family.results[int(found.argmax())]})
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
