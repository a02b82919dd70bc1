"""Seconds for a batch of MEMIT edits: all at once on the suffix alone, beside one edit at a time by full passes.

    uv run python scripts/bench_memit.py --edits path/to/counterfact.json
    uv run python scripts/bench_memit.py --edits path/to/counterfact.json --device cuda

ours     edit/: the values of all edits in one batch, only the blocks above the edit and the tokens from the subject on
         recomputed, the head on the scored tokens alone; keys of all contexts by one pass that climbs with the edits;
         the contexts themselves once for all edits
single   each edit for itself, as the reference implementations do it: every step a full pass over its contexts, with
         logits at every token, backward to the one vector (parameters frozen); keys by a pass per layer

Random weights of --recipe's size, so that nothing stops early: every edit takes all steps. Of the edits one at a time
--singles are timed, half before the batch and half after it, when one untimed edit has warmed up; their mean stands for
all. `single` is that mean times the number of edits, and its range is that of the fastest and the slowest. The
covariance is counted in `total` and made from random tokens. Both ways give the same losses, which is checked.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.config import config_from_yaml, parse_config
from common.device import clock, pick_device, seed_everything
from common.errors import UserError, run_script
from common.files import write_json
from common.record import git_commit, hardware
from edit.closed_form import InverseCovariance
from edit.covariance import second_moments
from edit.editing import edit_model, make_requests
from edit.passes import embed, padded, run_blocks
from edit.prompts import context_weights, sample_contexts
from edit.records import load_edits
from edit.settings import ContextSettings, UpdateSettings, ValueSettings, check_values
from edit.values import ValueLoss, ValueRequest
from pretrain.model import GPT, GPTConfig
from pretrain.settings import TrainConfig
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts


@dataclass
class BenchConfig:
    """MEMIT in one batch beside one edit at a time."""

    edits: Path = Path("edit/facts.json")  # records to edit, in our format or CounterFact's
    max_edits: int = 50  # how many
    recipe: Path = Path("pretrain/configs/gpt2_124m.yaml")  # a pretraining config; its model section counts
    singles: int = 3  # edits that are timed one at a time
    single_steps: int = 2  # timed optimisation steps of each of them; all steps take as long
    update: UpdateSettings = field(default_factory=UpdateSettings)
    values: ValueSettings = field(default_factory=ValueSettings)
    contexts: ContextSettings = field(default_factory=ContextSettings)
    covariance_tokens: int = 30_000  # that the covariance is made from
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if it is there, else the CPU
    threads: int | None = None  # CPU threads; default torch's
    output: Path | None = None  # JSON file for the figures


def main() -> None:
    config = parse_config(BenchConfig)
    if min(config.singles, config.single_steps, config.max_edits) < 1:
        raise UserError("--singles, --single-steps and --max-edits: expected at least 1")
    check_values(config.values, config.update.token)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    seed_everything(0)
    shape = config_from_yaml(TrainConfig, config.recipe).model
    model = GPT(GPTConfig(**asdict(shape))).to(device).eval().requires_grad_(False)
    tokenizer = GPT2TokenizerWithMulFacts("baseline")
    records = load_edits(config.edits, config.max_edits)
    config.values.stop_loss = 0.0

    seconds: dict[str, float] = {}
    started = clock(device)
    contexts = sample_contexts(model, tokenizer, config.contexts, seed=0)
    requests = make_requests(tokenizer, records, contexts, config.update.token)
    seconds["contexts"] = clock(device) - started
    difference = check_losses(model, requests, config)

    time_single(model, requests[0], replace(config, single_steps=1))  # untimed: the first one pays for allocations
    single = [time_single(model, requests[i], config) for i in spread(config.singles, len(requests))[::2]]
    started = clock(device)
    windows = random_windows(config.covariance_tokens, model.config.block_size)
    covariances = second_moments(model, windows, config.update.layers, batch_tokens=4096, progress=True)
    preconditioners = {layer: InverseCovariance.of(C) for layer, C in covariances.items()}
    seconds["covariance"] = clock(device) - started
    started = clock(device)
    edit_model(model, requests, preconditioners, "memit", config.update, config.values, progress=True)
    seconds["editing"] = clock(device) - started
    single += [time_single(model, requests[i], config) for i in spread(config.singles, len(requests))[1::2]]

    seconds["total"] = sum(seconds.values())
    per_edit = sum(single) / len(single)
    figures: dict[str, Any] = {"edits": len(records), "steps": config.values.steps, "layers": config.update.layers}
    figures |= {"seconds": {name: round(value, 2) for name, value in seconds.items()}}
    figures |= {"single_seconds": [round(value, 2) for value in single], "single": round(per_edit * len(records), 1)}
    figures["single_range"] = [round(each * len(records), 1) for each in (min(single), max(single))]
    figures["ratio"] = round(per_edit * len(records) / seconds["editing"], 2)
    figures["ratio_range"] = [round(each / seconds["editing"], 2) for each in figures["single_range"]]
    figures["loss_difference"] = difference
    threads = torch.get_num_threads()
    print(f"{config.recipe}: {len(records)} edits, {config.values.steps} steps, {threads} threads, {device}")
    for name, value in figures["seconds"].items():
        print(f"ours     {name:<12} {value:>8.1f} s")
    timed = ", ".join(map(str, figures["single_seconds"]))
    print(f"single   editing      {figures['single']:>8.1f} s   ({len(single)} edits timed: {timed} s)")
    low, high = figures["ratio_range"]
    print(f"ratio of editing: {figures['ratio']:.1f} ({low:.1f} to {high:.1f} by the single edits)")
    print(f"losses of the two ways differ by at most {difference:.1e}")
    if config.output:
        setting = {"recipe": str(config.recipe), "edits_file": config.edits.name, "device": str(device)}
        write_json(config.output, setting | figures | {"hardware": hardware(), "git_commit": git_commit()})


def spread(count: int, N: int) -> list[int]:
    """`count` indices spread evenly over N edits."""
    return sorted({round(i) for i in np.linspace(0, N - 1, min(count, N))})


def random_windows(tokens: int, block_size: int) -> list[list[int]]:
    """`tokens` random ids in windows of at most 512, as long as documents are."""
    ids = np.random.default_rng(0).integers(0, 50_257, tokens).tolist()
    size = min(512, block_size)
    return [ids[start : start + size] for start in range(0, tokens, size)]


class SingleEdit:
    """One edit's loss by full passes over its contexts and its anchor, with logits at every token."""

    def __init__(self, model: GPT, request: ValueRequest, layer: int, settings: ValueSettings):
        self.model, self.request, self.layer, self.settings = model, request, layer, settings
        device = model.wte.weight.device
        prompts = [*request.prompts, request.subject_alone]
        self.ids = padded([p.ids + request.target[:-1] for p in request.prompts] + [request.subject_alone.ids], device)
        self.at = torch.tensor([prompt.position for prompt in prompts], device=device)
        self.target = torch.tensor(request.target, device=device)
        with torch.no_grad():
            bare = request.prompts[0]
            x = run_blocks(model, embed(model, padded([bare.ids], device)), 0, layer + 1)
            self.norm = x[0, bare.position].norm()
            zero = torch.zeros(model.config.n_embd, device=device)
            self.clean = self.logits(zero)[-1, self.at[-1]].log_softmax(-1)

    def logits(self, delta: Tensor) -> Tensor:
        """All logits (contexts + 1, T, V) with delta (C,) at each row's position."""
        rows = torch.arange(len(self.ids), device=self.ids.device)

        def put(_module, _inputs, output: Tensor) -> Tensor:
            return output.index_put((rows, self.at), output[rows, self.at] + delta)

        hook = self.model.h[self.layer].register_forward_hook(put)
        try:
            return self.model.logits(self.model.hidden(self.ids)).float()
        finally:
            hook.remove()

    def loss(self, delta: Tensor) -> Tensor:
        """What edit/values.py computes for this edit alone."""
        logits = self.logits(delta)
        total = torch.zeros((), device=delta.device)
        shares = context_weights(len(self.request.prompts) - 1).tolist()
        for row, (prompt, share) in enumerate(zip(self.request.prompts, shares, strict=True)):
            start = len(prompt.ids) - 1
            total = total + share * F.cross_entropy(logits[row, start : start + len(self.target)], self.target)
        now = logits[-1, self.at[-1]].log_softmax(-1)
        kl = (now.exp() * (now - self.clean)).sum()
        return total + self.settings.kl_weight * kl + self.settings.weight_decay * delta.norm() / self.norm**2


