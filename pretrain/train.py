"""Pretrain a GPT on token shards, one condition at a time.

    uv run python pretrain/train.py --condition mul_tokens
    uv run python pretrain/train.py --config pretrain/configs/gpt2_124m.yaml --condition baseline \
        --data-dir data/processed/baseline --output-dir outputs/pretrain_baseline
    uv run torchrun --standalone --nproc_per_node=8 pretrain/train.py --config pretrain/configs/gpt2_124m.yaml

Writes to the output directory: model_{step}.pt, log.txt, log.jsonl, samples.jsonl, results.json, run.json. The same
command continues a run that was stopped: on a CPU to the same bits, on a GPU up to the order in which it sums. On
SIGTERM it saves a checkpoint and exits with 143 (torchrun, which passes the signal on, with a code of its own; its
--shutdown-timeout is the time that a save may take). The two conditions differ in --condition and --data-dir only.

This script is the end of the import chain: in-loop HellaSwag and samples come from eval/, and nothing imports it.
"""

import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from common.config import parse_config, to_dict
from common.device import DelayedScalars, autocast, memory_bytes, pick_dtype, seed_everything
from common.distributed import World, joined_world
from common.errors import UserError, run_script
from common.files import write_json
from common.record import RunRecord
from data.encoding import families_record
from data.hellaswag import HellaSwagItem
from data.loader import TokenLoader
from eval.engine import generate
from eval.hellaswag import hellaswag_accuracy, load_hellaswag
from pretrain.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from pretrain.flops import utilisation
from pretrain.model import GPT, GPTConfig
from pretrain.optimizer import build_optimizers, rate_factor, set_rates
from pretrain.run_log import RunLog, claimed_directory
from pretrain.settings import TrainConfig, check_settings, micro_steps
from pretrain.spikes import SpikeGuard
from pretrain.trackers import open_tracker
from pretrain.validation import bits_per_byte, validate
from tokenizer.families import DEFAULT_FAMILIES
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

TERMINATED = 128 + signal.SIGTERM  # the shell's name for a process that SIGTERM ended: the run is not complete


def main() -> None:
    config = parse_config(TrainConfig)
    config.data_dir = config.data_dir or Path(f"data/processed/{config.condition}")
    config.output_dir = config.output_dir or Path(f"outputs/pretrain_{config.condition}")
    with joined_world(config.device) as world:
        complete = train(config, world)
    sys.exit(0 if complete else TERMINATED)


def train(config: TrainConfig, world: World) -> bool:
    """Check what was asked for, open the data, claim the directory, run. Returns what `run` returns."""
    seed_everything(config.seed)
    check_settings(config)
    micro_steps(config, world.size)
    dtype = pick_dtype(config.training.dtype, world.device)

    B, T = config.training.batch_size, config.model.block_size
    train_loader, val_loader = (TokenLoader(config.data_dir, s, B, T, world.rank, world.size) for s in ("train", "val"))
    data = train_loader.describe()
    if data.get("condition", config.condition) != config.condition:
        raise UserError(f"{config.data_dir} holds {data['condition']} text; --condition is {config.condition}")
    hellaswag = []
    if config.hellaswag.interval:
        hellaswag = load_hellaswag(config.hellaswag.data_path, config.hellaswag.max_samples)

    identity = to_dict(config) | {"data_fingerprint": data["fingerprint"], "dtype": str(dtype)}
    with claimed_directory(config.output_dir, identity, config.resume, world):
        return run(config, world, dtype, train_loader, val_loader, hellaswag)


