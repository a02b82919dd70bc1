"""Evaluate a model directory on HellaSwag: which of four endings of a passage does it find likeliest?

    uv run python eval/run_hellaswag.py --model-path outputs/hf_mul_tokens
    uv run python eval/run_hellaswag.py --model-path outputs/hf_baseline --data-path validation.jsonl --max-samples 1000
    uv run torchrun --standalone --nproc_per_node=8 eval/run_hellaswag.py --model-path outputs/hf_baseline

Three metrics, each under its own name: acc_norm_token (build-nanogpt's), acc_norm_char and acc (those of
lm-evaluation-harness); eval/hellaswag.py says how they differ. Benchmark text is never injected: both conditions are
asked the same. With --contamination, the report of data/check_contamination.py, `clean` has the same over the items
without a flag.
A context that does not fit the model is cut from the left; num_truncated counts the items.
`results` has lm-evaluation-harness's keys for the two metrics that are its own.
Writes hellaswag_results.json, hellaswag_responses.jsonl (every item) and run_hellaswag.json.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.device import pick_dtype
from common.distributed import World, joined_world
from common.errors import run_script
from common.files import write_json, write_jsonl
from common.record import RunRecord
from data.benchmark_texts import hellaswag_texts
from data.hellaswag import HUB_ID, items_sha256, load_hellaswag
from eval.benchmark import load_for_evaluation, prepare_output_dir
from eval.contamination import flagged_ids
from eval.hellaswag import METRICS, ItemScore, score_everywhere, summarise
from eval.lm_eval_keys import result_keys
from tokenizer.mul_facts import Condition


@dataclass
class HellaSwagConfig:
    """Evaluate a model directory on HellaSwag. One process, or many under torchrun."""

    model_path: str  # GPT-2 model directory to evaluate, or a hub id
    output_dir: Path | None = None  # default: outputs/eval_{name of the model}
    data_path: Path | None = None  # a .jsonl or .parquet file or a folder with validation.jsonl; default: the hub's
    max_samples: int | None = None  # only the first so many items
    contamination: Path | None = None  # report of data/check_contamination.py: also score the unflagged items alone
    condition: Condition | None = None  # default: what the model directory says
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto: bfloat16 where it is native
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # recorded with the run; scoring draws nothing


def main() -> None:
    config = parse_config(HellaSwagConfig)
    with joined_world(config.device) as world:
        evaluate(config, world)


def evaluate(config: HellaSwagConfig, world: World) -> None:
    """Score the items on all processes, and write what they found on one."""
    output_dir = prepare_output_dir(config, "hellaswag")
    evaluated = load_for_evaluation(config.model_path, config.condition, world.device)
    condition = evaluated.tokenizer.condition
    all_items = load_hellaswag(config.data_path)
    flagged = set()
    if config.contamination:
        flagged = flagged_ids(config.contamination, "hellaswag", hellaswag_texts(all_items))
    items = all_items[: config.max_samples]
    dtype = pick_dtype(config.dtype, world.device)
    record = RunRecord(
        stage="eval_hellaswag",
        config=config,
        condition=condition,
        seed=config.seed,
        parent=evaluated.path,
        data={"source": str(config.data_path or HUB_ID), "items": len(items), "sha256": items_sha256(items)},
    )

    scores = score_everywhere(evaluated.model, items, evaluated.tokenizer, world, dtype, progress=True)
    if not world.is_main:
        return
    results: dict[str, Any] = summarise(scores) | {"dtype": str(dtype)}
    results["num_truncated"] = sum(score.truncated for score in scores)
    if config.contamination:
        clean = [score for score in scores if score.id not in flagged]
        results["clean"] = summarise(clean) if clean else {}
    # acc and acc_norm_char are the harness's own, on its own text; acc_norm_token is nobody's but ours.
    harness = {"acc,none": "acc", "acc_norm,none": "acc_norm_char"}
    of_harness = {key: [score.correct[metric] for score in scores] for key, metric in harness.items()}
    results |= result_keys("hellaswag", of_harness, len(all_items))
    results |= {"condition": condition, "model_path": str(config.model_path), "data": record.data}
    write_jsonl(output_dir / "hellaswag_responses.jsonl", [response_row(score) for score in scores])
    write_json(output_dir / "hellaswag_results.json", results)
    record.save(output_dir, results, name="run_hellaswag.json", processes=world.size)
    print_results({condition: results} | ({"clean": results["clean"]} if config.contamination else {}), output_dir)


def response_row(score: ItemScore) -> dict[str, Any]:
    """One line of the responses file. Log-probabilities are sums over an ending's tokens, in nats."""
    return {
        "index": score.index,
        "id": score.id,
        "label": score.label,
        "choices": score.choices,
        "correct": score.correct,
        "raw_logprobs": score.raw_logprobs,
        "token_counts": score.token_counts,
        "preprocessed_logprobs": score.preprocessed_logprobs,
        "char_counts": score.char_counts,
        "truncated": score.truncated,
    }


def print_results(parts: dict[str, dict[str, Any]], output_dir: Path) -> None:
    """One line per part and metric: value, standard error, interval, counts."""
    print(f"\n{'hellaswag':<12} {'metric':<16} {'value':>7} {'stderr':>7} {'95% interval':>16} {'correct':>12}")
    for name, part in parts.items():
        for metric in filter(part.get, METRICS):  # none where every item is flagged
            found = part[metric]
            low, high = found["wilson_95"]
            print(
                f"{name:<12} {metric:<16} {found['value']:>7.2%} {found['stderr']:>7.2%} "
                f"{f'{low:.2%} - {high:.2%}':>16} {found['num_correct']:>6}/{found['n']}"
            )
    truncated = next(iter(parts.values()))["num_truncated"]
    print(f"context cut from the left to fit the model: {truncated} items")
    print(f"written to {output_dir}")


if __name__ == "__main__":
    run_script(main)
