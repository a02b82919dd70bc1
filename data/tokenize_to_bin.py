"""Documents to token shards for one condition.

    uv run python data/tokenize_to_bin.py --condition baseline
    uv run python data/tokenize_to_bin.py --condition mul_tokens
    uv run python data/tokenize_to_bin.py --condition mul_tokens --input /corpora/fineweb_edu \
        --out-dir data/processed/mul_tokens --workers 16

Reads data/raw/train_{condition}.txt or what --input names (data/documents.py says which files), and writes
train_00000.npy, ..., val_00000.npy, ... and meta.json to data/processed/{condition}. Each document is
end-of-text and then its ids. In mul_tokens, documents are injected first; in files that data/prepare_text.py
has injected already, this finds nothing to do. Which documents are held out for validation depends on their
numbers alone, so that both conditions of one corpus hold out the same ones.
"""

import functools
import hashlib
import multiprocessing
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_directory, read_json, sha256_file, write_json
from data.documents import document_files, read_documents
from data.shards import ShardWriter, Split, fingerprint
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import EOT_ID, FIRST_MUL_ID, Condition, MulFactTokens

BATCH_CHARACTERS = 1_000_000  # of text per task of a worker
BYTES_WORTH_A_WORKER = 8_000_000  # of input; below, starting another process takes longer than it saves


@dataclass
class TokenizeConfig:
    """Turn documents into uint16 token shards and meta.json for one condition."""

    condition: Condition  # mul_tokens rewrites products to their tokens, baseline leaves text alone
    input: Path | None = None  # .txt, .jsonl, .parquet or folder; default data/raw/train_{condition}.txt
    out_dir: Path | None = None  # folder of the shards; default data/processed/{condition}
    shard_size: int = 100_000_000  # tokens per shard; a split's last one holds the rest
    val_fraction: float = 0.02  # share of the documents that goes to validation
    injection_mode: Literal["weak", "strict", "none"] = "weak"  # for mul_tokens: which products are rewritten
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)  # processes; fewer for small inputs


@dataclass
class Encoded:
    """A batch of documents as ids, with counts per split."""

    tokens: dict[Split, np.ndarray]
    counts: dict[Split, Counter]
    injection: Counter
    injected_before: int  # documents that held mul tokens as text when they were read


def main() -> None:
    config = parse_config(TokenizeConfig)
    meta = tokenize(config)
    for split, counts in meta["splits"].items():
        share = counts["mul_tokens"] / counts["tokens"]
        print(
            f"{split}: {counts['documents']:,} documents, {counts['tokens']:,} tokens, "
            f"{counts['mul_tokens']:,} mul tokens ({share:.3%}), "
            f"{counts['text_characters'] / counts['tokens']:.2f} characters per token"
        )
    print(f"wrote {len(meta['shards'])} shards and meta.json to {meta['out_dir']}")