def time_single(model: GPT, request: ValueRequest, config: BenchConfig) -> float:
    """Seconds of one edit alone: set-up, all steps (`single_steps` are timed), and keys by a pass per layer."""
    device = model.wte.weight.device
    started = clock(device)
    edit = SingleEdit(model, request, max(config.update.layers), config.values)
    prepared = clock(device)
    delta = torch.zeros(model.config.n_embd, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=config.values.learning_rate)
    for _ in range(config.single_steps):
        [delta.grad] = torch.autograd.grad(edit.loss(delta), delta)
        optimizer.step()
    stepped = clock(device)
    for layer in config.update.layers:
        single_keys(model, request, layer)
    keyed = clock(device)
    return prepared - started + (stepped - prepared) / config.single_steps * config.values.steps + keyed - stepped


@torch.no_grad()
def single_keys(model: GPT, request: ValueRequest, layer: int) -> Tensor:
    """(contexts, 4C): the keys of one edit at one layer, by a pass over its whole prompts."""
    seen: list[Tensor] = []
    hook = model.h[layer].mlp.c_proj.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    ids = padded([prompt.ids for prompt in request.prompts], model.wte.weight.device)
    run_blocks(model, embed(model, ids), 0, layer + 1)
    hook.remove()
    return seen[0][torch.arange(len(ids)), torch.tensor([prompt.position for prompt in request.prompts])]


def check_losses(model: GPT, requests: list[ValueRequest], config: BenchConfig) -> float:
    """The largest relative difference between the losses of the first edits by the two ways, at a random delta."""
    some = requests[:3]
    delta = 0.1 * torch.randn(len(some), model.config.n_embd).to(model.wte.weight.device)
    layer = max(config.update.layers)
    with torch.no_grad():
        ours = ValueLoss(model, some, layer, config.values)(delta)
        theirs = [SingleEdit(model, each, layer, config.values).loss(d) for each, d in zip(some, delta, strict=True)]
    return float(((ours - torch.stack(theirs)) / ours).abs().max())


if __name__ == "__main__":
    run_script(main)
