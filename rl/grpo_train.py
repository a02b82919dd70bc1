"""GRPO with DAPO's tricks: sample groups of responses, reward them, make the better ones of a group likelier.

    uv run python rl/grpo_train.py --config rl/configs/demo.yaml --condition baseline \\
        --model-path outputs/sft_gsm8k_baseline --data-path data/raw/gsm8k --output-dir outputs/grpo_baseline
    torchrun --nproc-per-node 8 rl/grpo_train.py --config rl/configs/grpo_dapo.yaml --condition mul_tokens ...

An iteration samples rollout.prompts groups, leaves out those whose rewards do not vary and draws new prompts for them
(rollout.refills), and makes training.epochs updates on the kept ones. eval.prompts problems are held out of training
and answered greedily at an interval; the weights that did best on them are written. Only the train split is read.

--resume goes on from the last checkpoint, on a CPU with the same results as if the run had not been interrupted (on a
GPU, sums are not made in a fixed order). Processes that torchrun starts share sampling and updates and get the same
gradients as one would.
Beside the model: grpo_results.json, log.jsonl (a row per iteration), completions.jsonl, curves.png, run.json.
"""

import math
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from tqdm import tqdm

from common.config import parse_config, to_dict
from common.device import autocast, pick_dtype, seed_everything
from common.distributed import World, joined_world
from common.errors import UserError, run_script
from common.files import atomic_directory, locked_directory, sha256_file, write_json
from common.record import RunRecord
from common.run_directory import check_not_the_parent, open_run_directory
from data.gsm8k import items_sha256
from eval.answer_formats import FORMATS
from eval.benchmark import resolve_condition
from pretrain.checkpoint import checkpoint_path, latest_checkpoint, load_checkpoint, prune_checkpoints, save_checkpoint
from pretrain.hf_weights import families_of, load_model_dir, save_model_dir
from pretrain.model import GPT
from pretrain.run_log import whole_rows
from rl.curves import plot_curves
from rl.objective import entropy_coefficient
from rl.problems import Problem, ProblemStream, load_problems, split_problems
from rl.rewards import build_reward
from rl.rollouts import RolloutBatch, Sampler
from rl.run_log import RunLog, rollout_row
from rl.settings import GRPOConfig, check_config
from rl.update import Update
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

STAGE = "grpo"
UPDATE_KEYS = ("loss", "entropy", "kl", "clip_low", "clip_high", "ratio_mean", "ratio_max", "log_ratio_rms")


def main() -> None:
    config = with_default_paths(parse_config(GRPOConfig))
    check_config(config)
    with joined_world(config.device) as world:
        run(config, world)


def run(config: GRPOConfig, world: World) -> None:
    check_not_the_parent(config.output_dir, config.model_path)
    resolve_condition(config.model_path, config.condition)
    seed_everything(config.seed)
    model = load_model_dir(config.model_path, world.device)
    tokenizer = GPT2TokenizerWithMulFacts(config.condition, families_of(config.model_path))
    longest = model.config.block_size - config.rollout.max_new_tokens
    hints = config.rollout.contrast > 0
    problems, too_long = load_problems(config.data_path, config.format, tokenizer, longest, hints)
    train, held_out = split_problems(problems, config.eval.prompts, config.max_prompts, config.seed)
    record = RunRecord(STAGE, config, config.condition, config.seed, parent=config.model_path)
    record.data = {
        "source": config.data_path,
        "documents_sha256": items_sha256([{"question": p.question, "answer": str(p.gold)} for p in train]),
        "problems": len(train),
        "held_out": len(held_out),
        "dropped": {"prompt_too_long": too_long},
    }
    if world.is_main:
        unfinished = latest_checkpoint(config.output_dir) is not None if config.output_dir.is_dir() else False
        open_run_directory(
            config.output_dir,
            identity(config, record),
            unfinished=unfinished,
            resume=config.resume,
            force=config.force,
        )
        print(
            f"grpo {config.condition}: {len(train)} problems, {len(held_out)} held out, {too_long} too long; "
            f"{config.rollout.prompts} x {config.rollout.group_size} responses an iteration",
            flush=True,
        )
    world.barrier()
    if not world.is_main:
        train_and_write(config, world, model, tokenizer, train, held_out, record)
        return
    with locked_directory(config.output_dir):
        train_and_write(config, world, model, tokenizer, train, held_out, record)


