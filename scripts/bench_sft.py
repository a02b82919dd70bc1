"""Useful tokens per second of our SFT step beside a padded recipe on the same examples, in one run.

    uv run python scripts/bench_sft.py
    uv run python scripts/bench_sft.py --recipe pretrain/configs/gpt2_124m.yaml --steps 3 --data-path path/to/gsm8k
    uv run python scripts/bench_sft.py --recipe pretrain/configs/gpt2_124m.yaml --device cuda --micro-batch-size 32

ours     the step of sft/training.py: examples packed side by side, the head applied to the labelled positions alone
padded   every example padded to --max-length, GPT2LMHeadModel's own forward and loss over whole logits, prompts trained
         too, gradients accumulated over micro-batches

Both: the same weights, examples, dtype, clipping and fused AdamW. The examples are GSM8K's where --data-path says where
they are, else random ids, in number of tokens distributed like GSM8K's (mean 160, at most 442, 38% of them prompt). A
useful token is one of an example; padding is none. Steps alternate, so that a busy machine slows both; figures are
medians.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from common.config import config_from_yaml, parse_config
from common.device import autocast, pick_device, pick_dtype, seed_everything
from common.errors import UserError, run_script
from common.files import write_json
from common.record import git_commit, hardware
from pretrain.hf_weights import hf_config
from pretrain.model import GPTConfig
from pretrain.settings import TrainConfig
from sft.examples import TokenizedExamples, chat_example, load_gsm8k_train, tokenize_examples
from sft.packing import IGNORED, PackedRows
from sft.settings import SFTSettings
from sft.training import build_trainer, quiet_libraries
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer
from tokenizer.mul_facts import EOT_ID

LONGEST, PROMPT_SHARE = 442, 0.38


@dataclass
class BenchConfig:
    """Our SFT step beside a padded recipe on the same examples."""

    recipe: Path = Path("pretrain/configs/demo.yaml")  # a pretraining config; its model section counts
    data_path: Path | None = None  # GSM8K: .jsonl file, or folder with train.jsonl; without it random examples
    batch_size: int = 32  # examples per optimizer step
    micro_batch_size: int = 4  # examples per forward pass of the padded recipe; ours takes the batch at once
    max_length: int = 512  # what the padded recipe pads to, and our longest row
    steps: int = 5  # timed steps, after one to warm up
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    threads: int | None = None  # CPU threads; default torch's
    output: Path | None = None  # JSON file for the figures


def main() -> None:
    config = parse_config(BenchConfig)
    if config.max_length < LONGEST:
        raise UserError(f"--max-length {config.max_length}: the longest example has {LONGEST} tokens")
    if min(config.steps, config.micro_batch_size) < 1 or config.batch_size % config.micro_batch_size:
        raise UserError("--steps must be at least 1, and --micro-batch-size a divisor of --batch-size")
    if config.threads:
        torch.set_num_threads(config.threads)
    quiet_libraries()
    device = pick_device(config.device)
    dtype = pick_dtype("auto", device)
    seed_everything(0)
    shape = config_from_yaml(TrainConfig, config.recipe).model
    gpt2 = hf_config(GPTConfig(**asdict(replace(shape, block_size=max(shape.block_size, config.max_length)))))
    model = GPT2LMHeadModel(gpt2)
    batches = [random_examples(config.batch_size, seed) for seed in range(config.steps + 1)]
    if config.data_path:
        batches = gsm8k_batches(config)

    seconds: dict[str, list[float]] = {"ours": [], "padded": []}
    with tempfile.TemporaryDirectory() as directory:
        steps = {
            "ours": our_step(model, batches[0], config, Path(directory)),
            "padded": padded_step(model, config, device, dtype),
        }
        for batch in tqdm(batches, desc="timing", unit="step"):
            for name, step in steps.items():
                started = time.perf_counter()
                step(batch)
                seconds[name].append(time.perf_counter() - started)
    seconds = {name: times[1:] for name, times in seconds.items()}

    useful = [sum(len(row["input_ids"]) for row in batch) for batch in batches[1:]]
    figures = {
        name: median(tokens / taken for tokens, taken in zip(useful, times, strict=True))
        for name, times in seconds.items()
    }
    ratio = median(theirs / ours for ours, theirs in zip(seconds["ours"], seconds["padded"], strict=True))
    real = {"ours": sum(useful) / sum(map(computed_tokens(config), batches[1:]))}
    real["padded"] = sum(useful) / (config.batch_size * config.max_length * config.steps)
    print(f"{config.recipe}: {config.batch_size} examples a step, {dtype}, {torch.get_num_threads()} threads, {device}")
    for name, speed in figures.items():
        print(f"{name:<8} {speed:>10,.0f} useful tokens/s   {real[name]:.1%} of the computed tokens are real")
    print(f"ratio: {ratio:.2f}, the median of {config.steps} paired steps")
    if config.output:
        setting = {key: str(value) for key, value in asdict(config).items()} | {"dtype": str(dtype)}
        setting |= {"hardware": hardware(), "git_commit": git_commit()}
        speeds = {"useful_tokens_per_second": figures, "ratio": ratio, "real_share": real, "seconds": seconds}
        write_json(config.output, setting | speeds)


def random_examples(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Rows {"input_ids", "labels"} of random ids, as long as GSM8K's, the prompt not labelled."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in rng.gamma(shape=6.5, scale=24.5, size=count).clip(40, LONGEST).astype(int):
        ids = rng.integers(0, EOT_ID, length).astype(np.int32)
        labels = np.where(np.arange(length) < PROMPT_SHARE * length, np.int32(IGNORED), ids)
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def gsm8k_batches(config: BenchConfig) -> list[list[dict[str, np.ndarray]]]:
    """GSM8K's items as sft/sft_gsm8k.py trains them, drawn by seed 0, a batch for every step and the one before."""
    items = load_gsm8k_train(config.data_path, "").rows
    wanted = (config.steps + 1) * config.batch_size
    if wanted > len(items):
        raise UserError(f"{config.data_path} has {len(items)} items; {config.steps} steps need {wanted}")
    drawn = [chat_example(**items[i]) for i in np.random.default_rng(0).permutation(len(items))[:wanted]]
    rows = tokenize_examples(build_hf_tokenizer("baseline"), drawn, config.max_length).rows
    return [rows[start : start + config.batch_size] for start in range(0, len(rows), config.batch_size)]