def run(
    config: TrainConfig,
    world: World,
    dtype: torch.dtype,
    train_loader: TokenLoader,
    val_loader: TokenLoader,
    hellaswag: list[HellaSwagItem],
) -> bool:
    """Train from the start or the last checkpoint on. Returns whether the run is complete: False after a SIGTERM."""
    record = RunRecord("pretrain", config, config.condition, config.seed)
    settings, device = config.training, world.device
    B, T = settings.batch_size, config.model.block_size
    accumulation = micro_steps(config, world.size)
    val_rows = config.eval.val_steps * settings.total_batch_size // T  # whatever the processes and micro-batches
    asked_to_stop = watch_for_sigterm()

    # -- model and optimizers, new or as they were saved ------------------------------------------------------
    families = train_loader.describe().get("families", DEFAULT_FAMILIES)
    tokenizer = GPT2TokenizerWithMulFacts(config.condition, families)
    model = GPT(GPTConfig(**asdict(config.model), vocab_size=tokenizer.vocabulary.size)).to(device)
    optimizers = build_optimizers(model, settings)
    guard = SpikeGuard(config.spikes)
    step = 0
    checkpoint = latest_checkpoint(config.output_dir)
    if checkpoint is not None:
        step = restore(load_checkpoint(checkpoint), model, optimizers, train_loader, guard)
    if len(found := set(world.gather([step]))) > 1:
        raise UserError(f"processes found checkpoints of steps {sorted(found)}; give a shared disk as --output-dir")
    track = open_tracker(config.logging.tracker if world.is_main else "none", config.output_dir, to_dict(config), step)
    log = RunLog(config.output_dir, resumed_at=step, quiet=not world.is_main, track=track)
    if checkpoint is not None:
        log.say(f"resumed from {checkpoint} after step {step}")
    log.say(
        f"{config.condition}: {model.num_parameters():,} parameters on {world.size} x {device}, {dtype}; "
        f"{settings.total_batch_size:,} tokens a step, {accumulation} micro-steps of {B} x {T} per process"
    )
    if step == settings.max_steps and (config.output_dir / "run.json").exists():
        log.say("nothing left to do: the run is complete")
        return True

    # Evaluation, samples and checkpoints use `model`; `trained` shares its parameters.
    trained = model
    if settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda"):
        trained = torch.compile(trained)
    if world.size > 1:
        device_ids = [device.index] if device.type == "cuda" else None
        trained = DistributedDataParallel(trained, device_ids=device_ids, gradient_as_bucket_view=True)

    # -- the loop ---------------------------------------------------------------------------------------------
    model.train()
    reports = DelayedScalars(device)
    first_step, started = step, time.perf_counter()
    timed_step, timed = step, started  # the speed is that of the steps since here, without evaluations
    seconds_before = log.last_values().get("seconds", 0.0) if world.is_main else 0.0  # of the sessions before
    stopped = False
    while step < settings.max_steps and not stopped:
        factor = rate_factor(step, settings)
        set_rates(optimizers, factor)
        loss = accumulate_gradients(trained, train_loader, accumulation, world, dtype)
        # Over all processes: the mean loss, and whether SIGTERM reached any of them, so that all stop together.
        loss, stop = world.mean(torch.stack([loss, torch.full_like(loss, asked_to_stop())]))
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        spike = guard.inspect(loss.item(), grad_norm.item()) if config.spikes.action != "off" else None
        if spike and config.spikes.action == "stop":
            raise UserError(f"step {step + 1}: {spike}; stopped before the update. {last_good(config)}")
        if spike:
            log.say(f"step {step + 1:>6} | skipped: {spike}")
        else:
            for optimizer in optimizers:
                optimizer.step()
        model.zero_grad(set_to_none=True)
        step += 1

        # Reading a step's values a step later keeps the device busy; where something is written, it is waited for.
        reports.push(step, torch.stack([loss, grad_norm, stop]))
        last = step == settings.max_steps
        due = {
            "log": (last or step % config.logging.interval == 0) and not spike,
            "validate": last or step % config.eval.interval == 0,
            "hellaswag": hellaswag and (last or step % config.hellaswag.interval == 0),
            "samples": config.samples.interval and (last or step % config.samples.interval == 0),
            "save": step % config.checkpoint.interval == 0 or (last and config.checkpoint.save_final),
        }
        arrived = reports.take(all_but=0 if any(due.values()) else 1)
        stopped = any(stop > 0 for _, (_, _, stop) in arrived)
        due["save"] = due["save"] or stopped
        for reported_step, (loss, grad_norm, _) in arrived + reports.take(all_but=0 if stopped else 1):
            if not (spike or math.isfinite(loss + grad_norm)):
                raise UserError(
                    f"step {reported_step}: loss {loss}, gradient norm {grad_norm}; stopped. Lower training.max_lr or "
                    f"look at the data. {last_good(config)}"
                )

        now = time.perf_counter()
        if due["log"]:
            speed = (step - timed_step) * settings.total_batch_size / (now - timed)
            row = {
                "step": step,
                "loss": loss,
                "lr": factor * settings.max_lr,
                "grad_norm": grad_norm,
                "tokens_per_second": round(speed, 1),
                "mfu": utilisation(speed, model.flops_per_token(), device, world.size),
                "peak_memory_bytes": memory_bytes(device)[1],
                "seconds": round(seconds_before + now - started, 2),
            }
            seconds_left = (settings.max_steps - step) * (now - started) / (step - first_step)
            log.train_row(row, settings.max_steps, seconds_left)
        if due["validate"]:
            log.eval_row({"step": step, "val_loss": validate(model, val_loader, val_rows, world, dtype)})
        if due["hellaswag"]:
            log.eval_row({"step": step} | hellaswag_accuracy(model, hellaswag, tokenizer, world, dtype))
        if due["samples"] and world.is_main:
            for row in sample(model, tokenizer, config, dtype):
                log.sample_row({"step": step} | row)
        if due["save"] and world.is_main:
            state = snapshot(model, optimizers, train_loader, guard, step)
            state |= {"condition": config.condition, "seed": config.seed, **families_record(families)}
            save_checkpoint(checkpoint_path(config.output_dir, step), state)
            prune_checkpoints(config.output_dir, config.checkpoint.keep_last, config.checkpoint.keep_every)
        if any(due.values()):
            timed_step, timed = step, time.perf_counter()

    world.barrier()  # a launcher that sees one process end may end the others, and the first one has files to write
    if step < settings.max_steps:
        log.say(f"stopped by SIGTERM after step {step}, which is saved; the same command goes on from there")
        return False

    # -- results ----------------------------------------------------------------------------------------------
    if world.is_main:
        results = summary(log, val_loader) | {"steps": step, "tokens": step * settings.total_batch_size}
        results["parameters"] = model.num_parameters()
        write_json(config.output_dir / "results.json", results)
        record.data = train_loader.describe()
        counts = {"steps": step, "tokens": results["tokens"], "processes": world.size, "dtype": str(dtype)}
        record.save(config.output_dir, results, **counts)
        log.say(f"done: validation loss {results['final_val_loss']:.4f} after {step} steps; see {config.output_dir}")
    world.barrier()
    return True


