"""Documents from files, one at a time: the one place that knows how a corpus lies on disk.

.txt        documents separated by lines that hold only <|endoftext|>; the line break before such a line, and
            the last one of the file, belong to the format and not to the text
.jsonl      one object per line, the document under "text"
.parquet    one row per document, in the column `text` (FineWeb's layout)
a folder    of such files, taken in the order of their names

Empty documents (null in parquet) are skipped. One document, or one parquet batch, is in memory at a time.
`read_file` takes another key or column than `text`.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from tokenizer.mul_facts import END_OF_TEXT

SUFFIXES = (".txt", ".jsonl", ".parquet")
PARQUET_BATCH_ROWS = 1024
TEXT_COLUMN = "text"


def document_files(path: Path | str) -> list[Path]:
    """The files behind `path`: itself, or the .txt, .jsonl and .parquet files of a folder, sorted by name.

    Raises UserError when it does not exist, is of another kind, or is a folder without such files.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES and not f.name.startswith("."))
        if not files:
            raise UserError(f"{path} holds no {', '.join(SUFFIXES)} file; name the folder that holds the documents")
        return files
    if not path.exists():
        raise UserError(f"{path} does not exist; name a file or folder of documents")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: documents are read from {', '.join(SUFFIXES)} files or a folder of them; convert it")
    return [path]


def read_documents(path: Path | str) -> Iterator[str]:
    """Yield the documents of a file or folder in order.

    Raises UserError naming the file, and the line or row where there is one, that cannot be read.
    """
    for file in document_files(path):
        yield from filter(None, read_file(file))


def read_file(path: Path, text_column: str = TEXT_COLUMN, skip: int = 0) -> Iterator[str]:
    """Yield a file's documents from number `skip` on, the empty ones as "". Parquet row groups before it are not read.

    Raises UserError as `read_documents` does.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, text_column, skip)
    documents = _read_text(path) if path.suffix == ".txt" else _read_jsonl(path, text_column)
    return islice(documents, skip, None)


def check_file(path: Path, text_column: str = TEXT_COLUMN) -> None:
    """Find out before a long run what its start shows of a file. Raises UserError: not parquet, no such column."""
    if path.suffix == ".parquet":
        with parquet_errors(path), pq.ParquetFile(path) as file:
            _check_column(path, file.schema_arrow, text_column)
    elif not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read: permission denied")


def _read_text(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for _, line in _numbered_lines(path):
        if line.rstrip("\r\n") == END_OF_TEXT:
            yield _without_last_break("".join(lines))
            lines.clear()
        else:
            lines.append(line)
    yield _without_last_break("".join(lines))


def _without_last_break(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _read_jsonl(path: Path, key: str) -> Iterator[str]:
    for number, line in _numbered_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not valid JSON: {error}") from None
        if not isinstance(row, dict) or not isinstance(row.get(key), str):
            raise UserError(f'{path}, line {number}: expected an object with a string under "{key}"')
        yield row[key]


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    # Bytes are split at \n alone: text mode would also rewrite \r\n, and a bad byte could not be placed.
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, line {number} is not UTF-8 ({error.reason}); convert the file") from None


def _read_parquet(path: Path, column: str, skip: int) -> Iterator[str]:
    with parquet_errors(path), pq.ParquetFile(path) as file:
        _check_column(path, file.schema_arrow, column)
        groups, row = [], 0  # `row` is the number of the next one to be read
        for group in range(file.num_row_groups):
            num_rows = file.metadata.row_group(group).num_rows
            if not groups and row + num_rows <= skip:
                row += num_rows
            else:
                groups.append(group)
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, row_groups=groups, columns=[column]):
            known = min(max(skip - row, 0), len(batch))
            yield from _strings(path, batch.column(0).slice(known), row + known)
            row += len(batch)


@contextlib.contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn what reading a parquet file raises inside into a UserError that names it, in one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as parquet (cut short?): {reason}") from None


def _check_column(path: Path, schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise UserError(f"{path} has no column `{column}`; its columns are {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{path}: the column `{column}` holds {kind}, expected strings; name another column")


def _strings(path: Path, column: pa.Array, first_row: int) -> list[str]:
    try:
        return [text or "" for text in column.to_pylist()]
    except UnicodeDecodeError:
        for row, value in enumerate(column, start=first_row):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, row {row} (from 0) is not UTF-8 ({error.reason}); convert the file") from None
        raise