def computed_tokens(config: BenchConfig) -> Callable[[list[dict]], int]:
    """How many tokens, padding included, our step computes for a batch."""
    collate = PackedRows(config.max_length, EOT_ID)
    return lambda batch: collate(batch)["input_ids"].numel()


def our_step(model: GPT2LMHeadModel, batch: list[dict], config: BenchConfig, directory: Path) -> Callable:
    """One update by the trainer of the SFT stages, as a function of a batch."""
    settings = SFTSettings()
    settings.training.batch_size = settings.training.micro_batch_size = config.batch_size
    settings.training.max_length = config.max_length
    tokenizer, examples = build_hf_tokenizer("baseline"), TokenizedExamples(batch)
    trainer = build_trainer(
        copy_of(model), tokenizer, examples, TokenizedExamples([]), settings, directory, 0, config.device
    )
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-5, fused=True)

    def step(rows: list[dict]) -> None:
        inputs = trainer._prepare_inputs(trainer.data_collator(rows))
        labelled = (inputs["labels"][:, 1:] != IGNORED).sum()
        trainer.compute_loss(trainer.model, inputs, num_items_in_batch=labelled).backward()
        update(trainer.model, optimizer)

    return step


def padded_step(model: GPT2LMHeadModel, config: BenchConfig, device: torch.device, dtype: torch.dtype) -> Callable:
    """One update as scripts make it that pad every example and take the loss that the model returns."""
    model = copy_of(model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    size, length = config.micro_batch_size, config.max_length

    def step(rows: list[dict]) -> None:
        for start in range(0, len(rows), size):
            ids = torch.full((size, length), EOT_ID)
            mask = torch.zeros(size, length, dtype=torch.long)
            for b, row in enumerate(rows[start : start + size]):
                ids[b, : len(row["input_ids"])] = torch.from_numpy(row["input_ids"])
                mask[b, : len(row["input_ids"])] = 1
            ids, mask = ids.to(device), mask.to(device)
            labels = ids.masked_fill(mask == 0, IGNORED)
            with autocast(device, dtype):
                loss = model(ids, attention_mask=mask, labels=labels, use_cache=False).loss
            (loss * size / len(rows)).backward()
        update(model, optimizer)

    return step


def update(model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer) -> None:
    """Clip, step, and wait until it is done."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    norm.item()
    if norm.is_cuda:
        torch.cuda.synchronize()


def copy_of(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """The same model in tensors of its own, in training mode (its dropout is 0)."""
    copy = GPT2LMHeadModel(model.config)
    copy.load_state_dict(model.state_dict())
    copy.tie_weights()
    return copy.train()


if __name__ == "__main__":
    run_script(main)
