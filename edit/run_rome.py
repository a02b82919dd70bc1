"""Edit one fact and write the edited model (ROME; Meng et al. 2022).

    uv run python edit/run_rome.py --config edit/configs/demo.yaml --model-path outputs/facts_baseline \
        --prompt "The capital of France is" --subject France --target-new Rome --target-old Paris \
        --covariance.corpus outputs/facts_baseline/text.txt
    uv run python edit/run_rome.py --model-path outputs/hf_baseline --edits counterfact.json --index 3 \
        --covariance.corpus path/to/text

A rank-one change of one layer's MLP: the fact's key goes to its value exactly. Takes the same configs and writes the
same files as run_memit.py, its results as rome_results.json. To make many edits, use run_memit.py.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.config import parse_config
from common.device import seed_everything
from common.errors import UserError, run_script
from common.record import RunRecord
from edit.directories import check_output_dir, load_parent, write_edited
from edit.records import EditRecord, load_edits, read_record
from edit.report import markdown, print_summary
from edit.run_memit import edit_and_measure
from edit.settings import (
    ContextSettings,
    CovarianceSettings,
    UpdateSettings,
    ValueSettings,
    check_layers,
    check_values,
)
from tokenizer.mul_facts import Condition


@dataclass
class RomeConfig:
    """Edit one fact and write the edited model."""

    model_path: str = ""  # a GPT-2 model directory, or a hub id such as openai-community/gpt2
    prompt: str = ""  # what the new target is to follow
    subject: str = ""  # as it stands in the prompt
    target_new: str = ""  # what the model is to say
    target_old: str = ""  # what it says now, or should
    edits: Path | None = None  # a file of records in place of these four
    index: int = 0  # which record of --edits, from 0
    output_dir: Path | None = None  # default: outputs/rome_{name of the model directory}
    config: Path | None = None  # YAML file that gives these values; edit/configs has one per model size
    update: UpdateSettings = field(default_factory=UpdateSettings)
    values: ValueSettings = field(default_factory=ValueSettings)
    contexts: ContextSettings = field(default_factory=ContextSettings)
    covariance: CovarianceSettings = field(default_factory=CovarianceSettings)
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if it is there, else the CPU
    seed: int = 0  # draws the contexts


def main() -> None:
    config = parse_config(RomeConfig)
    output_dir = config.output_dir or Path("outputs") / f"rome_{Path(config.model_path).name}"
    check_output_dir(output_dir, "edit_rome", config.model_path)
    check_values(config.values, config.update.token)
    edit = edit_of(config)
    parent = load_parent(config.model_path, config.condition, config.device)
    layers = check_layers([config.update.rome_layer], parent.model.config.n_layer, config.update.token)
    seed_everything(config.seed)
    data = {"edits": str(config.edits), "records": 1}
    record = RunRecord("edit_rome", config, parent.tokenizer.condition, config.seed, parent.path, data)
    results, edited = edit_and_measure(config, parent, [edit], "rome", layers)
    report = markdown(results, f"rome: {edit.prompt} {edit.target_new}")
    write_edited(output_dir, parent, edited.originals, [edit], results, report, record)
    print_summary(results)
    [row] = results["edits"]
    print(f"p({edit.target_new}) {row['new_before']:.4f} -> {row['new_after']:.4f}, rank {row['new_rank_after']}")
    print(f"written to {output_dir}")


def edit_of(config: RomeConfig) -> EditRecord:
    """The record that the flags name. Raises UserError when they name none, or a bad one."""
    if config.edits is None:
        row = {name: getattr(config, name) for name in ("prompt", "subject", "target_new", "target_old")}
        return read_record(row, 1)
    if config.prompt or config.subject or config.target_new or config.target_old:
        raise UserError("--edits names the edit; leave out --prompt, --subject, --target-new and --target-old")
    records = load_edits(config.edits)
    if not 0 <= config.index < len(records):
        raise UserError(f"--index {config.index}: {config.edits} has records 0 to {len(records) - 1}")
    return records[config.index]


if __name__ == "__main__":
    run_script(main)
