"""How likely given endings are after given contexts: what multiple-choice benchmarks ask of a language model.

A context that several endings share is computed once, and they continue from its keys and values. The head, the widest
layer of a small model, is applied only where an ending's token is predicted, and no batch's logits are ever held at
once. Both contexts and endings are batched by length.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from common.device import autocast
from pretrain.model import GPT, KVCache

CPU_BATCH_TOKENS, ACCELERATOR_BATCH_TOKENS = 512, 4096  # a CPU is as fast with few tokens, and pads less
CACHE_BATCHES = 8  # positions of a cache, in batches of tokens: more contexts at a time, more endings to sort by length
# Head columns (tokens) and rows (ids) at a time. On a CPU a block's logits stay in cache: 1.6 times as fast.
CPU_HEAD_TOKENS, CPU_HEAD_IDS = 256, 1024
ACCELERATOR_HEAD_TOKENS = 1024

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]  # a context and one ending of it


def continuation_logprobs(
    model: GPT,
    pairs: list[Pair],
    device: torch.device,
    dtype: torch.dtype,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> list[float]:
    """The log-probability of each pair's ending after its context: the sum over its tokens, in nats.

    Neither is empty, and context and ending together have at most block_size + 1 tokens. Matrix products are in `dtype`
    and sums over tokens in float64. A batch has at most `batch_tokens` tokens (default by device) and a cache
    CACHE_BATCHES times as many positions, padding included, unless one sequence is longer. The model's train/eval mode
    is as before afterwards.
    """
    if batch_tokens is None:
        batch_tokens = CPU_BATCH_TOKENS if device.type == "cpu" else ACCELERATOR_BATCH_TOKENS
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
            longest = max((len(ending) for _, ending in pairs), default=0)
            for contexts in _batches_by_length(list(of_context), CACHE_BATCHES * batch_tokens, room=longest):
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
    block_size, longest = model.config.block_size, max(map(len, contexts))
    room = min(block_size, longest + max(map(len, endings)))
    cache = KVCache(model.config, len(contexts), room, device, dtype)
    last = _prefill(model, contexts, cache, batch_tokens)
    first = torch.tensor([ending[0] for ending in endings])
    yield torch.arange(len(endings)), _target_logprobs(model, last, torch.tensor(rows), first)

    lengths = [len(contexts[row]) for row in rows]
    for numbers, stop in _ending_batches(endings, lengths, block_size, batch_tokens):
        continued = cache.select(torch.tensor([rows[k] for k in numbers], device=device), stop)
        # The last token of an ending is predicted, never fed.
        hidden = model.hidden(_padded([endings[k][:-1] for k in numbers]).to(device), continued)
        fed = torch.tensor([len(endings[k]) - 1 for k in numbers])
        owner, position = (torch.arange(hidden.size(1)) < fed[:, None]).nonzero(as_tuple=True)
        hidden = hidden[owner.to(device), position.to(device)]
        targets = torch.tensor([token for k in numbers for token in endings[k][1:]])
        yield torch.tensor(numbers)[owner], _target_logprobs(model, hidden, torch.arange(len(targets)), targets)


def _prefill(model: GPT, contexts: list[Ids], cache: KVCache, batch_tokens: int) -> Tensor:
    """Fill the empty `cache` with contexts, sorted by length. Returns the hidden states at their last tokens (B, C)."""
    device = cache.lengths.device
    last: list[Tensor] = []
    start = 0
    for batch in _batches_by_length(contexts, batch_tokens):
        stop = start + len(batch)
        hidden = model.hidden(_padded(batch).to(device), cache.part(start, stop))
        lengths = torch.tensor([len(context) for context in batch], device=device)
        cache.lengths[start:stop] = lengths
        last.append(hidden[torch.arange(len(batch), device=device), lengths - 1])
        start = stop
    cache.extent = len(contexts[-1])
    return torch.cat(last)


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


def _batches_by_length(sequences: list[Ids], batch_tokens: int, room: int = 0) -> Iterator[list[Ids]]:
    """The sequences from short to long, in batches of at most `batch_tokens` tokens when padded and given `room`."""
    batch: list[Ids] = []
    for sequence in sorted(sequences, key=len):
        if batch and (len(batch) + 1) * (len(sequence) + room) > batch_tokens:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def _ending_batches(
    endings: list[Ids], context_lengths: list[int], block_size: int, batch_tokens: int
) -> Iterator[tuple[list[int], int]]:
    """Likewise: numbers of endings of two tokens or more, and how long a row gets with the longest context and padding.

    No row is longer than `block_size`: a long context and the padding of a short ending may not fit it together.
    """
    batch: list[int] = []
    stop = deepest = 0
    for k in sorted((k for k, ending in enumerate(endings) if len(ending) > 1), key=lambda k: len(endings[k])):
        T, deepest = len(endings[k]) - 1, max(deepest, context_lengths[k])
        too_wide = (len(batch) + 1) * max(T, (deepest + T) / CACHE_BATCHES) > batch_tokens
        if batch and (too_wide or deepest + T > block_size):
            yield batch, stop
            batch, deepest = [], context_lengths[k]
        batch.append(k)
        stop = deepest + T
    if batch:
        yield batch, stop


def _padded(sequences: Sequence[Ids]) -> Tensor:
    """(B, T), padded on the right with id 0."""
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *([0] * (longest - len(sequence)))] for sequence in sequences])
