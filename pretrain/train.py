"""Pretrain a GPT on token shards, one condition at a time.

    uv run python pretrain/train.py --condition mul_tokens
    uv run python pretrain/train.py --config pretrain/configs/gpt2_124m.yaml --condition baseline \
        --data-dir data/processed/baseline --output-dir outputs/pretrain_baseline
    uv run torchrun --standalone --nproc_per_node=8 pretrain/train.py --config pretrain/configs/gpt2_124m.yaml

Writes to the output directory: model_{step}.pt, log.txt, log.jsonl, results.json, run.json. A run that was stopped
goes on, to the same bits, with --resume. The two conditions differ in --condition and --data-dir only.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch.nn.parallel import DistributedDataParallel

from common.config import parse_config, to_dict
from common.device import autocast, pick_dtype, seed_everything
from common.distributed import World, join_world, leave_world
from common.errors import UserError, run_script
from common.files import write_json
from common.record import RunRecord
from data.loader import TokenLoader
from pretrain.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from pretrain.flops import utilisation
from pretrain.model import GPT, GPTConfig
from pretrain.optimizer import build_adamw, learning_rate
from pretrain.run_log import RunLog, check_same_run
from tokenizer.mul_facts import Condition


@dataclass
class ModelConfig:
    n_layer: int = 4  # transformer blocks
    n_head: int = 4  # attention heads per block
    n_embd: int = 128  # width; a multiple of n_head
    block_size: int = 128  # context, in tokens


@dataclass
class TrainingConfig:
    batch_size: int = 8  # sequences per process and micro-step; what fits in memory
    total_batch_size: int = 1024  # tokens per update, over all processes and micro-steps
    max_steps: int = 100  # updates
    warmup_steps: int = 10  # updates of linear warm-up
    max_lr: float = 2e-3  # peak learning rate
    min_lr: float = 2e-4  # learning rate at the last step of the cosine
    weight_decay: float = 0.1  # on matrices and embeddings
    beta1: float = 0.9  # AdamW's first-moment decay
    beta2: float = 0.95  # AdamW's second-moment decay
    grad_clip: float = 1.0  # largest global gradient norm
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the matrix products; auto: bfloat16 where it is native
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on CUDA


@dataclass
class EvalConfig:
    interval: int = 50  # updates between validations
    val_steps: int = 20  # validation batches of total_batch_size tokens, always the first of the split


@dataclass
class LoggingConfig:
    interval: int = 10  # updates between log lines


@dataclass
class CheckpointConfig:
    interval: int = 50  # updates between checkpoints
    save_final: bool = True  # save one after the last update


@dataclass
class TrainConfig:
    """Pretrain a GPT on token shards. One process, or many under torchrun."""

    config: Path | None = Path("pretrain/configs/tiny.yaml")  # YAML file with the sections below
    condition: Condition = "baseline"  # which text the shards hold
    data_dir: Path | None = None  # folder of shards; default data/processed/{condition}
    output_dir: Path | None = None  # default outputs/pretrain_{condition}
    seed: int = 0  # initialisation; pair it across conditions
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    resume: bool = False  # go on from the output directory's last checkpoint
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


def main() -> None:
    config = parse_config(TrainConfig)
    config.data_dir = config.data_dir or Path(f"data/processed/{config.condition}")
    config.output_dir = config.output_dir or Path(f"outputs/pretrain_{config.condition}")
    world = join_world(config.device)
    try:
        train(config, world)
    finally:
        leave_world()


def train(config: TrainConfig, world: World) -> None:
    """The whole run: set-up, loop, results."""
    record = RunRecord("pretrain", config, config.condition, config.seed)
    settings, device = config.training, world.device
    seed_everything(config.seed)
    dtype = pick_dtype(settings.dtype, device)
    check_settings(config)
    accumulation = micro_steps(config, world)

    # -- data -------------------------------------------------------------------------------------------------
    B, T = settings.batch_size, config.model.block_size
    train_loader = TokenLoader(config.data_dir, "train", B, T, world.rank, world.size)
    val_loader = TokenLoader(config.data_dir, "val", B, T, world.rank, world.size)
    val_rows = config.eval.val_steps * settings.total_batch_size // T  # whatever the processes and micro-batches
    data = train_loader.describe()
    if data.get("condition", config.condition) != config.condition:
        raise UserError(f"{config.data_dir} holds {data['condition']} text; --condition is {config.condition}")

    # -- model and optimizer ----------------------------------------------------------------------------------
    model = GPT(GPTConfig(**asdict(config.model))).to(device)
    optimizer = build_adamw(model, settings.max_lr, settings.weight_decay, (settings.beta1, settings.beta2))
    step = 0

    # -- a fresh directory, or the run that is in it ----------------------------------------------------------
    identity = to_dict(config) | {"data_fingerprint": data["fingerprint"]}
    check_same_run(config.output_dir, identity, config.resume, world)
    checkpoint = latest_checkpoint(config.output_dir) if config.resume else None
    if checkpoint is not None:
        state = load_checkpoint(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        train_loader.load_state_dict(state["loader"])
        set_rng_state(state["rng"])
        step = state["step"]
    log = RunLog(config.output_dir, resumed_at=step, quiet=not world.is_main)
    if checkpoint is not None:
        log.say(f"resumed from {checkpoint} after step {step}")
    log.say(
        f"{config.condition}: {model.num_parameters():,} parameters on {world.size} x {device}, {dtype}; "
        f"{settings.total_batch_size:,} tokens a step, {accumulation} micro-steps of {B} x {T} per process"
    )
    if step == settings.max_steps and (config.output_dir / "run.json").exists():
        log.say("nothing left to do: the run is complete")
        return

    # Evaluation and checkpoints use `model`; `trained` shares its parameters.
    trained = model
    if settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda"):
        trained = torch.compile(trained)
    if world.size > 1:
        trained = DistributedDataParallel(trained, device_ids=[device.index] if device.type == "cuda" else None)

    # -- the loop ---------------------------------------------------------------------------------------------
    model.train()
    first_step, started = step, time.perf_counter()
    while step < settings.max_steps:
        lr = learning_rate(step, settings.max_steps, settings.warmup_steps, settings.max_lr, settings.min_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = torch.zeros((), device=device)
        for micro_step in range(accumulation):
            x, y = (tensor.to(device, non_blocking=True) for tensor in train_loader.next_batch())
            if world.size > 1:  # gradients are averaged over processes once per update, in its last micro-step
                trained.require_backward_grad_sync = micro_step == accumulation - 1
            with autocast(device, dtype):
                micro_loss = trained(x, y) / accumulation
            micro_loss.backward()
            loss += micro_loss.detach()
        loss = world.mean(loss)
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        if not (loss.isfinite() & grad_norm.isfinite()):
            last = latest_checkpoint(config.output_dir)
            raise UserError(
                f"step {step + 1}: loss {loss.item()}, gradient norm {grad_norm.item()}; stopped before the update. "
                f"Lower training.max_lr or look at the data; the last good checkpoint is {last}"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1

        if step % config.logging.interval == 0 or step == settings.max_steps:
            speed = (step - first_step) * settings.total_batch_size / (time.perf_counter() - started)
            mfu = utilisation(speed, model.flops_per_token(), device, world.size)
            seconds_left = (settings.max_steps - step) * settings.total_batch_size / speed
            row = {"step": step, "loss": loss.item(), "lr": lr, "grad_norm": grad_norm.item()}
            log.train_row(row | {"tokens_per_second": round(speed, 1), "mfu": mfu}, settings.max_steps, seconds_left)
        if step % config.eval.interval == 0 or step == settings.max_steps:
            val_loss = validate(model, val_loader, val_rows, world, dtype)
            log.val_row({"step": step, "val_loss": val_loss})
        final = step == settings.max_steps and config.checkpoint.save_final
        if (step % config.checkpoint.interval == 0 or final) and world.is_main:
            state = {
                "model": model.state_dict(),
                "model_config": asdict(model.config),
                "optimizer": optimizer.state_dict(),
                "loader": train_loader.state_dict(),
                "rng": rng_state(),
                "step": step,
                "condition": config.condition,
                "seed": config.seed,
            }
            save_checkpoint(checkpoint_path(config.output_dir, step), state)

    # -- results ----------------------------------------------------------------------------------------------
    if world.is_main:
        # From the log, not from the loop: a run killed after its last checkpoint still has these to write.
        last = log.last_values()
        results = {
            "final_train_loss": last["loss"],
            "final_val_loss": last["val_loss"],
            "val_bits_per_byte": bits_per_byte(last["val_loss"], val_loader),
            "steps": step,
            "tokens": step * settings.total_batch_size,
            "parameters": model.num_parameters(),
            "tokens_per_second": last["tokens_per_second"],
            "mfu": last["mfu"],
        }
        write_json(config.output_dir / "results.json", results)
        record.data = train_loader.describe()
        counts = {"steps": step, "tokens": results["tokens"], "processes": world.size, "dtype": str(dtype)}
        record.save(config.output_dir, results, **counts)
        log.say(f"done: validation loss {last['val_loss']:.4f} after {step} steps; see {config.output_dir}")
    world.barrier()


def check_settings(config: TrainConfig) -> None:
    """Raise UserError naming the first value that no run can have."""
    for section in ("model", "training", "eval", "logging", "checkpoint"):
        for key, value in asdict(getattr(config, section)).items():
            least = 0 if key in ("warmup_steps", "weight_decay", "min_lr", "beta1", "beta2") else 1e-12
            if not isinstance(value, str) and value is not False and value < least:
                raise UserError(f"{section}.{key} is {value}; it must be {'0 or more' if least == 0 else 'above 0'}")
    if config.model.n_embd % config.model.n_head:
        raise UserError(f"model.n_embd {config.model.n_embd} is not a multiple of model.n_head {config.model.n_head}")


def micro_steps(config: TrainConfig, world: World) -> int:
    """How many micro-batches per process make one update."""
    settings = config.training
    tokens = settings.batch_size * config.model.block_size * world.size
    if settings.total_batch_size % tokens:
        raise UserError(
            f"training.total_batch_size {settings.total_batch_size} is not a multiple of batch_size x block_size x "
            f"processes = {settings.batch_size} x {config.model.block_size} x {world.size} = {tokens}"
        )
    return settings.total_batch_size // tokens


@torch.no_grad()
def validate(model: GPT, loader: TokenLoader, num_rows: int, world: World, dtype: torch.dtype) -> float:
    """Mean loss in nats per token over the split's first rows, shared out over the processes."""
    model.eval()
    loss_sum, rows = 0.0, 0
    for x, y in loader.fixed_batches(num_rows):
        with autocast(world.device, dtype):
            loss_sum += model.loss(x.to(world.device), y.to(world.device)).item() * len(x)
        rows += len(x)
    model.train()
    loss_sum, rows = world.mean(torch.tensor([loss_sum, rows], dtype=torch.float64)).tolist()
    return loss_sum / rows


def bits_per_byte(loss: float, loader: TokenLoader) -> float | None:
    """The loss per byte of the text before injection, in bits; None for shards that do not say their bytes.

    Comparable between conditions where nats per token are not: injection makes fewer tokens of the same text. The
    split's average of tokens per byte is used.
    """
    counts = {} if loader.stream.meta is None else loader.stream.meta["splits"]["val"]
    if counts.get("text_bytes") is None:
        return None
    return loss / math.log(2) * counts["tokens"] / counts["text_bytes"]


if __name__ == "__main__":
    run_script(main)
