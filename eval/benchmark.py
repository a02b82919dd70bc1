"""What every benchmark script does around its own questions: load the model, let it answer, score, summarise, write."""

import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from common.device import pick_device
from common.errors import UserError
from common.files import read_json, write_json, write_jsonl
from common.record import RunRecord
from eval.answers import as_text, extract_flexible, extract_strict, first_turn
from eval.engine import Completion, generate
from eval.stats import wilson_interval
from pretrain.hf_weights import load_model_dir
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID, Condition, MulFactTokens, suppressed_ids


@dataclass
class EvaluatedModel:
    """A model with the tokenizer of its condition."""

    model: GPT
    tokenizer: GPT2TokenizerWithMulFacts

    def answer(self, prompts: list[str], max_new_tokens: int, batch_size: int, seed: int) -> list[Completion]:
        """One greedy completion of each prompt, with a progress bar."""
        condition, vocab_size = self.tokenizer.condition, self.model.config.vocab_size
        completions = generate(
            self.model,
            self.tokenizer.encode_batch(prompts, allow_special=False),
            max_new_tokens=max_new_tokens,
            # A model that was not extended to our vocabulary (a stock GPT-2) has no such rows.
            suppressed_ids=[i for i in suppressed_ids(condition) if i < vocab_size],
            seed=seed,
            batch_size=batch_size,
            progress=True,
        )
        return [completion for [completion] in completions]


def load_for_evaluation(model_path: Path, condition: Condition | None, device: str) -> EvaluatedModel:
    """Load a model directory. Raises UserError for what is no model directory, or one of another condition."""
    model = load_model_dir(model_path, pick_device(device))
    return EvaluatedModel(model, GPT2TokenizerWithMulFacts(resolve_condition(model_path, condition)))


def resolve_condition(model_path: Path, condition: Condition | None) -> Condition:
    """The condition that `model_path` says it is of, which a `condition` given by the user must agree with.

    run.json says it, else tokenizer.json: only `mul_tokens` has the facts in its vocabulary.
    """
    found = None
    if (model_path / "run.json").is_file():
        found = read_json(model_path / "run.json").get("condition")
    elif (model_path / "tokenizer.json").is_file():
        tokens = (model_path / "tokenizer.json").read_text(encoding="utf-8")
        found = "mul_tokens" if MulFactTokens().tokens[0] in tokens else "baseline"
    if condition is not None and found is not None and condition != found:
        raise UserError(f"--condition {condition}: {model_path} is a model of {found}; leave the flag out")
    if condition is None and found is None:
        raise UserError(f"{model_path} does not say its condition; give --condition baseline or mul_tokens")
    return condition or found


def prepare_output_dir(config: Any, benchmark: str) -> Path:
    """The output directory of a benchmark's `config`, by default named after the model.

    Raises UserError for a number below 1 in `config`, and for a directory that holds this benchmark's results of
    another model.
    """
    for name in ("max_samples", "max_new_tokens", "batch_size"):
        if getattr(config, name, None) is not None and getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected at least 1")
    model_path = config.model_path
    output_dir = config.output_dir or Path("outputs") / f"eval_{model_path.resolve().name}"
    path = output_dir / f"{benchmark}_results.json"
    if path.exists():
        other = Path(read_json(path)["model_path"])
        if other.resolve() != model_path.resolve():
            raise UserError(f"{output_dir} holds the {benchmark} results of {other}; give another --output-dir")
    return output_dir


def scored_row(
    index: int, question: str, gold: Decimal, completion: Completion, tokenizer: GPT2TokenizerWithMulFacts
) -> dict[str, Any]:
    """One line of a responses file. The text is scored up to where the model starts a turn of the user's.

    Mul tokens are counted in the generated ids: text alone cannot tell the token from its spelling.
    """
    response = tokenizer.decode([i for i in completion.ids if i != EOT_ID])
    strict, flexible = extract_strict(first_turn(response)), extract_flexible(first_turn(response))
    return {
        "index": index,
        "id": str(index),
        "question": question,
        "gold": as_text(gold),
        "response": response,
        "prediction": as_text(strict),
        "prediction_flexible": as_text(flexible),
        "correct": strict == gold,
        "correct_flexible": flexible == gold,
        "mul_tokens": tokenizer.count_mul_tokens(completion.ids),
        "response_tokens": len(completion.ids),
        "finish_reason": completion.finish_reason,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with its 95% interval, and how the responses look. `accuracy` is of the rows' own `correct`."""
    n = len(rows)

    def share(values: list[Any]) -> float:
        return round(sum(values) / n, 6) if n else 0.0

    correct = sum(row["correct"] for row in rows)
    return {
        "accuracy": share([row["correct"] for row in rows]),
        "num_correct": correct,
        "num_total": n,
        "wilson_95": [round(limit, 6) for limit in wilson_interval(correct, n)],
        "no_answer": sum(row["prediction"] is None for row in rows),
        "eos_rate": share([row["finish_reason"] == "stop" for row in rows]),
        "mean_response_tokens": share([row["response_tokens"] for row in rows]),
        "mul_tokens_total": sum(row["mul_tokens"] for row in rows),
        "mul_tokens_per_response": share([row["mul_tokens"] for row in rows]),
    }


def write_outputs(
    output_dir: Path, benchmark: str, rows: list[dict[str, Any]], results: dict[str, Any], record: RunRecord
) -> None:
    """Write {benchmark}_responses.jsonl, {benchmark}_results.json and, last, run_{benchmark}.json.

    The record is not run.json because the benchmarks share a directory; where it lies, the other two are whole.
    """
    results = results | {
        "seconds": round(time.time() - record.started, 2),
        "condition": record.condition,
        "model_path": str(record.parent),
        "data": record.data,
    }
    write_jsonl(output_dir / f"{benchmark}_responses.jsonl", rows)
    write_json(output_dir / f"{benchmark}_results.json", results)
    tokens = sum(row["response_tokens"] for row in rows)
    record.save(output_dir, results, name=f"run_{benchmark}.json", generated_tokens=tokens)


def print_table(header: str, parts: dict[str, dict[str, Any]], output_dir: Path) -> None:
    """One line per part: accuracy, interval, counts, mul tokens."""
    print(f"\n{header:<16} {'accuracy':>9} {'95% interval':>16} {'correct':>11} {'stopped':>8} {'mul tokens':>11}")
    for name, part in parts.items():
        if not part["num_total"]:
            print(f"{name:<16} no item is left")
            continue
        low, high = part["wilson_95"]
        counts = f"{part['num_correct']}/{part['num_total']}"
        print(
            f"{name:<16} {part['accuracy']:>9.2%} {f'{low:.2%} - {high:.2%}':>16} {counts:>11} "
            f"{part['eos_rate']:>8.1%} {part['mul_tokens_total']:>11}"
        )
    print(f"written to {output_dir}")
