"""The compute-match audit field by field: what forbids a verdict, and what may differ."""

import json

import pytest

from common.files import read_json, write_jsonl
from scripts import compare_runs
from tests.comparison_runs import directories, run
from tests.stage_directories import change
from tokenizer.mul_facts import CONDITIONS

pytestmark = pytest.mark.usefixtures("pictures")

CHANGES = [
    ("pretrain", "run.json", ["seed"], 1),
    ("pretrain", "run.json", ["steps"], 399),
    ("pretrain", "run.json", ["tokens"], 19_999),
    ("pretrain", "run.json", ["dtype"], "torch.bfloat16"),
    ("pretrain", "run.json", ["config", "model", "vocab_size"], 50_304),
    ("pretrain", "run.json", ["config", "model", "n_layer"], 3),
    ("pretrain", "run.json", ["config", "training", "learning_rate"], 2e-3),
    ("pretrain", "run.json", ["config", "training", "warmup_steps"], 11),
    ("pretrain", "run.json", ["config", "training", "batch_size"], 8),
    ("pretrain", "run.json", ["config", "training", "max_steps"], 500),
    ("pretrain", "run.json", ["config", "training", "only_here"], 1),
    ("pretrain", "run.json", ["data", "documents_sha256"], "e" * 64),
    ("export", "config.json", ["n_embd"], 128),
    ("export", "config.json", ["vocab_size"], 50_257),
    ("export", "config.json", ["token_families"], "mul+digits"),
    ("pretrain", "run.json", ["data", "families"], "mul+digits"),
    ("sft_gsm8k", "run.json", ["config", "training", "learning_rate"], 1e-5),
    ("sft_gsm8k", "run.json", ["steps"], 49),
    ("sft_gsm8k", "run.json", ["seed"], 3),
    ("eval", "run_gsm8k.json", ["config", "max_new_tokens"], 128),
    ("eval", "run_gsm8k.json", ["data", "sha256"], "other problems"),
    ("eval", "run_gsm8k.json", ["data", "items"], 9),
    ("eval", "run_probes.json", ["config", "max_samples"], 5),
    # A field of an ancestor, seen only through the chain of parents of the evaluation.
    (
        "eval",
        "run_gsm8k.json",
        ["parent", "run", "parent", "run", "parent", "run", "config", "model", "n_head"],
        4,
    ),
    ("eval", "run_gsm8k.json", ["parent", "run", "condition"], "mul_tokens"),
    ("eval", "run_gsm8k.json", ["parent", "run", "parent"], None),
]


@pytest.mark.parametrize(("stage", "name", "keys", "value"), CHANGES, ids=[".".join([c[0], *c[2]]) for c in CHANGES])
def test_each_changed_field_forbids_the_verdict(monkeypatch, tmp_path, capsys, stages, stage, name, keys, value):
    change(stages["baseline"][stage] / name, keys, value)
    # Only the changed directory is given, so a change in an ancestor's record can only be found through the chain.
    assert run(monkeypatch, tmp_path, directories(stages, stage)) == compare_runs.NOT_COMPARABLE
    comparison = read_json(tmp_path / "out" / "comparison.json")
    assert any(keys[-1] in sentence for sentence in comparison["mismatches"])
    assert all(result["test"] is None for result in comparison["benchmarks"].values())
    assert "not comparable" in capsys.readouterr().out
    report = (tmp_path / "out" / "report.html").read_text()
    assert "not comparable" in report and 'class="verdict"' not in report


def test_the_refusal_names_field_and_values(monkeypatch, tmp_path, capsys, stages):
    change(stages["baseline"]["pretrain"] / "run.json", ["config", "training", "max_steps"], 500)
    assert run(monkeypatch, tmp_path, directories(stages, "pretrain")) == compare_runs.NOT_COMPARABLE
    line = "not comparable: training.max_steps is 500 in baseline and 400 in mul_tokens (stage pretrain)"
    assert line in capsys.readouterr().out


