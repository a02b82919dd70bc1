"""data/chat_rows.py: rows to train on, from files; the bad ones named, counted and left out."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from common.errors import UserError
from common.files import write_jsonl
from data.chat_rows import BadRow, messages, question_and_answer, read_rows


def conversation(*contents, roles=("user", "assistant")):
    return {"messages": [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]}


GOOD = [conversation(f"What is {i} + 1?", f"It is {i + 1}.") for i in range(300)]
BAD = {
    "missing_keys": [{}, {"messages": None}, {"messages": [{"role": "user"}]}, {"messages": ["hello"]}, ["a list"]],
    "wrong_role_order": [
        {"messages": []},
        conversation("Hello."),
        conversation("Hello.", "Hi.", "Bye."),
        conversation("Hi.", "Hello.", roles=("assistant", "user")),
        {"messages": [*GOOD[0]["messages"], {"role": "system", "content": "late"}]},
    ],
    "empty_answer": [conversation("Hello.", " \n"), conversation("Hello.", "Hi.", "And?", "")],
    "empty_question": [conversation("  ", "Hi.")],
    "huge_answer": [conversation("Count.", "1 " * 100_000)],
    "not_utf8": [conversation("Hello.", "half a pair: \ud83d")],
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_conversation_has_a_reason(reason):
    for row in BAD[reason]:
        with pytest.raises(BadRow, match=f"^{reason}$"):
            messages(row)


def test_a_good_conversation_comes_back_as_it_is_without_an_empty_system_turn():
    system = {"role": "system", "content": "Be brief."}
    assert messages(conversation("a", "b", "c", "d") | {"id": 7}) == conversation("a", "b", "c", "d")["messages"]
    assert messages({"messages": [system, *GOOD[0]["messages"]]}) == [system, *GOOD[0]["messages"]]
    assert messages({"messages": [system | {"content": " "}, *GOOD[0]["messages"]]}) == GOOD[0]["messages"]


def test_gsm8k_items_are_checked_too():
    assert question_and_answer({"question": "q", "answer": "a", "id": 1}) == {"question": "q", "answer": "a"}
    for row, reason in (({"question": "q"}, "missing_keys"), ({"question": "q", "answer": ""}, "empty_answer")):
        with pytest.raises(BadRow, match=reason):
            question_and_answer(row)


def write_lines(path, good=300):
    """A file with a bad line of each kind, at the lines that come back by reason."""
    lines = [json.dumps(row).encode() for row in GOOD[:good]]
    bad = {reason: json.dumps(rows[0]).encode() for reason, rows in BAD.items()}
    bad |= {"not_json": b'{"messages": [', "not_utf8": json.dumps(GOOD[0]).encode().replace(b"What", b"Wh\xe4t")}
    for line in bad.values():
        lines.insert(3, line)
        lines.insert(3, b"")  # an empty line is nobody's fault
    path.write_bytes(b"\n".join(lines))
    return {reason: lines.index(line) + 1 for reason, line in bad.items()}


def test_bad_rows_are_named_by_file_and_line_counted_and_left_out(tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    places = write_lines(path)
    result = read_rows(path, messages, allow_bad_rows=True)
    assert result.rows == [row["messages"] for row in GOOD]
    assert result.dropped == dict.fromkeys(places, 1)
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == sorted(f"left out: {path}, line {line}: {reason}" for reason, line in places.items())


def test_more_than_one_percent_of_bad_rows_stops_the_run(tmp_path):
    path = tmp_path / "mine.jsonl"
    places = write_lines(path)
    with pytest.raises(UserError, match=f"7 of 307 rows cannot be used .*line {min(places.values())};.*--allow-bad-ro"):
        read_rows(path, messages)
    write_jsonl(path, [*GOOD, *GOOD, *BAD["empty_answer"]])
    assert read_rows(path, messages).dropped == {"empty_answer": 2}


def test_a_subset_is_drawn_by_seed_and_in_file_order(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", GOOD)
    whole = read_rows(tmp_path, messages).rows
    some, same, others = (read_rows(tmp_path, messages, subset_size=50, seed=seed).rows for seed in (1, 1, 2))
    assert some == same != others and len(some) == 50
    assert [row for row in whole if row in some] == some
    assert read_rows(tmp_path, messages, subset_size=1000).rows == whole


def test_hub_rows_are_drawn_as_local_ones_are(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "same.jsonl", GOOD)
    monkeypatch.setattr("data.chat_rows.load_from_hub", lambda *_: Dataset.from_list(GOOD))
    drawn = [
        read_rows(source, messages, subset_size=50).rows for source in ("nobody/data-set", tmp_path / "same.jsonl")
    ]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 50


def test_parquet_shards_of_a_folder_are_read_as_one(tmp_path):
    for i in range(2):
        pq.write_table(pa.Table.from_pylist(GOOD[150 * i : 150 * i + 150]), tmp_path / f"train-0000{i}-of-2.parquet")
    assert read_rows(tmp_path, messages).rows == [row["messages"] for row in GOOD]
    write_jsonl(tmp_path / "same.jsonl", GOOD)
    drawn = [read_rows(path, messages, subset_size=50).rows for path in (tmp_path, tmp_path / "same.jsonl")]
    assert drawn[0] == drawn[1]


def test_a_parquet_row_that_is_not_utf8_is_one_bad_row(tmp_path, capsys):
    rows = {"question": [b"What?"] * 200, "answer": [b"That."] * 199 + [b"Th\xe4t."]}
    columns = {}
    for name, texts in rows.items():  # strings whose bytes nobody has checked
        offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
        columns[name] = pa.Array.from_buffers(pa.string(), len(texts), buffers)
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    result = read_rows(tmp_path, question_and_answer)
    assert len(result.rows) == 199 and result.dropped == {"not_utf8": 1}
    assert capsys.readouterr().out == f"left out: {tmp_path}/train.parquet, row 200: not_utf8\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "does not exist"),
        ("none.parquet", None, r"none\.parquet does not exist$"),
        ("empty.jsonl", "\n", "holds no items"),
        ("bad.parquet", "no parquet", "cannot be read"),
    ],
)
def test_a_file_without_rows_is_an_error(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / name, messages)
