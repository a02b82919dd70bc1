"""Bring any GPT-2 to our vocabulary, so that every later stage can start from it: the inverse of export_hf.py.

    uv run python pretrain/import_hf.py --model openai-community/gpt2 --condition mul_tokens --output-dir outputs/gpt2
    uv run python pretrain/import_hf.py --model outputs/hf_baseline --checkpoint-dir outputs/again

Reads a local model directory or a hub id. 50,257 rows are extended to 50,349: the new rows are the mean of the old ones
plus a little noise, so that no new token starts likelier than an average one and no two start alike. --output-dir
writes a model directory, --checkpoint-dir a model_000000.pt in our own format.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.config import parse_config
from common.device import seed_everything
from common.errors import UserError, run_script
from common.record import RunRecord
from data.encoding import families_record
from pretrain.checkpoint import checkpoint_path, save_checkpoint
from pretrain.hf_weights import load_model_dir, save_model_dir
from pretrain.model import GPT, GPTConfig
from tokenizer.families import DEFAULT_FAMILIES, families_name
from tokenizer.mul_facts import EOT_ID, VOCAB_SIZE, Condition
from tokenizer.vocabulary import Vocabulary

GPT2_VOCAB_SIZE = EOT_ID + 1


@dataclass
class ImportConfig:
    """Bring any GPT-2 to our vocabulary: 50,349 ids, or more with other token families."""

    model: str  # a model directory, or a hub id such as openai-community/gpt2
    condition: Condition = "baseline"  # whose tokenizer and generation config go with it
    families: str = DEFAULT_FAMILIES  # token families of tokenizer/families.yaml, such as mul+digits
    output_dir: Path | None = None  # model directory to write
    checkpoint_dir: Path | None = None  # where to write model_000000.pt instead, or as well
    seed: int = 0  # of the new rows' noise


def main() -> None:
    config = parse_config(ImportConfig)
    if config.output_dir is None and config.checkpoint_dir is None:
        raise UserError("nothing to write: give --output-dir, --checkpoint-dir or both")
    seed_everything(config.seed)
    source = local_model_dir(config.model)
    config.families = families_name(config.families)
    model = extend_vocabulary(load_model_dir(source), Vocabulary(config.condition, config.families).size)
    if config.output_dir is not None:
        record = RunRecord("import", config, config.condition, config.seed, parent=source)
        save_model_dir(model, config.output_dir, config.condition, config.families)
        record.save(config.output_dir, results={"parameters": model.num_parameters()})
        print(f"{config.model} -> {config.output_dir} ({model.num_parameters():,} parameters)")
    if config.checkpoint_dir is not None:
        state = {"model": model.state_dict(), "model_config": asdict(model.config), "step": 0}
        state |= {"condition": config.condition, "seed": config.seed, **families_record(config.families)}
        save_checkpoint(checkpoint_path(config.checkpoint_dir, 0), state)
        print(f"{config.model} -> {checkpoint_path(config.checkpoint_dir, 0)}")


def local_model_dir(name: str) -> Path:
    """The directory `name`, or the hub's model of that id, downloaded. Raises UserError, soon, without network."""
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise UserError(f"{name} is neither a model directory nor a hub id of the form owner/name")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "10")
    from huggingface_hub import snapshot_download  # here: it reads its time-outs when it is imported

    try:
        wanted = ["config.json", "*.safetensors", "*.safetensors.index.json", "run.json", "tokenizer.json"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises a dozen kinds; whichever it was, the remedy is the same
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: not a local directory, and the hub gave no model ({reason}); give a directory"
        ) from None


def extend_vocabulary(model: GPT, size: int = VOCAB_SIZE) -> GPT:
    """The same model with `size` embedding rows. Raises UserError unless it has 50,257 to `size` rows.

    New rows follow Hewitt (2021), "Initializing new word embeddings for pretrained language models": the mean of the
    old rows bounds the change to the model's distribution; the noise, a hundredth of their deviation, tells them apart.
    """
    old: Tensor = model.wte.weight.detach()
    if len(old) == size:
        return model
    if not GPT2_VOCAB_SIZE <= len(old) <= size:
        raise UserError(f"the model has {len(old):,} embedding rows; expected 50,257 (GPT-2's) to {size:,} (ours)")
    used = old[:GPT2_VOCAB_SIZE]
    new = used.mean(0) + 0.01 * used.std(0) * torch.randn(size - GPT2_VOCAB_SIZE, old.size(1))
    state = model.state_dict() | {"wte.weight": torch.cat([used, new])}
    extended = GPT(GPTConfig(**asdict(model.config) | {"vocab_size": size}))
    extended.load_state_dict(state)
    return extended


if __name__ == "__main__":
    run_script(main)
