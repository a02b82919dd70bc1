"""The sections that every SFT config file has. (Apart from the trainer: TRL takes seconds to import.)"""

from dataclasses import dataclass, field
from typing import Literal

from common.errors import UserError

EmbeddingInit = Literal["pretrained", "mean", "compose"]  # sft/embeddings.py says what each is


@dataclass
class TrainingSettings:
    """How the examples are trained on."""

    epochs: int = 3  # passes over the training examples
    max_steps: int | None = None  # optimizer steps, in place of epochs
    max_examples: int | None = None  # examples to use, drawn by seed; none: all
    batch_size: int = 32  # examples per optimizer step, over all devices
    micro_batch_size: int = 32  # examples per forward pass and device; divides batch_size
    max_length: int = 512  # tokens per example, longer ones are dropped; also the longest packed row
    learning_rate: float = 5e-5  # peak, falls to 0 as a cosine
    warmup_ratio: float = 0.03  # share of the steps in which the learning rate rises
    weight_decay: float = 0.0  # AdamW's, on matrices
    grad_clip: float = 1.0  # largest gradient norm
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto: bfloat16 if native


@dataclass
class EvalSettings:
    """The loss on examples that are not trained on."""

    fraction: float = 0.05  # of the examples, held out by seed, the same in both conditions; 0: no eval loss
    interval: int = 100  # steps between eval losses; one more at the end
    keep_best: bool = False  # write the weights of the lowest eval loss, not the last; needs checkpoint.interval equal


@dataclass
class LoggingSettings:
    """What is printed, and written to log.jsonl."""

    interval: int = 10  # steps between printed lines and rows of log.jsonl


@dataclass
class CheckpointSettings:
    """What a run that was stopped goes on from."""

    interval: int = 200  # steps between checkpoints, a multiple of logging.interval; the last one is kept
    keep: bool = False  # keep it, optimizer state and all, in the finished directory too


@dataclass
class SFTSettings:
    """The sections of an SFT config file."""

    training: TrainingSettings = field(default_factory=TrainingSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)


def check_settings(settings: SFTSettings) -> None:
    """Raise UserError naming the first key whose value cannot be."""
    t, log, checkpoint = settings.training, settings.logging, settings.checkpoint
    counts = {
        "training.epochs": t.epochs,
        "training.max_steps": 1 if t.max_steps is None else t.max_steps,
        "training.max_examples": 1 if t.max_examples is None else t.max_examples,
        "training.batch_size": t.batch_size,
        "training.micro_batch_size": t.micro_batch_size,
        "training.max_length": t.max_length,
        "eval.interval": settings.eval.interval,
        "logging.interval": log.interval,
        "checkpoint.interval": checkpoint.interval,
    }
    for key, count in counts.items():
        if count < 1:
            raise UserError(f"{key} is {count}; it must be at least 1")
    shares = {"training.warmup_ratio": t.warmup_ratio, "eval.fraction": settings.eval.fraction}
    for key, share in shares.items():
        if not 0 <= share < 1:
            raise UserError(f"{key} is {share}; it must be at least 0 and below 1")
    if t.batch_size % t.micro_batch_size:
        raise UserError(
            f"training.micro_batch_size {t.micro_batch_size} does not divide training.batch_size {t.batch_size}"
        )
    if checkpoint.interval % log.interval:
        # The trainer forgets the losses since its last row when it resumes.
        raise UserError(
            f"checkpoint.interval {checkpoint.interval} must be a multiple of logging.interval {log.interval}"
        )
    if settings.eval.keep_best and (checkpoint.interval != settings.eval.interval or not settings.eval.fraction):
        raise UserError(
            f"eval.keep_best needs an eval.fraction above 0 and a checkpoint at every eval: eval.interval "
            f"{settings.eval.interval} and checkpoint.interval {checkpoint.interval} must be equal"
        )
