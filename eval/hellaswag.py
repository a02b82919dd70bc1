"""HellaSwag: which of four endings does the model find likeliest? Two protocols, three metrics, each with its name.

acc_norm_token   the ending of highest mean log-probability per token, on the text as published, " " + ending after
                 the context (as build-nanogpt's hellaswag.py and llm.c score it)
acc_norm_char    the ending of highest log-probability per character, on lm-evaluation-harness's text (its task
                 hellaswag, version 1.0): activity label before the context, wikiHow's brackets taken out
acc              the ending of highest log-probability on that same text

Of equal endings the first is chosen. Benchmark text is scored as it is in both conditions: multiplications in it are
not rewritten in mul_tokens, so that both conditions are asked the same and see the same BPE ids.

A context is computed once, and its endings continue from its keys and values; the head, the widest layer of a small
model, is applied only where an ending's token is predicted. Contexts are batched by length, and so are the endings of
a batch. What is the same in both protocols is computed once.
"""

import copy
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common.device import autocast
from common.distributed import World
from common.errors import UserError
from data.hellaswag import HellaSwagItem, items_sha256, load_hellaswag
from eval.stats import wilson_interval
from pretrain.model import GPT, KVCache
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID, Condition

__all__ = ["METRICS", "HellaSwagItem", "ItemScore", "items_sha256", "load_hellaswag"]  # who scores also loads
__all__ += ["hellaswag_accuracy", "preprocess", "score_everywhere", "score_items", "summarise"]

METRICS = ("acc_norm_token", "acc_norm_char", "acc")
BATCH_TOKENS = 4096
# Head columns (tokens) and rows (ids) at a time. On a CPU a block's logits stay in cache: 1.6 times as fast.
CPU_HEAD_TOKENS, CPU_HEAD_IDS = 256, 1024
ACCELERATOR_HEAD_TOKENS = 1024

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]  # a context and one ending of it


@dataclass(frozen=True)
class ItemScore:
    """What the model finds of one item's endings. Log-probabilities are sums over an ending's tokens, in nats."""

    index: int  # position in the list of items
    id: str
    label: int
    raw_logprobs: list[float]  # of the endings as published
    token_counts: list[int]
    preprocessed_logprobs: list[float]  # of the endings as lm-evaluation-harness preprocesses them
    char_counts: list[int]

    @property
    def choices(self) -> dict[str, int]:
        """The ending that each metric chooses; the first of equal ones."""
        values = {
            "acc_norm_token": _normalised(self.raw_logprobs, self.token_counts),
            "acc_norm_char": _normalised(self.preprocessed_logprobs, self.char_counts),
            "acc": self.preprocessed_logprobs,
        }
        return {metric: max(range(len(v)), key=v.__getitem__) for metric, v in values.items()}

    @property
    def correct(self) -> dict[str, bool]:
        """Whether each metric's choice is the right ending."""
        return {metric: choice == self.label for metric, choice in self.choices.items()}


