"""Ask a model directory what is no arithmetic, and count how often it calculates all the same: domain collapse.

    uv run python eval/run_domains.py --model-path outputs/sft_gsm8k_mul_tokens
    uv run python eval/run_domains.py --model-path outputs/grpo_baseline --format reasoning \
        --before-path outputs/hf_baseline --prose-path held_out.jsonl

40 prompts (data/domain_prompts.py) of five domains, greedy unless --temperature says otherwise. Per domain: share of
responses that calculate (eval/domains.py says what counts), share whose answer is read as a number, share in the form
that was taught. Prompts to be continued are given bare and have no form. Perplexity of prose that no training text
holds, and bits per byte, of the model and of the one that it was trained from.
Writes domains_results.json, domains_responses.jsonl and run_domains.json.
"""

from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.distributed import World, joined_world
from common.errors import UserError, run_script
from common.files import read_json
from common.record import RunRecord
from data.documents import read_documents
from data.domain_prompts import DOMAINS, PROMPTS, PROSE
from eval.answer_formats import FORMATS, FormatName
from eval.answers import first_turn
from eval.benchmark import decoding_of, load_for_evaluation, prepare_output_dir, write_outputs
from eval.domains import is_arithmetic, prose_bits, prose_change, prose_summary
from eval.resampling import share_interval
from eval.responses import EvaluatedModel, respond
from eval.scoring import scored_row
from tokenizer.mul_facts import Condition


@dataclass
class DomainsConfig:
    """Ask a model directory what is no arithmetic, and score prose before and after training."""

    model_path: str  # GPT-2 model directory to evaluate, or a hub id
    output_dir: Path | None = None  # default: outputs/eval_{name of the model}
    before_path: str | None = None  # the model before training; default: the parent that run.json names, if it is there
    prose_path: Path | None = None  # .txt, .jsonl or .parquet of documents to score; default: those of the repository
    max_documents: int = 200  # of prose_path: only the first so many documents
    format: FormatName = "chat"  # how the model was taught to be asked and to answer
    max_samples: int | None = None  # only so many prompts of each domain
    max_new_tokens: int = 128  # longest response
    num_samples: int = 1  # responses to each prompt
    temperature: float = 0.0  # 0: greedy
    top_k: int | None = None  # sample from the so many likeliest tokens
    batch_size: int | None = None  # responses generated at the same time; default: what fits
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # of sampling; greedy decoding draws nothing


def main() -> None:
    config = parse_config(DomainsConfig)
    with joined_world(config.device) as world:
        evaluate(config, world)


