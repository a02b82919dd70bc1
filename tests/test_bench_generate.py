"""The benchmark of generation, at toy size."""

import pytest

from common.errors import UserError
from common.files import read_json, write_jsonl
from scripts import bench_generate
from tests.sft_parents import EXAMPLES, write_parent


def bench(monkeypatch, folder, *arguments):
    paths = ["--model-path", str(folder / "model"), "--data-path", str(folder / "test.jsonl")]
    sizes = ["--num-prompts=3", "--n=2", "--max-new-tokens=4", "--batch-size=4", "--rounds=1", "--device=cpu"]
    monkeypatch.setattr("sys.argv", ["bench_generate.py", *paths, *sizes, *arguments])
    bench_generate.main()


def test_both_engines_generate_the_same_number_of_tokens_where_none_stops(tmp_path, monkeypatch, capsys):
    write_parent(tmp_path / "model", "baseline")
    write_jsonl(tmp_path / "test.jsonl", EXAMPLES)
    bench(monkeypatch, tmp_path, f"--output={tmp_path / 'figures.json'}")
    figures = read_json(tmp_path / "figures.json")
    assert figures["fixed"]["tokens"] == {"ours": [24], "hf": [24]}, "3 prompts, 2 samples each, 4 tokens each"
    printed = capsys.readouterr().out
    for workload in ("fixed", "ragged"):
        rates = figures[workload]["tokens_per_second"]
        assert figures[workload]["ratio"] == pytest.approx(rates["ours"] / rates["hf"])
        assert f"{workload:<7} ratio " in printed


def test_more_prompts_than_questions_is_an_error(tmp_path, monkeypatch):
    write_parent(tmp_path / "model", "baseline")
    write_jsonl(tmp_path / "test.jsonl", EXAMPLES[:2])
    with pytest.raises(UserError, match="has only 2 questions"):
        bench(monkeypatch, tmp_path)
