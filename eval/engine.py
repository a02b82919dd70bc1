"""The generation engine: many prompts, `n` samples each, with the log-probabilities of what was chosen.

A batch of prompts is run through the model once, its KV cache rows are repeated for the samples of each prompt, and
then every step feeds one token per row. Logits exist for one position per row at a time. Finished rows are taken out
of the batch.

What a sample says depends on the model, its prompt, the sampling arguments, `seed`, and the positions of prompt and
sample in the request; not on `batch_size` or its neighbours (up to the last bits of floating point, which follow the
shapes).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pretrain.model import GPT, KVCache
from tokenizer.mul_facts import EOT_ID

COMPACT_SHARE = 0.25  # take finished rows out once they are this share: copying the cache costs about one step


@dataclass(frozen=True)
class Completion:
    """One sample.

    `ids`: the generated tokens, a stop token included. `logprobs[i]`: log-probability of `ids[i]` under
    softmax(logits / temperature) without the suppressed ids and before top-k and top-p, where greedy decoding counts as
    temperature 1. A trainer that computes the same from its own logits therefore gets a ratio of 1 at its first step.
    `finish_reason`: "stop" after a stop token; "length" at `max_new_tokens` or where the model's context is full.
    """

    ids: list[int]
    logprobs: list[float]
    finish_reason: str


@dataclass(frozen=True)
class Sampling:
    """How to choose a token from logits. `temperature` 0 is greedy."""

    temperature: float
    top_k: int | None
    top_p: float | None

    def choose(self, logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Choose one id per row of `logits` (R, V) float32, row i by its random number `uniforms[i]` in [0, 1).

        Returns ids (R,) and their log-probabilities (R,), as defined in Completion. Of equal maxima greedy decoding
        takes the lowest id.
        """
        if self.temperature > 0:
            logits = logits / self.temperature
        ids = logits.argmax(-1) if self._is_greedy else self._sample(logits, uniforms)
        return ids, logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(-1)

    @property
    def _is_greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1

    def _sample(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Invert the cumulative distribution: one random number gives one id, whatever else the batch holds."""
        candidates = None
        if self.top_k is not None or self.top_p is not None:
            size = logits.size(-1)
            logits, candidates = logits.topk(min(self.top_k or size, size))
        probabilities = logits.softmax(-1)
        if self.top_p is not None:
            # A candidate stays while those before it have not yet reached top_p, so the first always stays.
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.where(before < self.top_p, 0)
        cumulative = probabilities.cumsum(-1, dtype=uniforms.dtype)
        # Strictly below the total: the id found then has a probability above zero, also when the last ones have none.
        targets = uniforms.clamp(max=1 - torch.finfo(uniforms.dtype).eps) * cumulative[:, -1]
        found = torch.searchsorted(cumulative, targets[:, None], right=True)
        return (found if candidates is None else candidates.gather(-1, found))[:, 0]


def generate(
    model: GPT,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    n: int = 1,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Sequence[int] = (EOT_ID,),
    suppressed_ids: Sequence[int] = (),
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> list[list[Completion]]:
    """Generate `n` completions of each prompt, in the order of `prompts`.

    `batch_size` counts sequences; the samples of one prompt always share a batch. Prompt and completion together have
    at most `model.config.block_size` tokens: nothing is cut from a prompt, since that would ask another question, so
    one that fills the context gets empty completions with finish_reason "length". `suppressed_ids` are never chosen.
    """
    if any(not prompt for prompt in prompts):
        raise ValueError("a prompt needs at least one token; use end-of-text to generate from nothing")
    device = next(model.parameters()).device
    request = _Request(
        sampling=Sampling(temperature, top_k, top_p),
        stop=torch.tensor(list(stop_ids), dtype=torch.long, device=device),
        suppressed=torch.tensor(list(suppressed_ids), dtype=torch.long, device=device),
        max_new_tokens=max_new_tokens,
        n=n,
        seed=seed,
    )
    room = model.config.block_size
    results = [[Completion([], [], "length") for _ in range(n)] for _ in prompts]
    by_length = sorted((i for i in range(len(prompts)) if len(prompts[i]) < room), key=lambda i: len(prompts[i]))
    per_batch = max(1, batch_size // n)
    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            tqdm(total=len(by_length) * n, desc="generating", unit="seq", mininterval=1, disable=not progress) as bar,
        ):
            for start in range(0, len(by_length), per_batch):
                indices = by_length[start : start + per_batch]
                completions = _generate_batch(model, [prompts[i] for i in indices], indices, request, bar)
                for k, i in enumerate(indices):
                    results[i] = completions[k * n : (k + 1) * n]
    finally:
        model.train(was_training)
    return results


@dataclass(frozen=True)
class _Request:
    """The arguments of `generate` that every batch needs, as tensors on the model's device."""

    sampling: Sampling
    stop: Tensor
    suppressed: Tensor
    max_new_tokens: int
    n: int
    seed: int


def _generate_batch(
    model: GPT, prompts: list[list[int]], indices: list[int], request: _Request, bar: tqdm
) -> list[Completion]:
    """The completions of one batch, `n` for the first prompt, `n` for the second, and so on."""
    device = request.stop.device
    block_size = model.config.block_size
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    limits = (block_size - lengths).clamp(max=request.max_new_tokens).repeat_interleave(request.n)  # (R,)
    steps = int(limits.max())
    ids = torch.zeros(len(limits), steps, dtype=torch.long, device=device)
    logprobs = torch.zeros(len(limits), steps, device=device)
    counts = torch.zeros(len(limits), dtype=torch.long, device=device)
    exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    uniforms = _uniforms(indices, request, steps).to(exact).to(device)

    hidden, cache = _prefill(model, prompts, lengths, spare=steps)
    samples = torch.arange(len(prompts), device=device).repeat_interleave(request.n)
    cache.select(samples)
    hidden = hidden[samples]

    rows = torch.arange(len(limits), device=device)  # the completion that each row of the running batch writes
    alive = torch.ones(len(limits), dtype=torch.bool, device=device)
    for step in range(steps):
        logits = model.logits(hidden).float().index_fill_(-1, request.suppressed, -math.inf)
        chosen, chosen_logprobs = request.sampling.choose(logits, uniforms[rows, step])
        ids[rows, step] = chosen
        logprobs[rows, step] = chosen_logprobs
        counts[rows] += alive  # a finished row that is still in the batch writes behind its end, where nobody reads
        before = alive
        alive = alive & ~torch.isin(chosen, request.stop) & (step + 1 < limits[rows])
        left = int(alive.sum())
        bar.update(int(before.sum()) - left)
        if left == 0:
            break
        if left <= (1 - COMPACT_SHARE) * len(rows):
            keep = alive.nonzero()[:, 0]
            cache.select(keep)
            rows, chosen, alive = rows[keep], chosen[keep], alive[keep]
        hidden = model.hidden(chosen[:, None], cache=cache, lengths=alive.long())[:, 0]
    return _completions(ids, logprobs, counts, request.stop)


def _prefill(model: GPT, prompts: list[list[int]], lengths: Tensor, spare: int) -> tuple[Tensor, KVCache]:
    """Run the prompts, padded on the right. Returns the hidden state at each one's last token (B, C), and the cache.

    The cache has room for `spare` tokens behind the longest prompt.
    """
    weight = next(model.parameters())
    longest = max(map(len, prompts))
    cache = KVCache(model.config, len(prompts), longest + spare, weight.device, weight.dtype)
    padded = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts]).to(weight.device)
    hidden = model.hidden(padded, cache=cache, lengths=lengths)
    return hidden[torch.arange(len(prompts), device=weight.device), lengths - 1], cache


def _uniforms(indices: list[int], request: _Request, steps: int) -> Tensor:
    """Random numbers (R, steps) float64: each (seed, prompt, sample) has a stream of its own, one number per step."""
    if request.sampling.temperature == 0:
        return torch.zeros(len(indices) * request.n, steps, dtype=torch.float64)
    streams = [(request.seed, i, sample) for i in indices for sample in range(request.n)]
    return torch.from_numpy(np.stack([np.random.default_rng(stream).random(steps) for stream in streams]))


def _completions(ids: Tensor, logprobs: Tensor, counts: Tensor, stop: Tensor) -> list[Completion]:
    last = ids.gather(1, (counts - 1)[:, None])[:, 0]
    stopped = torch.isin(last, stop).tolist()
    rows = zip(ids.tolist(), logprobs.tolist(), counts.tolist(), stopped, strict=True)
    return [Completion(i[:count], p[:count], "stop" if end else "length") for i, p, count, end in rows]
