"""A picture that stands alone, and beside it the numbers that it was drawn from."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import atomic_path, write_json, write_text


def check_output(path: Path) -> None:
    """Raise UserError where no picture can be written to `path`."""
    if path.suffix != ".png" or path.is_dir():
        raise UserError(f"--output {path}: give a file whose name ends with .png; .json and .csv go beside it")


def write_figure(path: Path, picture: bytes, numbers: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the PNG `path`, and beside it `numbers` as .json and `rows` as .csv."""
    with atomic_path(path) as partial:
        partial.write_bytes(picture)
    write_json(path.with_suffix(".json"), numbers)
    write_csv(path.with_suffix(".csv"), rows)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write `rows`, all with the keys of the first, to `path` atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def distinct_labels(directories: Iterable[Path], conditions: Iterable[str]) -> list[str]:
    """A curve is called by its condition, or by its directory where several are of one condition."""
    directories, conditions = list(directories), list(conditions)
    return [
        condition if conditions.count(condition) == 1 else str(directory)
        for directory, condition in zip(directories, conditions, strict=True)
    ]
