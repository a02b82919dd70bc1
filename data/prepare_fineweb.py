"""A large corpus to token shards for one condition: FineWeb-Edu, or any other text, alone or mixed.

    uv run python data/prepare_fineweb.py --condition mul_tokens --out-dir data/fineweb/mul_tokens \
        --target-tokens 10_000_000_000 --math-fraction 0.08 --workers 16
    uv run python data/prepare_fineweb.py --condition mul_tokens --out-dir data/mixed/mul_tokens \
        --target-tokens 1_000_000_000 \
        --source HuggingFaceFW/fineweb-edu:sample-10BT=0.9 --source open-web-math/open-web-math=0.1
    uv run python data/prepare_fineweb.py --condition baseline --out-dir data/local/baseline \
        --target-tokens 4_000_000 --shard-size 1_000_000 --source /corpora/web_text

Writes train_00000.npy, ..., val_00000.npy, ... and meta.json, as data/tokenize_to_bin.py does, in one pass of flat
memory. Run it again with the same arguments after a kill: it goes on at the last whole shard and ends with the same
bytes. Until the end, unfinished.json lies beside the shards, and training refuses the folder.

Order: the documents are one sequence, which depends on the sources, their weights, --math-fraction and --seed, and not
on the condition. A source's files come in an order drawn from the seed, the documents of a file in their own order. The
run ends when the training shards hold --target-tokens (the last document is cut there), or when a source has no more
documents: going on would change the mixture. Injection shortens text, so mul_tokens reads further in the same sequence;
meta.json says how many documents and bytes each condition read.

Validation: of the documents that begin in the first --target-tokens bytes, which every condition reads, those are held
out whose number's hash is below 4 x --val-fraction. English has about four bytes to a token, so validation gets about
--val-fraction of the tokens, and both conditions hold out the same documents. `documents_sha256` in meta.json is over
the same documents, the sources' file sizes or revision, their shares and the seed: equal values mean that both
conditions read the same documents in the same order.

Weights and --math-fraction are shares of the bytes of text, arithmetic's own text being short and rich in products.
For mul tokens to be 1 to 2% of all tokens, --math-fraction 0.08 to 0.16 is right. Measured in mul_tokens on web text:

    --math-fraction   0.02    0.04    0.08    0.16
    mul tokens        0.28%   0.56%   1.09%   2.10%
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from data import encoding
from data.encoding import Batch, Encoded, Mode, encode_batch, is_validation, map_in_order
from data.shard_run import ShardRun, open_shard_run
from data.sources import (
    DocumentSequence,
    Source,
    SourceName,
    arithmetic_source,
    file_source,
    hub_source,
    parse_source,
    shares_of,
)
from tokenizer.families import DEFAULT_FAMILIES, families_name
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import Condition

DEFAULT_SOURCE = "HuggingFaceFW/fineweb-edu:sample-10BT"
BYTES_PER_TOKEN = 4  # of English, roughly


@dataclass
class PrepareConfig:
    """Stream a corpus to uint16 token shards and meta.json for one condition; resumes by default."""

    condition: Condition  # mul_tokens rewrites products to their tokens, baseline leaves text alone
    out_dir: Path  # folder of the shards
    target_tokens: int  # training tokens; validation comes on top
    # PATH[=WEIGHT] or HUB_ID[:CONFIG][=WEIGHT]; default FineWeb-Edu's sample-10BT; several are mixed by weight
    source: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    text_column: str = "text"  # column or key that holds the documents
    math_fraction: float = 0.0  # share of the text's bytes that is generated arithmetic
    shard_size: int = 100_000_000  # tokens per shard; a split's last one holds the rest
    val_fraction: float = 0.01  # validation tokens beside the training tokens, roughly
    seed: int = 0  # of the order of files and of the generated arithmetic
    injection_mode: Mode = "weak"  # for mul_tokens: which products are rewritten
    families: str = DEFAULT_FAMILIES  # token families of tokenizer/families.yaml, such as mul+digits
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)  # processes; they do not change the result


def main() -> None:
    config = parse_config(PrepareConfig)
    meta = prepare(config)
    for split, counts in meta["splits"].items():
        print(f"{split}: {counts['documents']:,} documents, {counts['tokens']:,} tokens, {_mul_share(counts)}")
    for name, counts in meta["source"]["read"].items():
        print(
            f"{name}: {counts['documents']:,} documents ({counts['empty']:,} empty ones left out), "
            f"{counts['text_bytes']:,} bytes, {counts['tokens']:,} tokens, {_mul_share(counts)}"
        )
    if meta["source"]["ran_dry"]:
        print(
            f"{meta['source']['ran_dry']} has no more documents: training has {meta['splits']['train']['tokens']:,} "
            f"of the {config.target_tokens:,} tokens asked for"
        )
    print(f"{len(meta['shards'])} shards and meta.json are in {config.out_dir}")


def prepare(config: PrepareConfig) -> dict[str, Any]:
    """Write, or go on writing, the shards and meta.json that `config` asks for; return meta.json's contents.

    Raises UserError for wrong arguments, for a folder that holds something else, and for what cannot be read or
    written; then the folder stays as it was at the last whole shard, and the next call goes on there.
    """
    names = _check(config)
    config.families = families_name(config.families)
    with open_shard_run(config.out_dir, _arguments(config, names), config.shard_size) as run:
        if run.meta is not None:
            print(f"{config.out_dir} is finished; nothing to do")
            return run.meta
        sequence = DocumentSequence(_open_sources(config, names, run), config.target_tokens)
        run.begin(sequence)
        dry = write_tokens(config, run, sequence)
        if not all(run.count(split)["documents"] for split in run.writers):
            raise UserError(
                f"the {sequence.number} documents give only one of the splits; give more text, or another "
                f"--val-fraction (and --out-dir)"
            )
        return run.finish(
            {
                "condition": config.condition,
                "tokenizer_fingerprint": _tokenizer(config).fingerprint,
                **encoding.families_record(config.families),
                "documents_sha256": _documents_sha256(config, run, sequence),
                "val_fraction": config.val_fraction,
                "injection": encoding.injection_record(_mode(config), run.count()),
                "source": {
                    "read": {source.name: _source_record(run, source.name) for source in sequence.sources},
                    "ran_dry": dry,
                    "documents_injected_before": run.count()["injected_before"],
                },
            }
        )


def write_tokens(config: PrepareConfig, run: ShardRun, sequence: DocumentSequence) -> str | None:
    """Encode the sequence from where it stands until training has its tokens; return the source that ran dry before."""
    encode = functools.partial(encode_batch, config.condition, _mode(config), families=config.families)
    workers = min(config.workers, 1 + config.target_tokens * BYTES_PER_TOKEN // encoding.BYTES_WORTH_A_WORKER)
    done = run.count("train")["tokens"]
    with (
        tqdm(desc=str(run.out_dir), total=config.target_tokens, initial=done, unit=" tokens", unit_scale=True) as bar,
        contextlib.closing(map_in_order(encode, batches(sequence, config.val_fraction), workers)) as results,
    ):
        while done < config.target_tokens:
            encoded = next(results, None)
            if encoded is None:
                run.place = sequence.place()  # behind the empty documents at the end too
                return sequence.dry
            run.add(cut(encoded, config.target_tokens - done, _tokenizer(config)))
            done = run.count("train")["tokens"]
            bar.update(done - bar.n)
    return None


def batches(sequence: DocumentSequence, val_fraction: float) -> Iterator[Batch]:
    """Group documents to tasks; each counts for its split and source. A batch carries the place behind it."""
    batch, size = Batch([], []), 0
    for document in sequence:
        held_out = document.common and is_validation(document.number, BYTES_PER_TOKEN * val_fraction)
        batch.texts.append(document.text)
        batch.groups.append(("val" if held_out else "train", document.source))
        size += len(document.text)
        if size >= encoding.BATCH_CHARACTERS:
            batch.after = sequence.place()
            yield batch
            batch, size = Batch([], []), 0
    if batch.texts:
        batch.after = sequence.place()
        yield batch


def cut(encoded: Encoded, room: int, tokenizer: GPT2TokenizerWithMulFacts) -> Encoded:
    """The batch up to the point where its training documents have `room` ids: the last of them is cut there."""
    in_train = np.array([split == "train" for split, _ in encoded.groups])
    train_tokens = np.cumsum(np.where(in_train, encoded.lengths, 0))
    if train_tokens[-1] <= room:
        return encoded
    last = int(np.searchsorted(train_tokens, room))  # the document that reaches `room`
    start = int(encoded.lengths[:last].sum())
    end = start + int(encoded.lengths[last] - (train_tokens[last] - room))
    counts = encoded.counts[: last + 1].copy()
    counts[-1, encoding.COUNTS.index("tokens")] = end - start
    counts[-1, encoding.COUNTS.index("mul_tokens")] = tokenizer.count_mul_tokens(encoded.ids[start:end])
    return Encoded(encoded.ids[:end], counts, encoded.groups[: last + 1], encoded.after)


def _check(config: PrepareConfig) -> list[SourceName]:
    """The sources named, after a look at the other arguments."""
    if min(config.target_tokens, config.shard_size, config.workers) < 1:
        raise UserError("--target-tokens, --shard-size and --workers must be at least 1")
    if not 0 < config.val_fraction <= 1 / BYTES_PER_TOKEN:
        raise UserError(
            f"--val-fraction must be above 0 and at most {1 / BYTES_PER_TOKEN}, found {config.val_fraction}"
        )
    if not 0 <= config.math_fraction < 1:
        raise UserError(f"--math-fraction must be at least 0 and below 1, found {config.math_fraction}")
    names = [parse_source(argument) for argument in config.source or (DEFAULT_SOURCE,)]
    labels = [name.label for name in names]
    if len(set(labels)) < len(labels):
        raise UserError(f"--source {max(labels, key=labels.count)} is given twice; give its weight once")
    return names


def _arguments(config: PrepareConfig, names: list[SourceName]) -> dict[str, Any]:
    """By flag, all that decides the result."""
    shares = shares_of(names, config.math_fraction)
    return {
        "--condition": config.condition,
        "--target-tokens": config.target_tokens,
        "--source": [f"{name.label}={share:.12g}" for name, share in zip(names, shares, strict=True)],
        "--text-column": config.text_column,
        "--math-fraction": config.math_fraction,
        "--shard-size": config.shard_size,
        "--val-fraction": config.val_fraction,
        "--seed": config.seed,
        "--injection-mode": config.injection_mode,
    } | {f"--{key}": value for key, value in encoding.families_record(config.families).items()}


def _open_sources(config: PrepareConfig, names: list[SourceName], run: ShardRun) -> list[Source]:
    sources = []
    for name, share in zip(names, shares_of(names, config.math_fraction), strict=True):
        if name.local:
            sources.append(file_source(name.name, share, config.text_column, config.seed))
        else:
            revision = run.identity.get(name.label, {}).get("revision")  # a run that goes on reads what it read
            sources.append(hub_source(name, share, config.text_column, config.seed, revision))
    if config.math_fraction > 0:
        sources.append(arithmetic_source(config.math_fraction, config.seed, config.families))
    return sources


def _documents_sha256(config: PrepareConfig, run: ShardRun, sequence: DocumentSequence) -> str:
    """Of the documents that every condition reads, and of all that decides which ones follow; not of paths."""
    sources = [[source.share, run.identity[source.name]] for source in sequence.sources]
    parts = [run.place["sha256"], config.target_tokens, config.text_column, config.seed, sources]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _source_record(run: ShardRun, name: str) -> dict[str, int]:
    counts = run.count(source=name)
    names = ("documents", "tokens", "mul_tokens", "text_bytes", "text_characters")
    return {key: counts[key] for key in names} | {"empty": run.place["sources"][name]["empty"]}


def _tokenizer(config: PrepareConfig) -> GPT2TokenizerWithMulFacts:
    return encoding.tokenizer_of(config.condition, config.families)


def _mode(config: PrepareConfig) -> Mode:
    return config.injection_mode if config.condition == "mul_tokens" else "none"


def _mul_share(counts: dict[str, int]) -> str:
    share = counts["mul_tokens"] / max(counts["tokens"], 1)
    return f"{counts['mul_tokens']:,} mul tokens ({share:.3%})"


if __name__ == "__main__":
    run_script(main)
