"""Ask a model directory the 281 arithmetic probes (data/probes.py) with greedy decoding.

    uv run python eval/run_arithmetic_probes.py --model-path outputs/sft_gsm8k_mul_tokens

A probe counts as right when the number that the response gives is right in any form (flexible reading), so that a model
that was never taught "####" can be asked too; `accuracy_strict` is the share with "#### number".
With --contamination, the report of data/check_contamination.py, `clean` has the same over the probes without a flag.
Writes probes_results.json (overall and per category), probes_responses.jsonl and run_probes.json.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.errors import run_script
from common.record import RunRecord
from data.benchmark_texts import probe_texts
from data.formats import chat_prompt, reasoning_prompt
from data.probes import CATEGORIES, PROBE_SEED, Probe, arithmetic_probes
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

PROMPTS = {"chat": chat_prompt, "reasoning": reasoning_prompt}


@dataclass
class ProbesConfig:
    """Ask a model directory the 281 arithmetic probes with greedy decoding."""

    model_path: Path  # GPT-2 model directory to evaluate
    output_dir: Path | None = None  # default: outputs/eval_{name of the model directory}
    format: Literal["chat", "reasoning"] = "chat"  # how the model was taught to be asked
    max_samples: int | None = None  # only so many probes of each category
    max_new_tokens: int = 64  # longest response
    batch_size: int = 64  # responses generated at the same time
    contamination: Path | None = None  # report of data/check_contamination.py: also score the unflagged probes alone
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = PROBE_SEED  # draws the probes that are not the table; keep it to compare with other runs


def main() -> None:
    config = parse_config(ProbesConfig)
    output_dir = prepare_output_dir(config, "probes")
    evaluated = load_for_evaluation(config.model_path, config.condition, config.device)
    tokenizer = evaluated.tokenizer
    drawn = arithmetic_probes(config.seed)
    flagged = flagged_ids(config.contamination, "probes", probe_texts(drawn)) if config.contamination else set()
    probes = [p for c in CATEGORIES for p in [q for q in drawn if q.category == c][: config.max_samples]]
    record = RunRecord(
        stage="eval_probes",
        config=config,
        condition=tokenizer.condition,
        seed=config.seed,
        parent=config.model_path,
        data={"source": "arithmetic probes", "items": len(probes)},
    )

    prompts = [PROMPTS[config.format](probe.question) for probe in probes]
    completions = evaluated.answer(prompts, config.max_new_tokens, config.batch_size, config.seed)
    rows = [
        probe_row(probe, scored_row(i, probe.question, Decimal(probe.answer), completion, tokenizer))
        for i, (probe, completion) in enumerate(zip(probes, completions, strict=True))
    ]

    results = summarise(rows)
    parts = results["categories"] | {"overall": results}
    if config.contamination:
        results["clean"] = parts["clean"] = clean_results(rows, flagged, summarise)
    write_outputs(output_dir, "probes", rows, results, record)
    print_table(tokenizer.condition, parts, output_dir)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of response rows, overall and by category."""
    return summary(rows) | {
        "accuracy_strict": round(sum(row["correct_strict"] for row in rows) / len(rows), 6),
        "categories": {c: summary(part) for c in CATEGORIES if (part := [row for row in rows if row["category"] == c])},
    }


def probe_row(probe: Probe, row: dict[str, Any]) -> dict[str, Any]:
    """The row of a probe: scored by the flexible reading, the strict one beside it."""
    strict = row.pop("correct")
    return row | {
        "id": probe.question,
        "prediction": row.pop("prediction_flexible"),
        "correct": row.pop("correct_flexible"),
        "correct_strict": strict,
        "category": probe.category,
        "a": probe.a,
        "b": probe.b,
    }


if __name__ == "__main__":
    run_script(main)
