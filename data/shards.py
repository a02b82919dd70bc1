"""Token shards on disk: uint16 files that together are one stream of ids per split.

train_00000.npy, val_00000.npy   ours, and build-nanogpt's (with a name before train or val)
fineweb_train_000001.bin         llm.c's and modded-nanogpt's: 256 int32 (magic 20240520, version 1, number of
                                 tokens, zeros), then the ids

`meta.json` beside our own shards says what they were made from; foreign data has none. While `unfinished.json` is
there, more shards are to come.
"""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.errors import UserError
from common.files import atomic_path, read_json, sha256_file
from tokenizer.families import DEFAULT_FAMILIES
from tokenizer.mul_facts import VOCAB_SIZE
from tokenizer.vocabulary import Vocabulary

Split = Literal["train", "val"]

BIN_MAGIC = 20240520
BIN_VERSION = 1
BIN_HEADER_INTS = 256
ALL_IDS = 1 << 16  # of uint16; readers know the vocabulary
UNFINISHED = "unfinished.json"

# A shard's digest is the sha256 of one sum per block of 1,024 64-bit words. The words have odd weights, so
# that a moved word changes the sum as another value does. From the page cache, 100M tokens take 0.02 s,
# where sha256 of all bytes takes 0.13 s: little enough to check 10B tokens at every start.
BLOCK_TOKENS = 4096
CHUNK_TOKENS = 256 * BLOCK_TOKENS
_BLOCK_WEIGHTS = np.cumprod(np.full(1024, 0x9E3779B97F4A7C15, dtype=np.uint64))  # powers modulo 2^64


