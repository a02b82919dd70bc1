"""GSM8K items {"question", "answer"}, from the hub or from files in its place: for text, SFT and evaluation alike."""

import hashlib
from pathlib import Path
from typing import Literal

from common.errors import UserError
from data.item_files import load_rows

FIELDS = ("question", "answer")

GSM8KSplit = Literal["train", "test"]


def load_gsm8k(source: Path | str, split: GSM8KSplit) -> list[dict[str, str]]:
    """The items of a split. `source` is a .jsonl or .parquet file, a folder with one named {split}, or a hub id.

    Raises UserError when there are no items (data/item_files.py says when) or one has another shape.
    """
    path, rows = load_rows(source, split, hub_config="main")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in FIELDS):
            raise UserError(f'{path}, item {number}: expected an object with the strings "question" and "answer"')
    return [{field: row[field] for field in FIELDS} for row in rows]


def items_sha256(items: list[dict[str, str]]) -> str:
    """Hex sha256 of questions and answers in order, as they are before injection: equal in both conditions."""
    text = "\x1e".join(f"{item['question']}\x1f{item['answer']}" for item in items)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
