"""data/gsm8k.py: one reader for files, folders and the hub, and what wrong input gets."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from common.files import write_jsonl
from data.gsm8k import items_sha256, load_gsm8k

ITEMS = [{"question": f"What is {a} + 1?", "answer": f"#### {a + 1}"} for a in range(3)]


def test_a_file_a_folder_and_parquet_give_the_same_items(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", [item | {"id": 7} for item in ITEMS])
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(ITEMS), tmp_path / "parquet" / "test.parquet")
    for source in (tmp_path, str(tmp_path / "test.jsonl"), tmp_path / "parquet", tmp_path / "parquet/test.parquet"):
        assert load_gsm8k(source, "test") == ITEMS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "line 1 is not valid JSON"),
        ("", "holds no items"),
        ("[1]", "item 1: expected an object"),
        (json.dumps(ITEMS[0]) + '\n{"question": "a"}', "item 2: expected an object"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "items.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"items\.jsonl.*{message}"):
        load_gsm8k(str(path), "test")


def test_a_broken_parquet_file_is_one_line(tmp_path):
    (tmp_path / "test.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read as parquet") as error:
        load_gsm8k(tmp_path, "test")
    assert "\n" not in str(error.value)


def test_a_path_is_never_taken_for_a_hub_id(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_gsm8k(Path("nobody/no-such-folder"), "train")


def test_without_network_a_hub_id_is_one_line_within_seconds(monkeypatch):
    def unreachable(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)  # the loader sets it; put back after the test
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"nor readable from the hub .* give --data-path"):
        load_gsm8k("nobody/no-such-data-set", "test")
    assert time.perf_counter() - started < 10  # retries would take 20 s and more


def test_the_hash_depends_on_texts_and_their_order():
    assert len({items_sha256(part) for part in (ITEMS, ITEMS[::-1], ITEMS[1:])}) == 3
    assert items_sha256(ITEMS) == items_sha256([dict(item) for item in ITEMS])
