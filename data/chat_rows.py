"""Rows to fine-tune on, from files or the hub: a row that cannot be used is named, counted by reason and left out."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from common.errors import UserError
from data.documents import PARQUET_BATCH_ROWS, parquet_errors
from data.item_files import SUFFIXES, load_from_hub, split_file

MAX_BAD_SHARE = 0.01
NAMED_PER_REASON = 5  # bad rows that are printed; all are counted
# Bytes. A token has at least one, so this is what no answer of 100,000 tokens passes; no answer that fits into a
# GPT-2's 1,024 positions comes near it, and reading the others would only keep the tokenizer busy.
MAX_ANSWER_BYTES = 100_000


class BadRow(Exception):
    """A row cannot be used; the message is the reason, the same words for the same kind of fault."""


@dataclass
class CheckedRows:
    """The rows that can be used, in order, and by reason the number of those that cannot."""

    rows: list[Any] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


def question_and_answer(row: Any) -> dict[str, str]:
    """The two texts of a GSM8K item. Raises BadRow."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "answer")):
        raise BadRow("missing_keys")
    item = {key: row[key] for key in ("question", "answer")}
    _check_texts(item.values(), [item["answer"]])
    return item


def messages(row: Any) -> list[dict[str, str]]:
    """The turns {"role", "content"} of a conversation in the `messages` schema, an empty system turn left out.

    Roles are perhaps one system turn, then user and assistant in alternation, the assistant last. Raises BadRow.
    """
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content")) for turn in turns
    ):
        raise BadRow("missing_keys")
    turns = [{key: turn[key] for key in ("role", "content")} for turn in turns]
    if turns and turns[0]["role"] == "system" and not turns[0]["content"].strip():
        turns = turns[1:]
    roles = [turn["role"] for turn in turns]
    exchanges = roles[1:] if roles[:1] == ["system"] else roles
    if not exchanges or exchanges != ["user", "assistant"] * (len(exchanges) // 2):
        raise BadRow("wrong_role_order")
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    _check_texts([turn["content"] for turn in turns], answers)
    return turns


def _check_texts(texts: Iterable[str], answers: list[str]) -> None:
    try:
        sizes = [len(answer.encode()) for answer in answers]
        "".join(texts).encode()
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair, which is no character
        raise BadRow("not_utf8") from None
    if not all(answer.strip() for answer in answers):
        raise BadRow("empty_answer")
    if not all(text.strip() for text in texts):
        raise BadRow("empty_question")
    if max(sizes) > MAX_ANSWER_BYTES:
        raise BadRow("huge_answer")


def read_rows(
    source: Path | str,
    check: Callable[[Any], Any],
    *,
    hub_config: str | None = None,
    subset_size: int | None = None,
    seed: int = 0,
    allow_bad_rows: bool = False,
) -> CheckedRows:
    """The train rows of `source` as `check` returns them, in order; of more than `subset_size` a draw of `seed`.

    source: a .jsonl or .parquet file, a folder with train.jsonl, train.parquet or train-*.parquet, or a hub id. A Path
    is always local. The first rows that `check` (or UTF-8, or JSON) refuses are printed with file and line.
    Raises UserError when there is nothing to read, or when more than 1% of the rows are bad and not `allow_bad_rows`.
    """
    path = Path(source)
    local = isinstance(source, Path) or path.exists() or path.suffix in SUFFIXES
    numbered = _local_rows(path, subset_size, seed) if local else _hub_rows(source, hub_config, subset_size, seed)
    result, bad = CheckedRows(), []
    for place, row in tqdm(numbered, desc=f"reading {path.name}", unit=" rows", leave=False, disable=None):
        try:
            if isinstance(row, BadRow):
                raise row
            result.rows.append(check(row))
        except BadRow as reason:
            bad.append((place, str(reason)))
    result.dropped = dict(Counter(reason for _, reason in bad))
    total = len(result.rows) + len(bad)
    if not total:
        raise UserError(f"{source} holds no items; expected one on every line")
    _report(source, bad, total, result.dropped, allow_bad_rows)
    return result


def _report(source: Path | str, bad: list[tuple[str, str]], total: int, counts: dict, allow_bad_rows: bool) -> None:
    if bad and os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks
        named: Counter = Counter()
        for place, reason in bad:
            named[reason] += 1
            if named[reason] <= NAMED_PER_REASON:
                print(f"left out: {place}: {reason}", flush=True)
    if len(bad) > MAX_BAD_SHARE * total and not allow_bad_rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise UserError(
            f"{source}: {len(bad)} of {total} rows cannot be used ({reasons}), the first is {bad[0][0]}; "
            "mend them, or pass --allow-bad-rows to go on without them"
        )


def _drawn(count: int, subset_size: int | None, seed: int) -> np.ndarray:
    """A mask over `count` rows: all, or `subset_size` of them."""
    if subset_size is None or subset_size >= count:
        return np.ones(count, dtype=bool)
    mask = np.zeros(count, dtype=bool)
    mask[np.random.default_rng(seed).permutation(count)[:subset_size]] = True
    return mask


def _local_rows(path: Path, subset_size: int | None, seed: int) -> Iterator[tuple[str, Any]]:
    files = [split_file(path, "train")]
    if path.is_dir() and not files[0].exists():
        files = sorted(path.glob("train-*.parquet")) or files
    mask = _drawn(sum(map(_count_rows, files)), subset_size, seed)
    for file in files:
        count = _count_rows(file)
        yield from (_parquet_rows if file.suffix == ".parquet" else _jsonl_rows)(file, mask[:count])
        mask = mask[count:]


def _count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        with parquet_errors(path):
            return pq.read_metadata(path).num_rows
    try:
        with open(path, "rb") as file:
            return sum(bool(line.strip()) for line in file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _jsonl_rows(path: Path, mask: np.ndarray) -> Iterator[tuple[str, Any]]:
    taken = iter(mask)
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or not next(taken):
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError:
                row = BadRow("not_utf8")
            except (json.JSONDecodeError, RecursionError):
                row = BadRow("not_json")
            yield f"{path}, line {number}", row


def _parquet_rows(path: Path, mask: np.ndarray) -> Iterator[tuple[str, Any]]:
    first = 0
    with parquet_errors(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            numbers = np.flatnonzero(mask[first : first + len(batch)])
            for number, row in zip(numbers, _rows_of(batch.take(pa.array(numbers))), strict=True):
                yield f"{path}, row {first + number + 1}", row
            first += len(batch)


def _rows_of(batch: pa.RecordBatch) -> list[Any]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # one of them: find it
        return [_row_of(batch.slice(i, 1)) for i in range(len(batch))]


def _row_of(batch: pa.RecordBatch) -> Any:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return BadRow("not_utf8")


def _hub_rows(hub_id: str, config: str | None, subset_size: int | None, seed: int) -> Iterator[tuple[str, Any]]:
    dataset = load_from_hub(hub_id, "train", config)
    for i in np.flatnonzero(_drawn(len(dataset), subset_size, seed)).tolist():
        yield f"{hub_id}, row {i + 1}", dataset[i]
