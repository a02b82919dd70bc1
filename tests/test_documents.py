"""Reading documents: each format gives the same texts, streaming, and what cannot be read is named."""

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from data.documents import PARQUET_BATCH_ROWS, check_file, document_files, read_documents, read_file

DOCUMENTS = [
    "one line",
    "two\nlines\n",
    "Windows\r\nline",
    " × \u2028 \x85 é 漢\n\n",
    "<|endoftext|> inside a line",
    "6*9=54",
]


def write(path: Path, documents: list[str]) -> Path:
    if path.suffix == ".txt":
        path.write_bytes("".join(text + "\n<|endoftext|>\n" for text in documents).encode())
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in documents))
    else:
        pq.write_table(pa.table({"id": range(len(documents)), "text": documents}), path, row_group_size=2)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_round_trip(tmp_path, suffix):
    assert list(read_documents(write(tmp_path / f"a{suffix}", DOCUMENTS))) == DOCUMENTS


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        ("", []),
        ("a\nb", ["a\nb"]),
        ("a\nb\n", ["a\nb"]),
        ("a\n<|endoftext|>\nb", ["a", "b"]),
        ("<|endoftext|>\na\n<|endoftext|>\n<|endoftext|>\nb\n<|endoftext|>", ["a", "b"]),
        ("a\r\n<|endoftext|>\r\nb\r\n", ["a", "b"]),
        ("a\n\n<|endoftext|>\n\nb", ["a\n", "\nb"]),
        ("a <|endoftext|>\n<|endoftext|> b", ["a <|endoftext|>\n<|endoftext|> b"]),
    ],
)
def test_text_separators(tmp_path, content, documents):
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert list(read_documents(tmp_path / "a.txt")) == documents


def test_empty_documents_are_skipped(tmp_path):
    write(tmp_path / "a.jsonl", ["", "x", ""])
    pq.write_table(pa.table({"text": pa.array([None, "y", ""], pa.large_string())}), tmp_path / "b.parquet")
    assert list(read_documents(tmp_path)) == ["x", "y"]


def test_folder_in_the_order_of_names(tmp_path):
    for name, text in [("b.parquet", "2"), ("c.txt", "3"), ("a.jsonl", "1")]:
        write(tmp_path / name, [text])
    for name in ("README.md", ".a.jsonl", "stats.json"):
        (tmp_path / name).write_text("not a document")
    assert [file.name for file in document_files(tmp_path)] == ["a.jsonl", "b.parquet", "c.txt"]
    assert list(read_documents(tmp_path)) == ["1", "2", "3"]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_reading_is_lazy(tmp_path, suffix):
    # The second file is broken: whoever takes only the first one's documents never notices.
    write(tmp_path / f"a{suffix}", [f"document {i}" for i in range(2 * PARQUET_BATCH_ROWS)])
    (tmp_path / "b.jsonl").write_text("broken")
    assert list(itertools.islice(read_documents(tmp_path), 3)) == ["document 0", "document 1", "document 2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', "a.jsonl, line 3 is not valid JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"question": "x"}\n', 'line 2: expected an object with a string under "text"'),
        ("a.jsonl", b'["text"]\n', 'line 1: expected an object with a string under "text"'),
        ("a.jsonl", b'{"text": 6}\n', 'line 1: expected an object with a string under "text"'),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "a.jsonl, line 2 is not UTF-8"),
        ("a.txt", b"x\ncaf\xe9\n", "a.txt, line 2 is not UTF-8"),
        ("a.parquet", b"PAR1 not really", "a.parquet cannot be read as parquet"),
        ("a.parquet", b"", "a.parquet cannot be read as parquet"),
        ("a.csv", b"text\nx\n", "documents are read from .txt, .jsonl, .parquet files"),
    ],
)
def test_unreadable(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_documents(tmp_path / name))
    assert message in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_parquet(tmp_path, kept):
    path = write(tmp_path / "a.parquet", DOCUMENTS * 50)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        list(read_documents(path))


def test_damaged_parquet_body(tmp_path):
    path = write(tmp_path / "a.parquet", DOCUMENTS * 50)
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196  # the footer is whole, the first pages are not
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as parquet"):
        list(read_documents(path))


@pytest.mark.parametrize(("column", "message"), [("content", "no column `text`"), ("text", "holds int64")])
def test_parquet_of_another_kind(tmp_path, column, message):
    pq.write_table(pa.table({column: [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        list(read_documents(tmp_path / "a.parquet"))


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"missing\.txt does not exist"):
        list(read_documents(tmp_path / "missing.txt"))
    with pytest.raises(UserError, match=r"holds no \.txt, \.jsonl, \.parquet file"):
        list(read_documents(tmp_path))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_reading_from_a_place_on(tmp_path, suffix):
    documents = [*DOCUMENTS[:3], "", *DOCUMENTS[3:]]
    path = write(tmp_path / f"a{suffix}", documents)
    for skip in range(len(documents) + 2):
        # A .txt file has no document behind its last border, only nothing.
        assert list(read_file(path, skip=skip))[: len(documents) - skip] == documents[skip:]


def test_another_column(tmp_path):
    pq.write_table(pa.table({"body": ["x"], "text": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"body": "y"}\n')
    assert [list(read_file(tmp_path / name, "body")) for name in ("a.parquet", "b.jsonl")] == [["x"], ["y"]]
    with pytest.raises(UserError, match='expected an object with a string under "content"'):
        list(read_file(tmp_path / "b.jsonl", "content"))


def test_checking_before_a_long_run(tmp_path):
    path = write(tmp_path / "a.parquet", DOCUMENTS)
    check_file(path)
    with pytest.raises(UserError, match="no column `body`"):
        check_file(path, "body")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        check_file(path)
