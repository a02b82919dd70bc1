"""Edit many facts at once and write the edited model (MEMIT; Meng et al. 2023).

    uv run python edit/run_memit.py --config edit/configs/demo.yaml --model-path outputs/facts_baseline \
        --covariance.corpus outputs/facts_baseline/text.txt
    uv run python edit/run_memit.py --config edit/configs/gpt2_124m.yaml --model-path outputs/hf_mul_tokens \
        --edits counterfact.json --max-edits 50 --covariance.corpus path/to/text --output-dir outputs/memit_mul_tokens
    uv run python edit/run_memit.py --config edit/configs/openai_gpt2.yaml --covariance.corpus path/to/text

Reads edits in our format or CounterFact's (edit/records.py). Writes a model directory that every stage loads, with
memit_results.json and .md (overall, by group, edit by edit), edits.json and originals.safetensors beside the weights;
run_revert.py undoes the edit and run_edit_eval.py measures its side effects. A bad record is named, and nothing edited.
The first command is for a model that teach_facts.py taught: the demo's own knows next to none of the facts. --method
rome makes the edits one after the other at update.rome_layer, each without regard for the earlier ones; the other
methods make all at once.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.device import seed_everything
from common.errors import run_script
from common.files import sha256_file
from common.record import RunRecord
from edit.covariance import load_covariances
from edit.directories import Parent, check_output_dir, load_parent, write_edited
from edit.editing import Edited, edit_model, make_requests, precondition
from edit.prompts import sample_contexts
from edit.records import EditRecord, load_edits
from edit.report import edit_results, markdown, print_summary
from edit.scoring import score_records
from edit.settings import (
    ContextSettings,
    CovarianceSettings,
    Method,
    UpdateSettings,
    ValueSettings,
    check_layers,
    check_values,
)
from tokenizer.mul_facts import Condition


@dataclass
class MemitConfig:
    """Edit many facts at once and write the edited model."""

    model_path: str = ""  # a GPT-2 model directory, or a hub id such as openai-community/gpt2
    edits: Path = Path("edit/facts.json")  # .json or .jsonl file, in our format or CounterFact's
    output_dir: Path | None = None  # default: outputs/memit_{name of the model directory}
    config: Path | None = None  # YAML file that gives these values; edit/configs has one per model size
    max_edits: int | None = None  # only the first so many records
    method: Method = "memit"  # emmet: lambda 0; alphaedit: null-space projection; rome: one by one
    update: UpdateSettings = field(default_factory=UpdateSettings)
    values: ValueSettings = field(default_factory=ValueSettings)
    contexts: ContextSettings = field(default_factory=ContextSettings)
    covariance: CovarianceSettings = field(default_factory=CovarianceSettings)
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if it is there, else the CPU
    seed: int = 0  # draws the contexts


def main() -> None:
    config = parse_config(MemitConfig)
    output_dir = config.output_dir or Path("outputs") / f"memit_{Path(config.model_path).name}"
    check_output_dir(output_dir, "edit_memit", config.model_path)
    check_values(config.values, config.update.token)
    records = load_edits(config.edits, config.max_edits)
    parent = load_parent(config.model_path, config.condition, config.device)
    wanted = [config.update.rome_layer] if config.method == "rome" else config.update.layers
    layers = check_layers(wanted, parent.model.config.n_layer, config.update.token)
    seed_everything(config.seed)
    record = RunRecord(
        "edit_memit",
        config,
        parent.tokenizer.condition,
        config.seed,
        parent.path,
        data={"edits": str(config.edits), "records": len(records), "sha256": sha256_file(config.edits)},
    )
    results, edited = edit_and_measure(config, parent, records, config.method, layers)
    title = f"{config.method}: {len(records)} edits of {config.model_path}"
    write_edited(output_dir, parent, edited.originals, records, results, markdown(results, title), record)
    print_summary(results)
    print(f"residual left {results['residual_left']:.1%}; seconds {results['seconds']}\nwritten to {output_dir}")


def edit_and_measure(
    config: Any, parent: Parent, records: list[EditRecord], method: Method, layers: list[int]
) -> tuple[dict[str, Any], Edited]:
    """Edit `parent.model` in place; the results, and what undoes it. `config` has the sections of edit/settings.py."""
    model, tokenizer = parent.model, parent.tokenizer
    clock = Clock()
    before = score_records(model, tokenizer, records)
    contexts = sample_contexts(model, tokenizer, config.contexts, config.seed)
    requests = make_requests(tokenizer, records, contexts, config.update.token)
    clock.lap("scoring")
    covariances = load_covariances(model, tokenizer, layers, config.covariance)
    clock.lap("covariance")
    preconditioners = precondition(covariances, method, config.update)
    edited = edit_model(model, requests, preconditioners, method, config.update, config.values, progress=True)
    clock.lap("editing")
    after = score_records(model, tokenizer, records)
    clock.lap("scoring")
    results = {
        "method": method,
        "layers": layers,
        "condition": tokenizer.condition,
        "model_path": config.model_path,
        **edit_results(records, before, after, edited),
        "contexts": [tokenizer.decode(context) for context in contexts],
        "seconds": clock.laps,
    }
    return results, edited


class Clock:
    """Seconds by what was done in them."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap to `name`."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self.last, 2)
        self.last = now


if __name__ == "__main__":
    run_script(main)
