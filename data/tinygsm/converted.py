"""The rows that data/tinygsm/prepare_tinygsm.py writes, as the stages train on them."""

import re
from pathlib import Path
from typing import Any

from common.errors import UserError
from data.chat_rows import BadRow, CheckedRows, question_and_answer, read_rows
from tokenizer.mul_facts import Condition

CONVERTED_DIR = Path("data/processed/tinygsm")


def combined_path(folder: Path, condition: Condition) -> Path:
    """The file with all rows of a condition."""
    return folder / f"combined_{condition}.jsonl"


def load_converted(
    path: Path, *, max_rows: int | None = None, seed: int = 0, allow_bad_rows: bool = False
) -> CheckedRows:
    """Items {"question", "answer"} before injection, which is the stage's: the same from the files of both conditions.

    path: a .jsonl or .parquet file; of more than `max_rows` rows a draw of `seed`. Raises UserError when there is
    nothing to read or too many rows are bad.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; write it with data/tinygsm/prepare_tinygsm.py")
    return read_rows(path, plain_item, subset_size=max_rows, seed=seed, allow_bad_rows=allow_bad_rows)


def plain_item(row: Any) -> dict[str, str]:
    """Question and answer of a row, the answer as it was before injection. Raises BadRow when the row has it not."""
    if isinstance(row, dict) and "plain_answer" in row:
        row = row | {"answer": row["plain_answer"]}
    item = question_and_answer(row)
    if re.search("<[A-Z]+_[0-9_]+>", item["answer"]):  # a fact of whatever family
        raise BadRow("answer_injected_before")
    return item
