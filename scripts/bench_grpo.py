"""GRPO iterations per second beside stock TRL, which samples with Hugging Face's generate, in one run.

    uv run python scripts/bench_grpo.py
    uv run python scripts/bench_grpo.py --workloads 124m --steps 2
    uv run python scripts/bench_grpo.py --workloads 124m --device cuda --steps 20

tiny     2 layers, width 64, 45 ids; 8 x 8 responses of 24 tokens to prompts of 5 to 25
small    4 layers, width 256, 8,192 ids; 4 x 8 of 64 to prompts of 40 to 80
124m     gpt2's shape, 50,304 ids; 1 x 8 of 64 to prompts of 60 to 100 (a single prompt, so none is padded)

Equal work: the same weights and prompts, random rewards (no group is skipped), end-of-text suppressed (every response
has its full length), float32, one update per iteration. --dead-share makes that share of the prompts earn nothing
whatever is said, as in real runs: ours leaves those groups out of the update (refills are off here), TRL cannot.
TRL runs its own training loop; between its steps ours takes one. Figures are medians after --warmup steps. Beside wall
time stands the processor time of both, which, with --threads 1, other work on the machine hardly changes.
"""

import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm
from transformers import TrainerCallback

from common.config import parse_config, to_dict
from common.device import clock, pick_device, seed_everything
from common.errors import UserError, run_script
from common.files import write_json
from common.record import git_commit, hardware
from pretrain.model import GPT, GPTConfig
from rl.settings import RolloutSettings
from scripts.grpo_contenders import Ours, Task, toy_config, toy_problem, trl_trainer

GOAL = 2.0


@dataclass(frozen=True)
class Workload:
    model: GPTConfig
    prompts: int  # groups per iteration
    shortest: int  # prompt, in tokens
    longest: int
    new_tokens: int


WORKLOADS = {
    "tiny": Workload(GPTConfig(2, 2, 64, 64, 45), 8, 5, 25, 24),
    "small": Workload(GPTConfig(4, 4, 256, 256, 8192), 4, 40, 80, 64),
    "124m": Workload(GPTConfig(12, 12, 768, 1024, 50304), 1, 60, 100, 64),
}
GROUP = 8


@dataclass
class BenchConfig:
    """Time our GRPO iteration beside stock TRL's."""

    workloads: list[Literal["tiny", "small", "124m"]] = field(default_factory=lambda: ["tiny", "small"])
    steps: int = 10  # timed iterations of both
    warmup: int = 2  # iterations before them
    dead_share: float = 0.0  # of the prompts whose responses all earn 0
    threads: int | None = None  # CPU threads; default all cores
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # of weights, prompts and samples
    output: Path | None = None  # also write the figures to this JSON file


def main() -> None:
    config = parse_config(BenchConfig)
    if config.steps < 1 or config.warmup < 0 or not 0 <= config.dead_share < 1:
        raise UserError("--steps must be at least 1, --warmup at least 0, --dead-share at least 0 and below 1")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    figures = {}
    for name in config.workloads:
        figures[name] = compare(name, WORKLOADS[name], config, device)
        report(name, figures[name])
    if config.output:
        setting = {"config": to_dict(config), "device": str(device), "threads": torch.get_num_threads()}
        write_json(config.output, setting | figures | {"hardware": hardware(), "git_commit": git_commit()})


