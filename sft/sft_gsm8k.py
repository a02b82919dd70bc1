"""Supervised fine-tuning on GSM8K: a model directory in, a model directory out.

    uv run python sft/sft_gsm8k.py --config sft/configs/gsm8k.yaml --condition baseline \\
        --model-path outputs/hf_baseline --output-dir outputs/sft_gsm8k_baseline
    uv run python sft/sft_gsm8k.py --config sft/configs/gsm8k.yaml --condition mul_tokens --inject-mul-tokens \\
        --model-path outputs/hf_mul_tokens --output-dir outputs/sft_gsm8k_mul_tokens

Without a network add --data-path: a .jsonl file of {"question", "answer"}, or a folder that holds train.jsonl.
Trained are the answers and their end-of-text. Beside the model: sft_results.json, log.jsonl, run.json.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config, to_dict
from common.device import seed_everything
from common.errors import UserError, run_script
from common.files import sha256_file, write_json
from common.record import RunRecord
from data.formats import chat_completion, chat_prompt
from data.gsm8k import items_sha256
from sft.directories import check_parent, complete_checkpoints, finished_directory, open_run_directory
from sft.examples import load_gsm8k_train, split_examples, tokenize_examples
from sft.settings import SFTSettings, check_settings
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import Condition


@dataclass
class Config(SFTSettings):
    """Fine-tune a GPT-2 model directory on GSM8K."""

    config: Path | None = None  # YAML file with the values of this run
    condition: Condition = "baseline"  # that of the model
    model_path: Path | None = None  # model directory to start from; default: outputs/hf_{condition}
    output_dir: Path | None = None  # where the model goes; default: outputs/sft_gsm8k_{condition}
    data_path: Path | None = None  # .jsonl file, or folder with train.jsonl, in place of hub_id
    hub_id: str = "openai/gsm8k"  # data set on the Hugging Face hub
    inject_mul_tokens: bool = False  # rewrite the products in the answers to mul tokens
    seed: int = 0  # draws the held-out examples and the order of the others
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    resume: bool = False  # go on from the last checkpoint in output_dir, if there is one
    force: bool = False  # delete the run that output_dir holds


def main() -> None:
    config = parse_config(Config)
    config = replace(
        config,
        model_path=config.model_path or Path(f"outputs/hf_{config.condition}"),
        output_dir=config.output_dir or Path(f"outputs/sft_gsm8k_{config.condition}"),
    )
    is_main = os.environ.get("RANK", "0") == "0"  # under torchrun the others neither write nor print
    check_settings(config)
    if config.inject_mul_tokens and config.condition == "baseline":
        raise UserError("--inject-mul-tokens belongs to --condition mul_tokens; leave it off in baseline")
    if config.condition == "mul_tokens" and not config.inject_mul_tokens and is_main:
        print("note: mul_tokens without --inject-mul-tokens: the answers are trained as they stand")
    check_parent(config.model_path, config.condition, config.training.max_length)
    examples = load_gsm8k_train(config.data_path, config.hub_id)
    train_examples, eval_examples = split_examples(
        examples, config.training.max_examples, config.eval.fraction, config.seed
    )
    record = RunRecord("sft_gsm8k", config, config.condition, config.seed, parent=config.model_path)
    record.data = {
        "source": str(config.data_path or config.hub_id),
        "documents_sha256": items_sha256(train_examples),
        "examples": len(train_examples),
    }
    if is_main:
        open_run_directory(config.output_dir, identity(config, record), config.resume, config.force)

    # Imported only here: TRL takes seconds, and a mistake in the command should not wait for it.
    from sft.training import build_trainer, load_parent, quiet_libraries, train_model

    quiet_libraries()
    seed_everything(config.seed)
    model, tokenizer = load_parent(config.model_path, config.condition)
    inject = MulExpressionInjector().inject if config.inject_mul_tokens else str
    train, held_out = (
        tokenize_examples(
            tokenizer,
            [(chat_prompt(e["question"]), chat_completion(inject(e["answer"]))) for e in part],
            config.training.max_length,
        )
        for part in (train_examples, eval_examples)
    )
    if is_main:
        print(
            f"sft_gsm8k {config.condition}: {len(train.rows)} examples, {train.tokens} tokens, "
            f"{train.labelled_tokens} of them labelled, {train.mul_tokens_in_labels} mul tokens; "
            f"{train.truncated} examples cut at {config.training.max_length}",
            flush=True,
        )
    trainer = build_trainer(model, tokenizer, train, held_out, config, config.output_dir, config.seed, config.device)
    # Building the trainer has brought all processes together: the main one is done with the directory.
    results = train_model(trainer, train, held_out, checkpoints=complete_checkpoints(config.output_dir))

    if is_main:
        with finished_directory(config.output_dir, config.checkpoint.keep) as directory:
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            shutil.copy(config.output_dir / "log.jsonl", directory)
            write_json(directory / "sft_results.json", results)
            record.save(directory, results, tokens=results["tokens"], steps=results["steps"])
        print(f"wrote {config.output_dir}: train loss {results['train_loss']:.4f}, {results['seconds']:.0f} s")


def identity(config: Config, record: RunRecord) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued: all that weights and log depend on, device aside."""
    values = to_dict(config)
    settings = {key: values[key] for key in ("training", "eval", "logging", "checkpoint", "inject_mul_tokens")}
    data = {key: value for key, value in record.data.items() if key != "source"}
    parent = {"parent_sha256": sha256_file(config.model_path / "model.safetensors")}
    return {"stage": record.stage, "condition": record.condition, "seed": record.seed} | parent | data | settings


if __name__ == "__main__":
    run_script(main)
