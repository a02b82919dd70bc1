"""Evaluate a model directory on GSM8K, or on word problems in its format, with greedy decoding.

    uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_mul_tokens
    uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline --data-path data/raw/gsm8k --max-samples 200

`accuracy` is strict: the number after the last "####". `accuracy_flexible` also takes a number said in another way.
With --contamination, the report of data/check_contamination.py, `clean` has the same over the items without a flag.
Writes gsm8k_results.json, gsm8k_responses.jsonl (every response) and run_gsm8k.json.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.errors import UserError, run_script
from common.record import RunRecord
from data.benchmark_texts import gsm8k_texts
from data.formats import chat_prompt
from data.gsm8k import items_sha256, load_gsm8k
from eval.answers import extract_strict
from eval.benchmark import (
    load_for_evaluation,
    prepare_output_dir,
    print_table,
    scored_row,
    summary,
    write_outputs,
)
from eval.contamination import clean_results, flagged_ids
from tokenizer.mul_facts import Condition


@dataclass
class GSM8KConfig:
    """Evaluate a model directory on GSM8K with greedy decoding."""

    model_path: Path  # GPT-2 model directory to evaluate
    output_dir: Path | None = None  # default: outputs/eval_{name of the model directory}
    data_path: str = "openai/gsm8k"  # a .jsonl or .parquet file, a folder with test.jsonl, or a hub id
    max_samples: int | None = None  # only the first so many problems
    max_new_tokens: int = 256  # longest response
    batch_size: int = 64  # responses generated at the same time
    contamination: Path | None = None  # report of data/check_contamination.py: also score the unflagged problems alone
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # recorded with the run; greedy decoding draws nothing


@dataclass(frozen=True)
class Problem:
    """A word problem and its number."""

    question: str
    gold: Decimal


def main() -> None:
    config = parse_config(GSM8KConfig)
    output_dir = prepare_output_dir(config, "gsm8k")
    evaluated = load_for_evaluation(config.model_path, config.condition, config.device)
    tokenizer = evaluated.tokenizer
    all_items = load_gsm8k(config.data_path, "test")
    flagged = flagged_ids(config.contamination, "gsm8k", gsm8k_texts(all_items)) if config.contamination else set()
    items = all_items[: config.max_samples]
    problems = read_problems(items, config.data_path)
    record = RunRecord(
        stage="eval_gsm8k",
        config=config,
        condition=tokenizer.condition,
        seed=config.seed,
        parent=config.model_path,
        data={
            "source": config.data_path,
            "items": len(problems),
            "sha256": items_sha256(items),
        },
    )

    prompts = [chat_prompt(problem.question) for problem in problems]
    completions = evaluated.answer(prompts, config.max_new_tokens, config.batch_size, config.seed)
    rows = [
        scored_row(i, problem.question, problem.gold, completion, tokenizer)
        for i, (problem, completion) in enumerate(zip(problems, completions, strict=True))
    ]

    results = summarise(rows)
    parts = {tokenizer.condition: results}
    if config.contamination:
        results["clean"] = parts["clean"] = clean_results(rows, flagged, summarise)
    write_outputs(output_dir, "gsm8k", rows, results, record)
    print_table("gsm8k", parts, output_dir)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of response rows, in both readings."""
    return summary(rows) | {
        "accuracy_flexible": round(sum(row["correct_flexible"] for row in rows) / len(rows), 6),
    }


def read_problems(items: list[dict[str, str]], source: str) -> list[Problem]:
    """GSM8K items with their numbers read out; UserError naming `source` for an answer that has none."""
    problems = []
    for number, item in enumerate(items, start=1):
        gold = extract_strict(item["answer"])
        if gold is None:
            raise UserError(f"{source}, item {number}: the answer has no number after '####'")
        problems.append(Problem(item["question"], gold))
    return problems


if __name__ == "__main__":
    run_script(main)
