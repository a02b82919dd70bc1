"""Evaluate a model directory on GSM8K, or on word problems in its format, with greedy decoding.

    uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_mul_tokens
    uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline --data-path data/raw/gsm8k --max-samples 200

`accuracy` is strict: the number after the last "####". `accuracy_flexible` also takes a number said in another way.
Writes gsm8k_results.json, gsm8k_responses.jsonl (every response) and run_gsm8k.json.
"""

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_jsonl
from common.record import RunRecord
from data.formats import chat_prompt
from eval.answers import extract_strict
from eval.benchmark import (
    load_for_evaluation,
    prepare_output_dir,
    print_table,
    scored_row,
    summary,
    write_outputs,
)
from tokenizer.mul_facts import Condition

HUB_TIMEOUT_SECONDS = 5


@dataclass
class GSM8KConfig:
    """Evaluate a model directory on GSM8K with greedy decoding."""

    model_path: Path  # GPT-2 model directory to evaluate
    output_dir: Path | None = None  # default: outputs/eval_{name of the model directory}
    data_path: str = "openai/gsm8k"  # a .jsonl or .parquet file, a folder with test.jsonl, or a hub id
    max_samples: int | None = None  # only the first so many problems
    max_new_tokens: int = 256  # longest response
    batch_size: int = 64  # responses generated at the same time
    condition: Condition | None = None  # default: what the model directory says
    device: str = "auto"  # auto, cpu, cuda or mps
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
    problems = load_problems(config.data_path)[: config.max_samples]
    content = "\x1e".join(f"{problem.question}\x1f{problem.gold}" for problem in problems)
    record = RunRecord(
        stage="eval_gsm8k",
        config=config,
        condition=tokenizer.condition,
        seed=config.seed,
        parent=config.model_path,
        data={
            "source": config.data_path,
            "items": len(problems),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        },
    )

    prompts = [chat_prompt(problem.question) for problem in problems]
    completions = evaluated.answer(prompts, config.max_new_tokens, config.batch_size, config.seed)
    rows = [
        scored_row(i, problem.question, problem.gold, completion, tokenizer)
        for i, (problem, completion) in enumerate(zip(problems, completions, strict=True))
    ]

    results = summary(rows)
    results["accuracy_flexible"] = round(sum(row["correct_flexible"] for row in rows) / len(rows), 6)
    write_outputs(output_dir, "gsm8k", rows, results, record)
    print_table("gsm8k", {tokenizer.condition: results}, output_dir)


def load_problems(data_path: str) -> list[Problem]:
    """The test problems from a file, a folder with test.jsonl, or the hub; UserError when they cannot be had."""
    path = Path(data_path)
    if path.is_dir():
        path = path / "test.jsonl"
    if path.suffix == ".parquet" and path.is_file():
        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from None
    elif path.exists() or path.suffix in (".jsonl", ".parquet"):
        rows = read_jsonl(path)
    else:
        rows = _load_from_hub(data_path)
    problems = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "answer")):
            raise UserError(f'{path}, problem {number}: expected the strings "question" and "answer"')
        gold = extract_strict(row["answer"])
        if gold is None:
            raise UserError(f"{path}, problem {number}: the answer has no number after '####'")
        problems.append(Problem(row["question"], gold))
    if not problems:
        raise UserError(f"{path} holds no problems")
    return problems


def _load_from_hub(hub_id: str) -> list[dict]:
    import datasets
    from huggingface_hub import HfApi

    try:
        # `datasets` would try an unreachable hub again and again for half a minute.
        HfApi().dataset_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
    except Exception:  # no network, a proxy's answer, offline mode: the cache may still hold the data
        datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(hub_id, "main", split="test").to_list()
    except Exception as error:
        raise UserError(
            f"{hub_id} is neither a local file or folder nor readable from the hub ({type(error).__name__}); "
            "give --data-path a .jsonl file or a folder with test.jsonl"
        ) from None


if __name__ == "__main__":
    run_script(main)
