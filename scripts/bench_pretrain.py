"""Tokens per second of our training step beside two others on the same config, in one run.

    uv run python scripts/bench_pretrain.py
    uv run python scripts/bench_pretrain.py --recipe pretrain/configs/gpt2_124m.yaml --batch-size 1 --steps 5
    uv run python scripts/bench_pretrain.py --recipe pretrain/configs/gpt2_124m.yaml --device cuda --steps 50

ours      GPT, chunked loss, clipping, fused AdamW, as in pretrain/train.py
hf        GPT2LMHeadModel with dropout 0, its own loss, clipping, and the fused AdamW that transformers' Trainer takes
nanogpt   the recipe of build-nanogpt: whole logits over a vocabulary of 50,304, F.cross_entropy, clipping, fused AdamW

All three: same architecture, dtype, weights and batch; SDPA attention; torch.compile on a GPU. Steps alternate, so that
a busy machine slows all; figures are medians. Peak memory is that of two steps in a process of its own for each. On a
GPU, MFU counts 6 N + 12 L C T FLOPs per token against the dense bfloat16 peak.
"""

import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from common.config import config_from_yaml, parse_config
from common.device import autocast, memory_bytes, pick_device, pick_dtype, seed_everything
from common.errors import run_script
from common.files import write_json
from common.record import git_commit, hardware
from pretrain.flops import utilisation
from pretrain.hf_weights import hf_config, to_hf_state
from pretrain.model import GPT, GPTConfig
from pretrain.optimizer import build_optimizers
from pretrain.settings import TrainConfig, TrainingConfig
from tokenizer.mul_facts import EOT_ID

NANOGPT_VOCAB_SIZE = 50304


@dataclass
class BenchConfig:
    """Our training step beside Hugging Face's and build-nanogpt's on the same config."""

    recipe: Path = Path("pretrain/configs/demo.yaml")  # a pretraining config; its model and training sections count
    batch_size: int | None = None  # sequences per step; default the config's
    steps: int = 10  # timed steps of each
    threads: int | None = None  # CPU threads; default all cores
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    only: Literal["ours", "hf", "nanogpt"] | None = (
        None  # run one and print its peak memory: how this script measures it
    )
    output: Path | None = None  # also write the figures to this JSON file


def main() -> None:
    config = parse_config(BenchConfig)
    if config.threads:
        torch.set_num_threads(config.threads)
    recipe = config_from_yaml(TrainConfig, config.recipe)
    device = pick_device(config.device)
    dtype = pick_dtype(recipe.training.dtype, device)
    if dtype == torch.bfloat16 and device.type == "cpu":
        dtype = pick_dtype("auto", device)  # emulated bfloat16 would time the emulation
    B, T = config.batch_size or recipe.training.batch_size, recipe.model.block_size

    seed_everything(0)
    gpt = GPT(GPTConfig(**asdict(recipe.model))).to(device)
    idx, targets = torch.randint(0, EOT_ID, (2, B, T), device=device)  # ids that every contender has
    make_step = {"ours": our_step, "hf": hf_step, "nanogpt": nanogpt_step}
    if config.only:
        step = make_step[config.only](gpt, idx, targets, dtype)
        before, _ = memory_bytes(device)
        for _ in range(2):
            step()
        print(memory_bytes(device)[1] - before)
        return

    steps = {name: make(gpt, idx, targets, dtype) for name, make in make_step.items()}
    losses = {name: [step() for _ in range(2)] for name, step in steps.items()}  # warm-up; both must learn alike
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(config.steps), desc="timing", unit="step"):
        for name, step in steps.items():
            started = time.perf_counter()
            losses[name].append(step())
            seconds[name].append(time.perf_counter() - started)

    drift = max(abs(a - b) for a, b in zip(losses["ours"], losses["hf"], strict=True))
    memory = {name: measure_memory(name, config) for name in steps}
    print(f"{config.recipe}: batch {B} x {T}, {dtype}, {torch.get_num_threads()} threads, {device}")
    figures = {}
    for name, times in seconds.items():
        speed = B * T / median(times)
        ratio = median(theirs / ours for ours, theirs in zip(seconds["ours"], times, strict=True))
        mfu = utilisation(speed, gpt.flops_per_token(), device, 1)
        figures[name] = {"tokens_per_second": speed, "step_time_of_ours": ratio, "mfu": mfu, "peak_bytes": memory[name]}
        print(
            f"{name:<8} {speed:>10,.0f} tokens/s   MFU {'n/a' if mfu is None else f'{mfu:.1%}'}   "
            f"peak {memory[name] / 2**20:>7,.0f} MiB   step {ratio:.2f} x ours"
        )
    print(f"ratios: medians of {config.steps} paired steps; largest difference in loss between ours and hf {drift:.1e}")
    if config.output:
        setting = {"recipe": str(config.recipe), "batch_size": B, "block_size": T, "dtype": str(dtype)}
        setting |= {"hardware": hardware(), "git_commit": git_commit()}
        write_json(config.output, setting | {"contenders": figures, "seconds": seconds, "loss_difference": drift})


