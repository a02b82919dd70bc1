"""Generation beside Hugging Face's `generate` in one run: the same model, prompts, samples and limits.

    uv run python scripts/bench_generate.py --data-path data/raw/gsm8k/test.jsonl
    uv run python scripts/bench_generate.py --model-path outputs/sft_gsm8k_baseline --data-path outputs/demo/raw/gsm8k

Without --model-path the model has gpt2's shape and random weights. Two workloads, each with `n` samples of every prompt
at temperature 1 in float32:

fixed   no token stops: every sample has --max-new-tokens, so both engines compute exactly the same number of tokens;
ragged  random weights: a hundredth of the vocabulary stops, so that lengths are geometric with mean 100, as GSM8K's
        solutions are long; a trained model: end-of-text stops. A batch of theirs runs until its longest sample is done.

Both see the prompts sorted by length and run --batch-size sequences at a time. They are timed in turns, so that a busy
machine slows both; the figures are medians, and the ratio is the median of the rounds' ratios of tokens per second.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from tqdm import tqdm
from transformers import GPT2LMHeadModel

from common.config import parse_config, to_dict
from common.device import pick_device
from common.errors import UserError, run_script
from common.files import write_json
from common.record import git_commit, hardware
from data.encoding import tokenizer_of
from data.formats import chat_prompt
from data.gsm8k import load_gsm8k
from eval.engine import generate
from pretrain.hf_weights import hf_config, load_model_dir, to_hf_state
from pretrain.model import GPT, GPTConfig
from tokenizer.mul_facts import EOT_ID

GOALS = {"cpu": 2.0, "cuda": 8.0}
RAGGED_MEAN = 100  # tokens; GSM8K's solutions have 99 on average


@dataclass
class BenchConfig:
    """Time our generation beside Hugging Face's."""

    model_path: Path | None = None  # GPT-2 model directory; default: random weights of gpt2's shape
    data_path: str = "openai/gsm8k"  # whose questions are the prompts: a file, a folder with test.jsonl, or a hub id
    num_prompts: int = 8  # the first so many
    n: int = 16  # samples of each prompt
    max_new_tokens: int = 128  # most tokens of one sample
    batch_size: int = 64  # sequences at a time, for both
    rounds: int = 3  # timed rounds of both
    workloads: list[Literal["fixed", "ragged"]] = field(default_factory=lambda: ["fixed", "ragged"])  # timed in turn
    threads: int | None = None  # CPU threads; default all cores
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # of weights and samples
    output: Path | None = None  # also write the figures to this JSON file


def main() -> None:
    config = parse_config(BenchConfig)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    gpt = load_model_dir(config.model_path, device) if config.model_path else GPT(GPTConfig()).to(device)
    hf = GPT2LMHeadModel(hf_config(gpt.config)).to(device).eval()
    hf.load_state_dict(to_hf_state(gpt.state_dict()), strict=False)
    hf.tie_weights()
    prompts = read_prompts(config)
    figures = {}
    for workload in config.workloads:
        vocabulary = gpt.config.vocab_size
        stops = [] if workload == "fixed" else [EOT_ID] if config.model_path else [*range(vocabulary // RAGGED_MEAN)]
        figures[workload] = compare(
            config,
            ours=lambda seed, stops=stops: ours(gpt, prompts, config, stops, seed),
            theirs=lambda seed, stops=stops: theirs(hf, prompts, config, stops, seed),
        )
        report(workload, figures[workload], device)
    if config.output:
        setting = {"config": to_dict(config), "device": str(device), "threads": torch.get_num_threads()}
        setting |= {"prompt_tokens": sum(map(len, prompts)), "torch": torch.__version__}
        write_json(config.output, setting | figures | {"hardware": hardware(), "git_commit": git_commit()})


def read_prompts(config: BenchConfig) -> list[list[int]]:
    """The ids of the first questions, sorted by length."""
    items = load_gsm8k(config.data_path, "test")[: config.num_prompts]
    if len(items) < config.num_prompts:
        raise UserError(f"--num-prompts {config.num_prompts}: {config.data_path} has only {len(items)} questions")
    texts = [chat_prompt(item["question"]) for item in items]
    return sorted(tokenizer_of("baseline").encode_batch(texts, allow_special=False), key=len)


def ours(gpt: GPT, prompts: list[list[int]], config: BenchConfig, stops: list[int], seed: int) -> int:
    """Generate with eval/engine.py; returns the number of tokens."""
    results = generate(
        gpt,
        prompts,
        n=config.n,
        max_new_tokens=config.max_new_tokens,
        temperature=1.0,
        stop_ids=stops,
        seed=seed,
        batch_size=config.batch_size,
    )
    return sum(len(completion.ids) for completions in results for completion in completions)


@torch.inference_mode()
def theirs(hf: GPT2LMHeadModel, prompts: list[list[int]], config: BenchConfig, stops: list[int], seed: int) -> int:
    """Generate with transformers, as many prompts at a time as fit the batch; returns the number of tokens."""
    torch.manual_seed(seed)
    tokens, per_batch = 0, max(1, config.batch_size // config.n)
    for start in range(0, len(prompts), per_batch):
        batch = prompts[start : start + per_batch]
        longest = max(map(len, batch))
        ids = torch.tensor([[EOT_ID] * (longest - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
        sequences = hf.generate(
            input_ids=ids.to(hf.device),
            attention_mask=mask.to(hf.device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=config.n,
            max_new_tokens=config.max_new_tokens,
            eos_token_id=stops or None,
            pad_token_id=EOT_ID,
        )[:, longest:].cpu()
        # A sample's tokens: up to and with its first stop; what follows is padding.
        stopped = torch.isin(sequences, torch.tensor(stops)).int()
        before = stopped.cumsum(1) - stopped
        tokens += int((before == 0).sum())
    return tokens


def compare(config: BenchConfig, ours: Callable[[int], int], theirs: Callable[[int], int]) -> dict[str, Any]:
    """Rounds of both in turns, after one that is not timed: tokens, seconds, rates and their ratio."""
    engines = {"ours": ours, "hf": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    tokens: dict[str, list[int]] = {name: [] for name in engines}
    for engine in engines.values():
        engine(config.seed)
    for round_ in tqdm(range(config.rounds), desc="timing", unit="round"):
        for name, engine in engines.items():
            started = time.perf_counter()
            tokens[name].append(engine(config.seed + 1 + round_))
            seconds[name].append(time.perf_counter() - started)
    rates = {name: [t / s for t, s in zip(tokens[name], seconds[name], strict=True)] for name in engines}
    ratio = median(a / b for a, b in zip(rates["ours"], rates["hf"], strict=True))
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": {name: median(values) for name, values in rates.items()},
        "ratio": ratio,
    }


def report(workload: str, figures: dict[str, Any], device: torch.device) -> None:
    for name, rate in figures["tokens_per_second"].items():
        mean = sum(figures["tokens"][name]) / len(figures["tokens"][name])
        print(f"{workload:<7} {name:<5} {rate:>9.1f} tokens/s ({mean:.0f} tokens a round)")
    goal = GOALS.get(device.type)
    verdict = "" if goal is None else f" (goal {goal:.0f}: {'met' if figures['ratio'] >= goal else 'missed'})"
    print(f"{workload:<7} ratio {figures['ratio']:.2f}{verdict}")


if __name__ == "__main__":
    run_script(main)