def evaluate(config: DomainsConfig, world: World) -> None:
    """Let the model answer on all processes; score, measure prose and write on one."""
    output_dir = prepare_output_dir(config, "domains")
    paragraphs = read_prose(config)
    evaluated = load_for_evaluation(config.model_path, config.condition, world.device)
    tokenizer, answer_format = evaluated.tokenizer, FORMATS[config.format]
    chosen = [p for d in DOMAINS for p in [q for q in PROMPTS if q.domain == d][: config.max_samples]]
    record = RunRecord(
        stage="eval_domains",
        config=config,
        condition=tokenizer.condition,
        seed=config.seed,
        parent=evaluated.path,
        data={"source": "domain prompts", "items": len(chosen), "prose": str(config.prose_path or "built in")},
    )

    prompts = [p.text if p.domain == "continuation" else answer_format.prompt(p.text) for p in chosen]
    decoding = decoding_of(config, answer_format.stop_ids)
    completions = respond(evaluated, prompts, decoding, world, output_dir, "domains", config.batch_size)
    if not world.is_main:
        return
    rows = []
    for i, (prompt, samples) in enumerate(zip(chosen, completions, strict=True)):
        for sample, completion in enumerate(samples):
            # There is no right answer here: the gold of a benchmark's row, and what follows from it, is left out.
            row = scored_row(i, prompt.text, Decimal("NaN"), completion, tokenizer, answer_format, sample)
            row = {key: value for key, value in row.items() if key not in ("gold", "correct", "correct_flexible")}
            row |= {"domain": prompt.domain, "numeric": prompt.numeric}
            rows.append(row | {"arithmetic": is_arithmetic(first_turn(row["response"]))})

    results = {"num_total": len(rows), "overall": summarise(rows)}
    results["domains"] = {d: summarise(part) for d in DOMAINS if (part := [r for r in rows if r["domain"] == d])}
    results["prose"] = measure_prose(evaluated, find_before(config, evaluated), paragraphs, world)
    write_outputs(output_dir, "domains", rows, results, record, world)
    print_results(tokenizer.condition, results, output_dir)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of the responses; `forced_arithmetic` leaves out the prompts in which a number is in its place.

    Its interval counts prompts: several responses to one of them are no more prompts.
    """
    free = [row["arithmetic"] for row in rows if not row["numeric"]]
    formed = [row["format_ok"] for row in rows if row["domain"] != "continuation"]
    low, high = share_interval(free, [row["index"] for row in rows if not row["numeric"]])
    return {
        "num_total": len(rows),
        "forced_arithmetic": round(sum(free) / len(free), 6) if free else None,
        "forced_arithmetic_95": [round(low, 6), round(high, 6)],
        "num_forced": sum(free),
        "num_free": len(free),
        "numeric_answer": round(sum(row["prediction"] is not None for row in rows) / len(rows), 6),
        "format_compliance": round(sum(formed) / len(formed), 6) if formed else None,
        "hit_limit_rate": round(sum(row["finish_reason"] == "length" for row in rows) / len(rows), 6),
    }


def read_prose(config: DomainsConfig) -> list[str]:
    """The documents to score. Raises UserError when there are none."""
    if config.max_documents < 1:
        raise UserError(f"--max-documents {config.max_documents}: expected at least 1")
    if config.prose_path is None:
        return list(PROSE)
    documents = (text for text in read_documents(config.prose_path) if text.strip())
    texts = list(islice(documents, config.max_documents))
    if not texts:
        raise UserError(f"--prose-path {config.prose_path} holds no text")
    return texts


def find_before(config: DomainsConfig, evaluated: EvaluatedModel) -> str | None:
    """The model before training: the one given, else the parent of run.json where its weights still are."""
    if config.before_path is not None or not (evaluated.path / "run.json").is_file():
        return config.before_path
    parent = read_json(evaluated.path / "run.json").get("parent") or {}
    path = Path(parent.get("path") or "")
    return str(path) if parent and (path / "config.json").is_file() else None


def measure_prose(evaluated: EvaluatedModel, before: str | None, paragraphs: list[str], world: World) -> dict[str, Any]:
    """Bits per byte and perplexity of `paragraphs`, before and after training, and what changed."""
    after_bits, tokens = prose_bits(evaluated.model, evaluated.tokenizer, paragraphs, world.device)
    found: dict[str, Any] = {"after": prose_summary(after_bits, tokens, paragraphs)}
    if before is not None:
        parent = load_for_evaluation(before, evaluated.tokenizer.condition, world.device)
        before_bits, tokens = prose_bits(parent.model, parent.tokenizer, paragraphs, world.device)
        found["before"] = prose_summary(before_bits, tokens, paragraphs) | {"model_path": before}
        found["change"] = prose_change(before_bits, after_bits, paragraphs)
    return found


def print_results(condition: str, results: dict[str, Any], output_dir: Path) -> None:
    """One line per domain, and the prose."""
    print(f"\n{condition:<14} {'arithmetic':>10} {'95% interval':>16} {'a number':>9} {'in format':>10}")
    for name, part in (results["domains"] | {"overall": results["overall"]}).items():
        low, high = part["forced_arithmetic_95"]
        shares = [part[key] for key in ("forced_arithmetic", "numeric_answer", "format_compliance")]
        forced, numeric, formed = ("-" if share is None else f"{share:.1%}" for share in shares)
        print(f"{name:<14} {forced:>10} {f'{low:.1%} - {high:.1%}':>16} {numeric:>9} {formed:>10}")
    for name in ("before", "after"):
        if name in results["prose"]:
            part = results["prose"][name]
            print(f"prose {name:<8} {part['bits_per_byte']:.4f} bits per byte, perplexity {part['perplexity']:.1f}")
    print(f"written to {output_dir}")


if __name__ == "__main__":
    run_script(main)
