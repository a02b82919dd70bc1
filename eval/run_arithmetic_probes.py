"""Ask a model directory short questions about arithmetic (data/probes.py) with greedy decoding.

    uv run python eval/run_arithmetic_probes.py --model-path outputs/sft_gsm8k_mul_tokens
    uv run python eval/run_arithmetic_probes.py --model-path outputs/sft_reasoning_baseline --format reasoning \
        --sets word_problems sanity

Three sets, each a benchmark with files of its own: `probes`, the 281; `sanity`, 50 that are simpler still; and
`word_problems`, 256 of one step, half of them a multiplication, with names and objects that no training text of ours
holds.

A question counts as right when the number that the response gives is right in any form (flexible reading), so that a
model that was never taught "####" can be asked too; `accuracy_strict` is the share in the form that was taught.
--inject-prompts asks a model of mul_tokens with the products in the questions rewritten, as eval/run_gsm8k.py does.
With --contamination, the report of data/check_contamination.py, `clean` has the same over the probes without a flag.
A killed evaluation goes on with the same command; any number of processes gives the same files.
Writes, per set, {set}_results.json (overall and per category), {set}_responses.jsonl and run_{set}.json.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.distributed import World, joined_world
from common.errors import run_script
from common.record import RunRecord
from data.benchmark_texts import probe_texts
from data.probes import PROBE_SEED, PROBE_SETS, Probe
from eval.answer_formats import FORMATS, FormatName
from eval.benchmark import (
    decoding_of,
    injected_questions,
    load_for_evaluation,
    prepare_output_dir,
    print_table,
    write_outputs,
)
from eval.contamination import clean_results, flagged_ids
from eval.responses import EvaluatedModel, respond
from eval.scoring import scored_row, summary
from tokenizer.mul_facts import Condition

SetName = Literal["probes", "sanity", "word_problems"]


@dataclass
class ProbesConfig:
    """Ask a model directory short questions about arithmetic with greedy decoding."""

    model_path: str  # GPT-2 model directory to evaluate, or a hub id
    output_dir: Path | None = None  # default: outputs/eval_{name of the model}
    sets: tuple[SetName, ...] = ("word_problems", "sanity", "probes")  # which questions, in this order
    format: FormatName = "chat"  # how the model was taught to be asked and to answer
    max_samples: int | None = None  # only so many questions of each category
    max_new_tokens: int = 64  # longest response
    inject_prompts: bool = False  # rewrite the products in the questions to mul tokens, for models of mul_tokens
    batch_size: int | None = None  # responses generated at the same time; default: what fits
    contamination: Path | None = None  # report of data/check_contamination.py: also score the unflagged probes alone
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = PROBE_SEED  # draws the questions, but for the table; keep it to compare with other runs


def main() -> None:
    config = parse_config(ProbesConfig)
    with joined_world(config.device) as world:
        output_dir = prepare_output_dir(config, *config.sets)
        flagged = set()
        if config.contamination and "probes" in config.sets:
            texts = probe_texts(PROBE_SETS["probes"](config.seed))
            flagged = flagged_ids(config.contamination, "probes", texts)
        evaluated = load_for_evaluation(config.model_path, config.condition, world.device)
        for name in config.sets:
            evaluate(name, config, evaluated, world, output_dir, flagged)


def evaluate(
    name: SetName, config: ProbesConfig, evaluated: EvaluatedModel, world: World, output_dir: Path, flagged: set[str]
) -> None:
    """Ask one set on all processes; score and write on one."""
    drawn = PROBE_SETS[name](config.seed)
    categories = dict.fromkeys(probe.category for probe in drawn)
    probes = [p for c in categories for p in [q for q in drawn if q.category == c][: config.max_samples]]
    tokenizer, answer_format = evaluated.tokenizer, FORMATS[config.format]
    record = RunRecord(
        stage=f"eval_{name}",
        config=config,
        condition=tokenizer.condition,
        seed=config.seed,
        parent=evaluated.path,
        data={"source": "arithmetic probes" if name == "probes" else name, "items": len(probes)},
    )

    questions = [probe.question for probe in probes]  # by which an item is known, however it is asked
    families = evaluated.tokenizer.vocabulary.families
    asked = injected_questions(questions, record, families) if config.inject_prompts else questions
    prompts = [answer_format.prompt(question) for question in asked]
    decoding = decoding_of(config, answer_format.stop_ids)
    completions = respond(evaluated, prompts, decoding, world, output_dir, name, config.batch_size)
    if not world.is_main:
        return
    rows = [
        probe_row(probe, scored_row(i, probe.question, Decimal(probe.answer), completion, tokenizer, answer_format))
        for i, (probe, [completion]) in enumerate(zip(probes, completions, strict=True))
    ]

    results = summarise(rows)
    parts = results["categories"] | {"overall": results}
    if config.contamination and name == "probes":
        results["clean"] = parts["clean"] = clean_results(rows, flagged, summarise)
    write_outputs(output_dir, name, rows, results, record, world)
    print_table(name, parts, output_dir)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of response rows, overall and by category."""
    categories = dict.fromkeys(row["category"] for row in rows)
    return summary(rows) | {
        "accuracy_strict": round(sum(row["correct_strict"] for row in rows) / len(rows), 6),
        "categories": {c: summary([row for row in rows if row["category"] == c]) for c in categories},
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
