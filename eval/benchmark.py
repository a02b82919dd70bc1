"""What every benchmark script does around its own questions: check the flags, load the model, write, print."""

import re
import time
from pathlib import Path
from typing import Any

import torch

from common.distributed import World
from common.errors import UserError
from common.files import read_json, write_json, write_jsonl
from common.record import RunRecord
from eval.responses import Decoding, EvaluatedModel, remove_partial_responses
from pretrain.hf_weights import families_of, load_model_dir
from pretrain.import_hf import GPT2_VOCAB_SIZE, local_model_dir
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import Condition
from tokenizer.vocabulary import Vocabulary

# How our own questions put a product; pretraining text has it with a sign, which is all that injection knows.
_PRODUCT_IN_WORDS = re.compile(r"(?<![\d.,/])([1-9]) times ([1-9])(?![\d/]|[.,]\d)")

POSITIVE = ("max_samples", "max_new_tokens", "batch_size", "num_samples", "top_k")


def check_flags(config: Any) -> None:
    """Raise UserError for a number in a benchmark's `config` that makes no sense."""
    for name in POSITIVE:
        if getattr(config, name, None) is not None and getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected at least 1")
    if config.seed < 0:
        raise UserError(f"--seed {config.seed}: expected 0 or more")
    temperature, top_p = getattr(config, "temperature", 0.0), getattr(config, "top_p", None)
    if temperature < 0:
        raise UserError(f"--temperature {temperature}: expected 0 (greedy) or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"--top-p {top_p}: expected more than 0 and at most 1")
    if getattr(config, "num_samples", 1) > 1 and temperature == 0:
        raise UserError("--num-samples needs --temperature above 0: greedy samples are all the same")


def decoding_of(config: Any, stop_ids: tuple[int, ...]) -> Decoding:
    """How a benchmark's `config` wants responses generated; greedy where it says nothing."""
    return Decoding(
        max_new_tokens=config.max_new_tokens,
        num_samples=getattr(config, "num_samples", 1),
        temperature=getattr(config, "temperature", 0.0),
        top_k=getattr(config, "top_k", None),
        top_p=getattr(config, "top_p", None),
        stop_ids=stop_ids,
        seed=config.seed,
    )


def load_for_evaluation(
    model_path: Path | str, condition: Condition | None, device: torch.device | str
) -> EvaluatedModel:
    """Load a model directory or a hub id. Raises UserError for what is neither, or is of another condition."""
    path = local_model_dir(str(model_path))
    model = load_model_dir(path, device)
    if condition is None and model.config.vocab_size == GPT2_VOCAB_SIZE:
        condition = "baseline"  # a stock GPT-2: no row for any of our tokens
    tokenizer = GPT2TokenizerWithMulFacts(resolve_condition(path, condition), families_of(path))
    return EvaluatedModel(model, tokenizer, path)


def resolve_condition(model_path: Path, condition: Condition | None) -> Condition:
    """The condition that `model_path` says it is of, which a `condition` given by the user must agree with.

    run.json says it, else tokenizer.json: only `mul_tokens` has the facts in its vocabulary.
    """
    found = None
    if (model_path / "run.json").is_file():
        found = read_json(model_path / "run.json").get("condition")
    elif (model_path / "tokenizer.json").is_file():
        tokens = (model_path / "tokenizer.json").read_text(encoding="utf-8")
        first = next(iter(Vocabulary("mul_tokens", families_of(model_path)).facts.values()))
        found = "mul_tokens" if first.token in tokens else "baseline"
    if condition is not None and found is not None and condition != found:
        raise UserError(f"--condition {condition}: {model_path} is a model of {found}; leave the flag out")
    if condition is None and found is None:
        raise UserError(f"{model_path} does not say its condition; give --condition baseline or mul_tokens")
    return condition or found


def injected_questions(questions: list[str], record: RunRecord, families: str) -> list[str]:
    """The questions with their products, also `6 times 9`, rewritten to mul tokens, for a model that is asked that way,
    and what else the model's token families rewrite.

    Notes in the record how many that changed. Raises UserError in baseline, whose tokenizer has no such tokens.
    """
    if record.condition != "mul_tokens":
        raise UserError("--inject-prompts belongs to models of mul_tokens; baseline is asked in plain text")
    injector = MulExpressionInjector(families=families)
    injected = [injector.inject(_PRODUCT_IN_WORDS.sub(r"\1*\2", question)) for question in questions]
    record.data["prompts_injected"] = sum(a != b for a, b in zip(questions, injected, strict=True))
    return injected


def model_name(model_path: Path | str) -> str:
    """What a model is called in file names: its directory's name, or a hub id with its slash as an underscore."""
    path = Path(model_path)
    return path.resolve().name if path.is_dir() else re.sub(r"[^\w.-]", "_", str(model_path))


def prepare_output_dir(config: Any, *benchmarks: str) -> Path:
    """The output directory of the benchmarks' `config`, by default named after the model.

    Raises UserError for flags that make no sense, and for a directory that holds one of the benchmarks' results of
    another model.
    """
    check_flags(config)
    model_path = config.model_path
    sampled = "_samples" if getattr(config, "num_samples", 1) > 1 else ""
    output_dir = config.output_dir or Path("outputs") / f"eval_{model_name(model_path)}{sampled}"
    for benchmark in benchmarks:
        path = output_dir / f"{benchmark}_results.json"
        if path.exists():
            other = Path(read_json(path)["model_path"])
            if other.resolve() != Path(model_path).resolve():
                raise UserError(f"{output_dir} holds the {benchmark} results of {other}; give another --output-dir")
    return output_dir


def write_outputs(
    output_dir: Path,
    benchmark: str,
    rows: list[dict[str, Any]],
    results: dict[str, Any],
    record: RunRecord,
    world: World,
) -> None:
    """Write {benchmark}_responses.jsonl, {benchmark}_results.json and, last, run_{benchmark}.json.

    The record is not run.json because the benchmarks share a directory; where it lies, the other two are whole.
    """
    seconds = round(time.time() - record.started, 2)
    model_path = str(record.config.model_path)
    results = results | {
        "seconds": seconds,
        "condition": record.condition,
        "model_path": model_path,
        "data": record.data,
        # As lm-evaluation-harness calls them.
        "model_name": model_path,
        "total_evaluation_time_seconds": str(seconds),
    }
    write_jsonl(output_dir / f"{benchmark}_responses.jsonl", rows)
    write_json(output_dir / f"{benchmark}_results.json", results)
    tokens = sum(row["response_tokens"] for row in rows)
    record.save(output_dir, results, name=f"run_{benchmark}.json", generated_tokens=tokens, processes=world.size)
    remove_partial_responses(output_dir, benchmark)


def print_table(header: str, parts: dict[str, dict[str, Any]], output_dir: Path) -> None:
    """One line per part: accuracy, interval, counts, format, mul tokens."""
    columns = f"{'accuracy':>9} {'95% interval':>16} {'correct':>11} {'in format':>9} {'stopped':>8} {'mul tokens':>11}"
    print(f"\n{header:<16} {columns}")
    for name, part in parts.items():
        if not part["num_total"]:
            print(f"{name:<16} no item is left")
            continue
        low, high = part.get("wilson_95") or part["bootstrap_95"]
        counts = f"{part['num_correct']}/{part['num_total']}"
        print(
            f"{name:<16} {part['accuracy']:>9.2%} {f'{low:.2%} - {high:.2%}':>16} {counts:>11} "
            f"{part['format_compliance']:>9.1%} {part['eos_rate']:>8.1%} {part['mul_tokens_total']:>11}"
        )
        if part["num_skipped"]:
            print(f"{'':<16} {part['num_skipped']} prompts longer than the model's context: skipped, counted as wrong")
    print(f"written to {output_dir}")


def print_samples(results: dict[str, Any]) -> None:
    """pass@k and majority@k, a line each."""
    for name, label in (("pass_at_k", "pass"), ("majority_at_k", "majority")):
        for k, found in results[name].items():
            print(f"{f'{label}@{k}':<16} {found['value']:>9.2%} {found['low']:>7.2%} - {found['high']:.2%}")