def test_two_choices_of_token_families_are_refused_by_name(monkeypatch, tmp_path, capsys, stages):
    change(stages["mul_tokens"]["export"] / "config.json", ["token_families"], "mul+add")
    assert run(monkeypatch, tmp_path, directories(stages, "export")) == compare_runs.NOT_COMPARABLE
    line = "not comparable: config.json: token_families is mul in baseline and mul+add in mul_tokens (stage export)"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["config", "output_dir"], "elsewhere"),
        (["config", "device"], "cuda"),
        (["config", "logging", "log_every"], 1),
        (["config", "inject_mul_tokens"], True),
        (["data", "fingerprint"], "other"),
        (["data", "split_tokens"], 1),
        (["wall_seconds"], 1.0),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, list) else "",
)
def test_fields_that_may_differ(monkeypatch, tmp_path, stages, keys, value):
    change(stages["baseline"]["pretrain"] / "run.json", keys, value)
    assert run(monkeypatch, tmp_path, directories(stages, "pretrain")) == 0


@pytest.mark.parametrize(("other", "code"), [("a", 0), ("b", compare_runs.NOT_COMPARABLE)])
def test_an_edits_passages_may_lie_elsewhere_and_must_be_the_same(monkeypatch, tmp_path, stages, other, code):
    """An ablation's mul_tokens has files of its own, and the baseline of the study that it builds on."""
    for condition, path, content in zip(CONDITIONS, ("study/x.jsonl", "ablation/x.jsonl"), ("a", other), strict=True):
        record = stages[condition]["eval"] / "run_probes.json"
        change(record, ["config", "hellaswag"], path)
        change(record, ["data", "hellaswag"], {"items": 2, "sha256": content})
    assert run(monkeypatch, tmp_path, directories(stages, "eval")) == code


@pytest.mark.parametrize(("other", "code"), [("a", 0), ("b", compare_runs.NOT_COMPARABLE)])
def test_weights_from_elsewhere_must_be_the_same_file(monkeypatch, tmp_path, capsys, stages, other, code):
    for condition, letter in (("baseline", "a"), ("mul_tokens", other)):
        parent = {"path": "openai-community/gpt2", "sha256": letter * 64, "run": None}
        change(stages[condition]["sft_gsm8k"] / "run.json", ["parent"], parent)
    assert run(monkeypatch, tmp_path, directories(stages, "sft_gsm8k")) == code
    assert ("parent.sha256" in capsys.readouterr().out) == bool(code)


def test_documents_that_nobody_recorded_are_not_the_same_documents(monkeypatch, tmp_path, stages):
    for condition in CONDITIONS:
        change(stages[condition]["pretrain"] / "run.json", ["data", "documents_sha256"], None)
    assert run(monkeypatch, tmp_path, directories(stages, "pretrain")) == compare_runs.NOT_COMPARABLE
    for condition in CONDITIONS:
        change(stages[condition]["pretrain"] / "run.json", ["data", "fingerprint"], "the same tokens")
    assert run(monkeypatch, tmp_path, directories(stages, "pretrain")) == 0


@pytest.mark.parametrize("kind", ["fewer", "other order", "other question"])
def test_other_questions_forbid_the_verdict(monkeypatch, tmp_path, stages, kind):
    path = stages["mul_tokens"]["eval"] / "gsm8k_responses.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if kind == "other question":
        rows[4]["question"] = "What else?"
    write_jsonl(path, {"fewer": rows[:9], "other order": rows[::-1], "other question": rows}[kind])
    assert run(monkeypatch, tmp_path, directories(stages, "eval")) == compare_runs.NOT_COMPARABLE
    gsm8k = read_json(tmp_path / "out" / "comparison.json")["benchmarks"]["gsm8k"]
    assert "paired" not in gsm8k
    assert gsm8k["baseline"]["n"] == 10


def test_a_directory_that_is_not_the_ancestor_of_the_evaluated_model(monkeypatch, tmp_path, capsys, stages):
    for condition in CONDITIONS:  # retrained after the evaluation, alike in both conditions
        change(stages[condition]["pretrain"] / "run.json", ["started"], "2026-02-02T00:00:00+0000")
    assert run(monkeypatch, tmp_path, directories(stages, "pretrain", "eval")) == compare_runs.NOT_COMPARABLE
    assert (
        "the run that later stages came from is another in baseline and another in mul_tokens"
        in capsys.readouterr().out
    )
