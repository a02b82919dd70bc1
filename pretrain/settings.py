"""What a pretraining run can be told: the sections of pretrain/configs/*.yaml and of the command line."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from common.errors import UserError
from tokenizer.mul_facts import Condition


@dataclass
class ModelConfig:
    """The size of the GPT; everything else about it is GPT-2's (pretrain/model.py)."""

    n_layer: int = 4  # transformer blocks
    n_head: int = 4  # attention heads per block
    n_embd: int = 128  # width; a multiple of n_head
    block_size: int = 128  # context, in tokens


@dataclass
class TrainingConfig:
    """Batch, optimizer and schedule."""

    batch_size: int = 8  # sequences per process and micro-step; what fits in memory
    total_batch_size: int = 1024  # tokens per update, over all processes and micro-steps
    max_steps: int = 100  # updates
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: Muon for the blocks' matrices, AdamW for the rest
    max_lr: float = 2e-3  # AdamW's peak learning rate
    muon_lr: float = 0.02  # Muon's peak learning rate
    schedule: Literal["cosine", "linear"] = "cosine"  # after warm-up: a cosine, or constant and then a line down
    warmup_steps: int = 10  # updates of linear warm-up
    warmdown: float = 0.4  # share of the updates in which the linear schedule goes down
    min_lr: float = 2e-4  # AdamW's learning rate after the last step; Muon's falls by the same factor
    weight_decay: float = 0.1  # on matrices and embeddings
    beta1: float = 0.9  # AdamW's first-moment decay
    beta2: float = 0.95  # AdamW's second-moment decay
    muon_momentum: float = 0.95  # Muon's momentum (Nesterov)
    grad_clip: float = 1.0  # largest global gradient norm
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the matrix products; auto: bfloat16 where it is native
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile; auto: on CUDA


@dataclass
class SpikeConfig:
    """What to do about an update whose loss or gradient stands far above the last ones."""

    action: Literal["off", "skip", "stop"] = "off"  # on a spike: leave that update out, or end the run before it
    threshold: float = 6.0  # deviations above the mean of the window that make a loss or a gradient norm a spike
    window: int = 128  # updates that the mean and the deviation are of; nothing is a spike before it is full


@dataclass
class EvalConfig:
    """The validation loss."""

    interval: int = 50  # updates between validations
    val_steps: int = 20  # validation batches of total_batch_size tokens, always the first of the split


@dataclass
class HellaSwagConfig:
    """HellaSwag while training."""

    interval: int = 0  # updates between HellaSwag evaluations; 0: never
    data_path: Path | None = None  # .jsonl or .parquet file or folder; default the hub's validation split
    max_samples: int | None = None  # the first so many items; default all 10,042


@dataclass
class SamplesConfig:
    """Texts that the model writes while it trains."""

    interval: int = 0  # updates between samples of text; 0: never
    prompts: list[str] = field(default_factory=lambda: ["Hello, I'm a language model,", "6 times 9 is", "6*9="])
    n: int = 2  # samples of each prompt
    max_new_tokens: int = 32  # their length


@dataclass
class LoggingConfig:
    """What is printed, and written to log.jsonl."""

    interval: int = 10  # updates between log lines
    tracker: Literal["none", "tensorboard", "wandb"] = "none"  # also log there, where it is installed


@dataclass
class CheckpointConfig:
    """What is saved, and how much of it stays."""

    interval: int = 50  # updates between checkpoints
    save_final: bool = True  # save one after the last update
    keep_last: int | None = None  # keep the newest so many and delete older ones; default all
    keep_every: int | None = None  # of the older ones, keep those whose step is a multiple of this


@dataclass
class TrainConfig:
    """Pretrain a GPT on token shards. One process, or many under torchrun. Continues the run it finds."""

    config: Path | None = Path("pretrain/configs/tiny.yaml")  # YAML file with the sections below
    condition: Condition = "baseline"  # which text the shards hold
    data_dir: Path | None = None  # folder of shards; default data/processed/{condition}
    output_dir: Path | None = None  # default outputs/pretrain_{condition}
    seed: int = 0  # initialisation and samples; pair it across conditions
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    resume: bool = True  # go on from the output directory's last checkpoint; --no-resume refuses a used directory
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    spikes: SpikeConfig = field(default_factory=SpikeConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    hellaswag: HellaSwagConfig = field(default_factory=HellaSwagConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


def micro_steps(config: TrainConfig, processes: int) -> int:
    """How many micro-batches per process make one update. Raises UserError when they do not divide the batch."""
    settings = config.training
    tokens = settings.batch_size * config.model.block_size * processes
    if settings.total_batch_size % tokens:
        raise UserError(
            f"training.total_batch_size {settings.total_batch_size} is not a multiple of batch_size x block_size x "
            f"processes = {settings.batch_size} x {config.model.block_size} x {processes} = {tokens}; "
            "change training.batch_size"
        )
    return settings.total_batch_size // tokens


MAY_BE_ZERO = ("training.warmup_steps", "training.weight_decay", "training.min_lr", "training.beta1", "training.beta2")
MAY_BE_ZERO += ("training.muon_momentum", "hellaswag.interval", "samples.interval")


def check_settings(config: TrainConfig) -> None:
    """Raise UserError naming the first value that no run can have."""
    for section in ("model", "training", "spikes", "eval", "hellaswag", "samples", "logging", "checkpoint"):
        for key, value in asdict(getattr(config, section)).items():
            if not isinstance(value, int | float) or value is False:
                continue
            name = f"{section}.{key}"
            if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
                raise UserError(f"{name} is {value}; it must be {'0 or more' if name in MAY_BE_ZERO else 'above 0'}")
    model, checkpoint = config.model, config.checkpoint
    if model.n_embd % model.n_head:
        raise UserError(f"model.n_embd {model.n_embd} is not a multiple of model.n_head {model.n_head}; change one")
    if config.training.warmdown > 1:
        raise UserError(f"training.warmdown is {config.training.warmdown}; it is a share of the updates, at most 1")
    if checkpoint.keep_every and checkpoint.keep_every % checkpoint.interval:
        raise UserError(
            f"checkpoint.keep_every {checkpoint.keep_every} is not a multiple of checkpoint.interval "
            f"{checkpoint.interval}"
        )
    if checkpoint.keep_every and not checkpoint.keep_last:
        raise UserError("checkpoint.keep_every says what stays of those that checkpoint.keep_last drops; give both")