def score_items(
    model: GPT,
    items: Sequence[HellaSwagItem],
    condition: Condition,
    device: torch.device,
    dtype: torch.dtype,
    rank: int = 0,
    world_size: int = 1,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> list[ItemScore]:
    """The scores of this rank's items: rank, rank + world_size, rank + 2 world_size, ...

    Matrix products are in `dtype`; a batch has at most `batch_tokens` tokens, padding included, unless one sequence is
    longer. What does not fit the model's context is cut from the left. The model's train/eval mode is as before
    afterwards, and no random number is drawn. Raises UserError for an ending longer than the model's context.
    """
    own = list(enumerate(items))[rank::world_size]
    raw, preprocessed = _encode([item for _, item in own], condition)
    limit = model.config.block_size
    for (_, item), *endings in zip(own, raw, preprocessed, strict=True):
        longest = max(len(ending) for protocol in endings for _, ending in protocol)
        if longest > limit:
            raise UserError(f"HellaSwag item {item.id}: an ending of {longest} tokens, the model's context is {limit}")
    fitted = {pair: _fit(*pair, limit) for protocol in (raw, preprocessed) for pairs in protocol for pair in pairs}
    wanted = list(dict.fromkeys(fitted.values()))
    found = dict(zip(wanted, _pair_logprobs(model, wanted, device, dtype, batch_tokens, progress), strict=True))
    return [
        ItemScore(
            index=index,
            id=item.id,
            label=item.label,
            raw_logprobs=[found[fitted[pair]] for pair in raw[k]],
            token_counts=[len(ending) for _, ending in raw[k]],
            preprocessed_logprobs=[found[fitted[pair]] for pair in preprocessed[k]],
            char_counts=[len(preprocess(ending)) for ending in item.endings],
        )
        for k, (index, item) in enumerate(own)
    ]


def score_everywhere(
    model: GPT,
    items: Sequence[HellaSwagItem],
    condition: Condition,
    world: World,
    dtype: torch.dtype,
    progress: bool = False,
) -> list[ItemScore]:
    """The scores of all items in their order, on every process; the work is shared out."""
    progress = progress and world.is_main
    own = score_items(model, items, condition, world.device, dtype, world.rank, world.size, progress=progress)
    return sorted(world.gather(own), key=lambda score: score.index)


def hellaswag_accuracy(
    model: GPT, items: Sequence[HellaSwagItem], condition: Condition, world: World, dtype: torch.dtype
) -> dict[str, Any]:
    """What a training log holds of HellaSwag: the Karpathy-style accuracy, its standard error, the number of items."""
    found = summarise(score_everywhere(model, items, condition, world, dtype))["acc_norm_token"]
    return {
        "hellaswag_acc_norm_token": found["value"],
        "hellaswag_acc_norm_token_stderr": found["stderr"],
        "hellaswag_items": found["n"],
    }


def summarise(scores: Sequence[ItemScore]) -> dict[str, dict[str, Any]]:
    """Per metric: value, its standard error (of a mean, as lm-evaluation-harness has it), n, 95% Wilson interval."""
    results = {}
    for metric in METRICS:
        n, right = len(scores), sum(score.correct[metric] for score in scores)
        value = right / n
        results[metric] = {
            "value": round(value, 6),
            "stderr": round(math.sqrt(value * (1 - value) / max(n - 1, 1)), 6),
            "n": n,
            "num_correct": right,
            "wilson_95": [round(end, 6) for end in wilson_interval(right, n)],
        }
    return results


def preprocess(text: str) -> str:
    """lm-evaluation-harness's rewriting of a HellaSwag text (lm_eval/tasks/hellaswag/utils.py of 0.4.13)."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _encode(items: list[HellaSwagItem], condition: Condition) -> tuple[list[list[Pair]], list[list[Pair]]]:
    """Per item the pairs of the raw text, and those of lm-evaluation-harness's text.

    The harness encodes context and ending as one string, which it cuts where the context's ids end, having moved
    blanks at the end of the context to the ending. GPT-2 never joins a blank to what is before it, so encoding the two
    apart gives the same ids, and four endings do not encode their context four times.
    """
    texts: list[str] = []
    for item in items:
        texts += [item.context, *(f" {ending}" for ending in item.endings)]
        context = preprocess(item.labelled_context)
        stripped = context.rstrip()
        blanks = context[len(stripped) :]
        texts += [stripped, *(f"{blanks} {preprocess(ending)}" for ending in item.endings)]
    ids = iter(GPT2TokenizerWithMulFacts(condition).encode_batch(texts, allow_special=False))

    def next_pairs(endings: int) -> list[Pair]:
        context = tuple(next(ids)) or (EOT_ID,)
        return [(context, tuple(next(ids))) for _ in range(endings)]

    both = [(next_pairs(len(item.endings)), next_pairs(len(item.endings))) for item in items]
    return [raw for raw, _ in both], [preprocessed for _, preprocessed in both]


def _fit(context: Ids, ending: Ids, limit: int) -> Pair:
    """Cut the context from the left: the last token of an ending is predicted and never fed, so limit + 1 fit."""
    return context[-(limit + 1 - len(ending)) :], ending


def _normalised(logprobs: list[float], counts: list[int]) -> list[float]:
    # An ending that preprocessing left empty has no characters; the harness's division makes it minus infinity too.
    return [p / count if count else -math.inf for p, count in zip(logprobs, counts, strict=True)]


def _pair_logprobs(
    model: GPT, pairs: list[Pair], device: torch.device, dtype: torch.dtype, batch_tokens: int, progress: bool
) -> list[float]:
    """The log-probability of each pair's ending after its context: the sum over its tokens, in nats."""
    of_context: dict[Ids, list[int]] = {}
    for i, (context, _) in enumerate(pairs):
        of_context.setdefault(context, []).append(i)
    owners, values = [], []
    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            autocast(device, dtype),
            tqdm(total=len(pairs), desc="scoring", unit="ending", mininterval=1, disable=not progress) as bar,
        ):
            for contexts in _batches_by_length(list(of_context), batch_tokens):
                indices = [of_context[context] for context in contexts]
                endings = [[pairs[i][1] for i in of_one] for of_one in indices]
                flat = torch.tensor([i for of_one in indices for i in of_one])
                for owner, logprobs in _score_batch(model, contexts, endings, device, dtype, batch_tokens):
                    owners.append(flat[owner])
                    values.append(logprobs)
                bar.update(len(flat))
    finally:
        model.train(was_training)
    totals = torch.zeros(len(pairs), dtype=torch.float64)
    if pairs:
        totals.index_add_(0, torch.cat(owners), torch.cat(values).cpu().double())
    return totals.tolist()


