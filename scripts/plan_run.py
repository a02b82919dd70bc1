"""What a run of both conditions will read, take and cost, and whether it can start here: run_10b.sh's first step.

    uv run python scripts/plan_run.py --pretrain-config pretrain/configs/gpt2_124m.yaml
    uv run python scripts/plan_run.py --gpus 8 --gpu H100 --price-per-gpu-hour 2.5

Nothing is written. Prints the plan and one line per check; with a check that fails the exit code is 2 and the last line
names it. --gpu plans for another machine, whose disk is not looked at; --gpus alone is for this one among several.
"""

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from common.config import config_from_yaml, parse_config
from common.errors import UserError, run_script
from common.files import read_json
from pretrain.flops import PEAK_FLOPS, peak_flops
from pretrain.model import GPT, GPTConfig
from pretrain.settings import TrainConfig, check_settings, micro_steps
from tokenizer.mul_facts import CONDITIONS, Condition

# Assumptions, each with where it comes from.
MFU = 0.40  # llm.c on 8 H100: 41% (modded-nanogpt, records/2024-10-13_llmc); nanoGPT on 8 A100: 29% (its README)
CPU_FLOPS_PER_CORE = 60e9  # README, `One training step`: 159 tokens/s of 860 MFLOP each on 2 cores
ENCODED_TOKENS_PER_CORE = 1.0e6  # per second; scripts/bench_tokenize.py measures this machine's
VALIDATION_SHARE = 0.02  # of the training tokens come on top for validation, at most
# In bytes per parameter: float32 weights alone, and with AdamW's two moments.
WEIGHTS, CHECKPOINT = 4, 12


@dataclass
class PlanConfig:
    """Plan a run of both conditions: tokens, time, cost, disk; check that it can start."""

    pretrain_config: Path = Path("pretrain/configs/gpt2_124m.yaml")  # of pretrain/train.py
    conditions: list[Condition] = field(default_factory=lambda: list(CONDITIONS))  # which are to run
    target_tokens: int | None = None  # training tokens to prepare per condition; default what the steps read
    data_root: Path = Path("data/processed/fineweb_edu")  # holds a folder of shards per condition
    output_root: Path = Path("outputs/10b")  # where the runs go
    skip_data: bool = False  # the shards must be there already
    gpus: int | None = None  # GPUs in all; default those of this machine
    gpu: str = ""  # plan for GPUs of this model, as pretrain/flops.py calls it, such as H100; default this machine's
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)  # processes that prepare the data
    price_per_gpu_hour: float = 3.5  # US dollars; llm.c's 24 hours of 8 H100 for $672 come to 3.50
    tokens_per_second: float | None = None  # in pretraining, per GPU (or CPU); default assumes 40% of the GPU's peak
    allow_cpu: bool = False  # start without a GPU


@dataclass
class Check:
    """Whether one condition for starting holds, in words."""

    name: str
    ok: bool
    text: str


