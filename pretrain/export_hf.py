"""Turn a pretraining checkpoint into a Hugging Face model directory.

    uv run python pretrain/export_hf.py --condition mul_tokens
    uv run python pretrain/export_hf.py --condition baseline --checkpoint outputs/pretrain_baseline/model_019073.pt \
        --output-dir outputs/hf_baseline

The directory loads with AutoModelForCausalLM and AutoTokenizer as it is: weights, tokenizer, generation config and
run.json.
"""

from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from common.record import RunRecord
from pretrain.checkpoint import latest_checkpoint, load_checkpoint, model_from_checkpoint
from pretrain.hf_weights import save_model_dir
from tokenizer.families import DEFAULT_FAMILIES
from tokenizer.mul_facts import Condition


@dataclass
class ExportConfig:
    """Turn a pretraining checkpoint into a Hugging Face model directory."""

    condition: Condition = "baseline"  # must be the checkpoint's
    checkpoint: Path | None = None  # a model_*.pt, or a run's directory; default outputs/pretrain_{condition}
    output_dir: Path | None = None  # default outputs/hf_{condition}


def main() -> None:
    config = parse_config(ExportConfig)
    source = config.checkpoint or Path(f"outputs/pretrain_{config.condition}")
    config.output_dir = config.output_dir or Path(f"outputs/hf_{config.condition}")
    config.checkpoint = latest_checkpoint(source) if source.is_dir() else source
    if config.checkpoint is None:
        raise UserError(f"{source} holds no checkpoint; run pretrain/train.py first or name a model_*.pt")

    state = load_checkpoint(config.checkpoint)
    if state["condition"] != config.condition:
        raise UserError(f"{config.checkpoint} is of condition {state['condition']}; --condition is {config.condition}")
    record = RunRecord("export", config, config.condition, state["seed"], parent=config.checkpoint)
    model = model_from_checkpoint(state)
    save_model_dir(model, config.output_dir, config.condition, state.get("families", DEFAULT_FAMILIES))
    record.save(config.output_dir, results={"parameters": model.num_parameters()}, steps=state["step"])
    print(f"{config.checkpoint} -> {config.output_dir} ({model.num_parameters():,} parameters, step {state['step']})")


if __name__ == "__main__":
    run_script(main)
