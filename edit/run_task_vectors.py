"""Add, take away or merge what fine-tuning changed, between model directories.

    uv run python edit/run_task_vectors.py --operation apply --base outputs/hf_baseline \
        --tuned outputs/sft_gsm8k_baseline --alpha 0.5 --output-dir outputs/half_way
    uv run python edit/run_task_vectors.py --operation negate --base outputs/hf_baseline \
        --tuned outputs/sft_gsm8k_baseline --output-dir outputs/without
    uv run python edit/run_task_vectors.py --operation ties --base outputs/hf_baseline \
        --tuned outputs/sft_a outputs/sft_b --density 0.2 --output-dir outputs/merged

apply: base + alpha (tuned - base); negate: base - alpha (tuned - base); ties and dare: the vectors of several tuned
models merged, then applied; extract: the vector alone, as task_vector.safetensors.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_directory, atomic_path
from common.record import RunRecord, describe_parent
from edit.directories import Parent, check_output_dir, load_parent
from edit.task_vectors import State, apply, dare, extract, ties
from pretrain.hf_weights import save_model_dir
from tokenizer.mul_facts import Condition


@dataclass
class TaskVectorConfig:
    """Arithmetic on what fine-tuning changed."""

    operation: Literal["extract", "apply", "negate", "ties", "dare"]  # what to do with the difference
    base: Path  # model directory that the fine-tuning started from
    tuned: list[Path]  # fine-tuned model directories; ties and dare take several
    output_dir: Path  # model directory to write; with extract, a folder for task_vector.safetensors
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
    check_output_dir(config.output_dir)
    base = load_parent(str(config.base), config.condition, "cpu")
    state = base.model.state_dict()
    vectors = [
        extract(state, load_parent(str(path), config.condition, "cpu").model.state_dict()) for path in config.tuned
    ]
    vector = merged(vectors, config)
    if config.operation == "extract":
        path = config.output_dir / "task_vector.safetensors"
        with atomic_path(path) as partial:
            save_file({name: tensor.float().contiguous() for name, tensor in vector.items()}, partial)
        print(f"{config.tuned[0]} - {config.base} -> {path}")
        return
    base.model.load_state_dict(apply(state, vector, -config.alpha if config.operation == "negate" else config.alpha))
    write(base, config, vector)


def merged(vectors: list[State], config: TaskVectorConfig) -> State:
    """One vector of the tuned models' ones."""
    if config.operation == "ties":
        return ties(vectors, config.density)
    if config.operation == "dare":
        thinned = [dare(vector, config.drop, config.seed + i) for i, vector in enumerate(vectors)]
        return {name: sum(vector[name] for vector in thinned) for name in thinned[0]}
    return vectors[0]


def write(base: Parent, config: TaskVectorConfig, vector: State) -> None:
    """The model directory with its record."""
    record = RunRecord("edit_task_vector", config, base.tokenizer.condition, config.seed, base.path)
    norm = float(torch.stack([tensor.norm() for tensor in vector.values()]).norm())
    with atomic_directory(config.output_dir) as partial:
        save_model_dir(base.model, partial, base.tokenizer.condition)
        record.save(partial, {"vector_norm": norm}, tuned=[describe_parent(path) for path in config.tuned])
    print(f"{config.operation}: vector of norm {norm:.4f} -> {config.output_dir}")


if __name__ == "__main__":
    run_script(main)