def main() -> None:
    config = parse_config(PlanConfig)
    run = config_from_yaml(TrainConfig, config.pretrain_config)
    check_settings(run)
    gpus = torch.cuda.device_count() if config.gpus is None else config.gpus
    name = config.gpu or (torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU")
    with torch.device("meta"):
        model = GPT(GPTConfig(**asdict(run.model)))
    budget = run.training.max_steps * run.training.total_batch_size
    config.target_tokens = config.target_tokens or tokens_to_prepare(run)
    speed, assumption = tokens_per_second(config, model, gpus)
    seconds = budget / speed * len(config.conditions)

    print(f"plan: {config.pretrain_config}, {' and '.join(config.conditions)}, on {machine(gpus, name)}")
    print(f"  model       {model.num_parameters():,} parameters, {model.flops_per_token() / 1e6:,.0f} MFLOP per token")
    print(
        f"  tokens      {run.training.max_steps:,} steps x {run.training.total_batch_size:,} = {budget:,} per condition"
    )
    if not config.skip_data:
        encoding = len(config.conditions) * config.target_tokens / (ENCODED_TOKENS_PER_CORE * config.workers)
        print(
            f"  data        {config.target_tokens:,} tokens per condition; {duration(encoding)} if each of "
            f"{config.workers} workers encodes {ENCODED_TOKENS_PER_CORE:,.0f} tokens/s and the download keeps up"
        )
    print(f"  pretraining {duration(seconds)} at {speed:,.0f} tokens/s, an assumption: {assumption}")
    if gpus:
        hours = seconds / 3600 * gpus
        print(
            f"  cost        {hours:,.1f} GPU-hours, ${hours * config.price_per_gpu_hour:,.0f} at "
            f"${config.price_per_gpu_hour:.2f} each (--price-per-gpu-hour); export, SFT and evaluations come on top"
        )

    checks = [
        device_check(config, gpus, seconds),
        batch_check(run, gpus),
        *(token_check(config, condition, budget) for condition in config.conditions),
    ]
    checks += disk_checks(config, run, model.num_parameters()) if not config.gpu else []
    for check in checks:
        print(f"check {'ok    ' if check.ok else 'FAILED'} {check.name}: {check.text}")
    failed = [check for check in checks if not check.ok]
    if failed:
        raise UserError("this run cannot start: " + "; ".join(check.text for check in failed))


def tokens_per_second(config: PlanConfig, model: GPT, gpus: int) -> tuple[float, str]:
    """Tokens per second of the whole machine in pretraining, and the assumption behind it.

    Raises UserError for a GPU whose peak is unknown: there is nothing to assume from.
    """
    if config.tokens_per_second:
        return config.tokens_per_second * max(gpus, 1), f"{config.tokens_per_second:,.0f} on each, as given"
    if not gpus:
        cores = os.cpu_count() or 1
        flops = CPU_FLOPS_PER_CORE * cores
        return flops / model.flops_per_token(), f"{flops / 1e9:,.0f} GFLOP/s on {cores} cores (--tokens-per-second)"
    here = peak_flops(torch.device("cuda", 0)) if torch.cuda.is_available() else None
    peak = PEAK_FLOPS.get(config.gpu) if config.gpu else here
    if peak is None:
        known = ", ".join(PEAK_FLOPS)
        raise UserError(
            f"the peak of this GPU is not known: give --tokens-per-second, or with --gpus one of --gpu {known}"
        )
    return MFU * peak * gpus / model.flops_per_token(), f"{MFU:.0%} of {peak / 1e12:,.0f} TFLOP/s on each"


def device_check(config: PlanConfig, gpus: int, seconds: float) -> Check:
    """A GPU, or the user's word that a CPU is meant."""
    if gpus:
        return Check("GPUs", True, f"{gpus} {'found' if config.gpus is None else 'planned with'}")
    text = f"no GPU here, and pretraining on this CPU would take {duration(seconds)}"
    return Check(
        "GPUs", config.allow_cpu, text + ("" if config.allow_cpu else "; give --allow-cpu to start all the same")
    )


def batch_check(run: TrainConfig, gpus: int) -> Check:
    """The batch must be divisible among the processes, which train.py would only say after the data is made."""
    size = max(gpus, 1)
    try:
        steps = micro_steps(run, size)
    except UserError as error:
        return Check("batch", False, str(error))
    B, T = run.training.batch_size, run.model.block_size
    return Check("batch", True, f"{steps} micro-steps of {B} x {T} tokens on each of {size}")


def token_check(config: PlanConfig, condition: Condition, budget: int) -> Check:
    """No token is to be read twice: of the shards that are there, else of those that are to be made."""
    name, meta = f"tokens, {condition}", config.data_root / condition / "meta.json"
    if meta.is_file():
        found = read_json(meta)["splits"]["train"]["tokens"] - 1
        text = f"{budget:,} to be read, {found:,} in {meta.parent}"
        remedy = "; lower training.max_steps in the config, or prepare more tokens into another --data-root"
        return Check(name, found >= budget, text + ("" if found >= budget else remedy))
    if config.skip_data:
        return Check(name, False, f"--skip-data, but {meta} is not there; leave it out or name another --data-root")
    ok = config.target_tokens > budget
    text = f"{budget:,} to be read, {config.target_tokens - 1:,} to be prepared"
    remedy = f"; give --target-tokens {budget + 1} or more, or lower training.max_steps in the config"
    return Check(name, ok, text + ("" if ok else remedy))


def tokens_to_prepare(run: TrainConfig) -> int:
    """Every id that the steps read: their inputs, and the last target, which is one further."""
    return run.training.max_steps * run.training.total_batch_size + 1


def disk_checks(config: PlanConfig, run: TrainConfig, parameters: int) -> list[Check]:
    """Room for what is not there yet, one check per file system."""
    needs: dict[int, tuple[int, Path]] = {}
    for root, size in (
        (config.data_root, sum(shard_bytes(config, condition) for condition in config.conditions)),
        (config.output_root, sum(output_bytes(config, run, parameters, c) for c in config.conditions)),
    ):
        folder = next(path for path in (root, *root.resolve().parents) if path.exists())
        device = folder.stat().st_dev
        needs[device] = (needs.get(device, (0, folder))[0] + size, folder)
    checks = []
    for size, folder in needs.values():
        free = shutil.disk_usage(folder).free
        text = f"{size / 1e9:,.1f} GB needed, {free / 1e9:,.1f} GB free at {folder}"
        checks.append(
            Check("disk", free >= size, text + ("" if free >= size else "; free some or name another folder"))
        )
    return checks


def shard_bytes(config: PlanConfig, condition: Condition) -> int:
    """Two bytes a token, less what is there; nothing more where the shards are complete."""
    directory = config.data_root / condition
    if (directory / "meta.json").is_file():
        return 0
    return max(0, int(2 * config.target_tokens * (1 + VALIDATION_SHARE)) - bytes_in(directory))


def output_bytes(config: PlanConfig, run: TrainConfig, parameters: int, condition: Condition) -> int:
    """Checkpoints that stay and one being written, two models, SFT's own two checkpoints; less what is there."""
    kept = checkpoints_kept(run)
    there = sum(bytes_in(config.output_root / f"{stage}_{condition}") for stage in ("pretrain", "hf", "sft_gsm8k"))
    return max(0, parameters * (CHECKPOINT * (kept + 1 + 2) + WEIGHTS * 2) - there)


def bytes_in(directory: Path) -> int:
    """The size of all files below `directory`; 0 where there is none."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def checkpoints_kept(run: TrainConfig) -> int:
    """How many of a whole run's checkpoints pretrain/checkpoint.py leaves."""
    settings, last = run.checkpoint, run.training.max_steps
    steps = list(range(settings.interval, last + 1, settings.interval))
    if settings.save_final and (not steps or steps[-1] != last):
        steps.append(last)
    if settings.keep_last is None:
        return len(steps)
    older = steps[: -settings.keep_last]
    return len(steps) - len(older) + sum(step % settings.keep_every == 0 for step in older if settings.keep_every)


def machine(gpus: int, name: str) -> str:
    """The machine in words."""
    return f"{gpus} x {name}" if gpus else f"this CPU ({os.cpu_count()} cores)"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would choose."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"


if __name__ == "__main__":
    run_script(main)
