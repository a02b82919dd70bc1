"""Add, take away or merge what fine-tuning changed, between model directories.

    uv run python edit/run_task_vectors.py --operation apply --base outputs/hf_baseline \
        --tuned outputs/sft_gsm8k_baseline --alpha 0.5 --output-dir outputs/half_way
    uv run python edit/run_task_vectors.py --operation negate --base outputs/hf_baseline \
        --tuned outputs/sft_gsm8k_baseline --output-dir outputs/without
    uv run python edit/run_task_vectors.py --operation ties --base outputs/hf_baseline \
        --tuned outputs/sft_a outputs/sft_b --density 0.2 --output-dir outputs/merged

    uv run python edit/run_task_vectors.py --operation extract --base outputs/hf_baseline \
        --tuned outputs/sft_gsm8k_baseline --output-dir outputs/vector
    uv run python edit/run_task_vectors.py --operation apply --base outputs/memit_hf_baseline --tuned outputs/vector \
        --output-dir outputs/edited_and_tuned

apply: base + alpha (tuned - base); negate: base - alpha (tuned - base); ties and dare: the vectors of several tuned
models merged, then applied; extract: the vector alone, as task_vector.safetensors. In place of a tuned model the others
take such a file or its directory: its vector is used as it is. Base and tuned must be of one condition.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_directory
from common.record import RunRecord, describe_parent
from edit.directories import Parent, check_output_dir, load_parent
from edit.task_vectors import State, apply, dare, extract, load_vector, save_vector, ties
from pretrain.hf_weights import save_model_dir
from tokenizer.mul_facts import Condition

STAGE, VECTOR = "edit_task_vector", "task_vector.safetensors"


@dataclass
class TaskVectorConfig:
    """Arithmetic on what fine-tuning changed."""

    operation: Literal["extract", "apply", "negate", "ties", "dare"]  # what to do with the difference
    base: Path  # model directory that the fine-tuning started from
    tuned: list[Path]  # fine-tuned model directories, or what extract wrote of them; ties and dare take several
    output_dir: Path  # model directory to write; with extract, a folder with task_vector.safetensors
    alpha: float = 1.0  # how much of the vector is added
    density: float = 0.2  # ties: share of the entries that is kept
    drop: float = 0.9  # dare: probability that an entry is dropped
    condition: Condition | None = None  # default: what the base directory says
    seed: int = 0  # of dare


def main() -> None:
    config = parse_config(TaskVectorConfig)
    if not 0 < config.density <= 1 or not 0 <= config.drop < 1:
        raise UserError("--density must be above 0 and at most 1, --drop at least 0 and below 1")
    if config.operation not in ("ties", "dare") and len(config.tuned) != 1:
        raise UserError(f"--operation {config.operation} takes one --tuned, found {len(config.tuned)}")
    check_output_dir(config.output_dir, STAGE, config.base, *config.tuned)
    base = load_parent(str(config.base), config.condition, "cpu")
    vector = merged([vector_of(path, base, config) for path in config.tuned], config)
    if config.operation != "extract":
        alpha = -config.alpha if config.operation == "negate" else config.alpha
        base.model.load_state_dict(apply(base.model.state_dict(), vector, alpha))
    write(base, config, vector)


def vector_file(path: Path) -> Path | None:
    """The file of a task vector that `path` is or holds; None for a model."""
    if path.is_dir():
        return path / VECTOR if (path / VECTOR).is_file() else None
    return path if path.suffix == ".safetensors" else None


def vector_of(path: Path, base: Parent, config: TaskVectorConfig) -> State:
    """What a tuned model at `path` adds to the base, or the vector that lies there."""
    state, condition = base.model.state_dict(), base.tokenizer.condition
    if file := vector_file(path):
        if config.operation == "extract":
            raise UserError(f"--operation extract takes a tuned model; {path} is a task vector already")
        return load_vector(file, state, condition)
    tuned = load_parent(str(path), config.condition, "cpu")
    if tuned.tokenizer.condition != condition:
        raise UserError(
            f"{path} is a model of {tuned.tokenizer.condition}, {config.base} of {condition}; a task vector needs one "
            "condition"
        )
    return extract(state, tuned.model.state_dict())


def merged(vectors: list[State], config: TaskVectorConfig) -> State:
    """One vector of the tuned models' ones."""
    if config.operation == "ties":
        return ties(vectors, config.density)
    if config.operation == "dare":
        thinned = [dare(vector, config.drop, config.seed + i) for i, vector in enumerate(vectors)]
        return {name: sum(vector[name] for vector in thinned) for name in thinned[0]}
    return vectors[0]


def write(base: Parent, config: TaskVectorConfig, vector: State) -> None:
    """The model directory, or the vector's, with its record."""
    record = RunRecord(STAGE, config, base.tokenizer.condition, config.seed, base.path)
    norm = float(torch.stack([tensor.norm() for tensor in vector.values()]).norm())
    with atomic_directory(config.output_dir) as partial:
        if config.operation == "extract":
            save_vector(partial / VECTOR, vector, base.tokenizer.condition)
        else:
            save_model_dir(base.model, partial, base.tokenizer.condition, base.tokenizer.vocabulary.families)
        tuned = [describe_parent(vector_file(path) or path) for path in config.tuned]
        record.save(partial, {"vector_norm": norm}, tuned=tuned)
    print(f"{config.operation}: vector of norm {norm:.4f} -> {config.output_dir}")


if __name__ == "__main__":
    run_script(main)
