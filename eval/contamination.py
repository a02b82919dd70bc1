"""The report of data/check_contamination.py, as evaluations use it: which items the training text holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from data.benchmark_texts import Texts, texts_sha256


def flagged_ids(path: Path, benchmark: str, texts: Texts | None = None) -> set[str]:
    """Ids of the flagged items of a benchmark ("gsm8k", "hellaswag" or "probes").

    texts: all of the benchmark's items (data/benchmark_texts.py), which must then be those that were checked; ids that
    are positions would flag the wrong ones otherwise. Raises UserError when they are not, and for a file that is
    missing, no such report, or one without this benchmark.
    """
    report = read_json(path)
    if not isinstance(report, dict) or not isinstance(report.get("benchmarks"), dict):
        raise UserError(f"{path} is not a report of data/check_contamination.py; write one and name its --output")
    if benchmark not in report["benchmarks"]:
        checked = ", ".join(report["benchmarks"]) or "nothing"
        raise UserError(f"{path} is about {checked}; run data/check_contamination.py with --{benchmark} too")
    part = report["benchmarks"][benchmark]
    if texts is not None and texts_sha256(texts) != part["sha256"]:
        raise UserError(
            f"{path} was made for {part['items']} other {benchmark} items than the {len(texts)} evaluated here; "
            "run data/check_contamination.py on these"
        )
    return set(part["flagged"])


def clean_results(
    rows: list[dict[str, Any]], flagged: set[str], summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]
) -> dict[str, Any]:
    """What `summarise` makes of the response rows whose "id" is not flagged; just {"num_total": 0} when all are."""
    clean = [row for row in rows if row["id"] not in flagged]
    return summarise(clean) if clean else {"num_total": 0}
