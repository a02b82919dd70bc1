"""scripts/bench_tokenize.py at toy size. It must measure and report; how fast a test machine is, it must not judge."""

import json
import sys

import pyarrow
import pytest
from pyarrow import parquet

from common.errors import UserError
from scripts import bench_tokenize


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench_tokenize.py", *map(str, arguments)])
    bench_tokenize.main()


def test_generated_prose(monkeypatch, tmp_path, capsys):
    output = tmp_path / "results.json"
    run(monkeypatch, "--rounds", 2, "--max-characters", 20000, "--output", output)
    results = json.loads(output.read_text())
    assert results["source"] == "generated prose (synthetic)"
    assert results["ratio"] > 0 and results["tokenize_seconds"] > 0
    assert f"ratio {results['ratio']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".txt"])
def test_documents_of_every_format(suffix, tmp_path):
    documents = ["First, 6*9.", "Second."]
    path = tmp_path / f"documents{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pyarrow.table({"text": documents}), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    else:
        path.write_text("\n\n".join(documents))
    assert bench_tokenize.read_documents(path) == documents


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "absent.txt does not exist"),
        ("table.csv", "a,b", "expected a .parquet, .jsonl or .txt"),
        ("rows.jsonl", '{"question": "?"}\n', "cannot read a column `text`"),
        ("broken.parquet", "not parquet", "cannot read a column `text`"),
        ("empty.txt", "", "no text"),
    ],
)
def test_wrong_input_is_one_line(name, content, message, monkeypatch, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        run(monkeypatch, "--input", tmp_path / name)
    assert "\n" not in str(error.value)
