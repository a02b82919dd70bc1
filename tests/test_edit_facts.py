"""edit/facts.json is what prepare_facts.py writes; teach_facts.py at toy size."""

import random

import pytest
import torch

from common.errors import UserError
from common.files import read_json, write_json, write_jsonl
from data.documents import read_documents
from data.world.facts import RELATIONS, fact_records, facts
from edit import prepare_facts, teach_facts
from edit.records import edited_elsewhere, load_edits
from edit.teach_facts import Statements
from pretrain.hf_weights import load_model_dir, save_model_dir
from tests.edit_models import TOKENIZER, small_model
from tests.helpers import ROOT
from tokenizer.mul_facts import EOT_ID


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", [script.__name__, *map(str, arguments)])
    script.main()


def test_the_file_in_the_repository_is_what_the_script_writes(tmp_path, monkeypatch, capsys):
    run(prepare_facts, monkeypatch, "--output", tmp_path / "facts.json")
    assert read_json(tmp_path / "facts.json") == read_json(ROOT / "edit" / "facts.json")


def test_edits_are_of_true_facts_and_their_neighbors_too(tmp_path, monkeypatch, capsys):
    run(prepare_facts, monkeypatch, "--all-facts", "--output", tmp_path / "all.json")
    records = load_edits(tmp_path / "all.json")
    true = {record["prompt"]: record["target"] for record in fact_records(random.Random(0))}
    targets = {(fact.relation, fact.target) for fact in facts()}
    assert len(records) == len(true) == len(facts()) >= 200
    for record in records:
        assert true[record.prompt] == record.target_old != record.target_new
        assert (record.group, record.target_new) in targets
        assert all(true[neighbor.prompt] == neighbor.answer for neighbor in record.neighbors)
    assert any(any(marks) for marks in edited_elsewhere(records)), "with all facts edited, neighbors are too"


def test_paraphrases_are_taught_of_the_other_facts_alone():
    edits = load_edits(ROOT / "edit" / "facts.json")
    held_out = {record.prompt for record in edits}
    statements = Statements(TOKENIZER, random.Random(0), held_out)
    taught = "\n".join(TOKENIZER.decode(ids) for _ in range(200) for ids, _ in statements.rows(64, 128))
    shown = 0
    for record in fact_records(random.Random(0)):
        assert f"{record['prompt']} {record['target']}." in taught
        found = [paraphrase in taught for paraphrase in record["paraphrases"]]
        assert record["prompt"] not in held_out or not any(found)
        shown += sum(found)
    assert shown > 300
    assert not any(paraphrase in taught for record in edits for paraphrase in record.paraphrases)


def test_the_loss_is_on_objects_and_nothing_else():
    rows = Statements(TOKENIZER, random.Random(1), set()).rows(40, 128)
    answers = {f" {fact.target}." for fact in facts()}
    for ids, flags in rows:
        assert len(flags) == len(ids) - 1
        counted, run_of = [], []
        for token, flag in zip([*ids[1:], EOT_ID], [*flags, False], strict=True):
            if flag:
                run_of.append(token)
            elif run_of:
                counted.append(TOKENIZER.decode(run_of))
                run_of = []
        assert counted and set(counted) <= answers


def test_a_fact_is_taught_once_per_round():
    statements = Statements(TOKENIZER, random.Random(0), set())
    rows = statements.rows(len(facts()), 1024)
    assert sum(TOKENIZER.decode(ids).count(".") for ids, _ in rows) >= len(facts()) and not statements.queue


def test_the_script_teaches(tmp_path, monkeypatch, capsys):
    save_model_dir(small_model(), tmp_path / "model", "mul_tokens")
    write_json(tmp_path / "model" / "run.json", {"stage": "export", "condition": "mul_tokens"})
    write_jsonl(tmp_path / "text.jsonl", [{"text": f"Tom has {i} books."} for i in range(50)])
    arguments = ["--model-path", tmp_path / "model", "--text", tmp_path / "text.jsonl", "--device=cpu"]
    arguments += ["--output-dir", tmp_path / "out", "--facts-per-step=8", "--text-tokens=20"]
    run(teach_facts, monkeypatch, *arguments, "--steps=3")
    results, record = read_json(tmp_path / "out" / "facts_results.json"), read_json(tmp_path / "out" / "run.json")
    assert (record["stage"], record["condition"], record["steps"]) == ("edit_facts", "mul_tokens", 3)
    assert results["facts"] == len(facts()) and set(results["after"]) == {"all", "held_out_paraphrases", *RELATIONS}
    documents = list(read_documents(tmp_path / "out" / "text.txt"))
    assert any(text.startswith("Tom has") for text in documents) and len(documents) > 8
    assert any(f"{fact.target}." in text for fact in facts() for text in documents)
    before, after = (load_model_dir(tmp_path / name).state_dict() for name in ("model", "out"))
    assert not torch.equal(before["wte.weight"], after["wte.weight"])
    with pytest.raises(UserError, match="expected at least 1"):
        run(teach_facts, monkeypatch, *arguments, "--steps=0")


def test_more_edits_than_the_world_has_room_for(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--edits 400: the world has subjects for"):
        run(prepare_facts, monkeypatch, "--edits=400", "--output", tmp_path / "x.json")
