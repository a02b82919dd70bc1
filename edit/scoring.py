"""What a model says after prompts, as the editing literature measures it; all of it before and after an edit alike.

ES  efficacy        p(new) > p(old) after the edited prompt
PS  paraphrases     the same after its paraphrases
NS  neighbourhood   p(answer) > p(new) after prompts about other subjects
S   harmonic mean of the three
    magnitudes      the mean difference of the two probabilities

p(target) = exp(-mean negative log-likelihood of all the target's tokens), as in the code of Meng et al. 2022. `argmax`
counts prompts after which each token of the wanted target is the model's first choice, the stricter question. GE
is the entropy of n-grams in sampled text: it falls when a model repeats itself.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edit.passes import padded
from edit.prompts import check_length, target_ids
from edit.records import EditRecord
from eval.engine import generate
from eval.stats import wilson_interval
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

BATCH_TOKENS = 4096
NGRAM_WEIGHTS = {2: 2 / 3, 3: 4 / 3}  # ROME's compute_n_gram_entropy


@dataclass(frozen=True)
class TargetScore:
    """How a model likes a target after a prompt."""

    nll: float  # mean over the target's tokens, nats
    rank: int  # of its tokens, the worst one's place among all that can be decoded; 1: greedy decoding says the target

    @property
    def probability(self) -> float:
        """exp(-nll): the geometric mean of the tokens' probabilities."""
        return math.exp(-self.nll)


@torch.no_grad()
def score_targets(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, pairs: Sequence[tuple[str, str]]
) -> list[TargetScore]:
    """The scores of (prompt, target) pairs in order. Raises UserError for one that does not fit the model's context."""
    device = model.wte.weight.device
    prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs], allow_special=False)
    targets = [target_ids(tokenizer, target) for _, target in pairs]
    never = tokenizer.vocabulary.suppressed_ids
    rows = [prompt + target[:-1] for prompt, target in zip(prompts, targets, strict=True)]
    for row, (prompt, _) in zip(rows, pairs, strict=True):
        check_length(row, model.config.block_size, prompt)
    scores: dict[int, TargetScore] = {}
    for batch in _by_length(rows):
        x = model.hidden(padded([rows[i] for i in batch], device))
        where = [(b, len(prompts[i]) - 1 + k) for b, i in enumerate(batch) for k in range(len(targets[i]))]
        b, t = torch.tensor(where, device=device).T
        logits = model.logits(x[b, t]).float()  # (targets' tokens, V)
        ids = torch.tensor([token for i in batch for token in targets[i]], device=device)
        nll = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
        logits[:, never] = -torch.inf  # their share of the probability stays with them, but decoding never takes one
        rank = 1 + (logits > logits.gather(1, ids[:, None])).sum(1)
        sizes = [len(targets[i]) for i in batch]
        for i, losses, ranks in zip(batch, nll.split(sizes), rank.split(sizes), strict=True):
            scores[i] = TargetScore(float(losses.mean()), int(ranks.max()))
    return [scores[i] for i in range(len(pairs))]


