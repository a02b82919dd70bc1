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
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_directory, read_json, sha256_file, write_json
from data import encoding
from data.documents import document_files, read_documents
from data.encoding import Batch, Mode, encode_batch, is_validation, map_in_order, utf8
from data.shards import ShardWriter, Split
from tokenizer.families import DEFAULT_FAMILIES, families_name
from tokenizer.mul_facts import Condition


@dataclass
class TokenizeConfig:
    """Turn documents into uint16 token shards and meta.json for one condition."""

    condition: Condition  # mul_tokens rewrites products to their tokens, baseline leaves text alone
    input: Path | None = None  # .txt, .jsonl, .parquet or folder; default data/raw/train_{condition}.txt
    out_dir: Path | None = None  # folder of the shards; default data/processed/{condition}
    shard_size: int = 100_000_000  # tokens per shard; a split's last one holds the rest
    val_fraction: float = 0.02  # share of the documents that goes to validation
    injection_mode: Mode = "weak"  # for mul_tokens: which products are rewritten
    families: str = DEFAULT_FAMILIES  # token families of tokenizer/families.yaml, such as mul+digits
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)  # processes; fewer for small inputs


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
    families = families_name(config.families)
    _refuse_other_families(source, families, statistics)

    encode = functools.partial(encode_batch, config.condition, mode, families=families)
    workers = min(config.workers, 1 + sum(file.stat().st_size for file in files) // encoding.BYTES_WORTH_A_WORKER)
    documents_hash = hashlib.sha256()
    counts: dict[Split, Counter] = {split: Counter() for split in get_args(Split)}

    with atomic_directory(out_dir) as partial:
        writers = {split: ShardWriter(partial, split, config.shard_size) for split in counts}
        batches = _batches(read_documents(source), config.val_fraction, documents_hash)
        with tqdm(desc=f"tokenizing {source}", unit=" tokens", unit_scale=True) as bar:
            for encoded in map_in_order(encode, batches, workers):
                encoded.add_to(counts)
                if config.condition == "baseline" and any(count["injected_before"] for count in counts.values()):
                    raise UserError(f"{source} holds mul tokens; baseline takes the text before injection")
                for split, writer in writers.items():
                    writer.add(encoded.ids_of(split))
                bar.update(len(encoded.ids))
        total = counts["train"] + counts["val"]
        injected_before = total["injected_before"]
        _require_documents(source, counts)
        shards = [entry for writer in writers.values() for entry in writer.close()]
        # Text that arrives injected no longer shows what it was; prepare_text.py noted the same hash before.
        before = statistics.get("documents_sha256") if injected_before else documents_hash.hexdigest()
        if injected_before:
            _restore_text_bytes(source, config.val_fraction, counts)
        meta = {
            "condition": config.condition,
            "tokenizer_fingerprint": encoding.tokenizer_of(config.condition, families).fingerprint,
            **encoding.families_record(families),
            "documents_sha256": before,
            "splits": {split: encoding.split_record(split, counts[split], shards) for split in counts},
            "shards": shards,
            "val_fraction": config.val_fraction,
            "injection": encoding.injection_record(mode, total),
            "source": {
                "path": str(source),
                "files": [{"name": file.name, "sha256": sha256_file(file)} for file in files],
                "documents_injected_before": injected_before,
            },
        }
        write_json(partial / "meta.json", meta)
    return meta | {"out_dir": str(config.out_dir or f"data/processed/{config.condition}")}


def _batches(documents: Iterable[str], val_fraction: float, documents_hash: Any) -> Iterator[Batch]:
    """Group documents to tasks, with the split of each; hash them (UTF-8 and a zero byte) as they pass."""
    batch, size = Batch([], []), 0
    for number, text in enumerate(documents):
        documents_hash.update(utf8(text) + b"\0")
        batch.texts.append(text)
        batch.groups.append("val" if is_validation(number, val_fraction) else "train")
        size += len(text)
        if size >= encoding.BATCH_CHARACTERS:
            yield batch
            batch, size = Batch([], []), 0
    if batch.texts:
        yield batch


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


def _refuse_other_families(source: Path, families: str, statistics: dict[str, Any]) -> None:
    """The world of one choice has other documents than that of another, and tokens that it does not know."""
    before = statistics.get("families", DEFAULT_FAMILIES) if statistics else families
    if before != families:
        raise UserError(f"{source} was prepared with the token families {before}; give --families {before}")


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