def _score_batch(
    model: GPT,
    contexts: list[Ids],
    endings: list[list[Ids]],
    device: torch.device,
    dtype: torch.dtype,
    batch_tokens: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (number of the ending among all of the batch's (N,), log-probability of one of its tokens (N,))."""
    rows = [row for row, of_one in enumerate(endings) for _ in of_one]
    endings = [ending for of_one in endings for ending in of_one]
    longest = max(map(len, contexts))
    room = min(model.config.block_size, longest + max(map(len, endings)))
    cache = KVCache(model.config, len(contexts), room, device, dtype)
    lengths = torch.tensor([len(context) for context in contexts])
    hidden = model.hidden(_padded(contexts).to(device), cache, lengths.to(device))
    last = hidden[torch.arange(len(contexts), device=device), (lengths - 1).to(device)]
    first = torch.tensor([ending[0] for ending in endings])
    yield torch.arange(len(endings)), _target_logprobs(model, last, torch.tensor(rows), first)

    for numbers in _ending_batches(
        endings, [len(contexts[row]) for row in rows], model.config.block_size, batch_tokens
    ):
        # The last token of an ending is predicted, never fed.
        continued = copy.copy(cache)
        continued.select(torch.tensor([rows[k] for k in numbers], device=device))
        hidden = model.hidden(_padded([endings[k][:-1] for k in numbers]).to(device), continued)
        fed = torch.tensor([len(endings[k]) - 1 for k in numbers])
        owner, position = (torch.arange(hidden.size(1)) < fed[:, None]).nonzero(as_tuple=True)
        hidden = hidden[owner.to(device), position.to(device)]
        targets = torch.tensor([token for k in numbers for token in endings[k][1:]])
        yield torch.tensor(numbers)[owner], _target_logprobs(model, hidden, torch.arange(len(targets)), targets)


def _target_logprobs(model: GPT, hidden: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """Log-probability (M,) of token targets[m] after hidden[rows[m]]; hidden (N, C), rows and targets (M,) on the CPU.

    The sum over the vocabulary, nearly all of the work, is made once per row of `hidden`.
    """
    device, weight = hidden.device, model.wte.weight
    on_cpu = device.type == "cpu"
    head_ids, head_tokens = (CPU_HEAD_IDS, CPU_HEAD_TOKENS) if on_cpu else (len(weight), ACCELERATOR_HEAD_TOKENS)
    normalisers = torch.cat(
        [
            torch.stack([(ids @ x.t()).float().logsumexp(0) for ids in weight.split(head_ids)]).logsumexp(0)
            for x in hidden.split(head_tokens)
        ]
    )
    rows, targets = rows.to(device), targets.to(device)
    logits = (hidden[rows].float() * weight[targets].float()).sum(-1)
    return logits - normalisers[rows]


def _batches_by_length(sequences: list[Ids], batch_tokens: int) -> Iterator[list[Ids]]:
    """The sequences from short to long, in batches of at most `batch_tokens` tokens when padded."""
    batch: list[Ids] = []
    for sequence in sorted(sequences, key=len):
        if batch and (len(batch) + 1) * len(sequence) > batch_tokens:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def _ending_batches(
    endings: list[Ids], context_lengths: list[int], block_size: int, batch_tokens: int
) -> Iterator[list[int]]:
    """Numbers of the endings of two tokens or more, likewise; padding never reaches behind the model's context."""
    batch: list[int] = []
    deepest = 0
    for k in sorted((k for k, ending in enumerate(endings) if len(ending) > 1), key=lambda k: len(endings[k])):
        T, deepest = len(endings[k]) - 1, max(deepest, context_lengths[k])
        if batch and ((len(batch) + 1) * T > batch_tokens or deepest + T > block_size):
            yield batch
            batch, deepest = [], context_lengths[k]
        batch.append(k)
    if batch:
        yield batch


def _padded(sequences: Sequence[Ids]) -> Tensor:
    """(B, T), padded on the right with id 0."""
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *([0] * (longest - len(sequence)))] for sequence in sequences])
