"""Shards that a run fills until it is killed, and the next one goes on filling.

While a run lasts, beside its whole shards lie

    unfinished.json         the arguments, the whole shards, the counts, and the place in the documents behind which
                            the next run goes on
    unfinished_00012.npy    the ids before that place that fill no shard yet

Both are written whenever a shard is whole, the ids first and under a name of their own, so that at every moment
unfinished.json tells of something that is there. At the end, meta.json takes their place.
"""

import contextlib
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from common.errors import UserError
from common.files import locked_directory, read_json, write_json
from data.encoding import Encoded, split_record
from data.shards import UNFINISHED, ShardWriter, Split, read_shard, write_shard
from data.sources import DocumentSequence


class ShardRun:
    """The writers of a folder and what they have been given. Made by `open_shard_run`.

    meta: meta.json's contents when the folder is finished. place: of the sequence, behind what was added.
    """

    def __init__(self, out_dir: Path, arguments: dict[str, Any], shard_size: int, state: dict[str, Any]):
        self.out_dir, self.arguments = out_dir, arguments
        self.identity: dict[str, Any] = state.get("identity", {})  # of the sources, by name
        self.place: dict[str, Any] | None = state.get("place")
        self.meta = state if (out_dir / "meta.json").exists() else None
        self.writers = {
            split: ShardWriter(out_dir, split, shard_size, [s for s in state.get("shards", []) if s["split"] == split])
            for split in get_args(Split)
        }
        self.counts = {(split, source): Counter(counts) for split, source, counts in state.get("counts", [])}
        self.leftover = state.get("leftover")  # where the ids lie that no shard of the last run holds

    def begin(self, sequence: DocumentSequence) -> None:
        """Put the sequence where the last run stopped. Raises UserError when its documents are not the same."""
        identity = {source.name: source.identity for source in sequence.sources}
        if self.place is None:
            self.identity = identity
            self.counts = {(split, source): Counter() for split in self.writers for source in identity}
            self.save(sequence.place())
            return
        for name, found in identity.items():
            if self.identity[name] != found:
                raise UserError(
                    f"--source {name} is not what it was when {self.out_dir} was started; restore its files"
                )
        sequence.go_to(self.place)
        start, tokens = 0, read_shard(self.out_dir / self.leftover["file"]) if self.leftover["file"] else None
        for split, length in self.leftover["tokens"].items():
            if length:
                self.writers[split].add(tokens[start : start + length])
            start += length

    def add(self, encoded: Encoded) -> None:
        """Append a batch, whose groups are (split, source); write down how far it goes when a shard is whole."""
        encoded.add_to(self.counts)
        before = len(self.shards)
        with self._writing():
            for split, writer in self.writers.items():
                writer.add(encoded.ids_of(*(group for group in self.counts if group[0] == split)))
        self.place = encoded.after
        if len(self.shards) > before:
            self.save(self.place)

    def save(self, place: dict[str, Any]) -> None:
        """Write down all that the next run needs to go on at `place`."""
        leftovers = {split: writer.leftover for split, writer in self.writers.items()}
        tokens = np.concatenate(list(leftovers.values()))
        name = f"unfinished_{len(self.shards):05d}.npy" if len(tokens) else None
        with self._writing():
            if name:
                write_shard(self.out_dir / name, tokens)
            write_json(
                self.out_dir / UNFINISHED,
                {
                    "arguments": self.arguments,
                    "identity": self.identity,
                    "place": place,
                    "shards": self.shards,
                    "counts": [[split, source, counts] for (split, source), counts in self.counts.items()],
                    "leftover": {"file": name, "tokens": {split: len(ids) for split, ids in leftovers.items()}},
                },
            )
        self.place = place
        _remove_strays(self.out_dir, keep={UNFINISHED, name})

    def finish(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write the last shards and meta.json with `record` in it; return meta.json's contents."""
        with self._writing():
            shards = [entry for writer in self.writers.values() for entry in writer.close()]
            splits = {split: split_record(split, self.count(split), shards) for split in self.writers}
            meta = record | {
                "splits": splits,
                "shards": shards,
                "arguments": self.arguments,
                "identity": self.identity,
            }
            write_json(self.out_dir / "meta.json", meta)
        _remove_strays(self.out_dir)
        return meta

    def count(self, split: Split | None = None, source: str | None = None) -> Counter:
        """What was added so far (encoding.COUNTS), of all or of one split or source."""
        total: Counter = Counter()
        for (of_split, of_source), counts in self.counts.items():
            if split in (None, of_split) and source in (None, of_source):
                total.update(counts)
        return total

    @property
    def shards(self) -> list[dict[str, Any]]:
        """meta.json's entries of the whole shards."""
        return [entry for writer in self.writers.values() for entry in writer.entries]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # numpy reports a full disk without its number, so no kind is told apart
            free = shutil.disk_usage(self.out_dir).free / 1e6
            raise UserError(
                f"{self.out_dir} cannot be written ({error}; {free:,.1f} MB are free there); "
                f"make room and run again: it goes on at the last whole shard"
            ) from None


@contextlib.contextmanager
def open_shard_run(out_dir: Path, arguments: dict[str, Any], shard_size: int) -> Iterator[ShardRun]:
    """The run in `out_dir`, new, unfinished or finished. No other process can open it meanwhile.

    Raises UserError when the folder holds something else or a run with other arguments.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        list(out_dir.iterdir())
    except OSError as error:
        raise UserError(f"--out-dir {out_dir} cannot be made ({error.strerror}); name another folder") from None
    try:
        with locked_directory(out_dir):
            state = _read_state(out_dir, arguments)
            leftover = (state.get("leftover") or {}).get("file")
            _remove_strays(out_dir, keep={UNFINISHED, leftover} if "place" in state else ())
            yield ShardRun(out_dir, arguments, shard_size, state)
    finally:
        with contextlib.suppress(OSError):
            out_dir.rmdir()  # where nothing came of it; a folder that holds something stays


def _read_state(out_dir: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    path = next((out_dir / name for name in ("meta.json", UNFINISHED) if (out_dir / name).exists()), None)
    if path is None:
        for other in out_dir.iterdir():
            if not _is_stray(other):
                raise UserError(f"{out_dir} holds {other.name}; name another folder with --out-dir")
        return {}
    state = read_json(path)
    earlier = state.get("arguments", {}) if isinstance(state, dict) else {}
    if set(earlier) != set(arguments):
        raise UserError(f"{path} is not from data/prepare_fineweb.py; name another folder with --out-dir")
    for flag, value in arguments.items():
        if earlier[flag] != value:
            raise UserError(
                f"{out_dir} was made with {flag} {_words(earlier[flag])}, not {_words(value)}; "
                "give the same arguments or another --out-dir"
            )
    return state


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_stray(path: Path) -> bool:
    """Whether only an unfinished or killed run leaves such a file."""
    return bool(re.fullmatch(r"unfinished(_\d+\.npy|\.json)|\.[\w.]+\.\d+\.partial", path.name))


def _remove_strays(out_dir: Path, keep: Collection[str | None] = ()) -> None:
    for path in out_dir.iterdir():
        if _is_stray(path) and path.name not in keep:
            path.unlink()
