"""Edit files of both formats, and what a bad record gets."""

import json

import pytest

from common.errors import UserError
from common.files import write_json, write_jsonl
from edit.records import EditRecord, Neighbor, edited_elsewhere, load_edits, to_row
from tests.helpers import ROOT, SHARED_DATA

OURS = {
    "subject": "France",
    "prompt": "The capital of France is",
    "target_new": "Berlin",
    "target_old": "Paris",
    "paraphrases": ["France is ruled from"],
    "neighbors": [{"prompt": "The capital of Spain is", "answer": "Madrid"}],
}
COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{}, that was created in",
        "relation_id": "P740",
        "target_new": {"str": "Philadelphia"},
        "target_true": {"str": "Birmingham"},
        "subject": "Anaal Nathrakh",
    },
    "paraphrase_prompts": ["Anaal Nathrakh was formed in"],
    "neighborhood_prompts": ["Godflesh, founded in"],
    "generation_prompts": ["Anaal Nathrakh originated from"] * 3,
}


def test_both_formats(tmp_path):
    write_json(tmp_path / "edits.json", [OURS, COUNTERFACT])
    ours, counterfact = load_edits(tmp_path / "edits.json")
    assert (ours.prompt, ours.target_new, ours.group, ours.id) == ("The capital of France is", "Berlin", "all", "0")
    assert ours.neighbors == (Neighbor("The capital of Spain is", "Madrid"),)
    assert counterfact.prompt == "Anaal Nathrakh, that was created in" and counterfact.group == "P740"
    assert counterfact.neighbors == (Neighbor("Godflesh, founded in", "Birmingham"),)
    assert counterfact.generation_prompts == ("Anaal Nathrakh originated from",)


def test_jsonl_round_trip_and_max_edits(tmp_path):
    write_json(tmp_path / "edits.json", [OURS, COUNTERFACT])
    records = load_edits(tmp_path / "edits.json")
    write_jsonl(tmp_path / "again.jsonl", [to_row(record) for record in records])
    assert load_edits(tmp_path / "again.jsonl") == records
    assert load_edits(tmp_path / "again.jsonl", max_edits=1) == records[:1]
    with pytest.raises(UserError, match="--max-edits 0"):
        load_edits(tmp_path / "again.jsonl", max_edits=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": "Spain"}, "the subject 'Spain' is not in the prompt 'The capital of France is'"),
        ({"target_new": " "}, "target_new: expected text, found ' '"),
        ({"target_new": "Paris"}, "target_new and target_old are both 'Paris'"),
        ({"target_new": "Madrid"}, "has target_new as its answer"),
        ({"paraphrases": "one"}, "paraphrases: expected a list of texts"),
        ({"neighbors": [{"prompt": "x"}]}, "answer: expected text, found None"),
        ({"prompt": "France and France are"}, "stands 2 times"),
        ({"paraphrases": ["x", ""]}, "paraphrases: text 2 of 2 is blank"),
        ({"generation_prompts": [" "]}, "generation_prompts: text 1 of 1 is blank"),
        ({"neighbors": [{"prompt": " ", "answer": "x"}]}, "prompt: expected text, found ' '"),
        (COUNTERFACT | {"paraphrase_prompts": [""]}, "paraphrase_prompts: text 1 of 1 is blank"),
        (COUNTERFACT | {"neighborhood_prompts": [""]}, "neighborhood_prompts: text 1 of 1 is blank"),
        (COUNTERFACT | {"generation_prompts": ["\n"]}, "generation_prompts: text 1 of 1 is blank"),
        ({"requested_rewrite": {"subject": "x", "prompt": "x is"}}, "expected one {} for the subject"),
    ],
)
def test_a_bad_record_is_named(tmp_path, change, message):
    write_json(tmp_path / "edits.json", [OURS, OURS | change])
    with pytest.raises(UserError) as error:
        load_edits(tmp_path / "edits.json")
    assert message in str(error.value) and "edits.json, record 2: " in str(error.value)


@pytest.mark.parametrize(("content", "message"), [("{}", "expected a list of edits"), ("[3]", "expected an object")])
def test_a_file_of_another_shape_is_named(tmp_path, content, message):
    (tmp_path / "edits.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_edits(tmp_path / "edits.json")


def test_neighbors_whose_subject_is_edited_are_marked():
    def record(subject: str, *neighbors: str) -> EditRecord:
        return EditRecord(
            subject, "all", subject, f"{subject} is", "a", "b", (), tuple(Neighbor(n, "c") for n in neighbors)
        )

    records = [
        record("France", "The capital of Spain is", "The capital of Germany is", "Germany and germany"),
        record("the Germany", "France is", "Frances is"),
    ]
    assert edited_elsewhere(records) == [[False, True, True], [True, False]]


def test_the_facts_that_come_with_the_project():
    records = load_edits(ROOT / "edit" / "facts.json")
    assert len(records) >= 50 and len({record.group for record in records}) >= 9
    assert len({record.subject for record in records}) == len(records)
    for record in records:
        assert len(record.paraphrases) >= 3 and len(record.neighbors) >= 3
    assert not any(any(marks) for marks in edited_elsewhere(records)), "the neighbors are to be unedited"


@pytest.mark.skipif(not (SHARED_DATA / "counterfact").is_dir(), reason="no CounterFact records here")
def test_real_counterfact_records():
    path = SHARED_DATA / "counterfact" / "counterfact_200.json"
    try:
        records = load_edits(path)
    except UserError as error:
        pytest.fail(str(error))
    assert len(records) == len(json.loads(path.read_text()))
