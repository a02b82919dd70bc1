"""What every supervised stage does once it has its examples: a model directory in, a model directory out."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from common.config import to_dict
from common.device import seed_everything
from common.errors import UserError
from common.files import sha256_file, write_json
from common.record import RunRecord
from common.run_directory import check_not_the_parent, open_run_directory
from pretrain.hf_weights import families_of
from sft.directories import check_parent, complete_checkpoints, finished_directory
from sft.examples import Example, examples_sha256, split_examples, tokenize_examples
from sft.settings import EmbeddingInit, SFTSettings, check_settings
from tokenizer.inject_mul import InjectionMode, MulExpressionInjector
from tokenizer.mul_facts import EOT_ID, Condition
from tokenizer.vocabulary import Vocabulary


@dataclass
class StageConfig(SFTSettings):
    """What every stage's command line has besides the sections of its config file."""

    config: Path | None = None  # YAML file with the values of this run
    condition: Condition = "baseline"  # that of the model
    model_path: Path | None = None  # model directory to start from; default: outputs/hf_{condition}
    output_dir: Path | None = None  # where the model goes; default: outputs/{stage}_{condition}
    inject_mul_tokens: bool = False  # rewrite the products in the trained text to mul tokens
    injection_mode: InjectionMode = "weak"  # strict rewrites a product only when its right result follows
    embedding_init: EmbeddingInit = "pretrained"  # of tokens that no stage has trained yet
    seed: int = 0  # draws the held-out examples and the order of the others
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    resume: bool = False  # go on from the last checkpoint in output_dir, if there is one
    force: bool = False  # delete the run that output_dir holds


Config = TypeVar("Config", bound=StageConfig)


def check_stage(config: Config, stage: str) -> Config:
    """The config with its default paths filled in, after checking all that can be checked without data.

    A script calls it before it reads its data. Raises UserError.
    """
    config = replace(
        config,
        model_path=config.model_path or Path(f"outputs/hf_{config.condition}"),
        output_dir=config.output_dir or Path(f"outputs/{stage}_{config.condition}"),
    )
    check_settings(config)
    if config.inject_mul_tokens and config.condition == "baseline":
        raise UserError("--inject-mul-tokens belongs to --condition mul_tokens; leave it off in baseline")
    check_not_the_parent(config.output_dir, config.model_path)
    check_parent(config.model_path, config.condition, config.training.max_length)
    return config


def run_stage(
    config: StageConfig,
    *,
    stage: str,
    results_name: str,
    examples: list[Example],
    source: str,
    dropped: dict[str, int],
    held_out: list[Example] | None = None,
    stop_ids: tuple[int, ...] = (EOT_ID,),
) -> dict[str, Any]:
    """Tokenize `examples`, train on them, write the model directory. Returns the content of `results_name`.

    source: where the examples are from, for run.json; dropped: rows that did not become examples, by reason; held_out:
    what the eval loss is taken of, by default eval.fraction of the examples (if that is 0, of nothing); stop_ids: what
    ends a response, for the model's generation config.
    Raises UserError for every mistake of the command, and when all examples are too long.
    """
    config = check_stage(config, stage)
    is_main = os.environ.get("RANK", "0") == "0"  # under torchrun the others neither write nor print
    if config.condition == "mul_tokens" and not config.inject_mul_tokens and is_main:
        print("note: mul_tokens without --inject-mul-tokens: the answers are trained as they stand")
    fraction = config.eval.fraction if held_out is None else 0.0
    train_examples, eval_examples = split_examples(examples, config.training.max_examples, fraction, config.seed)
    if held_out is not None and config.eval.fraction > 0:
        eval_examples = held_out
    record = RunRecord(stage, config, config.condition, config.seed, parent=config.model_path)
    record.data = {
        "source": source,
        "documents_sha256": examples_sha256(train_examples),
        "examples": len(train_examples),  # before those that max_length would cut are dropped
        "held_out": {"examples": len(eval_examples), "sha256": examples_sha256(eval_examples)},
        "dropped": dropped,
    }
    if is_main:
        open_run_directory(
            config.output_dir,
            identity(config, record),
            unfinished=bool(complete_checkpoints(config.output_dir)),
            resume=config.resume,
            force=config.force,
        )

    # Imported only here: TRL takes seconds, and a mistake in the command should not wait for it.
    from sft.embeddings import initialise_unseen_tokens
    from sft.training import build_trainer, load_parent, quiet_libraries, train_model

    quiet_libraries()
    seed_everything(config.seed)
    model, tokenizer = load_parent(config.model_path, config.condition)
    initialised = initialise_unseen_tokens(model, tokenizer, config.model_path, config.embedding_init, config.seed)
    vocabulary = Vocabulary(config.condition, families_of(config.model_path))
    injector = MulExpressionInjector(config.injection_mode, vocabulary.families)
    rewrite = injector.inject if config.inject_mul_tokens else None
    train, evaluation = (
        tokenize_examples(tokenizer, part, config.training.max_length, rewrite, vocabulary)
        for part in (train_examples, eval_examples)
    )
    if not train.rows:
        raise UserError(f"no example fits into training.max_length {config.training.max_length}; raise it")
    dropped = merged_counts(dropped, train.dropped, evaluation.dropped)
    if is_main:
        left_out = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
        started = f"; embeddings of {initialised} tokens initialised ({config.embedding_init})" if initialised else ""
        print(
            f"{stage} {config.condition}: {len(train.rows)} examples, {train.tokens} tokens, {train.labelled_tokens} "
            f"of them labelled, {train.mul_tokens} mul tokens; dropped: {left_out}{started}",
            flush=True,
        )
    trainer = build_trainer(model, tokenizer, train, evaluation, config, config.output_dir, config.seed, config.device)
    # Building the trainer has brought all processes together: the main one is done with the directory.
    results = train_model(trainer, train, evaluation, checkpoints=complete_checkpoints(config.output_dir))
    results |= {"dropped": dropped, "embeddings_initialised": initialised}

    if is_main:
        with finished_directory(config.output_dir, config.checkpoint.keep) as directory:
            model.generation_config.eos_token_id = list(stop_ids) if len(stop_ids) > 1 else stop_ids[0]
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            shutil.copy(config.output_dir / "log.jsonl", directory)
            write_json(directory / results_name, results)
            counts = {key: results[key] for key in ("tokens", "steps", "mul_tokens_seen", "reasoning_tags_seen")}
            record.save(directory, results, **counts)
        print(f"wrote {config.output_dir}: train loss {results['train_loss']:.4f}, {results['seconds']:.0f} s")
    return results


def identity(config: StageConfig, record: RunRecord) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued: all that weights and log depend on, device aside."""
    values = to_dict(config)
    keys = ("training", "eval", "logging", "checkpoint", "inject_mul_tokens", "injection_mode", "embedding_init")
    settings = {key: values[key] for key in keys}
    data = {key: value for key, value in record.data.items() if key != "source"}
    parent = {"parent_sha256": sha256_file(config.model_path / "model.safetensors")}
    return {"stage": record.stage, "condition": record.condition, "seed": record.seed} | parent | data | settings


def merged_counts(*counts: dict[str, int]) -> dict[str, int]:
    """The sum of counts by reason."""
    return {reason: sum(c.get(reason, 0) for c in counts) for reason in dict.fromkeys(r for c in counts for r in c)}
