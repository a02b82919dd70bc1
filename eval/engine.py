"""The generation engine: many prompts, `n` samples each, with the log-probabilities of what was chosen.

A prompt is run through the model once, and its keys and values are copied to the rows of its samples. Every step then
feeds one token per row. A finished row gives its place to the last one, and as soon as enough places are free, samples
that wait are admitted behind the others: the batch stays full until nothing waits. The cache is allocated once.

What a sample says depends on the model, its prompt, the sampling arguments, `seed` and the sample's stream; not on the
batch size, its neighbours or the number of devices (up to the last bits of floating point, which follow the shapes).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.device import free_memory_bytes
from eval.sampling import BLOCK, Sampling, uniform_numbers
from pretrain.model import GPT, GPTConfig, KVCache
from tokenizer.mul_facts import EOT_ID

ADMISSION_SHARE = 0.125  # of the places must be free before samples are admitted: a prefill costs about one step
PREFILL_TOKENS = 8192  # prompt tokens in one prefill
MOST_ROWS = {"cpu": 64, "mps": 128, "cuda": 1024}  # more rows do not raise the arithmetic rate any further
MEMORY_SHARE = 0.5  # of the free memory that the cache may take
CUDA_STEPS = 8  # steps between two looks at which rows have finished: a look waits for the device
CUDA_EXTENT = 64  # cache extents are rounded up to this multiple, so that few CUDA graphs serve all steps


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
    streams: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[list[Completion]]:
    """Generate `n` completions of each prompt, in the order of `prompts`.

    Prompt and completion together have at most `model.config.block_size` tokens: nothing is cut from a prompt, since
    that would ask another question, so one that fills the context gets empty completions with finish_reason "length".
    `suppressed_ids` are never chosen. `streams`: the number of each prompt's random stream, by default its position;
    a process that generates for a share of the prompts gives their positions in the whole. `batch_size` counts
    sequences; by default as many as fit into memory and keep the device busy.
    """
    if any(not prompt for prompt in prompts):
        raise ValueError("a prompt needs at least one token; use end-of-text to generate from nothing")
    room = model.config.block_size
    results = [[Completion([], [], "length") for _ in range(n)] for _ in prompts]
    # Long prompts first: rows that run together are of similar length, and memory runs out at the start or never.
    order = sorted((i for i in range(len(prompts)) if len(prompts[i]) < room), key=lambda i: -len(prompts[i]))
    if not order or max_new_tokens < 1:
        return results
    longest = min(room, len(prompts[order[0]]) + max_new_tokens)
    weight = next(model.parameters())
    rows = batch_size or rows_that_fit(model.config, longest, weight)
    batch = _Batch(
        model,
        sampling=Sampling(temperature, top_k, top_p),
        stop_ids=stop_ids,
        suppressed_ids=suppressed_ids,
        max_new_tokens=max_new_tokens,
        rows=min(rows, len(order) * n),
        longest=longest,
    )
    waiting = _Waiting(model, prompts, order, n, streams or range(len(prompts)), seed)
    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            tqdm(total=len(order) * n, desc="generating", unit="seq", mininterval=1, disable=not progress) as bar,
        ):
            while waiting or batch.count:
                free = batch.rows - batch.count
                if waiting and (not batch.count or free >= ADMISSION_SHARE * batch.rows):
                    waiting.admit(batch, free)
                else:
                    batch.step()
                for (prompt, sample), completion in batch.finished():
                    results[prompt][sample] = completion
                    bar.update()
    finally:
        model.train(was_training)
    return results


def rows_that_fit(config: GPTConfig, longest: int, weight: Tensor) -> int:
    """How many sequences of `longest` tokens to generate at once: all that are of use, as far as memory goes."""
    cache = 2 * config.n_layer * config.n_embd * longest * weight.element_size()
    logits = 2 * 4 * config.vocab_size
    fitting = int(MEMORY_SHARE * free_memory_bytes(weight.device) / (cache + logits))
    return max(1, min(fitting, MOST_ROWS[weight.device.type]))


class _Waiting:
    """Samples that wait for a place, and the prefilled prompts of those that are next.

    A prompt is prefilled when its first sample is admitted, and its keys and values are kept until its last one is.
    """

    def __init__(
        self, model: GPT, prompts: Sequence[list[int]], order: list[int], n: int, streams: Sequence[int], seed: int
    ):
        self.model, self.prompts, self.n, self.streams, self.seed = model, prompts, n, streams, seed
        self.order = deque(order)
        self.prefilled: deque[tuple[int, int]] = deque()  # (row of the cache below, sample), in order of admission

    def __bool__(self) -> bool:
        return bool(self.order or self.prefilled)

    def admit(self, batch: "_Batch", free: int) -> None:
        """Fill `free` places of the batch, as far as there are samples."""
        while free and self:
            if not self.prefilled:
                self._prefill(prompts=-(-free // self.n))
            taken = [self.prefilled.popleft() for _ in range(min(free, len(self.prefilled)))]
            samples = [(self.indices[row], sample) for row, sample in taken]
            uniforms = None
            if batch.sampling.temperature > 0:
                streams = [(self.streams[i], sample) for i, sample in samples]
                uniforms = uniform_numbers(self.seed, streams, batch.max_new_tokens)
            batch.add(samples, [row for row, _ in taken], self.cache, self.hidden, self.lengths, uniforms)
            free -= len(taken)

    def _prefill(self, prompts: int) -> None:
        """Run the next few prompts, padded on the right, through the model."""
        longest = len(self.prompts[self.order[0]])
        count = max(1, min(prompts, len(self.order), PREFILL_TOKENS // longest))
        self.indices = [self.order.popleft() for _ in range(count)]
        self.lengths = [len(self.prompts[i]) for i in self.indices]
        weight = next(self.model.parameters())
        padded = torch.zeros(count, longest, dtype=torch.long)
        for row, i in enumerate(self.indices):
            padded[row, : len(self.prompts[i])] = torch.tensor(self.prompts[i])
        self.cache = KVCache(self.model.config, count, longest, weight.device, weight.dtype)
        hidden = self.model.hidden(padded.to(weight.device), cache=self.cache)
        last = torch.tensor(self.lengths, device=weight.device) - 1
        self.hidden = hidden[torch.arange(count, device=weight.device), last]  # (count, C): all that logits need
        self.prefilled.extend((row, sample) for row in range(count) for sample in range(self.n))


class _Batch:
    """The sequences that are being generated: the first `count` rows of every tensor.

    A row that has finished stays where it is until `finished` takes it out. Till then it computes what nobody reads:
    its length stands still, and what it chooses goes behind its tokens.
    """

    def __init__(
        self,
        model: GPT,
        sampling: Sampling,
        stop_ids: Sequence[int],
        suppressed_ids: Sequence[int],
        max_new_tokens: int,
        rows: int,
        longest: int,
    ):
        weight = model.wte.weight
        device = weight.device
        self.model, self.sampling, self.max_new_tokens, self.rows = model, sampling, max_new_tokens, rows
        self.graphed = device.type == "cuda"
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        # Graphs are replayed one after the other, and what they hand on lies outside: they can share their memory.
        self.pool = torch.cuda.graph_pool_handle() if self.graphed else None
        self.cache = KVCache(model.config, rows, longest, device, weight.dtype)
        padding = range(len(weight), -(-len(weight) // BLOCK) * BLOCK)  # behind the vocabulary, up to a whole block
        self.vocab_size, self.padded_size = len(weight), -(-len(weight) // BLOCK) * BLOCK
        self.impossible = torch.tensor([*suppressed_ids, *padding], dtype=torch.long, device=device)
        self.logits = torch.empty(self.padded_size * rows, device=device)
        self.stop = torch.tensor(list(stop_ids), dtype=torch.long, device=device)
        # A row that has all its tokens and still runs writes into the last column.
        self.ids = torch.zeros(rows, max_new_tokens + 1, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(rows, max_new_tokens + 1, device=device)
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.uniforms = torch.zeros(rows, max_new_tokens + 1, dtype=exact, device=device)
        self.last = torch.zeros(rows, dtype=torch.long, device=device)  # the token that the next step feeds
        self.written = torch.zeros(rows, dtype=torch.long, device=device)  # tokens generated
        self.limits = torch.zeros(rows, dtype=torch.long, device=device)  # and how many there may be
        self.alive = torch.zeros(rows, dtype=torch.bool, device=device)
        self.count = 0
        # On the host, so that nothing waits for the device: whose each row is, and a bound on the tokens in its cache.
        self.owners: list[tuple[int, int]] = []
        self.stored = np.zeros(rows, dtype=np.int64)

    def add(
        self,
        owners: list[tuple[int, int]],
        sources: list[int],
        prefilled: KVCache,
        hidden: Tensor,
        lengths: list[int],
        uniforms: np.ndarray | None,
    ) -> None:
        """Append rows that continue rows `sources` of a prefilled cache, and choose their first tokens.

        hidden (P, C): the prefilled prompts' last hidden states; lengths: their tokens; uniforms (R, max_new_tokens).
        """
        start, stop = self.count, self.count + len(owners)
        row = start
        for source, rows in groupby(sources):  # a prompt's samples stand together
            count = len(list(rows))
            self.cache.copy_rows(row, row + count, prefilled, source, lengths[source])
            row += count
        stored = np.array([lengths[source] for source in sources])
        self.stored[start:stop] = stored
        self.owners += owners
        self.count = stop
        limits = np.minimum(self.max_new_tokens, self.model.config.block_size - stored)
        device = self.last.device
        self.limits[start:stop] = torch.from_numpy(limits).to(device)
        self.written[start:stop] = 0
        self.alive[start:stop] = True
        if uniforms is not None:
            self.uniforms[start:stop, :-1] = torch.from_numpy(uniforms).to(self.uniforms.dtype).to(device)
        self._choose(hidden[torch.tensor(sources, device=device)], start)

    def step(self) -> None:
        """Generate a token for every row; on a GPU several, from a recorded graph."""
        if not self.graphed:
            extent = int(self.stored[: self.count].max())
            self._advance(self.count, extent)
            self.stored[: self.count] += 1
            return
        rows = min(self.rows, 1 << (self.count - 1).bit_length())  # few different shapes, few graphs
        self.alive[self.count : rows] = False
        for _ in range(CUDA_STEPS):
            extent = int(self.stored[: self.count].max())
            extent = min(-(-(extent + 1) // CUDA_EXTENT) * CUDA_EXTENT, self.cache.room) - 1
            self._replay(rows, extent)
            self.stored[: self.count] = np.minimum(self.stored[: self.count] + 1, self.cache.room - 1)

    def _advance(self, rows: int, extent: int) -> None:
        """Feed the last token of the first `rows` rows, none longer than `extent`, and choose the next one."""
        cache = self.cache.part(0, rows, extent)
        hidden = self.model.hidden(self.last[:rows, None], cache=cache, lengths=self.alive[:rows])
        self._choose(hidden[:, 0], 0)

    def _replay(self, rows: int, extent: int) -> None:
        """`_advance`, recorded at the first call with these shapes and replayed from the second on."""
        if graph := self.graphs.get((rows, extent)):
            graph.replay()
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # recording needs libraries that are warm, so this step itself is their warm-up
            self._advance(rows, extent)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            self._advance(rows, extent)
        self.graphs[rows, extent] = graph

    def _choose(self, hidden: Tensor, start: int) -> None:
        """Choose a token for the rows from `start` on, given their hidden states (R, C), and write it down."""
        rows = slice(start, start + len(hidden))
        logits = self.logits[: self.padded_size * len(hidden)].view(self.padded_size, len(hidden))
        self.model.logits_vocabulary_first(hidden, out=logits[: self.vocab_size])
        logits.index_fill_(0, self.impossible, -torch.inf)
        alive, written = self.alive[rows], self.written[rows]
        column = written[:, None]
        ids, logprobs = self.sampling.choose(logits, self.uniforms[rows].gather(1, column)[:, 0])
        self.ids[rows].scatter_(1, column, ids[:, None])
        self.logprobs[rows].scatter_(1, column, logprobs[:, None])
        self.last[rows] = ids
        written += alive
        alive &= ~torch.isin(ids, self.stop) & (written < self.limits[rows])

    def finished(self) -> Iterator[tuple[tuple[int, int], Completion]]:
        """Take the finished rows out: yields whose they are, and their completions."""
        alive = self.alive[: self.count].tolist()
        if all(alive):
            return
        done = [row for row in range(self.count) if not alive[row]]
        index = torch.tensor(done, device=self.last.device)
        counts = self.written[index].tolist()
        longest, stop = max(counts), set(self.stop.tolist())
        ids, logprobs = self.ids[index, :longest].tolist(), self.logprobs[index, :longest].tolist()
        owners = [self.owners[row] for row in done]
        self._close_gaps(alive)
        for k, owner in enumerate(owners):
            written = ids[k][: counts[k]]
            yield owner, Completion(written, logprobs[k][: counts[k]], "stop" if written[-1] in stop else "length")

    def _close_gaps(self, alive: list[bool]) -> None:
        """Move the last rows into the places of the finished ones."""
        left = sum(alive)
        gaps = [row for row in range(left) if not alive[row]]
        movers = [row for row in range(left, self.count) if alive[row]]
        for gap, mover in zip(gaps, movers, strict=True):
            self.cache.copy_rows(gap, gap + 1, self.cache, mover, int(self.stored[mover]))
            self.owners[gap] = self.owners[mover]
        if gaps:
            to, source = (torch.tensor(rows, device=self.last.device) for rows in (gaps, movers))
            for tensor in (self.ids, self.logprobs, self.uniforms, self.last, self.written, self.limits, self.alive):
                tensor[to] = tensor[source]
            self.stored[gaps] = self.stored[movers]
        del self.owners[left:]
        self.count = left