def train_and_write(
    config: GRPOConfig,
    world: World,
    model: GPT,
    tokenizer: GPT2TokenizerWithMulFacts,
    train: list[Problem],
    held_out: list[Problem],
    record: RunRecord,
) -> None:
    """The loop, and at its end the model directory in the place of the run's."""
    settings, objective, device = config.training, config.objective, world.device
    dtype = pick_dtype(settings.dtype, device)
    optimizer = AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    impossible = tokenizer.vocabulary.suppressed_ids
    sampler = Sampler(
        tokenizer.decode,
        FORMATS[config.format].stop_ids,
        impossible,
        config.rollout,
        objective,
        build_reward(config.reward, config.format, tokenizer, config.rollout.max_new_tokens),
        config.seed,
        world,
    )
    update = Update(
        model,
        load_model_dir(config.model_path, device).requires_grad_(False) if objective.kl_coefficient else None,
        objective,
        config.rollout.temperature,
        torch.tensor(impossible, device=device),
        config.rollout.max_new_tokens,
        settings.micro_batch_tokens,
        autocast(device, dtype),
        world,
    )
    stream = ProblemStream(train, config.seed)
    start, best = restore(config.output_dir, model, optimizer, stream)
    log = RunLog(config.output_dir, start, world.is_main)
    bar = tqdm(range(start, settings.iterations), desc="grpo", initial=start, total=settings.iterations, unit="it",
               mininterval=1, disable=not world.is_main)  # fmt: skip
    for iteration in bar:
        if held_out and iteration % config.eval.interval == 0:
            best = evaluate(model, sampler, held_out, iteration, best, config.eval.keep_best, log)
        batch = sampler.collect(sampling_copy(model, dtype), stream)
        row = {"iteration": iteration, **rollout_row(batch)}
        started = time.perf_counter()
        row |= learn(batch, update, optimizer, config, iteration)
        row["seconds_update"] = time.perf_counter() - started
        log.iteration(row)
        bar.set_postfix(reward=f"{row['reward_mean']:.3f}", kept=f"{row['kept_fraction']:.0%}")
        if iteration % config.completions_interval == 0:
            log.completions(iteration, batch)
        if world.is_main and (iteration + 1) % config.checkpoint_interval == 0 and iteration + 1 < settings.iterations:
            save(config.output_dir, iteration + 1, model, optimizer, stream, best)
    if held_out:
        best = evaluate(model, sampler, held_out, settings.iterations, best, config.eval.keep_best, log)
    if world.is_main:
        finish(config, model, best, log, record)
    world.barrier()


def learn(batch: RolloutBatch, update: Update, optimizer: AdamW, config: GRPOConfig, iteration: int) -> dict[str, Any]:
    """The updates of one iteration; a batch with nothing to learn from makes none. Returns the log's columns."""
    settings = config.training
    rate = settings.learning_rate * rate_factor(iteration, settings.iterations, settings.warmup, settings.schedule)
    coefficient = entropy_coefficient(config.objective, iteration, settings.iterations)
    columns: dict[str, Any] = dict.fromkeys((*UPDATE_KEYS, "grad_norm")) | {"learning_rate": rate, "updates": 0}
    rows = batch.rows(config.objective.divide_by_std)
    for epoch in range(settings.epochs if rows else 0):
        statistics = update.gradients(rows, coefficient)
        if statistics is None:  # every kept response was cut, and cut ones do not count
            break
        norm = torch.nn.utils.clip_grad_norm_(update.model.parameters(), settings.grad_clip).item()
        if not math.isfinite(norm):
            raise UserError(f"the gradient is {norm} at iteration {iteration}; lower training.learning_rate")
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        if epoch == 0:  # before any update the policy is the sampler: its entropy and loss are those of the batch
            columns |= {key: statistics[key] for key in UPDATE_KEYS} | {"grad_norm": norm}
        else:  # later epochs are where ratios move
            columns |= {key: statistics[key] for key in UPDATE_KEYS if key.startswith(("clip", "ratio", "log", "kl"))}
        columns["updates"] += 1
    update.model.zero_grad(set_to_none=True)
    return columns


