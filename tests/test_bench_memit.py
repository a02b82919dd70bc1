"""The benchmark of MEMIT, at toy size."""

import pytest

from common.errors import UserError
from common.files import read_json, write_text
from scripts import bench_memit

TOY = "model: {n_layer: 3, n_head: 2, n_embd: 16, block_size: 64}\ntraining: {batch_size: 2}\n"


def test_both_ways_are_timed_and_agree(tmp_path, monkeypatch, capsys):
    write_text(tmp_path / "toy.yaml", TOY)
    arguments = ["--max-edits=6", "--singles=2", "--single-steps=1", "--values.steps=3", "--device=cpu", "--threads=1"]
    arguments += ["--update.layers", "0", "1", "--covariance-tokens=1000"]
    paths = [f"--recipe={tmp_path / 'toy.yaml'}", f"--output={tmp_path / 'figures.json'}"]
    monkeypatch.setattr("sys.argv", ["bench_memit.py", *arguments, *paths])
    bench_memit.main()
    figures = read_json(tmp_path / "figures.json")
    assert figures["loss_difference"] < 1e-4, "the two ways must compute the same"
    assert len(figures["single_seconds"]) == 2 and figures["single"] > 0 and figures["ratio"] > 0
    low, high = figures["single_range"]
    assert 0 < low <= figures["single"] <= high and figures["ratio_range"][0] <= figures["ratio"]
    parts = figures["seconds"]
    assert parts["total"] == pytest.approx(parts["contexts"] + parts["covariance"] + parts["editing"], abs=0.05)
    assert "ratio of editing: " in capsys.readouterr().out


def test_single_edits_are_spread_over_all():
    assert bench_memit.spread(3, 50) == [0, 24, 49] and bench_memit.spread(5, 2) == [0, 1]


def test_no_edits_to_time_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench_memit.py", "--singles=0"])
    with pytest.raises(UserError, match="at least 1"):
        bench_memit.main()