@dataclass(frozen=True)
class TokenStream:
    """The shards of one split as one stream of `len(stream)` ids, memory-mapped."""

    data_dir: Path
    split: Split
    shards: list[np.ndarray]
    borders: np.ndarray  # (len(shards) + 1,): shard i holds the stream's tokens borders[i] to borders[i + 1]
    fingerprint: str  # of the shards' names, lengths and contents
    meta: dict[str, Any] | None

    def __len__(self) -> int:
        return int(self.borders[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids `start` to `stop` of the stream, uint16: a view where one shard holds them all, else a copy."""
        first = int(np.searchsorted(self.borders, start, side="right")) - 1
        last = int(np.searchsorted(self.borders, stop, side="left")) - 1
        pieces = [
            self.shards[i][max(start - self.borders[i], 0) : stop - self.borders[i]] for i in range(first, last + 1)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def open_stream(data_dir: Path | str, split: Split) -> TokenStream:
    """Open a split for reading: check every shard's form, ids and, where meta.json is there, contents.

    Reads all shards once (several at a time), as no sample of them could show that every id is one of ours.
    Raises UserError naming the shard that is truncated, foreign, changed or missing.
    """
    data_dir = Path(data_dir)
    paths = list_shards(data_dir, split)
    meta = read_json(data_dir / "meta.json") if (data_dir / "meta.json").exists() else None
    if meta is not None and not {"shards", "splits"} <= set(meta):
        raise UserError(f"{data_dir / 'meta.json'} is not from data/tokenize_to_bin.py; remove it or tokenize again")
    vocab_size = Vocabulary("baseline", (meta or {}).get("families", DEFAULT_FAMILIES)).size
    shards = [read_shard(path) for path in paths]
    with ThreadPoolExecutor(max_workers=8) as pool:  # numpy releases the GIL while it reads
        digests = list(pool.map(check_shard, paths, shards, [vocab_size] * len(shards)))
    entries = [(path.name, len(shard), digest) for path, shard, digest in zip(paths, shards, digests, strict=True)]
    if meta is not None:
        _check_against_meta(data_dir, split, entries, meta)
    borders = np.cumsum([0, *(len(shard) for shard in shards)])
    return TokenStream(data_dir, split, shards, borders, fingerprint(entries), meta)


def list_shards(data_dir: Path | str, split: Split) -> list[Path]:
    """The files of a split in the order of their numbers.

    Raises UserError when there are none, or those of two data sets.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir} is not a folder; make it with data/tokenize_to_bin.py or name another --data-dir")
    if (data_dir / UNFINISHED).exists():
        raise UserError(f"{data_dir} is unfinished; run data/prepare_fineweb.py with the same arguments to go on there")
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for path in data_dir.iterdir():
        match = re.fullmatch(rf"((?:[^.].*_)?){split}(?:_(\d+))?(\.npy|\.bin)", path.name)
        if match:
            found.setdefault((match[1], match[3]), []).append((int(match[2] or 0), path))
    if not found:
        raise UserError(
            f"{data_dir} holds no {split} shard ({split}_00000.npy or *_{split}_*.bin); "
            "make them with data/tokenize_to_bin.py or name another --data-dir"
        )
    if len(found) > 1:
        names = ", ".join(sorted(f"{prefix}{split}_*{suffix}" for prefix, suffix in found))
        raise UserError(f"{data_dir} holds {split} shards of several data sets ({names}); keep one of them there")
    return [path for _, path in sorted(next(iter(found.values())))]


def write_shard(path: Path | str, tokens: np.ndarray) -> None:
    """Write a one-dimensional uint16 array as .npy: whole or not at all."""
    assert tokens.dtype == np.uint16 and tokens.ndim == 1, f"expected 1-d uint16, found {tokens.ndim}-d {tokens.dtype}"
    # A file object, because np.save would add .npy to the temporary name.
    with atomic_path(path) as partial, open(partial, "wb") as file:
        np.save(file, tokens, allow_pickle=False)


class ShardWriter:
    """Cuts the ids of one split into shards of exactly `shard_size`, the last one shorter."""

    def __init__(self, folder: Path, split: Split, shard_size: int, written: Iterable[dict[str, Any]] = ()):
        self.folder, self.split = folder, split
        self.buffer = np.empty(shard_size, dtype=np.uint16)
        self.filled = 0
        self.entries = list(written)  # meta.json's entries of the shards that are there already

    @property
    def leftover(self) -> np.ndarray:
        """The ids that no whole shard holds yet."""
        return self.buffer[: self.filled]

    def add(self, tokens: np.ndarray) -> None:
        """Append uint16 ids; write every shard that is full."""
        while len(tokens):
            taken = min(len(tokens), len(self.buffer) - self.filled)
            self.buffer[self.filled : self.filled + taken] = tokens[:taken]
            self.filled += taken
            tokens = tokens[taken:]
            if self.filled == len(self.buffer):
                self._write()

    def close(self) -> list[dict[str, Any]]:
        """Write what is left; return meta.json's entries of this split's shards."""
        if self.filled:
            self._write()
        return self.entries

    def _write(self) -> None:
        path = self.folder / f"{self.split}_{len(self.entries):05d}.npy"
        tokens = self.leftover
        write_shard(path, tokens)
        self.entries.append(
            {
                "name": path.name,
                "split": self.split,
                "tokens": len(tokens),
                "sha256": sha256_file(path),
                "digest": check_shard(path, tokens, ALL_IDS),
            }
        )
        self.filled = 0


def read_shard(path: Path | str) -> np.ndarray:
    """Memory-map a .npy or .bin shard: (tokens,) uint16. Raises UserError when it is truncated or foreign."""
    path = Path(path)
    offset, count = _read_npy_header(path) if path.suffix == ".npy" else _read_bin_header(path)
    expected, found = offset + 2 * count, path.stat().st_size
    if found != expected:
        state = "truncated" if found < expected else "longer than it says"
        raise UserError(
            f"{path} is {state}: its header declares {count:,} tokens, {expected:,} bytes, "
            f"and the file has {found:,}; copy or tokenize it again"
        )
    if count == 0:
        raise UserError(f"{path} holds no tokens; remove it or tokenize again")
    return np.memmap(path, dtype="<u2", mode="r", offset=offset, shape=(count,))


def check_shard(path: Path | str, tokens: np.ndarray, vocab_size: int = VOCAB_SIZE) -> str:
    """Digest of a shard's ids (hex). Raises UserError when one of them is not in the vocabulary."""
    digest, largest = hashlib.sha256(), 0
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = np.asarray(tokens[start : start + CHUNK_TOKENS])
        largest = max(largest, int(chunk.max()))
        if len(chunk) % BLOCK_TOKENS:
            chunk = np.pad(chunk, (0, -len(chunk) % BLOCK_TOKENS))
        words = chunk.view(np.uint64).reshape(-1, len(_BLOCK_WEIGHTS))
        digest.update((words @ _BLOCK_WEIGHTS).tobytes())
    if largest >= vocab_size:
        raise UserError(
            f"{path} holds the id {largest}, but the vocabulary ends at {vocab_size - 1}; "
            "it was made with another tokenizer, tokenize the text again"
        )
    return digest.hexdigest()


def fingerprint(entries: Iterable[tuple[str, int, str]]) -> str:
    """sha256 (hex) over the (name, tokens, digest) of a split's shards in order."""
    return hashlib.sha256("".join(f"{n} {count} {digest}\n" for n, count, digest in entries).encode()).hexdigest()


def _check_against_meta(data_dir: Path, split: Split, entries: list[tuple[str, int, str]], meta: dict) -> None:
    recorded = {s["name"]: (s["tokens"], s["digest"]) for s in meta["shards"] if s["split"] == split}
    found = {name: (count, digest) for name, count, digest in entries}
    for name in sorted(recorded.keys() | found.keys()):
        if name not in found:
            raise UserError(f"{data_dir / name} is missing, but meta.json lists it; copy it there or tokenize again")
        if name not in recorded:
            raise UserError(f"{data_dir / name} is not listed in meta.json; remove it or tokenize again")
        if recorded[name] != found[name]:
            raise UserError(f"{data_dir / name} is not what meta.json says it was; copy it anew or tokenize again")


def _read_npy_header(path: Path) -> tuple[int, int]:
    """(offset of the body in bytes, tokens)"""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(file)
        except (ValueError, KeyError):
            raise UserError(f"{path} is not a .npy file, or its header is cut short; tokenize again") from None
        offset = file.tell()
    if dtype != np.dtype("<u2") or len(shape) != 1:
        raise UserError(f"{path} holds a {len(shape)}-d array of {dtype}; expected a 1-d array of uint16 ids")
    return offset, shape[0]


def _read_bin_header(path: Path) -> tuple[int, int]:
    """(offset of the body in bytes, tokens)"""
    header = np.fromfile(path, dtype="<i4", count=BIN_HEADER_INTS)
    if len(header) < BIN_HEADER_INTS:
        raise UserError(
            f"{path} is truncated: its {header.nbytes} bytes are less than a .bin shard's header; copy it again"
        )
    magic, version, count = (int(value) for value in header[:3])
    if magic != BIN_MAGIC or version != BIN_VERSION:
        raise UserError(
            f"{path} is not a .bin shard of GPT-2 tokens: magic {magic}, version {version}, "
            f"expected {BIN_MAGIC}, {BIN_VERSION}"
        )
    return header.nbytes, count