def tokenize(config: TokenizeConfig) -> dict[str, Any]:
    """Write the shards and meta.json that `config` asks for; return meta.json's contents.

    The output folder is replaced as a whole at the end, so a run that fails or is killed leaves the old.
    """
    source = config.input or Path(f"data/raw/train_{config.condition}.txt")
    out_dir = (config.out_dir or Path(f"data/processed/{config.condition}")).resolve()
    if config.shard_size < 1 or config.workers < 1 or not 0 < config.val_fraction < 1:
        raise UserError("--shard-size and --workers must be at least 1, --val-fraction between 0 and 1")
    files = document_files(source)
    _refuse_foreign_folder(out_dir, config.condition)
    statistics = _statistics(source)
    mode = config.injection_mode if config.condition == "mul_tokens" else "none"
    _refuse_second_injection(source, mode, statistics)

    encode = functools.partial(encode_documents, config.condition, mode, config.val_fraction)
    workers = min(config.workers, 1 + sum(file.stat().st_size for file in files) // BYTES_WORTH_A_WORKER)
    documents_hash = hashlib.sha256()
    counts: dict[Split, Counter] = {split: Counter() for split in get_args(Split)}
    injection: Counter = Counter()
    injected_before = 0

    with atomic_directory(out_dir) as partial:
        writers = {split: ShardWriter(partial, split, config.shard_size) for split in counts}
        batches = _batches(read_documents(source), documents_hash)
        with tqdm(desc=f"tokenizing {source}", unit=" tokens", unit_scale=True) as bar:
            for encoded in _map_in_order(encode, batches, workers):
                injection.update(encoded.injection)
                injected_before += encoded.injected_before
                if injected_before and config.condition == "baseline":
                    raise UserError(f"{source} holds mul tokens; baseline takes the text before injection")
                for split, tokens in encoded.tokens.items():
                    writers[split].add(tokens)
                    counts[split].update(encoded.counts[split])
                    bar.update(len(tokens))
        _require_documents(source, counts)
        shards = [entry for writer in writers.values() for entry in writer.close()]
        # Text that arrives injected no longer shows what it was; prepare_text.py noted the same hash before.
        before = statistics.get("documents_sha256") if injected_before else documents_hash.hexdigest()
        if injected_before:
            _restore_text_bytes(source, config.val_fraction, counts)
        meta = {
            "condition": config.condition,
            "tokenizer_fingerprint": _tokenizer(config.condition).fingerprint,
            "documents_sha256": before,
            "splits": {split: _split_record(split, counts[split], shards) for split in counts},
            "shards": shards,
            "val_fraction": config.val_fraction,
            "injection": {"mode": mode, **injection},
            "source": {
                "path": str(source),
                "files": [{"name": file.name, "sha256": sha256_file(file)} for file in files],
                "documents_injected_before": injected_before,
            },
        }
        write_json(partial / "meta.json", meta)
    return meta | {"out_dir": str(config.out_dir or f"data/processed/{config.condition}")}


def encode_documents(condition: Condition, mode: str, val_fraction: float, batch: tuple[int, list[str]]) -> Encoded:
    """Ids and counts of a batch of documents; `batch` is the number of the first one and their texts."""
    first, texts = batch
    injection: Counter = Counter()
    injected_before = sum(_holds_mul_token(text) for text in texts)
    injected = texts
    if mode != "none":
        pairs = [_injector(mode).inject_with_stats(text) for text in texts]
        injected = [text for text, _ in pairs]
        for _, stats in pairs:
            injection.update(vars(stats))
    # One thread: parallel work is for whole processes, since everything around the encoding holds the GIL.
    all_ids = _tokenizer(condition).encode_batch(injected, allow_special=False, num_threads=1)

    ids: dict[Split, list[int]] = {split: [] for split in get_args(Split)}
    counts: dict[Split, Counter] = {split: Counter() for split in ids}
    for number, (text, document) in enumerate(zip(texts, all_ids, strict=True), start=first):
        split: Split = "val" if is_validation(number, val_fraction) else "train"
        ids[split].append(EOT_ID)
        ids[split].extend(document)
        counts[split].update(documents=1, text_characters=len(text), text_bytes=len(_utf8(text)))
    tokens = {split: np.array(ids[split], dtype=np.uint16) for split in ids}
    for split, array in tokens.items():
        counts[split]["tokens"] = len(array)
        counts[split]["mul_tokens"] = int(np.count_nonzero(array >= FIRST_MUL_ID))
    return Encoded(tokens, counts, injection, injected_before)


def is_validation(number: int, val_fraction: float) -> bool:
    """Whether document `number` is held out: a hash of the number, in [0, 1), is below `val_fraction`.

    Not of its text, which injection changes; not every 50th, because corpora have periods.
    """
    digest = hashlib.blake2b(str(number).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 < val_fraction


def _batches(documents: Iterable[str], documents_hash: Any) -> Iterator[tuple[int, list[str]]]:
    """Group documents to tasks, each with its first one's number; hash them (UTF-8 and a zero byte) as they pass."""
    first, texts, size = 0, [], 0
    for text in documents:
        documents_hash.update(_utf8(text) + b"\0")
        texts.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield first, texts
            first, texts, size = first + len(texts), [], 0
    if texts:
        yield first, texts


def _map_in_order(function: Any, tasks: Iterable[Any], workers: int) -> Iterator[Any]:
    """map() over processes, a few tasks ahead at most: Executor.map would read the whole corpus first."""
    if workers == 1:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending: deque = deque()
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _utf8(text: str) -> bytes:
    # JSON can hold half of a surrogate pair, which no UTF-8 can; the tokenizer replaces it too.
    return text.encode(errors="replace")


# Built once in each process.
@functools.cache
def _tokenizer(condition: Condition) -> GPT2TokenizerWithMulFacts:
    return GPT2TokenizerWithMulFacts(condition)


@functools.cache
def _injector(mode: Literal["weak", "strict"]) -> MulExpressionInjector:
    return MulExpressionInjector(mode)


@functools.cache
def _mul_tokens() -> list[str]:
    return MulFactTokens().tokens


def _holds_mul_token(text: str) -> bool:
    return "<MUL_" in text and any(token in text for token in _mul_tokens())


def _split_record(split: Split, counts: Counter, shards: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [(s["name"], s["tokens"], s["digest"]) for s in shards if s["split"] == split]
    names = ("documents", "tokens", "mul_tokens", "text_bytes", "text_characters")
    return {name: counts[name] for name in names} | {"fingerprint": fingerprint(entries)}


def _statistics(source: Path) -> dict[str, Any]:
    """What data/prepare_text.py noted beside its file; empty for other sources."""
    path = source.parent / f"{source.stem.removeprefix('train_')}_stats.json"
    return read_json(path) if path.exists() else {}


def _restore_text_bytes(source: Path, val_fraction: float, counts: dict[Split, Counter]) -> None:
    """Set `text_bytes` to the documents' sizes before injection, as data/prepare_text.py noted them; else None.

    A loss per byte is compared between conditions, so it must be per byte of the same text.
    """
    path = source.parent / f"{source.stem.removeprefix('train_')}_bytes.json"
    sizes = read_json(path) if path.exists() else []
    known = len(sizes) == sum(count["documents"] for count in counts.values())
    for split, count in counts.items():
        of_split = (size for i, size in enumerate(sizes) if is_validation(i, val_fraction) == (split == "val"))
        count["text_bytes"] = sum(of_split) if known else None


def _refuse_second_injection(source: Path, mode: str, statistics: dict[str, Any]) -> None:
    """A weak pass over text that was injected strictly would quietly make it weak."""
    before = (statistics.get("injection") or {}).get("mode", mode)
    if mode not in (before, "none"):
        raise UserError(f"{source} was injected in {before} mode; give --injection-mode {before}")


def _require_documents(source: Path, counts: dict[Split, Counter]) -> None:
    found = sum(count["documents"] for count in counts.values())
    for split, count in counts.items():
        if not count["documents"]:
            remedy = "give more documents" + (f" or another --val-fraction for the {split} split" if found else "")
            raise UserError(f"{source}: {found} documents leave none for the {split} split; {remedy}")


def _refuse_foreign_folder(out_dir: Path, condition: Condition) -> None:
    """The output folder is replaced, so it must hold nothing but an earlier output."""
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir} is a file; name a folder with --out-dir")
    for path in out_dir.iterdir() if out_dir.exists() else ():
        if not re.fullmatch(r"(train|val)_\d{5,}\.npy|meta\.json", path.name):
            raise UserError(f"{out_dir} holds {path.name}, which is no token shard; name another folder with --out-dir")
    if (out_dir / "meta.json").exists() and (found := read_json(out_dir / "meta.json").get("condition")) != condition:
        raise UserError(f"{out_dir} holds the shards of {found}; name another folder with --out-dir")


if __name__ == "__main__":
    run_script(main)
