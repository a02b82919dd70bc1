"""How fast text becomes tokens: what injection costs, and the whole path of data/prepare_fineweb.py beside tiktoken.

    uv run python scripts/bench_tokenize.py
    uv run python scripts/bench_tokenize.py --input data/raw/part_000.parquet --output outputs/bench_tokenize.json

Injection: prose injected and tokenized beside prose tokenized only. Goal: at most 10% more time.
Path: reading, mixing, hashing, injecting, encoding, counting and writing shards with one worker, beside tiktoken's own
`encode_batch` on one thread over the same text, which is in memory. Goal: at least 85% of its throughput.

One thread. The two variants of each pair take turns, document by document and batch by batch, and a ratio is the median
of the rounds' ratios, so that a machine that slows down or is shared slows both alike.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import write_json
from data.documents import read_documents
from data.encoding import encode_batch
from data.prepare_fineweb import batches
from data.shard_run import open_shard_run
from data.sources import DocumentSequence, file_source
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import InjectionStats, MulExpressionInjector

GOAL = 1.10
PATH_GOAL = 0.85
ROW_GROUP = 1000  # documents; as in FineWeb's files


@dataclass
class BenchConfig:
    """Time injection beside tokenizing alone, and the path of prepare_fineweb.py beside tiktoken."""

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
    tokenizer, injector = GPT2TokenizerWithMulFacts("mul_tokens"), MulExpressionInjector()
    alone, both = time_injection(documents, config.rounds, tokenizer, injector)
    tiktoken, path = time_path(documents, config.rounds, tokenizer)

    stats = sum((injector.inject_with_stats(document)[1] for document in documents), InjectionStats())
    ratio = statistics.median(b / a for a, b in zip(alone, both, strict=True))
    path_ratio = statistics.median(a / b for a, b in zip(tiktoken, path, strict=True))
    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    results: dict[str, Any] = {
        "source": "generated prose (synthetic)" if config.input is None else str(config.input),
        "documents": len(documents),
        "megabytes": round(megabytes, 3),
        "products_injected": stats.injected,
        "tokenize_seconds": statistics.median(alone),
        "inject_and_tokenize_seconds": statistics.median(both),
        "ratio": ratio,
        "goal": GOAL,
        "tiktoken_batch_seconds": statistics.median(tiktoken),
        "prepare_fineweb_seconds": statistics.median(path),
        "path_throughput_ratio": path_ratio,
        "path_goal": PATH_GOAL,
    }
    print(f"{results['source']}: {len(documents)} documents, {megabytes:.2f} MB, {stats.injected} products injected")
    names = ("tokenize", "inject + tokenize", "tiktoken batch", "prepare_fineweb")
    for name, times in zip(names, (alone, both, tiktoken, path), strict=True):
        median = statistics.median(times)
        print(f"{name:18} {median * 1000:8.1f} ms   {megabytes / median:6.2f} MB/s")
    print(f"ratio {ratio:.3f} (goal: at most {GOAL:.2f}): {'met' if ratio <= GOAL else 'missed'}")
    met = "met" if path_ratio >= PATH_GOAL else "missed"
    print(f"prepare_fineweb's throughput / tiktoken's {path_ratio:.3f} (goal: at least {PATH_GOAL:.2f}): {met}")
    if config.output is not None:
        write_json(config.output, results)


def time_injection(
    documents: list[str], rounds: int, tokenizer: GPT2TokenizerWithMulFacts, injector: MulExpressionInjector
) -> tuple[list[float], list[float]]:
    """Seconds of each round, tokenizing alone and with injection before it."""

    def tokenize(document: str) -> None:
        tokenizer.encode(document, allow_special=False)

    def inject_and_tokenize(document: str) -> None:
        tokenizer.encode(injector.inject(document), allow_special=False)

    variants = (tokenize, inject_and_tokenize)
    alone, both = [], []
    for i in tqdm(range(rounds + 1), desc="rounds: injection"):
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
    return alone, both


def time_path(
    documents: list[str], rounds: int, tokenizer: GPT2TokenizerWithMulFacts
) -> tuple[list[float], list[float]]:
    """Seconds of each round: tiktoken's `encode_batch`, and all that prepare_fineweb.py does to the same documents."""
    tiktoken_seconds, path_seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.parquet"
        pq.write_table(pa.table({"text": documents}), corpus, row_group_size=ROW_GROUP)
        texts = [batch.texts for batch in batches(_sequence(corpus), 0.01)]
        for i in tqdm(range(rounds + 1), desc="rounds: prepare_fineweb"):
            of_tiktoken = of_path = 0.0
            with open_shard_run(Path(folder) / f"out_{i}", {}, shard_size=100_000_000) as run:
                sequence = _sequence(corpus)
                run.begin(sequence)
                stream = batches(sequence, 0.01)

                for j, batch in enumerate(texts):
                    for takes_path in ((i + j) % 2 == 0, (i + j) % 2 == 1):
                        start = time.perf_counter()
                        if takes_path:
                            run.add(encode_batch("mul_tokens", "weak", next(stream)))
                            of_path += time.perf_counter() - start
                        else:
                            tokenizer.encode_batch(batch, allow_special=False, num_threads=1)
                            of_tiktoken += time.perf_counter() - start
                start = time.perf_counter()
                run.finish({})
                of_path += time.perf_counter() - start
            if i > 0:
                tiktoken_seconds.append(of_tiktoken)
                path_seconds.append(of_path)
    return tiktoken_seconds, path_seconds


def _sequence(corpus: Path) -> DocumentSequence:
    return DocumentSequence([file_source(str(corpus), 1.0, "text", 0)], common_bytes=10**12)


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
