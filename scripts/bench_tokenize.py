"""What injection costs: prose injected and tokenized beside prose tokenized only. Goal: at most 10% more time.

    uv run python scripts/bench_tokenize.py
    uv run python scripts/bench_tokenize.py --input data/raw/part_000.parquet --output outputs/bench_tokenize.json

One thread. The two variants take turns document by document, and the ratio is the median of the rounds' ratios, so
that a machine that slows down or is shared slows both alike.
"""

import random
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import write_json
from data.documents import read_documents
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import InjectionStats, MulExpressionInjector

GOAL = 1.10


@dataclass
class BenchConfig:
    """Time tokenizing with and without injection."""

    input: Path | None = None  # .txt, .jsonl, .parquet or a folder of them; without it, generated prose
    rounds: int = 15  # rounds of both variants; medians are over these
    max_characters: int = 2_000_000  # documents beyond these are not read
    seed: int = 0  # of the generated prose
    output: Path | None = None  # write the numbers here as JSON too


def main() -> None:
    config = parse_config(BenchConfig)
    if config.rounds < 1:
        raise UserError(f"--rounds must be at least 1, found {config.rounds}")
    documents = generate_prose(config) if config.input is None else read_documents(config.input)
    documents = first_characters(documents, config.max_characters)
    if not any(documents):
        raise UserError(f"{config.input}: no text in it (or --max-characters is 0)")
    tokenizer = GPT2TokenizerWithMulFacts("mul_tokens")
    injector = MulExpressionInjector()

    def tokenize(document: str) -> None:
        tokenizer.encode(document, allow_special=False)

    def inject_and_tokenize(document: str) -> None:
        tokenizer.encode(injector.inject(document), allow_special=False)

    variants = (tokenize, inject_and_tokenize)
    alone, both = [], []
    for i in tqdm(range(config.rounds + 1), desc="rounds"):
        seconds = dict.fromkeys(variants, 0.0)
        for j, document in enumerate(documents):
            # The second to see a document finds it in the cache, so they swap from one to the next.
            for variant in variants if (i + j) % 2 == 0 else reversed(variants):
                start = time.perf_counter()
                variant(document)
                seconds[variant] += time.perf_counter() - start
        if i > 0:  # the first round fills caches
            alone.append(seconds[tokenize])
            both.append(seconds[inject_and_tokenize])

    stats = sum((injector.inject_with_stats(document)[1] for document in documents), InjectionStats())
    ratio = statistics.median(b / a for a, b in zip(alone, both, strict=True))
    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    results = {
        "source": "generated prose (synthetic)" if config.input is None else str(config.input),
        "documents": len(documents),
        "megabytes": round(megabytes, 3),
        "products_injected": stats.injected,
        "tokenize_seconds": statistics.median(alone),
        "inject_and_tokenize_seconds": statistics.median(both),
        "ratio": ratio,
        "goal": GOAL,
    }
    print(f"{results['source']}: {len(documents)} documents, {megabytes:.2f} MB, {stats.injected} products injected")
    for name, times in (("tokenize", alone), ("inject + tokenize", both)):
        median = statistics.median(times)
        print(f"{name:18} {median * 1000:8.1f} ms   {megabytes / median:6.2f} MB/s")
    print(f"ratio {ratio:.3f} (goal: at most {GOAL:.2f}): {'met' if ratio <= GOAL else 'missed'}")
    if config.output is not None:
        write_json(config.output, results)


def first_characters(documents: Iterable[str], limit: int) -> list[str]:
    """The first documents, up to about `limit` characters in all."""
    kept, total = [], 0
    for document in documents:
        if total >= limit:
            break
        kept.append(document)
        total += len(document)
    return kept


def generate_prose(config: BenchConfig) -> list[str]:
    """Documents of made-up words in sentences, with the numbers and the rare products that web text has."""
    rng = random.Random(config.seed)
    syllables = ["ta", "ren", "mi", "sol", "ex", "ver", "con", "li", "dro", "ing", "ed", "an", "tion", "er", "o", "pe"]
    syllables += [
        "ka",
        "ly",
        "ment",
        "re",
        "sub",
        "qui",
        "ster",
        "in",
        "al",
        "ous",
        "ble",
        "ma",
        "hou",
        "wen",
        "fy",
        "b",
    ]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(5000)]
    documents, total = [], 0
    while total < config.max_characters:
        sentences = []
        for _ in range(rng.randint(10, 80)):
            sentence = rng.choices(words, k=rng.randint(5, 25))
            if rng.random() < 0.2:
                sentence.insert(2, str(rng.randint(1, 2030)))
            if rng.random() < 0.001:
                sentence.insert(3, f"{rng.randint(1, 9)} x {rng.randint(1, 9)}")
            sentences.append(" ".join(sentence).capitalize() + ".")
        documents.append(" ".join(sentences))
        total += len(documents[-1])
    return documents


if __name__ == "__main__":
    run_script(main)