def compare(name: str, workload: Workload, config: BenchConfig, device: torch.device) -> dict[str, Any]:
    """Both in turns on one workload: seconds per iteration and what they are spent on, rates, ratio."""
    seed_everything(config.seed)
    model = GPT(workload.model).to(device)
    task = random_task(workload, config)
    steps = config.warmup + config.steps
    rollout = RolloutSettings(workload.prompts, GROUP, workload.new_tokens, refills=0)
    settings = toy_config(rollout, steps, 1e-5)
    with tempfile.TemporaryDirectory() as directory:
        trainer = trl_trainer(model, task, settings, config.seed, Path(directory), positions=False)
        turns = Turns(Ours(model, task, settings, config.seed), device, tqdm(total=steps, desc=name, unit="step"))
        trainer.add_callback(turns)
        measure_generation(trainer, turns, device)
        trainer.train()
    turns.bar.close()
    seconds = {part: times[config.warmup :] for part, times in turns.seconds.items()}
    tokens = workload.prompts * GROUP * workload.new_tokens
    if {tokens} != set(turns.tokens):
        raise AssertionError(f"expected {tokens} generated tokens in every iteration, found {set(turns.tokens)}")
    medians = {part: median(times) for part, times in seconds.items()}
    return {
        "seconds": seconds,
        "median_seconds": medians,
        "iterations_per_second": {who: 1 / medians[who] for who in ("ours", "trl")},
        "ratio": median(b / a for a, b in zip(seconds["ours"], seconds["trl"], strict=True)),
        "processor_ratio": median(b / a for a, b in zip(seconds["ours_cpu"], seconds["trl_cpu"], strict=True)),
        "kept": sum(turns.kept) / len(turns.kept),
    }


def random_task(workload: Workload, config: BenchConfig) -> Task:
    """Random prompts; what a response earns is as good as random, and the same for both trainers."""
    rng = np.random.default_rng(config.seed)
    eos = workload.model.vocab_size - 1
    problems = []
    for number in range(256):
        length = int(rng.integers(workload.shortest, workload.longest + 1))
        prompt = rng.integers(0, eos, length).tolist()
        problems.append(toy_problem(prompt, number))
    dead = config.dead_share * len(problems)

    def score(ids: list[int], number: int) -> float:
        return 0.0 if number < dead else zlib.crc32(str(ids).encode()) / 2**32

    return Task(problems, score, eos, stops=False)


class Turns(TrainerCallback):
    """Times TRL's steps, and takes one of ours after each, in time that does not count for it."""

    def __init__(self, ours: Ours, device: torch.device, bar: tqdm):
        self.ours, self.device, self.bar = ours, device, bar
        parts = ("ours", "ours_generate", "ours_cpu", "trl", "trl_generate", "trl_cpu")
        self.seconds: dict[str, list[float]] = {part: [] for part in parts}
        self.kept: list[float] = []
        self.tokens: list[int] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started, self.started_cpu = clock(self.device), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        middle, middle_cpu = clock(self.device), time.process_time()
        batch, _ = self.ours.step()
        self.seconds["trl"].append(middle - self.started)
        self.seconds["trl_cpu"].append(middle_cpu - self.started_cpu)
        self.seconds["ours"].append(clock(self.device) - middle)
        self.seconds["ours_cpu"].append(time.process_time() - middle_cpu)
        self.seconds["ours_generate"].append(batch.seconds["generate"])
        self.kept.append(len(batch.kept) / len(batch.sampled))
        self.tokens.append(sum(len(c.ids) for group in batch.sampled for c in group.completions))
        self.bar.update()


def measure_generation(trainer: Any, turns: Turns, device: torch.device) -> None:
    """Time the calls of TRL's model.generate, and count the tokens."""
    generate = trainer.model.generate

    def timed(*arguments: Any, **options: Any) -> Any:
        started = clock(device)
        sequences = generate(*arguments, **options)
        turns.seconds["trl_generate"].append(clock(device) - started)
        turns.tokens.append(sequences[:, options["input_ids"].size(1) :].numel())
        return sequences

    trainer.model.generate = timed


def report(name: str, figures: dict[str, Any]) -> None:
    seconds = figures["median_seconds"]
    for who, rate in figures["iterations_per_second"].items():
        share = f"{1000 * seconds[who]:.0f} ms, of which {1000 * seconds[f'{who}_generate']:.0f} ms sampling"
        share += f"; processor {1000 * seconds[f'{who}_cpu']:.0f} ms"
        print(f"{name:<6} {who:<5} {rate:8.3f} iterations/s ({share})")
    ratio, kept = figures["ratio"], figures["kept"]
    print(
        f"{name:<6} ratio {ratio:.2f} (goal {GOAL:.0f}: {met(ratio)}), of processor time "
        f"{figures['processor_ratio']:.2f}; {kept:.0%} of groups kept"
    )


def met(ratio: float) -> str:
    return "met" if ratio >= GOAL else "missed"


if __name__ == "__main__":
    run_script(main)
