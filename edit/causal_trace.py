"""Which hidden states carry a fact? Noise on the subject's embeddings, then one clean state put back at a time.

Causal tracing after Meng et al. 2022, section 2: three kinds of state at every (layer, token), the output of a block,
of its MLP or of its attention; the latter two over a window of layers, as one alone moves little. All tokens of a
layer and all noise samples are rows of one batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edit.prompts import check_length, target_ids
from edit.settings import Token
from edit.subjects import find_subject, last_subject_token
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

KINDS = ("block", "mlp", "attention")
ROLES = ("first subject token", "middle subject tokens", "last subject token", "next token", "further", "last token")
BATCH_ROWS = 256


@dataclass(frozen=True)
class TracePrompt:
    """Token ids of a prompt, where its subject is, and the ids of the target whose probability is watched."""

    ids: list[int]
    subject: range
    target: list[int]


@dataclass(frozen=True)
class Trace:
    """p(target) of the clean and the corrupted run, and with each state restored: by kind (n_layer, T)."""

    clean: float
    corrupted: float
    restored: dict[str, Tensor]


def trace_prompt(
    tokenizer: GPT2TokenizerWithMulFacts, prompt: str, subject: str, target: str, block_size: int
) -> TracePrompt:
    """Raises UserError when the subject is not in the prompt once, or the whole is too long."""
    ids = tokenizer.encode(prompt, allow_special=False)
    start, end = find_subject(prompt, subject)
    last = last_subject_token(tokenizer, ids, prompt, end)
    # The first token of the subject is the first that reaches behind the subject's start.
    first = next(k for k in range(len(ids)) if len(tokenizer.decode(ids[: k + 1]).rstrip("\ufffd")) > start)
    check_length(ids + target_ids(tokenizer, target), block_size, prompt)
    return TracePrompt(ids, range(first, last + 1), target_ids(tokenizer, target))


def embedding_deviation(model: GPT, tokenizer: GPT2TokenizerWithMulFacts, subjects: Sequence[str]) -> float:
    """Standard deviation of the entries of the subjects' token embeddings: the unit of the noise."""
    ids = [i for subject in subjects for i in tokenizer.encode(f" {subject}", allow_special=False)]
    return float(model.wte.weight.detach()[ids].std())


