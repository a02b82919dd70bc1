"""The model directories that edits read and write.

An edited directory is a model directory like any other, and holds beside the weights

    originals.safetensors   the changed weights as they were: run_revert.py puts them back bit for bit
    edits.json              the records that were edited, in our format: run_edit_eval.py asks about them
    {method}_results.json   what came of it (memit_results.json, rome_results.json), and a .md of the same
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.device import pick_device
from common.errors import UserError
from common.files import atomic_directory, read_json, write_json, write_text
from common.record import RunRecord
from edit.editing import Originals, save_originals
from edit.records import EditRecord, to_row
from eval.benchmark import resolve_condition
from pretrain.hf_weights import families_of, load_model_dir, save_model_dir
from pretrain.import_hf import extend_vocabulary, local_model_dir
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import Condition

ORIGINALS, EDITS = "originals.safetensors", "edits.json"
STAGE_PREFIX, TAUGHT = "edit_", "edit_facts"


@dataclass(frozen=True)
class Parent:
    """A model to edit, in our vocabulary, with the tokenizer of its condition."""

    path: Path
    model: GPT
    tokenizer: GPT2TokenizerWithMulFacts


def load_parent(model_path: str, condition: Condition | None, device_name: str) -> Parent:
    """A model directory, or the hub's model of that id. Raises UserError as their loaders do."""
    if not model_path:
        raise UserError("no model to start from; give --model-path a model directory or a hub id")
    path = local_model_dir(model_path)
    device = pick_device(device_name)
    if device.type == "mps":  # it has no float64, which the closed form needs
        device = pick_device("cpu")
    tokenizer = GPT2TokenizerWithMulFacts(resolve_condition(path, condition), families_of(path))
    model = extend_vocabulary(load_model_dir(path), tokenizer.vocabulary.size).to(device)
    return Parent(path, model.eval(), tokenizer)


def check_output_dir(output_dir: Path, stage: str, *sources: Path | str) -> None:
    """Raise UserError unless `output_dir` is absent, empty, or holds an earlier edit, which may be replaced.

    stage: of the run that is to write there. A taught model (edit_facts) is replaced by teaching alone, and none of
    `sources`, the models that are read, by anything.
    """
    if any(output_dir.resolve() == Path(source).resolve() for source in sources if source):
        raise UserError(f"--output-dir {output_dir} is a model that is read; choose another")
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return
    run = output_dir / "run.json"
    found = str(read_json(run).get("stage")) if run.is_file() else ""
    if found == TAUGHT != stage:
        raise UserError(f"--output-dir {output_dir} holds the model that teach_facts.py wrote; choose another")
    if not found.startswith(STAGE_PREFIX):
        raise UserError(f"--output-dir {output_dir} holds something else than an edited model; choose another")


def write_edited(
    output_dir: Path,
    parent: Parent,
    originals: Originals,
    records: list[EditRecord],
    results: dict[str, Any],
    report: str,
    record: RunRecord,
) -> None:
    """Write the edited model of `parent` with everything beside it; the directory appears whole or not at all."""
    name = record.stage.removeprefix(STAGE_PREFIX)
    with atomic_directory(output_dir) as partial:
        save_model_dir(parent.model, partial, parent.tokenizer.condition, parent.tokenizer.vocabulary.families)
        save_originals(partial / ORIGINALS, originals)
        write_json(partial / EDITS, [to_row(each) for each in records])
        write_json(partial / f"{name}_results.json", results)
        write_text(partial / f"{name}_results.md", report)
        summary = {key: value for key, value in results.items() if key != "edits"}
        record.save(partial, json.loads(json.dumps(summary)))
