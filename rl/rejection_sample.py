"""Rejection sampling: let a model solve training problems several times and keep what is verified, as SFT data.

    uv run python rl/rejection_sample.py --model-path outputs/sft_gsm8k_mul_tokens \\
        --output-dir outputs/rejection_mul_tokens --condition mul_tokens --num-samples 8
    uv run python sft/sft_gsm8k.py --config sft/configs/gsm8k.yaml --condition mul_tokens --inject-mul-tokens \\
        --model-path outputs/hf_mul_tokens --data-path outputs/rejection_mul_tokens --output-dir outputs/sft_rejection

Kept are responses that give the right number in the format, ended by themselves, hold no false equation, and differ
from one another. Into --output-dir:

    train.jsonl             rows {"question", "answer"} for sft_gsm8k.py, or with --format reasoning rows {"question",
                            "reasoning", "answer"} for sft_reasoning.py; mul tokens stand in them as they were said
    rejection_results.json  problems, samples, how many were right and kept, solved share, pass@k, mul tokens
    run.json                what the run was

Only the train split of --data-path is read. A killed run goes on where it stopped; torchrun shares out the problems.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.config import parse_config
from common.distributed import World, joined_world
from common.errors import UserError, run_script
from common.files import write_json, write_jsonl
from common.record import RunRecord
from data.gsm8k import items_sha256, load_gsm8k
from eval.answer_formats import FORMATS, FormatName
from eval.benchmark import check_flags, decoding_of, load_for_evaluation
from eval.engine import Completion
from eval.pass_at_k import pass_at_k, sample_counts
from eval.responses import remove_partial_responses, respond
from eval.run_gsm8k import read_problems
from rl.equations import facts_in
from rl.token_use import generated_facts
from rl.verified_rows import OUTCOMES, Row, verified_rows
from tokenizer.mul_facts import Condition

STAGE = "rejection_sample"


@dataclass
class RejectionConfig:
    """Sample solutions of training problems and write the verified ones as SFT data."""

    model_path: Path  # GPT-2 model directory that solves the problems
    output_dir: Path  # where train.jsonl goes
    condition: Condition | None = None  # default: what the model directory says
    data_path: str = "openai/gsm8k"  # a .jsonl or .parquet file, a folder with train.jsonl, or a hub id
    format: FormatName = "chat"  # how the model was taught to be asked and to answer
    max_prompts: int | None = None  # only so many problems, drawn by seed
    num_samples: int = 8  # responses to each problem
    keep_per_problem: int = 4  # of the verified ones, those said most often
    temperature: float = 0.8  # of sampling
    max_new_tokens: int = 256  # longest response
    batch_size: int | None = None  # responses generated at the same time; default: what fits
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # of the draw of problems and of sampling


def main() -> None:
    config = parse_config(RejectionConfig)
    check(config)
    with joined_world(config.device) as world:
        sample(config, world)


def check(config: RejectionConfig) -> None:
    """Raise UserError for flags that make no sense, a finished run, and a file of test items."""
    check_flags(config)
    for name in ("max_prompts", "keep_per_problem"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected at least 1")
    if Path(config.data_path).name.startswith("test"):
        raise UserError(f"--data-path {config.data_path} is a test split; sample from training problems")
    if (config.output_dir / "run.json").exists():
        raise UserError(f"{config.output_dir} already holds a finished run; choose another --output-dir")


def sample(config: RejectionConfig, world: World) -> None:
    """Generate on all processes; verify and write on one."""
    items = drawn(load_gsm8k(config.data_path, "train"), config.max_prompts, config.seed)
    problems = read_problems(items, config.data_path)
    solver = load_for_evaluation(config.model_path, config.condition, world.device)
    answer_format = FORMATS[config.format]
    record = RunRecord(
        stage=STAGE,
        config=config,
        condition=solver.tokenizer.condition,
        seed=config.seed,
        parent=config.model_path,
        data={"source": config.data_path, "split": "train", "items": len(items), "sha256": items_sha256(items)},
    )
    prompts = [answer_format.prompt(problem.question) for problem in problems]
    decoding = decoding_of(config, answer_format.stop_ids)
    samples = respond(solver, prompts, decoding, world, config.output_dir, STAGE, config.batch_size)
    if not world.is_main:
        return

    rows: list[Row] = []
    outcomes: list[Counter[str]] = []  # of each problem
    for problem, completions in zip(problems, samples, strict=True):
        found, counts = verified_rows(problem, completions, answer_format, solver.tokenizer, config.keep_per_problem)
        rows += found
        outcomes.append(counts)
    results = summarise(samples, outcomes, rows)
    write_json(config.output_dir / "rejection_results.json", results)
    print_results(results)
    if not rows:
        raise UserError(
            f"no response was right and complete, so there is nothing to train on ({config.output_dir} says why); "
            "take more --num-samples, a lower --temperature or a model that solves some of the problems"
        )
    write_jsonl(config.output_dir / "train.jsonl", rows)
    tokens = sum(len(completion.ids) for completions in samples for completion in completions)
    record.save(config.output_dir, results, generated_tokens=tokens, processes=world.size)
    remove_partial_responses(config.output_dir, STAGE)
    print(f"written to {config.output_dir / 'train.jsonl'}")


def drawn(items: list[dict[str, str]], most: int | None, seed: int) -> list[dict[str, str]]:
    """`most` of the items, in their order."""
    order = np.random.default_rng(seed).permutation(len(items))[:most]
    return [items[i] for i in sorted(order)]


def summarise(samples: list[list[Completion]], outcomes: list[Counter[str]], rows: list[Row]) -> dict[str, Any]:
    """The results: counts over all responses, and shares over problems."""
    flat = [completion for completions in samples for completion in completions]
    n = len(samples[0])
    right = [n - counts["wrong"] for counts in outcomes]
    total = sum(outcomes, Counter())
    return {
        "problems": len(samples),
        "samples_per_problem": n,
        "sampled": len(flat),
        "right": sum(right),
        "kept": len(rows),
        "outcomes": {outcome: total[outcome] for outcome in OUTCOMES},
        "solved": sum(count > 0 for count in right),
        "solved_share": round(sum(count > 0 for count in right) / len(right), 6),
        "pass_at_k": {
            k: round(sum(pass_at_k(n, count, k) for count in right) / len(right), 6) for k in sample_counts(n)
        },
        "ended_share": round(sum(completion.finish_reason == "stop" for completion in flat) / len(flat), 6),
        "mul_tokens_sampled": sum(generated_facts(completion.ids).total() for completion in flat),
        "mul_tokens_kept": sum(len(facts_in(text)) for row in rows for text in row.values()),
    }


def print_results(results: dict[str, Any]) -> None:
    """What came out, in four lines."""
    print(f"problems  {results['problems']:,}, of which solved {results['solved']:,} ({results['solved_share']:.1%})")
    print(f"samples   {results['sampled']:,}, of which right {results['right']:,}, kept {results['kept']:,}")
    print(
        "left out  " + ", ".join(f"{count:,} {name}" for name, count in results["outcomes"].items() if name != "kept")
    )
    print("          " + ", ".join(f"pass@{k} {share:.1%}" for k, share in results["pass_at_k"].items()))


if __name__ == "__main__":
    run_script(main)
