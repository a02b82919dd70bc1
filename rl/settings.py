"""The configuration of a GRPO run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.errors import UserError
from eval.answer_formats import FormatName
from rl.objective import ObjectiveSettings
from rl.rewards import RewardConfig, check_reward
from tokenizer.mul_facts import Condition


@dataclass
class RolloutSettings:
    prompts: int = 8  # groups per update
    group_size: int = 8  # responses to each prompt
    max_new_tokens: int = 96  # longest response
    temperature: float = 1.0  # of sampling, and of the log-probabilities that are trained
    # How often a batch is filled up with new prompts for groups whose rewards do not vary. 0: such groups are only left
    # out (skip); 4: up to four times (refill).
    refills: int = 4
    contrast: float = (
        0.0  # above 0: half a group sees the facts it needs, paid this much for doing better than the rest
    )
    batch_size: int | None = None  # responses generated at a time; default: what memory holds and keeps the device busy


@dataclass
class TrainingSettings:
    iterations: int = 100  # rollout batches, each followed by `epochs` updates
    epochs: int = 1  # updates per rollout batch; from the second on, ratios leave 1 and clipping acts
    learning_rate: float = 1e-5  # peak
    warmup: int = 5  # iterations of linear warm-up
    schedule: Literal["constant", "cosine"] = "cosine"  # after the warm-up; cosine falls to a tenth
    weight_decay: float = 0.0  # AdamW's
    grad_clip: float = 1.0  # largest gradient norm
    micro_batch_tokens: int = 8192  # tokens in one forward pass, nothing padded; the result does not depend on it
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto: bfloat16 if native


@dataclass
class EvalSettings:
    prompts: int = 200  # problems held out of training, by seed, and answered greedily
    interval: int = 20  # iterations between evaluations; one more before the first and after the last
    keep_best: bool = True  # write the weights with the highest held-out accuracy, not the last


@dataclass
class GRPOConfig:
    """GRPO with DAPO's tricks: a model directory in, a model directory out."""

    config: Path | None = None  # YAML file with the values of this run
    condition: Condition = "baseline"  # that of the model
    model_path: Path | None = None  # model directory to start from; default: outputs/sft_gsm8k_{condition}
    output_dir: Path | None = None  # where the model goes; default: outputs/grpo_{condition}
    data_path: str = "openai/gsm8k"  # problems: a .jsonl or .parquet file, a folder with train.jsonl, or a hub id
    format: FormatName = "chat"  # how the model was taught to be asked
    max_prompts: int | None = None  # only so many problems, drawn by seed
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    reward: RewardConfig = field(default_factory=RewardConfig)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    checkpoint_interval: int = 20  # iterations between checkpoints; the newest one is kept until the run ends
    completions_interval: int = 10  # iterations between those whose responses go to completions.jsonl
    seed: int = 0  # draws held-out problems, their order and the samples
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    resume: bool = False  # go on from the last checkpoint in output_dir
    force: bool = False  # delete the run that output_dir holds


def check_config(config: GRPOConfig) -> None:
    """Raise UserError naming the first key whose value cannot be."""
    rollout, training, objective = config.rollout, config.training, config.objective
    positive = {
        "rollout.prompts": rollout.prompts,
        "rollout.max_new_tokens": rollout.max_new_tokens,
        "rollout.temperature": rollout.temperature,
        "rollout.batch_size": 1 if rollout.batch_size is None else rollout.batch_size,
        "training.iterations": training.iterations,
        "training.epochs": training.epochs,
        "training.learning_rate": training.learning_rate,
        "training.micro_batch_tokens": training.micro_batch_tokens,
        "training.grad_clip": training.grad_clip,
        "eval.interval": config.eval.interval,
        "checkpoint_interval": config.checkpoint_interval,
        "completions_interval": config.completions_interval,
        "objective.overlong_buffer": objective.overlong_buffer,
        "max_prompts": 1 if config.max_prompts is None else config.max_prompts,
    }
    for key, value in positive.items():
        if value <= 0:
            raise UserError(f"{key} is {value}; it must be above 0")
    if rollout.group_size < 2:
        raise UserError(f"rollout.group_size is {rollout.group_size}; an advantage needs at least 2 responses")
    if rollout.contrast and rollout.group_size % 2:
        raise UserError(
            f"rollout.contrast halves a group, and rollout.group_size is {rollout.group_size}; make it even"
        )
    if not 0 < objective.clip_low < 1 or objective.clip_high <= 0:
        raise UserError(f"objective.clip_low {objective.clip_low}, clip_high {objective.clip_high}: distances from 1")
    at_least_zero = {
        "rollout.refills": rollout.refills,
        "rollout.contrast": rollout.contrast,
        "training.warmup": training.warmup,
        "training.weight_decay": training.weight_decay,
        "objective.kl_coefficient": objective.kl_coefficient,
        "objective.entropy_start": objective.entropy_start,
        "objective.entropy_end": objective.entropy_end,
        "eval.prompts": config.eval.prompts,
        "seed": config.seed,
    }
    for key, value in at_least_zero.items():
        if value < 0:
            raise UserError(f"{key} is {value}; it must be at least 0")
    if config.eval.keep_best and not config.eval.prompts:
        raise UserError("eval.keep_best needs eval.prompts above 0")
    check_reward(config.reward)
