"""HellaSwag items: a context, four endings, one right; from the hub or from files in its place."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from data.item_files import load_rows

HUB_ID = "Rowan/hellaswag"
ENDINGS = 4


@dataclass(frozen=True)
class HellaSwagItem:
    """One item as published: nothing is stripped or rewritten here; how it is scored is eval/hellaswag.py's matter."""

    id: str  # the published `ind`; a second item of that number gets "#2" behind it
    context: str  # `ctx`
    labelled_context: str  # "{activity_label}: {ctx_a} {Ctx_b}" where the row has these fields, else `ctx` once more
    endings: tuple[str, ...]
    label: int  # which ending is right, from 0


def load_hellaswag(data_path: Path | None = None, max_samples: int | None = None) -> list[HellaSwagItem]:
    """The validation items, or the first `max_samples` of them; from the hub when `data_path` is None.

    `data_path` is a .jsonl or .parquet file, taken whole, or a folder with validation.jsonl or validation.parquet. A
    row has ind, ctx, label and endings, and may have activity_label, ctx_a and ctx_b as the original has. Raises
    UserError when there are no items or one has another shape.
    """
    source, rows = load_rows(data_path or HUB_ID, "validation")
    items = [_item(row, f"{source}, item {number}") for number, row in enumerate(rows[:max_samples], start=1)]
    # The two sources of HellaSwag number their items apart; results are told apart by the id.
    seen: Counter[str] = Counter()
    for k, item in enumerate(items):
        seen[item.id] += 1
        if seen[item.id] > 1:
            items[k] = replace(item, id=f"{item.id}#{seen[item.id]}")
    return items


def items_sha256(items: list[HellaSwagItem]) -> str:
    """Hex sha256 of contexts, endings and labels in order."""
    parts = ("\x1f".join((item.context, item.labelled_context, *item.endings, str(item.label))) for item in items)
    return hashlib.sha256("\x1e".join(parts).encode(errors="replace")).hexdigest()


def _item(row: Any, where: str) -> HellaSwagItem:
    if not isinstance(row, dict) or not isinstance(row.get("ctx"), str) or row.get("ind") is None:
        raise UserError(f'{where}: expected an object with "ind" and the string "ctx"')
    endings = row.get("endings")
    if not isinstance(endings, list) or len(endings) != ENDINGS or not all(isinstance(e, str) for e in endings):
        raise UserError(f'{where}: expected {ENDINGS} strings under "endings"')
    label = str(row.get("label"))  # the original has it as a string, empty in the test split
    if label not in map(str, range(ENDINGS)):
        raise UserError(
            f'{where}: "label" is {row.get("label")!r}, expected 0 to {ENDINGS - 1}; use the validation split'
        )
    labelled = row["ctx"]
    if all(isinstance(row.get(field), str) for field in ("activity_label", "ctx_a", "ctx_b")):
        labelled = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return HellaSwagItem(str(row["ind"]), row["ctx"], labelled, tuple(endings), int(label))
