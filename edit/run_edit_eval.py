"""Measure what an edit did and what else it changed: an edited model beside itself without the edit.

    uv run python edit/run_edit_eval.py --model-path outputs/memit_hf_baseline --prose data/processed/baseline
    uv run python edit/run_edit_eval.py --model-path outputs/memit_hf_baseline --prose held_out.txt \
        --hellaswag validation.jsonl --probes 100 --output-dir outputs/eval_memit_hf_baseline

The model directory is one that run_memit.py or run_rome.py wrote: it holds the edits and the weights as they were, so
both models are asked the same. Efficacy, paraphrases and neighbourhood (edit/scoring.py says how), generation entropy,
perplexity of --prose, and, paired item by item, the arithmetic probes and HellaSwag. Neighbors that are edited
themselves are set apart.
Writes edit_eval_results.json, edit_eval_texts.jsonl (what was generated) and run_edit_eval.json.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_jsonl, write_json, write_jsonl
from common.record import RunRecord
from data.documents import read_documents
from data.formats import chat_prompt
from data.hellaswag import HellaSwagItem, items_sha256, load_hellaswag
from data.probes import CATEGORIES, arithmetic_probes
from data.shards import open_stream
from edit.directories import EDITS, ORIGINALS, load_parent
from edit.editing import load_originals, revert
from edit.records import load_edits
from edit.report import compare, print_summary
from edit.scoring import generation_entropy, perplexity, score_records
from eval.answers import extract_flexible, first_turn
from eval.engine import generate
from eval.hellaswag import score_items
from eval.stats import paired_difference
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID, Condition


@dataclass
class EditEvalConfig:
    """Measure what an edit did and what else it changed."""

    model_path: Path  # directory that run_memit.py or run_rome.py wrote
    output_dir: Path | None = None  # default: outputs/eval_{name of the model directory}
    prose: Path | None = None  # held-out text: documents, items in HellaSwag's format, or a folder of token shards
    prose_tokens: int = 8192  # of it that are read
    generations: int = 20  # edits whose prompts are continued for the n-gram entropy
    generation_tokens: int = 50  # of each
    probes: int = 0  # arithmetic probes of each category; 100 is all
    probe_tokens: int = 32  # longest answer to a probe
    hellaswag: Path | None = None  # items in HellaSwag's format
    hellaswag_items: int | None = None  # only the first so many
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if it is there, else the CPU
    seed: int = 0  # of the sampled texts


@dataclass
class Measured:
    """Everything that is asked of one model."""

    rows: list[dict[str, Any]]
    entropy: float | None = None
    texts: list[str] | None = None
    perplexity: float | None = None
    probes: list[bool] | None = None
    hellaswag: list[bool] | None = None


def main() -> None:
    config = parse_config(EditEvalConfig)
    if not (config.model_path / ORIGINALS).is_file() or not (config.model_path / EDITS).is_file():
        raise UserError(f"{config.model_path} holds no {ORIGINALS} and {EDITS}; run_memit.py writes such a directory")
    if config.hellaswag_items is not None and config.hellaswag_items < 1:
        raise UserError(f"--hellaswag-items {config.hellaswag_items}: expected at least 1")
    if min(config.generations, config.probes) < 0:
        raise UserError("--generations and --probes: expected 0 or more")
    output_dir = config.output_dir or Path("outputs") / f"eval_{config.model_path.resolve().name}"
    parent = load_parent(str(config.model_path), config.condition, config.device)
    model, tokenizer = parent.model, parent.tokenizer
    records = load_edits(config.model_path / EDITS)
    prose = read_prose(config.prose, tokenizer, model.config.block_size, config.prose_tokens) if config.prose else None
    items = load_hellaswag(config.hellaswag)[: config.hellaswag_items] if config.hellaswag else None
    record = RunRecord("eval_edit", config, tokenizer.condition, config.seed, config.model_path)
    record.data = {"records": len(records), "prose": str(config.prose), "prose_tokens": sum(map(len, prose or []))}
    if items is not None:
        record.data["hellaswag"] = {"items": len(items), "sha256": items_sha256(items)}

    def measure() -> Measured:
        measured = Measured(score_records(model, tokenizer, records))
        if config.generations:
            some = records[: config.generations]
            measured.entropy, measured.texts = generation_entropy(
                model, tokenizer, some, config.generation_tokens, config.seed
            )
        if prose is not None:
            measured.perplexity = perplexity(model, prose)
        if config.probes:
            measured.probes = ask_probes(model, tokenizer, config)
        if items is not None:
            measured.hellaswag = ask_hellaswag(model, items, tokenizer)
        return measured

    after = measure()
    revert(model, load_originals(config.model_path / ORIGINALS))
    before = measure()
    results = {"condition": tokenizer.condition, "model_path": str(config.model_path)}
    results |= compare(records, before.rows, after.rows) | side_effects(before, after)
    write_json(output_dir / "edit_eval_results.json", results)
    texts = zip(before.texts or [], after.texts or [], strict=True)
    write_jsonl(output_dir / "edit_eval_texts.jsonl", [{"before": b, "after": a} for b, a in texts])
    summary = {key: value for key, value in results.items() if key != "edits"}
    record.save(output_dir, summary, name="run_edit_eval.json")
    print_summary(results)
    print_side_effects(results)
    print(f"written to {output_dir}")


def read_prose(path: Path, tokenizer: GPT2TokenizerWithMulFacts, block_size: int, tokens: int) -> list[list[int]]:
    """At most `tokens` token ids of documents, passages or a validation split, in windows of the model's context."""
    if path.is_dir() and any(path.glob("*val*")):
        stream = open_stream(path, "val")
        pieces = [stream.read(0, min(tokens, len(stream))).tolist()]
    else:
        pieces, room = [], tokens
        for text in prose_documents(path):
            pieces.append([EOT_ID, *tokenizer.encode(text, allow_special=False)][:room])
            room -= len(pieces[-1])
            if room <= 0:
                break
    windows = [piece[start : start + block_size] for piece in pieces for start in range(0, len(piece), block_size)]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise UserError(f"--prose {path} holds no text; give documents or a folder of token shards")
    return windows


