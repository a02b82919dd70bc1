"""scripts/bench_tokenize.py at toy size. It must measure and report; how fast a test machine is, it must not judge."""

import json
import sys

import pytest

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
    assert results["path_throughput_ratio"] > 0 and results["prepare_fineweb_seconds"] > 0
    assert f"ratio {results['ratio']:.3f}" in capsys.readouterr().out


def test_documents_from_a_file(monkeypatch, tmp_path, capsys):
    path = tmp_path / "documents.jsonl"
    path.write_text('{"text": "First, 6*9."}\n{"text": "Second."}\n')
    run(monkeypatch, "--rounds", 1, "--input", path)
    assert f"{path}: 2 documents, 0.00 MB, 1 products injected" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "absent.txt does not exist"),
        ("table.csv", "a,b", "documents are read from"),
        ("rows.jsonl", '{"question": "?"}\n', "expected an object with a string"),
        ("broken.parquet", "not parquet", "cannot be read as parquet"),
        ("empty.txt", "", "no text"),
    ],
)
def test_wrong_input_is_one_line(name, content, message, monkeypatch, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        run(monkeypatch, "--input", tmp_path / name)
    assert "\n" not in str(error.value)