def our_step(gpt: GPT, idx: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype):
    """One update of our model, as a function that returns the loss."""
    model = GPT(gpt.config).to(idx.device)
    model.load_state_dict(gpt.state_dict())
    return updater(model, lambda trained: trained(idx, targets), idx.device, dtype)


def hf_step(gpt: GPT, idx: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype):
    """One update of GPT2LMHeadModel. `shift_labels` says that the targets are shifted already."""
    model = GPT2LMHeadModel(hf_config(gpt.config)).to(idx.device)
    model.load_state_dict(to_hf_state(gpt.state_dict()), strict=False)
    model.tie_weights()
    labels = {"labels": targets, "shift_labels": targets, "use_cache": False}
    return updater(model, lambda trained: trained(idx, **labels).loss, idx.device, dtype)


class WholeLogits(nn.Module):
    """A GPT whose loss is taken from the logits of the whole batch at once."""

    def __init__(self, gpt: GPT):
        super().__init__()
        self.gpt = gpt

    def forward(self, idx: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of targets (B, T)."""
        logits = self.gpt.logits(self.gpt.hidden(idx))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def nanogpt_step(gpt: GPT, idx: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype):
    """One update as build-nanogpt makes it (its commit is named in third_party/build-nanogpt/UPSTREAM.md)."""
    model = GPT(replace(gpt.config, vocab_size=NANOGPT_VOCAB_SIZE)).to(idx.device)
    state = gpt.state_dict()
    model.load_state_dict(state | {"wte.weight": state["wte.weight"][:NANOGPT_VOCAB_SIZE]})
    return updater(WholeLogits(model), lambda trained: trained(idx, targets), idx.device, dtype)


def updater(model: nn.Module, compute_loss, device: torch.device, dtype: torch.dtype):
    """A function that makes one update of `model` and returns its loss; compute_loss takes the compiled model."""
    trained = torch.compile(model) if device.type == "cuda" else model
    (optimizer,) = build_optimizers(model, TrainingConfig(max_lr=1e-4))
    return lambda: update(model, optimizer, lambda: compute_loss(trained), device, dtype)


def update(model, optimizer, compute_loss, device: torch.device, dtype: torch.dtype) -> float:
    """Forward, backward, clip, step. Returns the loss."""
    with autocast(device, dtype):
        loss = compute_loss()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def measure_memory(name: str, config: BenchConfig) -> int:
    """Peak bytes of two steps in a process that does nothing else, less what it needed before them."""
    arguments = [f"--{key.replace('_', '-')}={getattr(config, key)}" for key in ("recipe", "device")]
    arguments += [f"--batch-size={config.batch_size}"] if config.batch_size else []
    command = [sys.executable, __file__, *arguments, f"--only={name}", f"--threads={torch.get_num_threads()}"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    run_script(main)