def prose_documents(path: Path) -> Iterator[str]:
    """The documents of a file or folder; items in HellaSwag's format become passages with their right endings."""
    if path.suffix == ".jsonl" and "endings" in next(iter(read_jsonl(path)), {}):
        return (f"{item.context} {item.endings[item.label]}" for item in load_hellaswag(path))
    return read_documents(path)


def ask_probes(model: GPT, tokenizer: GPT2TokenizerWithMulFacts, config: EditEvalConfig) -> list[bool]:
    """Which arithmetic probes (the first of each category) the model answers, read flexibly."""
    drawn = arithmetic_probes()
    probes = [p for c in CATEGORIES for p in [q for q in drawn if q.category == c][: config.probes]]
    prompts = [chat_prompt(probe.question) for probe in probes]
    completions = generate(
        model,
        tokenizer.encode_batch(prompts, allow_special=False),
        max_new_tokens=config.probe_tokens,
        suppressed_ids=tokenizer.vocabulary.suppressed_ids,
    )
    answers = [tokenizer.decode([i for i in completion.ids if i != EOT_ID]) for [completion] in completions]
    return [
        extract_flexible(first_turn(answer)) == Decimal(probe.answer)
        for probe, answer in zip(probes, answers, strict=True)
    ]


def ask_hellaswag(model: GPT, items: list[HellaSwagItem], tokenizer: GPT2TokenizerWithMulFacts) -> list[bool]:
    """Which items the model gets right by acc_norm_token."""
    weight = model.wte.weight
    scores = score_items(
        model, items, tokenizer, weight.device, weight.dtype, metrics=("acc_norm_token",), progress=True
    )
    return [score.correct["acc_norm_token"] for score in scores]


def side_effects(before: Measured, after: Measured) -> dict[str, Any]:
    """Generation entropy, perplexity, probes and HellaSwag before and after; None where it was not asked for."""
    results: dict[str, Any] = {"generation_entropy": None, "perplexity": None}
    if before.entropy is not None:
        results["generation_entropy"] = {"before": round(before.entropy, 4), "after": round(after.entropy, 4)}
    if before.perplexity is not None:
        ratio = after.perplexity / before.perplexity
        results["perplexity"] = {"before": round(before.perplexity, 4), "after": round(after.perplexity, 4)}
        results["perplexity"]["change"] = round(ratio - 1, 6)
    for name in ("probes", "hellaswag"):
        a, b = getattr(before, name), getattr(after, name)
        results[name] = None
        if a is not None:
            counts = {"before": sum(a) / len(a), "after": sum(b) / len(b)}
            results[name] = counts | asdict(paired_difference(a, b))
    return results


def print_side_effects(results: dict[str, Any]) -> None:
    """One line per side effect that was asked for."""
    for name, form in (("generation_entropy", ".3f"), ("perplexity", ".3f"), ("probes", ".1%"), ("hellaswag", ".1%")):
        found = results[name]
        if found is None:
            continue
        note = ""
        if name == "perplexity":
            note = f"   {found['change']:+.2%}"
        elif "low" in found:
            note = f"   difference {found['difference']:+.1%} [{found['low']:+.1%}, {found['high']:+.1%}]"
        print(f"{name:<22} {found['before']:>8{form}} {found['after']:>8{form}}{note}")


if __name__ == "__main__":
    run_script(main)
