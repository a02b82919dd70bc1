"""Which benchmark items does the training text hold? Finds their 13-grams in token shards, SFT files and documents.

    uv run python data/check_contamination.py --sources data/processed/baseline data/raw/gsm8k/train.jsonl \
        --gsm8k openai/gsm8k --hellaswag Rowan/hellaswag

A source is a folder of token shards (its train split is read, of either condition), a .txt or .parquet file, a folder
of them, or a .jsonl file, of which every string counts: "text", "messages", "question" and "answer", ... Words and
products are compared as data/ngrams.py reads them, so injection hides nothing. An item is flagged when any of its
n-grams occurs inside one document; of an item of fewer than n words, all of it must occur. data/benchmark_texts.py
says what is taken as an item's text.

Writes --output: per benchmark the number of items, their sha256, and per flagged item how many of its n-grams occur,
with examples and places. Evaluations that get this file with --contamination also report the items without a flag. To
compare two conditions on the same items, give the sources of both in one call.
"""

import functools
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_json, write_json, write_text
from data.benchmark_texts import Texts, gsm8k_texts, hellaswag_texts, probe_texts, texts_sha256
from data.documents import document_files, read_file
from data.encoding import map_in_order, tokenizer_of
from data.gsm8k import load_gsm8k
from data.hellaswag import HUB_ID, load_hellaswag
from data.ngrams import NGramIndex
from data.probes import arithmetic_probes
from data.shards import TokenStream, list_shards, open_stream
from tokenizer.families import read_families
from tokenizer.mul_facts import EOT_ID

BATCH_TOKENS = 1 << 18  # of a task of a worker
BATCH_CHARACTERS = 1 << 20
# Shards without end-of-text are cut here; an n-gram across the cut is not found. It is 64 MB of text.
LONGEST_DOCUMENT_TOKENS = 1 << 24
BYTES_WORTH_A_WORKER = 32_000_000  # of sources; below, starting another process takes longer than it saves
SHOWN = 3  # examples and places of an item

Found = dict[int, int]  # number of an n-gram, and where the first document of a batch that holds it stands


@dataclass
class ContaminationConfig:
    """Find the n-grams of benchmark items in training text and flag the items that have one there."""

    sources: tuple[Path, ...]  # shard folders, SFT files (.jsonl), documents (.txt, .jsonl, .parquet, or a folder)
    gsm8k: str | None = None  # GSM8K's test items: a file, a folder with test.jsonl, or openai/gsm8k for the hub
    hellaswag: str | None = None  # HellaSwag's validation items: a file, a folder, or Rowan/hellaswag for the hub
    probes: bool = True  # check the arithmetic probes too
    n: int = 13  # words of an n-gram
    output: Path = Path("outputs/contamination.json")  # the report
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)  # processes; fewer for small sources


def main() -> None:
    config = parse_config(ContaminationConfig)
    if config.n < 1 or config.workers < 1:
        raise UserError("--n and --workers must be at least 1")
    if not config.sources:
        raise UserError("--sources names nothing; give the training text to search")
    for source in config.sources:
        source_files(source)  # a wrong path is an error before the work, not after it
    benchmarks = read_benchmarks(config)

    places: dict[int, list[str]] = {}
    read = []
    with tempfile.TemporaryDirectory() as folder:
        # Each process builds the index from this file, once.
        items_path = Path(folder) / "items.json"
        write_text(items_path, json.dumps(benchmarks))
        index = index_of(items_path, config.n)
        number_of_items = sum(map(len, benchmarks.values()))
        print(f"{number_of_items:,} items of {', '.join(benchmarks)} have {len(index):,} different n-grams")
        for source in config.sources:
            scan = scan_shards if is_shards(source) else scan_texts
            found, described = scan(source, items_path, config.n, workers_for(source, config.workers))
            read.append(described)
            for number, place in found.items():
                places.setdefault(number, []).append(place)

    report = {
        "n": config.n,
        "sources": read,
        "benchmarks": {
            name: {
                "items": len(texts),
                "sha256": texts_sha256(texts),
                "flagged": flagged_items(name, texts, index, places),
            }
            for name, texts in benchmarks.items()
        },
    }
    write_json(config.output, report)
    print_table(report["benchmarks"])
    print(f"written to {config.output}")


