"""data/hellaswag.py: items from files of either schema, and what wrong rows get."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from data.hellaswag import load_hellaswag
from tests.hellaswag_rows import ORIGINAL, PLAIN, items_of
from tests.helpers import SHARED_DATA


@pytest.fixture
def items(tmp_path):
    return items_of(ORIGINAL + PLAIN, tmp_path)


def test_a_file_parquet_and_a_folder_give_the_same_items(items, tmp_path):
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.Table.from_pylist(ORIGINAL), tmp_path / "folder" / "validation.parquet")
    assert load_hellaswag(tmp_path / "folder") == items[:3]
    assert load_hellaswag(tmp_path / "rows.jsonl", 4) == items[:4]


def test_each_protocol_has_its_own_text_where_the_row_has_the_fields(items):
    assert (items[0].id, items[0].label, items[3].id, items[3].label) == ("24", 3, "0", 0)
    assert items[0].context == "A man is sitting on a roof. he"
    assert items[0].labelled_context == "Roof shingle removal: A man is sitting on a roof. He"
    assert items[3].labelled_context == items[3].context == PLAIN[0]["ctx"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctx": None}, 'item 2: expected an object with "ind" and the string "ctx"'),
        ({"endings": ["a", "b", "c"]}, 'item 2: expected 4 strings under "endings"'),
        ({"endings": ["a", "b", "c", 4]}, 'item 2: expected 4 strings under "endings"'),
        ({"label": ""}, "item 2: \"label\" is '', expected 0 to 3"),
        ({"label": 4}, 'item 2: "label" is 4, expected 0 to 3'),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        items_of([PLAIN[0], PLAIN[1] | change], tmp_path)


def test_items_that_share_a_number_are_told_apart(tmp_path):
    found = items_of([PLAIN[0], PLAIN[1] | {"ind": 0}, PLAIN[1] | {"ind": 5}, PLAIN[1] | {"ind": 0}], tmp_path)
    assert [item.id for item in found] == ["0", "0#2", "5", "0#3"]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs shared/data")
def test_the_real_items_load():
    items = load_hellaswag(SHARED_DATA / "hellaswag" / "val_2000.jsonl")
    assert len(items) == 2000 and items[0].id == "1" and {item.label for item in items} == {0, 1, 2, 3}
