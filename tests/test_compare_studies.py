"""compare_studies.py: a main study and its ablations beside each other."""

from pathlib import Path

import pytest

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from scripts import compare_runs, compare_studies, report_plots
from scripts.study_numbers import load_seeds, study_numbers
from tests.stage_directories import make_stages
from tokenizer.mul_facts import CONDITIONS, Condition


def make_study(root: Path, right: list[dict[Condition, range]], call) -> Path:
    """A finished study of two benchmarks; right: of each seed, the items that each condition got right."""
    folders = []
    for seed, of_seed in enumerate(right):
        folder = root / f"seed_{seed}"
        flags = []
        for condition in CONDITIONS:
            flags += [f"--{condition.replace('_', '-')}", *make_stages(folder, condition, of_seed).values()]
        call(compare_runs, *flags, "--output-dir", folder)
        folders.append(folder)
    write_json(root / "study.json", study_numbers(load_seeds(folders), f"synthetic: {root.name}"))
    return root


@pytest.fixture
def studies(tmp_path, call, monkeypatch, capsys) -> list[Path]:
    """A main study, and an ablation whose mul_tokens models get one or two items of ten less."""
    monkeypatch.setattr(report_plots, "_png", lambda *_, **__: b"png")
    main = [{"baseline": range(3), "mul_tokens": range(7)}, {"baseline": range(3), "mul_tokens": range(6)}]
    ablation = [{"baseline": range(3), "mul_tokens": range(5)}, {"baseline": range(3), "mul_tokens": range(5)}]
    return [make_study(tmp_path / "main", main, call), make_study(tmp_path / "ablation", ablation, call)]


def test_studies_beside_each_other(studies, tmp_path, call, capsys):
    call(compare_studies, "--studies", *studies, "--output-dir", tmp_path / "table")
    table = read_json(tmp_path / "table/compare_studies.json")
    rows = table["benchmarks"]["gsm8k"]
    assert rows["main"]["difference"] == pytest.approx(0.35) and rows["main"]["against_first"] is None
    assert rows["ablation"]["per_seed"] == pytest.approx([0.2, 0.2])
    other = rows["ablation"]["against_first"]
    assert other["per_seed"] == pytest.approx([-0.2, -0.1]) and other["low"] < other["difference"] < other["high"]
    assert other["p_holm"] >= other["p_value"] and other["tests"] == 6, "two benchmarks, three tests each"
    text = (tmp_path / "table/compare_studies.md").read_text()
    assert "| ablation | 30.0% | 50.0% | +20.0 [" in text and "| −15.0 [" in text
    assert (tmp_path / "table/compare_studies.png").read_bytes() == b"png"


def test_the_picture_is_drawn(studies, monkeypatch):
    table = compare_studies.compare_studies(studies)
    monkeypatch.undo()
    assert compare_studies.draw(table).startswith(b"\x89PNG")


def test_studies_of_other_items_or_seeds_are_refused(studies, tmp_path, call):
    path = studies[1] / "study.json"
    result = read_json(path)
    write_json(path, result | {"seeds": ["seed_0"]})
    with pytest.raises(UserError, match="main has seed_0, seed_1 and ablation seed_0"):
        call(compare_studies, "--studies", *studies, "--output-dir", tmp_path / "table")
    write_json(path, result)
    for seed in (0, 1):
        for condition in CONDITIONS:
            answers = studies[1] / f"seed_{seed}/eval_sft_gsm8k_{condition}/gsm8k_responses.jsonl"
            write_jsonl(answers, [row | {"question": "another"} for row in read_jsonl(answers)])
    with pytest.raises(UserError, match="gsm8k: main and ablation were asked different items"):
        call(compare_studies, "--studies", *studies, "--output-dir", tmp_path / "table")
    with pytest.raises(UserError, match="two or more"):
        call(compare_studies, "--studies", studies[0], "--output-dir", tmp_path / "table")
