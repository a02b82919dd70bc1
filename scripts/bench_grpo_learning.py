"""What GRPO learns beside stock TRL: padded addition, several seeds, sampled accuracy before and after.

    uv run python scripts/bench_grpo_learning.py
    uv run python scripts/bench_grpo_learning.py --seeds 4 --iterations 100 --contenders refill trl

The task: up to 20 filler letters, a blank and `a+b=` with terms below 20, one id per character; the answer is the sum's
digits and an end. Held-out items differ from those of training in their filler: all 400 sums occur in both.
Prompts of a batch differ in length, so TRL pads them on the left, and a model with learned positions is trained on
log-probabilities of other positions than it sampled at. A seed draws weights, problems and samples. Its model is first
fine-tuned until its sampled accuracy is about --start, then every contender goes on from there:

refill         ours: groups whose rewards do not vary are replaced, up to four times
skip           ours: such groups are only left out
trl            TRL's GRPOTrainer as it is shipped
trl_positions  the same with a hook that gives its model the positions

All: the same problems, exact match as reward, clip bounds 0.2 and 0.28, no KL, one update per iteration at a constant
rate. Accuracy: one sample at temperature 1 for each of --eval-items problems that no training has seen, by our engine.
"""

import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.optim import AdamW
from tqdm import tqdm

from common.config import parse_config, to_dict
from common.device import pick_device, seed_everything
from common.errors import UserError, run_script
from common.files import write_json
from common.record import git_commit, hardware
from eval.engine import generate
from eval.stats import wilson_interval
from pretrain.hf_weights import from_hf_state
from pretrain.model import GPT, GPTConfig
from rl.problems import Problem
from rl.settings import GRPOConfig, RolloutSettings
from scripts.grpo_contenders import Ours, Task, toy_config, toy_problem, trl_trainer, without_refills

CHARACTERS = "0123456789+= abcdefghijklmnopqrstuvwxyz"
EOS = len(CHARACTERS)
LONGEST_FILLER, TERMS = 20, 20
NEW_TOKENS = 4  # two digits and the end, and one more
SFT_BATCH, SFT_RATE = 64, 1e-3
CHECK_INTERVAL, CHECK_ITEMS = 25, 400  # fine-tuning steps between looks at the accuracy of so many items

Contender = Literal["refill", "skip", "trl", "trl_positions"]


@dataclass
class BenchConfig:
    """Padded addition: our GRPO and TRL's from the same weights."""

    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    contenders: list[Contender] = field(default_factory=lambda: ["refill", "skip", "trl", "trl_positions"])
    iterations: int = 300  # of GRPO
    prompts: int = 8  # groups per iteration
    group_size: int = 8  # responses to each prompt
    learning_rate: float = 1e-4  # 3e-4 is too high for all but refill
    start: float = 0.31  # sampled accuracy at which fine-tuning stops
    sft_steps: int = 4000  # at most
    train_items: int = 20_000  # problems to draw prompts from
    eval_items: int = 1600
    n_layer: int = 3
    n_embd: int = 128
    threads: int | None = None  # CPU threads; default all cores
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    output: Path | None = None  # also write the figures to this JSON file


def main() -> None:
    config = parse_config(BenchConfig)
    if config.group_size < 2 or min(config.iterations, config.prompts, config.eval_items) < 1:
        raise UserError("--group-size must be at least 2; --iterations, --prompts and --eval-items at least 1")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    rows = [row for seed in config.seeds for row in run_seed(config, seed, device)]
    print_table(config, rows)
    if config.output:
        setting = {"config": to_dict(config), "device": str(device), "threads": torch.get_num_threads()}
        write_json(config.output, setting | {"runs": rows, "hardware": hardware(), "git_commit": git_commit()})


def run_seed(config: BenchConfig, seed: int, device: torch.device) -> list[dict[str, Any]]:
    """Fine-tune, then run every contender from those weights; a row of figures for each."""
    seed_everything(seed)
    problems = additions(config.train_items + config.eval_items, np.random.default_rng(seed))
    task = Task(problems[: config.train_items], right, EOS, stops=True)
    fresh = problems[config.train_items :]
    shape = GPTConfig(config.n_layer, 4, config.n_embd, LONGEST_FILLER + 7 + NEW_TOKENS, len(CHARACTERS) + 1)
    model = GPT(shape).to(device)
    steps = fine_tune(model, task.problems, fresh, config, seed)
    before = sampled_accuracy(model, fresh, seed)
    rows = []
    for contender in config.contenders:
        started = time.perf_counter()
        trained, more = train(contender, deepcopy(model), task, config, seed)
        seconds = time.perf_counter() - started
        row = {"seed": seed, "contender": contender, "sft_steps": steps, "n": len(fresh)}
        row |= {"right_before": before, "right_after": sampled_accuracy(trained, fresh, seed)}
        row |= {"seconds": seconds, "iterations_per_second": config.iterations / seconds} | more
        for when in ("before", "after"):
            row[f"accuracy_{when}"] = row[f"right_{when}"] / len(fresh)
            row[f"interval_{when}"] = wilson_interval(row[f"right_{when}"], len(fresh))
        rows.append(row)
        tqdm.write(f"seed {seed} {contender:<14} {before / len(fresh):.1%} -> {show(row)}")
    return rows