class CorruptedRun:
    """A prompt under `samples` draws of noise of deviation `sigma` on its subject, ready for states to be restored."""

    @torch.no_grad()
    def __init__(self, model: GPT, prompt: TracePrompt, sigma: float, samples: int, seed: int):
        self.model, self.prompt, self.samples = model, prompt, samples
        device = model.wte.weight.device
        self.ids = torch.tensor([prompt.ids + prompt.target[:-1]], device=device)
        generator = torch.Generator().manual_seed(seed)
        shape = (samples, len(prompt.subject), model.config.n_embd)
        self.noise = sigma * torch.randn(shape, generator=generator).to(device)
        self.states: dict[tuple[str, int], Tensor] = {}  # (kind, layer) to the clean output (T, C)
        with ExitStack() as hooks:
            for kind in KINDS:
                for layer in range(model.config.n_layer):
                    hooks.enter_context(_on_output(_module(model, kind, layer), self._keep(kind, layer)))
            self.clean = float(self._probabilities(1)[0])
        self.corrupted = float(self.restored("block", [], [[]])[0])

    @torch.no_grad()
    def restored(self, kind: str, layers: Sequence[int], tokens: Sequence[Sequence[int]]) -> Tensor:
        """p(target), mean over the noise, with `kind` at `layers` clean at each set of tokens: (len(tokens),)."""
        per_batch = max(1, BATCH_ROWS // self.samples)
        parts = [
            self._restored(kind, layers, tokens[start : start + per_batch])
            for start in range(0, len(tokens), per_batch)
        ]
        return torch.cat(parts)

    def _restored(self, kind: str, layers: Sequence[int], tokens: Sequence[Sequence[int]]) -> Tensor:
        mask = torch.zeros(len(tokens), self.ids.size(1), 1, dtype=torch.bool, device=self.ids.device)
        for row, chosen in enumerate(tokens):
            mask[row, list(chosen)] = True
        mask = mask.repeat_interleave(self.samples, 0)  # (R, T, 1)
        first, stop = self.prompt.subject.start, self.prompt.subject.stop

        def corrupt(embedded: Tensor) -> Tensor:
            embedded = embedded.clone()
            embedded[:, first:stop] += self.noise.repeat(len(tokens), 1, 1)
            return embedded

        with ExitStack() as hooks:
            hooks.enter_context(_on_output(self.model.wte, corrupt))
            for layer in layers:
                clean = self.states[kind, layer]
                restore = lambda output, clean=clean: torch.where(mask, clean, output)  # noqa: E731
                hooks.enter_context(_on_output(_module(self.model, kind, layer), restore))
            p = self._probabilities(len(tokens) * self.samples)
        return p.view(len(tokens), self.samples).mean(1)

    def _probabilities(self, rows: int) -> Tensor:
        """exp of the target's mean log-probability per token, (rows,)."""
        target, start = torch.tensor(self.prompt.target, device=self.ids.device), len(self.prompt.ids) - 1
        logits = self.model.logits(self.model.hidden(self.ids.expand(rows, -1))[:, start:]).float()
        logprobs = logits.log_softmax(-1).gather(2, target.expand(rows, -1)[:, :, None])[:, :, 0]
        return logprobs.mean(1).exp()

    def _keep(self, kind: str, layer: int):
        return lambda output: self.states.__setitem__((kind, layer), output[0])


def trace(model: GPT, prompt: TracePrompt, sigma: float, samples: int, window: int, seed: int = 0) -> Trace:
    """Restore every (layer, token) in turn. `window`: layers around it that MLP and attention are restored at."""
    run = CorruptedRun(model, prompt, sigma, samples, seed)
    tokens = [[t] for t in range(len(prompt.ids))]
    L = model.config.n_layer
    restored = {}
    for kind in KINDS:
        width = 1 if kind == "block" else window
        rows = [run.restored(kind, window_around(layer, width, L), tokens) for layer in range(L)]
        restored[kind] = torch.stack(rows).cpu()
    return Trace(run.clean, run.corrupted, restored)


def window_around(layer: int, width: int, n_layer: int) -> range:
    """`width` layers with `layer` in their middle, cut at the model's ends."""
    return range(max(0, layer - width // 2), min(n_layer, layer - width // 2 + width))


def by_role(trace_: Trace, prompt: TracePrompt) -> dict[str, Tensor]:
    """Indirect effects, restored minus corrupted, by what the tokens are: (n_layer, len(ROLES)); nan where none is."""
    T, subject = len(prompt.ids), prompt.subject
    roles = [
        [subject.start] if len(subject) > 1 else [],
        list(subject)[1:-1],
        [subject[-1]],
        [subject.stop] if subject.stop < T - 1 else [],
        list(range(subject.stop + 1, T - 1)),
        [T - 1] if subject.stop <= T - 1 else [],
    ]
    effects = {kind: values - trace_.corrupted for kind, values in trace_.restored.items()}
    empty = torch.full((next(iter(effects.values())).size(0),), torch.nan)
    return {
        kind: torch.stack([values[:, chosen].mean(1) if chosen else empty for chosen in roles], 1)
        for kind, values in effects.items()
    }


def effect_at(average: Tensor, token: Token) -> Tensor:
    """The column (n_layer,) of averages (n_layer, len(ROLES)) for the token that an edit is made at."""
    subject, last = average[:, ROLES.index("last subject token")], average[:, ROLES.index("last token")]
    # Where every prompt ends with its subject, there is no other last token.
    return subject if token == "subject" or last.isnan().any() else last


def layers_to_edit(mlp_effects: Tensor, token: Token) -> list[int]:
    """Layers around the peak of the MLPs' effect (n_layer,) at the edited token: those with half of it or more.

    A run of neighbouring layers. At the subject never the last one: a block must follow such an edit. What works in
    an edit may be fewer of them: a trace shows where a state counts, not which weights are best changed.
    """
    usable = mlp_effects[:-1] if token == "subject" else mlp_effects
    peak = int(usable.argmax())
    low = high = peak
    while low > 0 and usable[low - 1] >= usable[peak] / 2:
        low -= 1
    while high + 1 < len(usable) and usable[high + 1] >= usable[peak] / 2:
        high += 1
    return list(range(low, high + 1))


def _module(model: GPT, kind: str, layer: int) -> nn.Module:
    block = model.h[layer]
    return {"block": block, "mlp": block.mlp, "attention": block.attn}[kind]


@contextmanager
def _on_output(module: nn.Module, change) -> Iterator[None]:
    """While open, the module's output is what `change` makes of it; where that is None, it stays."""
    hook = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        hook.remove()
