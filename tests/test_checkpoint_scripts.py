"""eval_checkpoints.py, plot_checkpoint_curve.py and visualize_pretrain_losses.py on runs made here."""

import csv
import functools
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from common.files import read_json, write_json, write_jsonl
from data.encoding import tokenizer_of
from data.hellaswag import load_hellaswag
from eval import hellaswag
from eval.hellaswag import score_items, summarise
from pretrain.checkpoint import checkpoint_path, load_checkpoint, model_from_checkpoint, save_checkpoint
from pretrain.model import GPTConfig
from scripts import eval_checkpoints, plot_checkpoint_curve, report_plots, visualize_pretrain_losses
from tests.helpers import random_gpt, run
from tokenizer.mul_facts import CONDITIONS

TINY = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=32)
PNG = b"\x89PNG\r\n"


def make_run(directory: Path, condition: str, steps: tuple[int, ...] = (2, 4), seed: int = 0) -> Path:
    """What pretrain/train.py leaves, as far as these scripts read it; the weights are random."""
    write_json(directory / "config.json", {"condition": condition, "training": {"total_batch_size": 64}})
    for step in steps:
        add_checkpoint(directory, condition, step, seed)
    train = [{"step": s, "loss": 11 - s + seed, "lr": 1e-3} for s in range(1, 5)]
    write_jsonl(directory / "log.jsonl", [*train, {"step": 4, "val_loss": 7.5}])
    return directory


def add_checkpoint(directory: Path, condition: str, step: int, seed: int = 0) -> Path:
    model = random_gpt(TINY, seed + step)
    state = {"model": model.state_dict(), "model_config": asdict(TINY), "step": step, "condition": condition, "seed": 0}
    save_checkpoint(checkpoint_path(directory, step), state)
    return checkpoint_path(directory, step)


@pytest.fixture
def runs(tmp_path) -> dict[str, Path]:
    return {c: make_run(tmp_path / f"pretrain_{c}", c, seed=10 * i) for i, c in enumerate(CONDITIONS)}


def write_items(path: Path) -> Path:
    nouns = ("dog", "cat", "hat", "boat", "tree", "pan")
    rows = [
        {"ind": i, "ctx": f"A man has a {noun}. He", "label": i % 4, "endings": [f"sees {n}s." for n in nouns[:4]]}
        for i, noun in enumerate(nouns)
    ]
    write_jsonl(path, rows)
    return path


@pytest.fixture
def items(tmp_path) -> Path:
    return write_items(tmp_path / "items.jsonl")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """A folder with items.jsonl, a run of each condition, and evals/, what eval_checkpoints.py made of them."""
    root = tmp_path_factory.mktemp("evaluated")
    write_items(root / "items.jsonl")
    directories = [make_run(root / f"pretrain_{c}", c, seed=10 * i) for i, c in enumerate(CONDITIONS)]
    with pytest.MonkeyPatch.context() as patch:
        evaluate(patch, root, root / "items.jsonl", *directories)
    return root


