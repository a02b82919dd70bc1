"""Evaluate a model directory on GSM8K, or on word problems in its format.

    uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_mul_tokens
    uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline --data-path data/raw/gsm8k --max-samples 200
    uv run python eval/run_gsm8k.py --model-path outputs/sft_reasoning_baseline --format reasoning \
        --num-samples 16 --temperature 0.7 --top-k 50
    uv run torchrun --standalone --nproc_per_node=8 eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline

Greedy by default; with --num-samples also pass@k and majority@k for several k. `accuracy` is strict: the number after
the last "####", or in <answer>..</answer>. `accuracy_flexible` also takes a number said in another way; `results` has
both exact matches by lm-evaluation-harness's rules. How the other measures are defined: eval/scoring.py. A problem that
does not fit the model's context is skipped, counted in num_skipped and as a wrong answer.
--inject-prompts asks a model of mul_tokens with the products in the questions rewritten too ("tooling and tokens" in
place of tokens alone); the responses file and the comparison know an item by its question as it was.
With --contamination, the report of data/check_contamination.py, `clean` has the same over the items without a flag.

A killed evaluation goes on with the same command; any number of processes gives the same file.
Writes gsm8k_results.json, gsm8k_responses.jsonl (every response) and run_gsm8k.json.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.distributed import World, joined_world
from common.errors import UserError, run_script
from common.record import RunRecord
from data.benchmark_texts import gsm8k_texts
from data.gsm8k import items_sha256, load_gsm8k
from eval.answer_formats import FORMATS, FormatName
from eval.answers import extract_strict
from eval.benchmark import (
    decoding_of,
    injected_questions,
    load_for_evaluation,
    prepare_output_dir,
    print_samples,
    print_table,
    write_outputs,
)
from eval.contamination import clean_results, flagged_ids
from eval.lm_eval_keys import gsm8k_scores, result_keys
from eval.responses import respond
from eval.scoring import sampled_summary, scored_row, summary
from tokenizer.mul_facts import Condition


@dataclass
class GSM8KConfig:
    """Evaluate a model directory on GSM8K. One process, or many under torchrun."""

    model_path: str  # GPT-2 model directory to evaluate, or a hub id
    output_dir: Path | None = None  # default: outputs/eval_{name of the model}, with _samples for several samples
    data_path: str = "openai/gsm8k"  # a .jsonl or .parquet file, a folder with test.jsonl, or a hub id
    format: FormatName = "chat"  # how the model was taught to be asked and to answer
    max_samples: int | None = None  # only the first so many problems
    max_new_tokens: int = 256  # longest response
    num_samples: int = 1  # responses to each problem; pass@k and majority@k need several
    temperature: float = 0.0  # 0: greedy
    top_k: int | None = None  # sample from the so many likeliest tokens
    top_p: float | None = None  # sample from the likeliest tokens that reach this probability
    inject_prompts: bool = False  # rewrite the products in the questions to mul tokens, for models of mul_tokens
    batch_size: int | None = None  # responses generated at the same time; default: what fits
    contamination: Path | None = None  # report of data/check_contamination.py: also score the unflagged problems alone
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # of sampling; greedy decoding draws nothing


@dataclass(frozen=True)
class Problem:
    """A word problem, its number, and the answer as the file has it."""

    question: str
    gold: Decimal
    answer: str


def main() -> None:
    config = parse_config(GSM8KConfig)
    with joined_world(config.device) as world:
        evaluate(config, world)


def evaluate(config: GSM8KConfig, world: World) -> None:
    """Let the model answer on all processes; score and write on one."""
    output_dir = prepare_output_dir(config, "gsm8k")
    evaluated = load_for_evaluation(config.model_path, config.condition, world.device)
    tokenizer, answer_format = evaluated.tokenizer, FORMATS[config.format]
    all_items = load_gsm8k(config.data_path, "test")
    flagged = flagged_ids(config.contamination, "gsm8k", gsm8k_texts(all_items)) if config.contamination else set()
    items = all_items[: config.max_samples]
    problems = read_problems(items, config.data_path)
    record = RunRecord(
        stage="eval_gsm8k",
        config=config,
        condition=tokenizer.condition,
        seed=config.seed,
        parent=evaluated.path,
        data={"source": config.data_path, "items": len(problems), "sha256": items_sha256(items)},
    )

    questions = [problem.question for problem in problems]  # by which an item is known, however it is asked
    families = evaluated.tokenizer.vocabulary.families
    asked = injected_questions(questions, record, families) if config.inject_prompts else questions
    prompts = [answer_format.prompt(question) for question in asked]
    decoding = decoding_of(config, answer_format.stop_ids)
    completions = respond(evaluated, prompts, decoding, world, output_dir, "gsm8k", config.batch_size)
    if not world.is_main:
        return
    rows = [
        scored_row(i, problem.question, problem.gold, completion, tokenizer, answer_format, sample)
        for i, (problem, samples) in enumerate(zip(problems, completions, strict=True))
        for sample, completion in enumerate(samples)
    ]

    results = summarise(rows)
    parts = {tokenizer.condition: results}
    if config.contamination:
        results["clean"] = parts["clean"] = clean_results(rows, flagged, summarise)
    if config.num_samples == 1:
        scores = gsm8k_scores([row["response"] for row in rows], [problem.answer for problem in problems])
        results |= result_keys("gsm8k", scores, len(all_items))
    write_outputs(output_dir, "gsm8k", rows, results, record, world)
    print_table("gsm8k", parts, output_dir)
    if config.num_samples > 1:
        print_samples(results)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of response rows, in both readings; of several samples also what they say together."""
    results = summary(rows) | {
        "accuracy_flexible": round(sum(row["correct_flexible"] for row in rows) / len(rows), 6),
    }
    return results | (sampled_summary(rows) if results["num_items"] < len(rows) else {})


def read_problems(items: list[dict[str, str]], source: str) -> list[Problem]:
    """GSM8K items with their numbers read out; UserError naming `source` for an answer that has none."""
    problems = []
    for number, item in enumerate(items, start=1):
        gold = extract_strict(item["answer"])
        if gold is None:
            raise UserError(f"{source}, item {number}: the answer has no number after '####'")
        problems.append(Problem(item["question"], gold, item["answer"]))
    return problems


if __name__ == "__main__":
    run_script(main)