def additions(count: int, rng: np.random.Generator) -> list[Problem]:
    """Different problems: filler, then a sum of two numbers below TERMS."""
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        filler = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(LONGEST_FILLER + 1)))
        a, b = (int(term) for term in rng.integers(TERMS, size=2))
        problem = toy_problem([CHARACTERS.index(c) for c in f"{filler} {a}+{b}="], a + b)
        problems.setdefault(problem.question, problem)
    return list(problems.values())


def response_to(answer: int) -> list[int]:
    return [CHARACTERS.index(c) for c in str(answer)] + [EOS]


def right(ids: list[int], answer: int) -> float:
    return float(ids == response_to(answer))


def fine_tune(model: GPT, problems: list[Problem], fresh: list[Problem], config: BenchConfig, seed: int) -> int:
    """Train on prompts and answers until the sampled accuracy is `config.start`; returns the steps that it took."""
    optimizer = AdamW(model.parameters(), lr=SFT_RATE, weight_decay=0.0)
    rng = np.random.default_rng((seed, 1))
    bar = tqdm(range(1, config.sft_steps + 1), desc="fine-tuning", unit="step")
    for step in bar:
        drawn = [problems[i] for i in rng.integers(len(problems), size=SFT_BATCH)]
        sequences = [p.prompt + response_to(int(p.gold)) for p in drawn]
        longest = max(map(len, sequences))
        ids = torch.tensor([s + [EOS] * (longest - len(s)) for s in sequences], device=model.wte.weight.device)
        # Only answers count, as in the project's SFT.
        first = torch.tensor([len(p.prompt) for p in drawn], device=ids.device)[:, None]
        last = torch.tensor([len(s) for s in sequences], device=ids.device)[:, None]
        places = torch.arange(1, longest, device=ids.device)
        answers = (places >= first) & (places < last)
        logits = model.logits(model.hidden(ids[:, :-1])[answers])
        torch.nn.functional.cross_entropy(logits, ids[:, 1:][answers]).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % CHECK_INTERVAL == 0:
            checked = fresh[:CHECK_ITEMS]
            accuracy = sampled_accuracy(model, checked, seed) / len(checked)
            bar.set_postfix(accuracy=f"{accuracy:.1%}")
            if accuracy >= config.start:
                break
    return step


def train(contender: Contender, model: GPT, task: Task, config: BenchConfig, seed: int) -> tuple[GPT, dict[str, Any]]:
    """One contender's GRPO from `model`: the trained model, and what it logged."""
    rollout = RolloutSettings(config.prompts, config.group_size, NEW_TOKENS, refills=4)
    settings = toy_config(rollout, config.iterations, config.learning_rate)
    if contender.startswith("trl"):
        return train_trl(model, task, settings, seed, contender == "trl_positions")
    ours = Ours(model, task, settings if contender == "refill" else without_refills(settings), seed)
    kept, responses = 0, 0
    for _ in tqdm(range(config.iterations), desc=contender, unit="step"):
        batch, _ = ours.step()
        kept += len(batch.kept)
        responses += len(batch.sampled) * config.group_size
    return model, {"kept": kept * config.group_size / responses, "responses": responses}


def train_trl(model: GPT, task: Task, settings: GRPOConfig, seed: int, positions: bool) -> tuple[GPT, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        trainer = trl_trainer(model, task, settings, seed, Path(directory), positions)
        trainer.train()
    model.load_state_dict(from_hf_state(trainer.model.state_dict()))
    rollout = settings.rollout
    responses = settings.training.iterations * rollout.prompts * rollout.group_size
    return model, {"kept": None, "responses": responses}


def sampled_accuracy(model: GPT, problems: list[Problem], seed: int) -> int:
    """How many of `problems` one sample at temperature 1 gets right."""
    prompts = [problem.prompt for problem in problems]
    answers = generate(model, prompts, max_new_tokens=NEW_TOKENS, temperature=1.0, stop_ids=(EOS,), seed=seed)
    return sum(int(right(c.ids, int(p.gold))) for p, (c,) in zip(problems, answers, strict=True))


def show(row: dict[str, Any]) -> str:
    low, high = row["interval_after"]
    return f"{row['accuracy_after']:.1%} [{low:.1%}, {high:.1%}], {row['iterations_per_second']:.1f} iterations/s"


def print_table(config: BenchConfig, rows: list[dict[str, Any]]) -> None:
    """Accuracy before and after by seed, and what was gained on average."""
    print(f"{'contender':<14} " + " ".join(f"{f'seed {seed}':>14}" for seed in config.seeds) + "   mean   gain")
    for name in ("before", *config.contenders):
        contender, key = (config.contenders[0], "accuracy_before") if name == "before" else (name, "accuracy_after")
        chosen = [row for row in rows if row["contender"] == contender]
        values = [row[key] for row in chosen]
        gain = sum(row["accuracy_after"] - row["accuracy_before"] for row in chosen) / len(chosen)
        last = "" if name == "before" else f" {100 * gain:+6.1f}"
        cells = " ".join(f"{value:>14.1%}" for value in values)
        print(f"{name:<14} {cells} {sum(values) / len(values):>6.1%}{last}")


if __name__ == "__main__":
    run_script(main)
