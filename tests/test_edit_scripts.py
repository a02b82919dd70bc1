"""run_memit.py, run_rome.py, run_edit_eval.py and run_revert.py at toy size, and what a user's mistake gets."""

import sys

import pytest
import torch

from common.errors import UserError
from common.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from data.hellaswag import items_sha256, load_hellaswag
from edit import run_edit_eval, run_memit, run_revert, run_rome
from edit.records import to_row
from eval.benchmark import resolve_condition
from pretrain.hf_weights import load_model_dir, save_model_dir
from tests.edit_models import RECORDS, small_model

TOY = ["--update.layers", "0", "1", "--update.rome-layer=1", "--values.steps=3", "--values.clamp=3"]
TOY += ["--contexts.number=1", "--contexts.tokens=3", "--covariance.tokens=1500", "--device=cpu"]
RECORD_ROWS = [to_row(record) for record in RECORDS]


def run(script, monkeypatch, *arguments, **flags):
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", [script.__name__, *argv, *arguments])
    script.main()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Model directories of both conditions, edits and a corpus."""
    root = tmp_path_factory.mktemp("edit")
    for condition in ("baseline", "mul_tokens"):
        save_model_dir(small_model(), root / condition, condition)
        write_json(root / condition / "run.json", {"stage": "export", "condition": condition})
    write_json(root / "edits.json", RECORD_ROWS)
    write_jsonl(root / "text.jsonl", [{"text": f"Tom has {i} books and Ann has {i + 1} pens."} for i in range(200)])
    items = [
        {"ind": i, "ctx": "Tom has a book and", "endings": ["a", "b", "c", "d e"], "label": i % 4} for i in range(4)
    ]
    write_jsonl(root / "hellaswag.jsonl", items)
    return root


@pytest.fixture(scope="module")
def edited(workspace, tmp_path_factory):
    """What run_memit.py wrote of the baseline model."""
    out = tmp_path_factory.mktemp("out") / "memit"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(run_memit, monkeypatch, *TOY, **common(workspace), output_dir=out)
    return out


def common(workspace, condition="baseline"):
    corpus = {"covariance.corpus": workspace / "text.jsonl", "covariance.cache": workspace / "cache"}
    return {"model_path": workspace / condition, "edits": workspace / "edits.json", **corpus}


def test_the_edited_directory_is_a_model_with_its_results(workspace, edited):
    results, record = read_json(edited / "memit_results.json"), read_json(edited / "run.json")
    assert resolve_condition(edited, None) == "baseline"
    model, parent = load_model_dir(edited).state_dict(), load_model_dir(workspace / "baseline").state_dict()
    changed = {name for name in model if not torch.equal(model[name], parent[name])}
    assert changed == {"h.0.mlp.c_proj.weight", "h.1.mlp.c_proj.weight"}
    assert (record["stage"], record["condition"], record["data"]["records"]) == ("edit_memit", "baseline", 4)
    assert record["parent"]["sha256"] == sha256_file(workspace / "baseline" / "model.safetensors")
    assert list(results["groups"]) == ["capital", "city", "field"] and len(results["edits"]) == 4
    for when in ("before", "after"):
        assert results["overall"][when]["efficacy"]["num_total"] == 4
        # Of three neighbors one is about Spain, which is edited too.
        assert results["overall"][when]["neighborhood"]["num_total"] == 1
        assert results["overall"][when]["neighborhood_edited"]["num_total"] == 1
    for row in results["edits"]:
        assert row["loss"] <= row["loss_before"] and row["success"] == (row["new_after"] > row["old_after"])
    assert {"covariance", "editing", "scoring"} == set(results["seconds"]) and results["residual_left"] < 1.5
    text = (edited / "memit_results.md").read_text()
    assert "| capital | 2 |" in text and "| The capital of France is | Paris | Buenos Aires |" in text


def test_revert_gives_the_parent_s_weights_bit_for_bit(workspace, edited, tmp_path, monkeypatch, capsys):
    run(run_revert, monkeypatch, model_path=edited, output_dir=tmp_path / "back")
    assert sha256_file(tmp_path / "back" / "model.safetensors") == sha256_file(
        workspace / "baseline" / "model.safetensors"
    )
    run(run_revert, monkeypatch, model_path=edited, output_dir=tmp_path / "back")  # an earlier edit may be replaced
    with pytest.raises(UserError, match=r"holds no originals\.safetensors"):
        run(run_revert, monkeypatch, model_path=workspace / "baseline", output_dir=tmp_path / "other")
    with pytest.raises(UserError, match="holds something else than an edited model"):
        run(run_revert, monkeypatch, model_path=edited, output_dir=workspace / "mul_tokens")


def test_mul_tokens_models_and_every_method_work(workspace, tmp_path, monkeypatch, capsys):
    for method in ("memit", "emmet", "alphaedit", "rome"):
        out = tmp_path / method
        flags = common(workspace, "mul_tokens") | {"method": method, "output_dir": out, "max_edits": 2}
        run(run_memit, monkeypatch, *TOY, "--update.null-space-threshold=0.5", **flags)
        results = read_json(out / "memit_results.json")
        assert results["method"] == method and results["layers"] == ([1] if method == "rome" else [0, 1])
        assert resolve_condition(out, None) == "mul_tokens" and len(read_json(out / "edits.json")) == 2
    assert "efficacy" in capsys.readouterr().out


def test_rome_from_flags_and_from_a_file(workspace, tmp_path, monkeypatch, capsys):
    flags = common(workspace)
    run(run_rome, monkeypatch, *TOY, **flags, index=1, output_dir=tmp_path / "file")
    del flags["edits"]
    record = RECORD_ROWS[1]
    named = {name: record[name] for name in ("prompt", "subject", "target_new", "target_old")}
    run(run_rome, monkeypatch, *TOY, **flags, **named, output_dir=tmp_path / "flags")
    by_file, by_flags = (read_json(tmp_path / name / "rome_results.json")["edits"][0] for name in ("file", "flags"))
    assert by_file["new_after"] == by_flags["new_after"] > by_file["new_before"]
    assert sorted(p.name for p in (tmp_path / "file").glob("*.json"))[-2:] == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with pytest.raises(UserError, match=r"--index 9: .* has records 0 to 3"):
        run(run_rome, monkeypatch, *TOY, **common(workspace), index=9, output_dir=tmp_path / "x")
    with pytest.raises(UserError, match="subject: expected text, found ''"):
        run(run_rome, monkeypatch, *TOY, **flags, output_dir=tmp_path / "x")
    with pytest.raises(UserError, match="--edits names the edit"):
        run(run_rome, monkeypatch, *TOY, **common(workspace), **named, output_dir=tmp_path / "x")


def test_the_evaluation_compares_with_and_without_the_edit(workspace, edited, tmp_path, monkeypatch, capsys):
    flags = {"model_path": edited, "prose": workspace / "text.jsonl", "prose_tokens": 300, "generation_tokens": 6}
    flags |= {"hellaswag": workspace / "hellaswag.jsonl", "probes": 2, "probe_tokens": 2, "device": "cpu"}
    run(run_edit_eval, monkeypatch, **flags, output_dir=tmp_path)
    results, memit = read_json(tmp_path / "edit_eval_results.json"), read_json(edited / "memit_results.json")
    assert results["overall"] == memit["overall"], "both scripts ask the same"
    assert results["perplexity"]["before"] != results["perplexity"]["after"]
    change = results["perplexity"]["after"] / results["perplexity"]["before"] - 1
    assert results["perplexity"]["change"] == pytest.approx(change, abs=1e-4)
    assert results["probes"]["n"] == 6 and results["hellaswag"]["n"] == 4
    assert results["hellaswag"]["difference"] == pytest.approx(
        results["hellaswag"]["after"] - results["hellaswag"]["before"]
    )
    assert len(read_jsonl(tmp_path / "edit_eval_texts.jsonl")) == 4
    record = read_json(tmp_path / "run_edit_eval.json")
    assert record["parent"]["run"]["stage"] == "edit_memit"
    items = load_hellaswag(workspace / "hellaswag.jsonl")
    assert record["data"]["hellaswag"] == {"items": 4, "sha256": items_sha256(items)}
    assert "perplexity" in capsys.readouterr().out
    for flag, message in (
        ({"hellaswag_items": 0}, "--hellaswag-items 0: expected at least 1"),
        ({"probes": -1}, "0 or"),
    ):
        with pytest.raises(UserError, match=message):
            run(run_edit_eval, monkeypatch, **flags | flag, output_dir=tmp_path / "x")
    with pytest.raises(UserError, match=r"holds no originals\.safetensors and edits\.json"):
        run(run_edit_eval, monkeypatch, model_path=workspace / "baseline", output_dir=tmp_path / "x")


@pytest.mark.parametrize("condition", ["baseline"])
def test_a_bad_record_is_named_and_nothing_is_edited(workspace, tmp_path, monkeypatch, condition):
    write_json(tmp_path / "bad.json", [RECORD_ROWS[0], RECORD_ROWS[1] | {"subject": "Prado"}])
    flags = common(workspace, condition) | {"edits": tmp_path / "bad.json", "output_dir": tmp_path / "out"}
    with pytest.raises(UserError, match=r"bad\.json, record 2: the subject 'Prado' is not in the prompt 'Louvre is"):
        run(run_memit, monkeypatch, *TOY, **flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_path": ""}, "give --model-path"),
        ({"model_path": "nowhere"}, "nowhere"),
        ({"edits": "nowhere.json"}, r"nowhere\.json does not exist"),
        ({"condition": "mul_tokens"}, "is a model of baseline"),
        ({"covariance.corpus": "nowhere.txt"}, r"nowhere\.txt does not exist"),
        ({"max_edits": 0}, "--max-edits 0"),
        ({"values.batch-edits": 0}, "--values.batch-edits 0: expected at least 1"),
        ({"update.token": "prompt"}, "--values.kl-weight 0.0625 holds on to the subject's token"),
    ],
)
def test_mistakes(workspace, tmp_path, monkeypatch, change, message):
    flags = common(workspace) | {"output_dir": tmp_path / "out"} | change
    with pytest.raises(UserError, match=message):
        run(run_memit, monkeypatch, *TOY, **flags)
    assert not (tmp_path / "out").exists()


def test_a_directory_of_something_else_is_not_replaced(workspace, tmp_path, monkeypatch):
    write_json(tmp_path / "notes.json", {})
    with pytest.raises(UserError, match="holds something else"):
        run(run_memit, monkeypatch, *TOY, **common(workspace), output_dir=tmp_path)


@pytest.mark.parametrize("script", [run_memit, run_rome])
def test_neither_the_parent_nor_a_taught_model_is_replaced(workspace, edited, tmp_path, monkeypatch, script):
    flags = common(workspace)
    with pytest.raises(UserError, match="is a model that is read"):
        run(script, monkeypatch, *TOY, **flags | {"model_path": edited, "output_dir": edited / ".." / edited.name})
    write_json(tmp_path / "run.json", {"stage": "edit_facts", "condition": "baseline"})
    with pytest.raises(UserError, match=r"holds the model that teach_facts\.py wrote"):
        run(script, monkeypatch, *TOY, **flags, output_dir=tmp_path)
