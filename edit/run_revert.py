"""Undo an edit: write the model as it was, bit for bit.

uv run python edit/run_revert.py --model-path outputs/memit_hf_baseline --output-dir outputs/reverted
"""

from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_directory
from common.record import RunRecord
from edit.directories import ORIGINALS, check_output_dir, load_parent
from edit.editing import load_originals, revert
from pretrain.hf_weights import save_model_dir
from tokenizer.mul_facts import Condition


@dataclass
class RevertConfig:
    """Undo an edit."""

    model_path: Path  # directory that run_memit.py or run_rome.py wrote
    output_dir: Path  # where the model as it was goes
    condition: Condition | None = None  # default: what the model directory says


def main() -> None:
    config = parse_config(RevertConfig)
    if not (config.model_path / ORIGINALS).is_file():
        raise UserError(f"{config.model_path} holds no {ORIGINALS}; only what an edit wrote can be reverted")
    check_output_dir(config.output_dir, "edit_revert", config.model_path)
    parent = load_parent(str(config.model_path), config.condition, "cpu")
    originals = load_originals(config.model_path / ORIGINALS)
    revert(parent.model, originals)
    record = RunRecord("edit_revert", config, parent.tokenizer.condition, 0, config.model_path)
    with atomic_directory(config.output_dir) as partial:
        save_model_dir(parent.model, partial, parent.tokenizer.condition, parent.tokenizer.vocabulary.families)
        record.save(partial, {"reverted": sorted(originals)})
    print(f"{config.model_path} without its edit -> {config.output_dir}")


if __name__ == "__main__":
    run_script(main)