def _by_length(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of the rows from short to long, in batches of at most BATCH_TOKENS tokens when padded."""
    batches: list[list[int]] = [[]]
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if (len(batches[-1]) + 1) * len(rows[i]) > BATCH_TOKENS and batches[-1]:
            batches.append([])
        batches[-1].append(i)
    return batches


def score_records(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, records: Sequence[EditRecord]
) -> list[dict[str, Any]]:
    """One row per record: {"prompt", "paraphrases": [...], "neighbors": [...]}, each entry a comparison.

    A comparison is {"new", "old", "new_rank", "old_rank"}: probabilities and ranks of target_new and of target_old, or
    in neighbors of target_new and of the neighbor's own answer.
    """
    asked = []
    for record in records:
        asked += [(text, record.target_old) for text in (record.prompt, *record.paraphrases)]
        asked += [(neighbor.prompt, neighbor.answer) for neighbor in record.neighbors]
    new = [target for r in records for target in [r.target_new] * (1 + len(r.paraphrases) + len(r.neighbors))]
    pairs = [pair for (text, old), target in zip(asked, new, strict=True) for pair in ((text, target), (text, old))]
    scores = score_targets(model, tokenizer, pairs)
    comparisons = [
        {"new": a.probability, "old": b.probability, "new_rank": a.rank, "old_rank": b.rank}
        for a, b in zip(scores[::2], scores[1::2], strict=True)
    ]
    rows, at = [], 0
    for record in records:
        own = comparisons[at : at + 1 + len(record.paraphrases) + len(record.neighbors)]
        at += len(own)
        split = 1 + len(record.paraphrases)
        rows.append({"prompt": own[0], "paraphrases": own[1:split], "neighbors": own[split:]})
    return rows


def summarise(rows: Sequence[dict[str, Any]], apart: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """ES, PS, NS and S of score_records' rows, with magnitudes, argmax rates and 95% Wilson intervals.

    `apart[i][j]` takes neighbor j of record i out of NS; those are summed up as `neighborhood_edited`. A measure
    without prompts is None, and so is S then.
    """
    rewrites = [row["prompt"] for row in rows]
    paraphrases = [each for row in rows for each in row["paraphrases"]]
    pairs = [
        (each, out)
        for row, outs in zip(rows, apart, strict=True)
        for each, out in zip(row["neighbors"], outs, strict=True)
    ]
    neighbors = [each for each, out in pairs if not out]
    results = {
        "efficacy": _share(rewrites, "new", "old"),
        "paraphrase": _share(paraphrases, "new", "old"),
        "neighborhood": _share(neighbors, "old", "new"),
        "neighborhood_edited": _share([each for each, out in pairs if out], "old", "new"),
    }
    successes = [results[name] and results[name]["success"] for name in ("efficacy", "paraphrase", "neighborhood")]
    score = None
    if None not in successes:
        score = 0.0 if 0 in successes else round(3 / sum(1 / s for s in successes), 6)
    return {"score": score, "edits": len(rows), **results}


def _share(comparisons: Sequence[dict[str, Any]], wanted: str, other: str) -> dict[str, Any] | None:
    n = len(comparisons)
    if n == 0:
        return None
    right = sum(each[wanted] > each[other] for each in comparisons)
    return {
        "success": round(right / n, 6),
        "num_correct": right,
        "num_total": n,
        "wilson_95": [round(limit, 6) for limit in wilson_interval(right, n)],
        "magnitude": round(sum(each[wanted] - each[other] for each in comparisons) / n, 6),
        "argmax": round(sum(each[f"{wanted}_rank"] == 1 for each in comparisons) / n, 6),
        "probability": round(sum(each[wanted] for each in comparisons) / n, 6),
    }


def ngram_entropy(text: str) -> float:
    """Weighted mean of the entropies, in bits, of a text's word bigrams and trigrams; 0 for fewer than two words."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    entropies = []
    for n, weight in NGRAM_WEIGHTS.items():
        counts = Counter(zip(*(words[k:] for k in range(n)), strict=False)).values()
        total = sum(counts)
        entropies.append(weight * -sum(c / total * math.log2(c / total) for c in counts))
    return sum(entropies) / len(entropies)


def generation_entropy(
    model: GPT,
    tokenizer: GPT2TokenizerWithMulFacts,
    records: Sequence[EditRecord],
    new_tokens: int,
    seed: int,
) -> tuple[float, list[str]]:
    """Mean n-gram entropy of texts of `new_tokens` sampled tokens (top-k 5, as ROME's), and the texts.

    One text per record, after its first generation prompt, or after its own prompt where it has none.
    """
    prompts = [(record.generation_prompts or (record.prompt,))[0] for record in records]
    completions = generate(
        model,
        tokenizer.encode_batch(prompts, allow_special=False),
        max_new_tokens=new_tokens,
        temperature=1.0,
        top_k=5,
        suppressed_ids=tokenizer.vocabulary.suppressed_ids,
        stop_ids=(),
        seed=seed,
    )
    texts = [
        prompt + tokenizer.decode(completion.ids) for prompt, [completion] in zip(prompts, completions, strict=True)
    ]
    return sum(map(ngram_entropy, texts)) / len(texts), texts


@torch.no_grad()
def perplexity(model: GPT, windows: Sequence[Sequence[int]]) -> float:
    """exp of the mean loss per token over `windows`, each of two tokens or more and read from its own start."""
    device = model.wte.weight.device
    total, tokens = 0.0, 0
    for batch in _by_length(windows):
        of_one_length: dict[int, list[Sequence[int]]] = {}
        for i in batch:
            of_one_length.setdefault(len(windows[i]), []).append(windows[i])
        for rows in of_one_length.values():
            ids: Tensor = torch.tensor(rows, device=device)
            count = ids[:, 1:].numel()
            total += float(model.loss(ids[:, :-1], ids[:, 1:].contiguous())) * count
            tokens += count
    return math.exp(total / tokens)
