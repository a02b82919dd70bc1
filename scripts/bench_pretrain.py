"""Tokens per second of our training step beside Hugging Face's on the same config, in one run.

    uv run python scripts/bench_pretrain.py
    uv run python scripts/bench_pretrain.py --recipe pretrain/configs/gpt2_124m.yaml --batch-size 1 --steps 5

Ours: GPT, chunked loss, clipping, fused AdamW, as in pretrain/train.py. Theirs: GPT2LMHeadModel of the same
architecture and dtype, dropout 0, its own loss, clipping, and the fused AdamW that transformers' Trainer takes by
default. Same weights, same batch. Steps alternate, so that a busy machine slows both; figures are medians. Peak memory
is that of two steps in a process of its own for each.
"""

import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from common.config import config_from_yaml, parse_config
from common.device import autocast, memory_bytes, pick_device, pick_dtype, seed_everything
from common.errors import run_script
from common.files import write_json
from common.record import git_commit, hardware
from pretrain.hf_weights import hf_config, to_hf_state
from pretrain.model import GPT, GPTConfig
from pretrain.optimizer import build_adamw
from pretrain.settings import TrainConfig


@dataclass
class BenchConfig:
    """Our training step beside Hugging Face's on the same config."""

    recipe: Path = Path("pretrain/configs/demo.yaml")  # a pretraining config; its model and training sections count
    batch_size: int | None = None  # sequences per step; default the config's
    steps: int = 10  # timed steps of each
    threads: int | None = None  # CPU threads; default all cores
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    only: Literal["ours", "hf"] | None = None  # run one of them and print its peak memory: how this script measures it
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
    idx, targets = torch.randint(0, gpt.config.vocab_size, (2, B, T), device=device)
    make_step = {"ours": our_step, "hf": hf_step}
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
    speed = {name: B * T / median(times) for name, times in seconds.items()}
    ratio = median(hf / ours for ours, hf in zip(seconds["ours"], seconds["hf"], strict=True))
    memory = {name: measure_memory(name, config) for name in steps}
    print(f"{config.recipe}: batch {B} x {T}, {dtype}, {torch.get_num_threads()} threads, {device}")
    print(f"ours  {speed['ours']:>9,.0f} tokens/s   peak {memory['ours'] / 2**20:>7,.0f} MiB")
    print(f"hf    {speed['hf']:>9,.0f} tokens/s   peak {memory['hf'] / 2**20:>7,.0f} MiB")
    print(f"ratio {ratio:.2f} (median of {config.steps} paired steps); largest difference in loss {drift:.1e}")
    if config.output:
        figures = {"recipe": str(config.recipe), "batch_size": B, "block_size": T, "dtype": str(dtype)}
        figures |= {"tokens_per_second": speed, "ratio": ratio, "peak_bytes": memory, "seconds": seconds}
        write_json(config.output, figures | {"hardware": hardware(), "git_commit": git_commit()})


def our_step(gpt: GPT, idx: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype):
    """One update of our model, as a function that returns the loss."""
    model = GPT(gpt.config).to(idx.device)
    model.load_state_dict(gpt.state_dict())
    model = torch.compile(model) if idx.device.type == "cuda" else model
    optimizer = build_adamw(model, 1e-4, 0.1, (0.9, 0.95))
    return lambda: update(model, optimizer, lambda: model(idx, targets), idx.device, dtype)


def hf_step(gpt: GPT, idx: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype):
    """One update of GPT2LMHeadModel. `shift_labels` says that the targets are shifted already."""
    model = GPT2LMHeadModel(hf_config(gpt.config)).to(idx.device)
    model.load_state_dict(to_hf_state(gpt.state_dict()), strict=False)
    model.tie_weights()
    model = torch.compile(model) if idx.device.type == "cuda" else model
    optimizer = build_adamw(model, 1e-4, 0.1, (0.9, 0.95))

    def loss():
        return model(idx, labels=targets, shift_labels=targets, use_cache=False).loss

    return lambda: update(model, optimizer, loss, idx.device, dtype)


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