@pytest.fixture(autouse=True, scope="module")
def one_tokenizer():
    """Building the tokenizer takes longer than scoring six items."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hellaswag, "GPT2TokenizerWithMulFacts", functools.cache(hellaswag.GPT2TokenizerWithMulFacts))
        yield


def call(monkeypatch, script, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["script", *map(str, arguments)])
    script.main()


def evaluate(monkeypatch, tmp_path: Path, items: Path, *run_dirs: Path, output: str = "evals") -> None:
    arguments = ["--output-dir", tmp_path / output, "--data-path", items, "--device=cpu", "--dtype=float32"]
    call(monkeypatch, eval_checkpoints, "--runs", *run_dirs, *arguments)


# ---- eval_checkpoints


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_checkpoint_has_the_scores_of_its_model(evaluated, condition):
    folder = evaluated / "evals" / condition
    points = read_json(folder / "summary.json")["checkpoints"]
    assert [(point["step"], point["tokens"]) for point in points] == [(2, 128), (4, 256)]
    model = model_from_checkpoint(load_checkpoint(checkpoint_path(evaluated / f"pretrain_{condition}", 4)))
    items = load_hellaswag(evaluated / "items.jsonl")
    expected = summarise(score_items(model, items, tokenizer_of(condition), torch.device("cpu"), torch.float32))
    assert {metric: points[1][metric] for metric in expected} == expected
    assert read_json(folder / "hellaswag_000004.json")["acc"] == expected["acc"]
    with open(folder / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["acc_norm_char"]) for row in rows] == [point["acc_norm_char"]["value"] for point in points]


def test_only_what_is_new_is_evaluated(monkeypatch, tmp_path, capsys, runs, items):
    directory = runs["baseline"]
    evaluate(monkeypatch, tmp_path, items, directory)
    evaluate(monkeypatch, tmp_path, items, directory)
    assert "0 of 2 checkpoints" in capsys.readouterr().out

    add_checkpoint(directory, "baseline", 6)
    checkpoint_path(directory, 2).unlink()  # as --checkpoint.keep-last does
    add_checkpoint(directory, "baseline", 4, seed=5)  # another run wrote to the same place
    evaluate(monkeypatch, tmp_path, items, directory)
    out = capsys.readouterr().out
    assert "2 of 2 checkpoints" in out and "step 4," in out and "step 6," in out and "step 2," not in out
    summary = read_json(tmp_path / "evals" / "baseline" / "summary.json")
    assert [point["step"] for point in summary["checkpoints"]] == [2, 4, 6]


def test_two_processes_find_what_one_does(evaluated, tmp_path):
    arguments = ["--data-path", evaluated / "items.jsonl", "--output-dir", tmp_path, "--device=cpu", "--dtype=float32"]
    run("scripts/eval_checkpoints.py", "--runs", evaluated / "pretrain_mul_tokens", *arguments, processes=2)
    one, two = (read_json(root / "mul_tokens" / "summary.json") for root in (evaluated / "evals", tmp_path))
    assert one == two


def test_points_of_other_items_do_not_join_a_curve(monkeypatch, evaluated, items):
    write_jsonl(items, [json.loads(line) for line in items.read_text().splitlines()][:5])
    with pytest.raises(UserError, match=r"items_sha256 .* another --output-dir"):
        evaluate(monkeypatch, evaluated, items, evaluated / "pretrain_baseline")


def test_two_runs_of_one_condition_do_not_share_a_folder(monkeypatch, tmp_path, runs, items):
    other = make_run(tmp_path / "seed1", "baseline")
    with pytest.raises(UserError, match="two runs of baseline"):
        evaluate(monkeypatch, tmp_path, items, runs["baseline"], other)


def test_what_is_no_run_is_named(monkeypatch, tmp_path, items):
    with pytest.raises(UserError, match="not the directory of a pretraining run"):
        evaluate(monkeypatch, tmp_path, items, tmp_path)


def test_a_run_without_checkpoints_says_so(monkeypatch, tmp_path, items):
    directory = make_run(tmp_path / "early", "baseline", steps=())
    with pytest.raises(UserError, match="holds no checkpoint"):
        evaluate(monkeypatch, tmp_path, items, directory)


# ---- plot_checkpoint_curve


def test_the_curve_shows_the_numbers_of_the_summaries(monkeypatch, evaluated, tmp_path):
    folders = [evaluated / "evals" / condition for condition in CONDITIONS]
    call(monkeypatch, plot_checkpoint_curve, "--evals", *folders, "--output", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)
    numbers = read_json(tmp_path / "curve.json")
    assert (numbers["metric"], numbers["chance"], numbers["gpt2_124m"]["value"]) == ("acc_norm_token", 0.25, 0.2955)
    for condition, folder in zip(CONDITIONS, folders, strict=True):
        points = read_json(folder / "summary.json")["checkpoints"]
        drawn = numbers["curves"][condition]
        assert [(p["tokens"], p["value"], p["stderr"]) for p in drawn] == [
            (p["tokens"], p["acc_norm_token"]["value"], p["acc_norm_token"]["stderr"]) for p in points
        ]
        assert all(p["low"] <= p["value"] <= p["high"] for p in drawn)
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 1 + 4


def test_curves_of_other_items_are_not_drawn_together(monkeypatch, tmp_path):
    for condition in CONDITIONS:
        write_json(tmp_path / condition / "summary.json", {"condition": condition, "items_sha256": condition})
    folders = [tmp_path / condition for condition in CONDITIONS]
    with pytest.raises(UserError, match="different items"):
        call(monkeypatch, plot_checkpoint_curve, "--evals", *folders, "--output", tmp_path / "curve.png")


@pytest.mark.parametrize("script", [plot_checkpoint_curve, visualize_pretrain_losses])
def test_a_picture_is_a_png(monkeypatch, tmp_path, script):
    with pytest.raises(UserError, match=r"ends with \.png"):
        call(monkeypatch, script, "--output", tmp_path / "curve.pdf")


@pytest.mark.parametrize("script", [eval_checkpoints, plot_checkpoint_curve, visualize_pretrain_losses])
def test_without_runs_in_the_default_places_the_flag_is_named(monkeypatch, tmp_path, script):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"name --(runs|evals)"):
        call(monkeypatch, script)


# ---- visualize_pretrain_losses


def test_the_losses_are_those_of_the_logs(monkeypatch, tmp_path, runs):
    with open(runs["baseline"] / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # a run that is going on
    output = tmp_path / "losses.png"
    call(monkeypatch, visualize_pretrain_losses, "--runs", *runs.values(), "--output", output, "--smoothing=2")
    assert output.read_bytes().startswith(PNG)
    numbers = read_json(tmp_path / "losses.json")
    assert numbers["running_mean_of_logged_steps"] == 2
    assert numbers["runs"]["baseline"]["train"] == {"steps": [1, 2, 3, 4], "losses": [10, 9, 8, 7]}
    assert numbers["runs"]["mul_tokens"]["validation"] == {"steps": [4], "losses": [7.5]}
    with open(tmp_path / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and rows[0] == {"run": "baseline", "kind": "train", "step": "1", "loss": "10"}


def test_one_run_and_many_runs(monkeypatch, tmp_path, runs):
    monkeypatch.setattr(report_plots, "_png", lambda *arguments, **options: PNG)
    many = [runs["baseline"], *(make_run(tmp_path / f"seed{i}", "baseline", steps=()) for i in range(5))]
    for directories in (many[:1], many):
        call(monkeypatch, visualize_pretrain_losses, "--runs", *directories, "--output", tmp_path / "losses.png")
        labels = list(read_json(tmp_path / "losses.json")["runs"])
        assert labels == (["baseline"] if len(directories) == 1 else [str(directory) for directory in many])


def test_a_directory_without_a_log_is_named(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"holds no log\.jsonl"):
        call(monkeypatch, visualize_pretrain_losses, "--runs", tmp_path)