def accumulate_gradients(
    trained: nn.Module, loader: TokenLoader, accumulation: int, world: World, dtype: torch.dtype
) -> torch.Tensor:
    """Gradients of the next `accumulation` batches, averaged over them and all processes; this process's mean loss."""
    loss = torch.zeros((), device=world.device)
    for micro_step in range(accumulation):
        x, y = (tensor.to(world.device, non_blocking=True) for tensor in loader.next_batch())
        if world.size > 1:  # processes exchange gradients once per update, in its last micro-step
            trained.require_backward_grad_sync = micro_step == accumulation - 1
        with autocast(world.device, dtype):
            micro_loss = trained(x, y) / accumulation
        micro_loss.backward()
        loss += micro_loss.detach()
    return loss


def snapshot(model: GPT, optimizers: list[Optimizer], loader: TokenLoader, guard: SpikeGuard, step: int) -> dict:
    """Everything that the update after `step` depends on."""
    return {
        "model": model.state_dict(),
        "model_config": asdict(model.config),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "loader": loader.state_dict(),
        "spikes": guard.state_dict(),
        "rng": rng_state(),
        "step": step,
    }


def restore(state: dict, model: GPT, optimizers: list[Optimizer], loader: TokenLoader, guard: SpikeGuard) -> int:
    """Put everything back to where `snapshot` found it; return the step."""
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    loader.load_state_dict(state["loader"])
    guard.load_state_dict(state["spikes"])
    set_rng_state(state["rng"])
    return state["step"]


def summary(log: RunLog, val_loader: TokenLoader) -> dict:
    """The run's results, from the log and not from the loop: a run killed after its last checkpoint still has them."""
    values = log.last_values()
    measured = ("seconds", "tokens_per_second", "mfu", "peak_memory_bytes", "hellaswag_acc_norm_token")
    return {
        "final_train_loss": values["loss"],
        "final_val_loss": values["val_loss"],
        "val_bits_per_byte": bits_per_byte(values["val_loss"], val_loader),
    } | {key: values[key] for key in measured if key in values}


def watch_for_sigterm() -> Callable[[], bool]:
    """Take SIGTERM as a request; return a function that says whether it has come."""
    received = []
    signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    return lambda: bool(received)


def last_good(config: TrainConfig) -> str:
    """Which checkpoint a run that went wrong can be taken up from."""
    return f"The last checkpoint is {latest_checkpoint(config.output_dir)}"


def sample(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, config: TrainConfig, dtype: torch.dtype
) -> list[dict[str, str]]:
    """Texts after config.samples.prompts, the same random numbers every time: what changes is the model."""
    settings = config.samples
    with autocast(next(model.parameters()).device, dtype):
        completions = generate(
            model,
            [tokenizer.encode(prompt) for prompt in settings.prompts],
            n=settings.n,
            max_new_tokens=settings.max_new_tokens,
            temperature=1.0,
            top_k=50,
            suppressed_ids=tokenizer.vocabulary.suppressed_ids,
            seed=config.seed,
        )
    return [
        {"prompt": prompt, "text": tokenizer.decode(completion.ids)}
        for prompt, group in zip(settings.prompts, completions, strict=True)
        for completion in group
    ]


if __name__ == "__main__":
    run_script(main)
