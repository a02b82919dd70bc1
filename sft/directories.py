"""The model directories that an SFT stage reads and writes (common/run_directory.py says how a run uses its own)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError
from common.files import atomic_directory, read_json
from pretrain.hf_weights import families_of
from tokenizer.mul_facts import Condition
from tokenizer.vocabulary import Vocabulary

MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")
CHECKPOINT_STATE = "trainer_state.json"  # what the HF Trainer writes last into a checkpoint


def check_parent(model_path: Path, condition: Condition, max_length: int) -> None:
    """Raise UserError unless `model_path` is a GPT-2 directory of this condition with `max_length` positions."""
    missing = [name for name in MODEL_FILES if not (model_path / name).is_file()]
    if missing:
        raise UserError(
            f"--model-path {model_path} is not a model directory: it has no {', '.join(missing)}; "
            "pretrain/export_hf.py writes one"
        )
    found = read_json(model_path / "config.json")
    size = Vocabulary(condition, families_of(model_path)).size
    if found.get("model_type") != "gpt2" or found.get("vocab_size") != size:
        raise UserError(
            f"{model_path}: expected a gpt2 model with vocab_size {size}, found {found.get('model_type')} "
            f"with {found.get('vocab_size')}; the scripts in pretrain/ export and import such directories"
        )
    if max_length > found["n_positions"]:
        raise UserError(
            f"training.max_length {max_length} exceeds the {found['n_positions']} positions of {model_path}; lower it"
        )
    record = read_json(model_path / "run.json") if (model_path / "run.json").is_file() else {}
    if record.get("condition", condition) != condition:
        raise UserError(
            f"--condition {condition}, but {model_path} is a {record['condition']} model; give the {condition} one"
        )


@contextmanager
def finished_directory(output_dir: Path, keep_checkpoint: bool) -> Iterator[Path]:
    """Yield the directory to write a finished run into; on success it takes the place of `output_dir`."""
    with atomic_directory(output_dir) as partial:
        yield partial
        if keep_checkpoint:
            checkpoint = complete_checkpoints(output_dir)[-1]
            shutil.move(checkpoint, partial / checkpoint.name)


def complete_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoint-* directories that were saved to their end, by step."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in output_dir.glob("checkpoint-*")}
    numbered = sorted((path for path in steps if steps[path].isdigit()), key=lambda path: int(steps[path]))
    return [path for path in numbered if _is_complete(path)]


def _is_complete(checkpoint: Path) -> bool:
    try:
        read_json(checkpoint / CHECKPOINT_STATE)
    except UserError:  # the process died before it had written the state, or while
        return False
    return True