def rate_factor(iteration: int, iterations: int, warmup: int, schedule: str) -> float:
    """What the peak rate is multiplied with: a linear warm-up, then 1, or a cosine down to a tenth."""
    if iteration < warmup:
        return (iteration + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = (iteration - warmup) / max(iterations - warmup, 1)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


def sampling_copy(model: GPT, dtype: torch.dtype) -> GPT:
    """The policy in the arithmetic of its updates: the model itself in float32, else a copy of its present weights."""
    if dtype == torch.float32:
        return model
    with torch.device(next(model.parameters()).device):
        copy = GPT(model.config).to(dtype)
    copy.load_state_dict(model.state_dict())
    return copy


def evaluate(
    model: GPT, sampler: Sampler, held_out: list[Problem], iteration: int, best: dict, keep: bool, log: RunLog
) -> dict[str, Any]:
    """Held-out accuracy into the log; the best weights so far, of equal ones the first, if they are to be kept."""
    accuracy = sampler.accuracy(model, held_out)
    log.evaluation({"iteration": iteration, "eval_accuracy": accuracy, "eval_n": len(held_out)})
    if not keep or accuracy <= best.get("accuracy", -1.0):
        return best
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    return {"accuracy": accuracy, "iteration": iteration, "model": weights}


def save(output_dir: Path, step: int, model: GPT, optimizer: AdamW, stream: ProblemStream, best: dict) -> None:
    """A checkpoint after `step` iterations; the one before is deleted."""
    state = {"step": step, "model": model.state_dict(), "model_config": asdict(model.config), "best": best}
    state |= {"optimizer": optimizer.state_dict(), "position": stream.position}
    save_checkpoint(checkpoint_path(output_dir, step), state)
    prune_checkpoints(output_dir, keep_last=1, keep_every=None)


def restore(output_dir: Path, model: GPT, optimizer: AdamW, stream: ProblemStream) -> tuple[int, dict[str, Any]]:
    """Put everything back to the last checkpoint, if there is one: returns the next iteration, and the best so far."""
    path = latest_checkpoint(output_dir)
    if path is None:
        return 0, {}
    state = load_checkpoint(path)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    stream.position = state["position"]
    return state["step"], state["best"]


def finish(config: GRPOConfig, model: GPT, best: dict[str, Any], log: RunLog, record: RunRecord) -> None:
    """Write the model directory, which takes the place of the run's directory."""
    if best:
        model.load_state_dict(best["model"])
    rows = whole_rows(log.rows)
    iterations = [row for row in rows if "reward_mean" in row]
    evaluations = [row for row in rows if "eval_accuracy" in row]
    fifth = max(1, len(iterations) // 5)
    results = {
        "iterations": len(iterations),
        "updates": sum(row["updates"] for row in iterations),
        "written_iteration": best.get("iteration", len(iterations)),
        "eval_accuracy_first": evaluations[0]["eval_accuracy"] if evaluations else None,
        "eval_accuracy_last": evaluations[-1]["eval_accuracy"] if evaluations else None,
        "eval_accuracy_best": best.get("accuracy"),
        "eval_n": config.eval.prompts,
        "reward_first_fifth": sum(row["reward_mean"] for row in iterations[:fifth]) / fifth,
        "reward_last_fifth": sum(row["reward_mean"] for row in iterations[-fifth:]) / fifth,
        "kept_fraction": sum(row["kept_fraction"] for row in iterations) / len(iterations),
        "seconds": {
            part: round(sum(row[f"seconds_{part}"] for row in iterations), 2)
            for part in ("generate", "reward", "update")
        },
    }
    with atomic_directory(config.output_dir) as partial:
        save_model_dir(model, partial, config.condition, families_of(config.model_path))
        for path in (log.rows, log.responses):
            if path.exists():
                shutil.copy(path, partial)
        plot_curves(rows, partial / "curves.png")
        write_json(partial / "grpo_results.json", results)
        record.save(partial, results, steps=len(iterations))  # updates may be fewer: the compute that was set is equal
    print(
        f"wrote {config.output_dir}: held-out accuracy {show(results['eval_accuracy_first'])} before, "
        f"{show(results['eval_accuracy_last'])} after the last of {len(iterations)} iterations; the weights after "
        f"iteration {results['written_iteration']} are in it"
    )


def show(accuracy: float | None) -> str:
    return "unknown" if accuracy is None else f"{accuracy:.1%}"


def with_default_paths(config: GRPOConfig) -> GRPOConfig:
    return replace(
        config,
        model_path=config.model_path or Path(f"outputs/sft_gsm8k_{config.condition}"),
        output_dir=config.output_dir or Path(f"outputs/grpo_{config.condition}"),
    )


def identity(config: GRPOConfig, record: RunRecord) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued: all that weights and log depend on, device aside."""
    values = to_dict(config)
    sections = ("rollout", "reward", "objective", "training", "eval", "format")
    parent = {"parent_sha256": sha256_file(config.model_path / "model.safetensors")}
    data = {key: value for key, value in record.data.items() if key != "source"}
    chosen = {section: values[section] for section in sections}
    return {"stage": STAGE, "condition": config.condition, "seed": config.seed} | parent | data | chosen


if __name__ == "__main__":
    run_script(main)