def source_files(source: Path) -> list[Path]:
    """The files of a source. Raises UserError when there are none."""
    return list_shards(source, "train") if is_shards(source) else document_files(source)


def is_shards(source: Path) -> bool:
    """Whether a source is a folder of token shards."""
    return source.is_dir() and any(path.suffix in (".npy", ".bin") for path in source.iterdir())


def workers_for(source: Path, most: int) -> int:
    """How many processes the source is worth, `most` at most."""
    return min(most, 1 + sum(file.stat().st_size for file in source_files(source)) // BYTES_WORTH_A_WORKER)


def read_benchmarks(config: ContaminationConfig) -> dict[str, Texts]:
    """The items of the benchmarks that `config` names, by benchmark and id."""
    benchmarks = {}
    if config.gsm8k is not None:
        benchmarks["gsm8k"] = gsm8k_texts(load_gsm8k(config.gsm8k, "test"))
    if config.hellaswag is not None:
        path = None if config.hellaswag == HUB_ID else Path(config.hellaswag)
        benchmarks["hellaswag"] = hellaswag_texts(load_hellaswag(path))
    if config.probes:
        benchmarks["probes"] = probe_texts(arithmetic_probes())
    if not benchmarks:
        raise UserError("nothing to look for; give --gsm8k, --hellaswag or --probes")
    return benchmarks


def scan_shards(source: Path, items_path: Path, n: int, workers: int) -> tuple[dict[int, str], dict[str, Any]]:
    """Where each n-gram first occurs in the train shards of a folder, and what was read."""
    stream = open_stream(source, "train")
    shards = list_shards(source, "train")
    find = functools.partial(find_in_tokens, items_path, n)
    found: dict[int, str] = {}
    with tqdm(total=len(stream), desc=f"reading {source}", unit=" tokens", unit_scale=True) as bar:
        for size, of_batch in map_in_order(find, token_batches(stream), workers):
            for number, token in of_batch.items():
                shard = int(np.searchsorted(stream.borders, token, side="right")) - 1
                found.setdefault(number, f"{shards[shard]}: token {token - stream.borders[shard]}")
            bar.update(size)
    return found, {"path": str(source), "tokens": len(stream), "fingerprint": stream.fingerprint}


def scan_texts(source: Path, items_path: Path, n: int, workers: int) -> tuple[dict[int, str], dict[str, Any]]:
    """Where each n-gram first occurs in the documents of a file or folder, and what was read."""
    files = document_files(source)
    batches = (batch for file in files for batch in text_batches(file))
    find = functools.partial(find_in_texts, items_path, n)
    found: dict[int, str] = {}
    characters = 0
    with tqdm(desc=f"reading {source}", unit=" characters", unit_scale=True) as bar:
        for size, file, of_batch in map_in_order(find, batches, workers):
            for number, document in of_batch.items():
                found.setdefault(number, f"{file}: document {document}")
            bar.update(size)
            characters += size
    return found, {"path": str(source), "characters": characters}


def token_batches(stream: TokenStream) -> Iterator[tuple[int, np.ndarray]]:
    """Whole documents of a stream, a batch at a time: position in the stream, and the ids."""
    start = 0
    while start < len(stream):
        stop = document_border(stream, start + BATCH_TOKENS, start + LONGEST_DOCUMENT_TOKENS)
        yield start, np.array(stream.read(start, stop))
        start = stop


def document_border(stream: TokenStream, start: int, limit: int) -> int:
    """The position of the first end-of-text from `start` on; `limit` or the stream's end when none comes before."""
    limit = min(limit, len(stream))
    for begin in range(start, limit, BATCH_TOKENS):
        borders = np.flatnonzero(stream.read(begin, min(begin + BATCH_TOKENS, limit)) == EOT_ID)
        if len(borders):
            return begin + int(borders[0])
    return limit


def text_batches(file: Path) -> Iterator[tuple[Path, list[int], list[str]]]:
    """The documents of a file, a batch at a time: the file, the number of each in it, from 0, and the texts."""
    documents = jsonl_strings(file) if file.suffix == ".jsonl" else enumerate(read_file(file))
    numbers, texts, size = [], [], 0
    for number, text in documents:
        numbers.append(number)
        texts.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield file, numbers, texts
            numbers, texts, size = [], [], 0
    yield file, numbers, texts


def jsonl_strings(file: Path) -> Iterator[tuple[int, str]]:
    """Every string in the rows of a .jsonl file, with the number of its row. Raises UserError for a row without one."""
    with open(file, "rb") as lines:
        for number, line in enumerate(line for line in lines if line.strip()):
            try:
                strings = list(strings_in(json.loads(line)))
            except ValueError as error:  # not JSON, or not UTF-8
                raise UserError(f"{file}, row {number} (from 0) is not valid JSON: {error}") from None
            if not strings:
                raise UserError(f'{file}, row {number} (from 0) has no text; expected "text", "messages" or the like')
            yield from ((number, string) for string in strings)


def strings_in(value: Any) -> Iterator[str]:
    """The strings of a JSON value, at any depth; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings_in(part)


@functools.cache
def index_of(items_path: Path, n: int) -> NGramIndex:
    """The index of the benchmarks in a file; the same numbers in every process."""
    benchmarks = read_json(items_path)
    return NGramIndex({(name, item): those for name, texts in benchmarks.items() for item, those in texts.items()}, n)


def find_in_tokens(items_path: Path, n: int, batch: tuple[int, np.ndarray]) -> tuple[int, Found]:
    """Number of ids, and the n-grams in them, each with the position in the stream of its document's first id."""
    start, ids = batch
    borders = np.flatnonzero(ids == EOT_ID)
    positions = [start, *(start + borders + 1).tolist()]
    # A family's ids never depend on what else is chosen, so the tokenizer of all reads the ids of every choice, and
    # that of mul_tokens those of both conditions: in baseline none of a family occurs.
    decode = tokenizer_of("mul_tokens", "+".join(read_families())).decode
    texts = [decode(document[document != EOT_ID].tolist()) for document in np.split(ids, borders + 1)]
    return len(ids), {number: positions[i] for number, i in index_of(items_path, n).find(texts).items()}


def find_in_texts(items_path: Path, n: int, batch: tuple[Path, list[int], list[str]]) -> tuple[int, Path, Found]:
    """Number of characters, their file, and the n-grams in them, each with the number of its document."""
    file, numbers, texts = batch
    found = index_of(items_path, n).find(texts)
    return sum(map(len, texts)), file, {number: numbers[i] for number, i in found.items()}


def flagged_items(
    benchmark: str, texts: Texts, index: NGramIndex, places: dict[int, list[str]]
) -> dict[str, dict[str, Any]]:
    """The items of a benchmark with an n-gram in `places` (n-gram number to where it occurs)."""
    flagged = {}
    for item in texts:
        ngrams = index.ngrams_of[benchmark, item]
        found = [number for number in ngrams if number in places]
        if found:
            flagged[item] = {
                "ngrams": len(found),
                "of": len(ngrams),
                "share": round(len(found) / len(ngrams), 6),
                "examples": [index.ngram(number) for number in found[:SHOWN]],
                "sources": list(dict.fromkeys(place for number in found for place in places[number]))[:SHOWN],
            }
    return flagged


def print_table(benchmarks: dict[str, dict[str, Any]]) -> None:
    """One line per benchmark: items, how many are flagged, and how many of these nearly whole."""
    print(f"\n{'benchmark':<12} {'items':>7} {'flagged':>8} {'share':>7} {'half or more of it':>19}")
    for name, part in benchmarks.items():
        shares = [item["share"] for item in part["flagged"].values()]
        half = sum(share >= 0.5 for share in shares)
        print(f"{name:<12} {part['items']:>7,} {len(shares):>8,} {len(shares) / part['items']:>7.2%} {half:>19,}")


if __name__ == "__main__":
    run_script(main)
