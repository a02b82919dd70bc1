"""Documents from files, one at a time: the one place that knows how a corpus lies on disk.

.txt        documents separated by lines that hold only <|endoftext|>; the line break before such a line, and
            the last one of the file, belong to the format and not to the text
.jsonl      one object per line, the document under "text"
.parquet    one row per document, in the column `text` (FineWeb's layout)
a folder    of such files, taken in the order of their names

Empty documents (null in parquet) are skipped. One document, or one parquet batch, is in memory at a time.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from tokenizer.mul_facts import END_OF_TEXT

SUFFIXES = (".txt", ".jsonl", ".parquet")
PARQUET_BATCH_ROWS = 1024


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
        raise UserError(f"{path}: documents are read from {', '.join(SUFFIXES)} files or a folder of them")
    return [path]


def read_documents(path: Path | str) -> Iterator[str]:
    """Yield the documents of a file or folder in order.

    Raises UserError naming the file, and the line where there is one, that cannot be read.
    """
    readers = {".txt": _read_text, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    for file in document_files(path):
        yield from filter(None, readers[file.suffix](file))


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


def _read_jsonl(path: Path) -> Iterator[str]:
    for number, line in _numbered_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not valid JSON: {error}") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f'{path}, line {number}: expected an object with a string under "text"')
        yield row["text"]


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    # Bytes are split at \n alone: text mode would also rewrite \r\n, and a bad byte could not be placed.
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, line {number} is not UTF-8 ({error.reason}); convert the file") from None


def _read_parquet(path: Path) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if "text" not in schema.names:
                raise UserError(f"{path} has no column `text`; its columns are {', '.join(schema.names)}")
            kind = schema.field("text").type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise UserError(f"{path}: the column `text` holds {kind}, expected strings")
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=["text"]):
                yield from batch.column(0).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as parquet (cut short?): {reason}") from None
