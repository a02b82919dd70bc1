"""GSM8K items {"question", "answer"}, from the hub or from files in its place: for text, SFT and evaluation alike."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from common.files import read_jsonl

HUB_TIMEOUT_SECONDS = 5
SUFFIXES = (".jsonl", ".parquet")
FIELDS = ("question", "answer")

GSM8KSplit = Literal["train", "test"]


def load_gsm8k(source: Path | str, split: GSM8KSplit) -> list[dict[str, str]]:
    """The items of a split. `source` is a .jsonl or .parquet file, a folder with one named {split}, or a hub id.

    A file is taken whole, whatever its name. A Path is always local. Raises UserError when there are no items or one
    has another shape; without a network a hub id fails within seconds.
    """
    path = Path(source)
    if isinstance(source, Path) or path.exists() or path.suffix in SUFFIXES:
        path = split_file(path, split)
        rows = _read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path)
    else:
        path, rows = source, _load_from_hub(source, split)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in FIELDS):
            raise UserError(f'{path}, item {number}: expected an object with the strings "question" and "answer"')
    if not rows:
        raise UserError(f"{path} holds no items; expected GSM8K's question and answer on every line")
    return [{field: row[field] for field in FIELDS} for row in rows]


def split_file(path: Path, split: GSM8KSplit) -> Path:
    """The file of a split: in a folder {split}.jsonl, or {split}.parquet where that is there instead."""
    if not path.is_dir():
        return path
    parquet = path / f"{split}.parquet"
    return parquet if parquet.exists() else path / f"{split}.jsonl"


def items_sha256(items: list[dict[str, str]]) -> str:
    """Hex sha256 of questions and answers in order, as they are before injection: equal in both conditions."""
    text = "\x1e".join(f"{item['question']}\x1f{item['answer']}" for item in items)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        return pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from None


def _load_from_hub(hub_id: str, split: GSM8KSplit) -> list[dict[str, Any]]:
    import datasets
    from huggingface_hub import HfApi

    try:
        # `datasets` would try an unreachable hub again and again for half a minute.
        HfApi().dataset_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
    except Exception:  # no network, a proxy's page, offline mode: the cache may still hold the data
        datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(hub_id, "main", split=split).to_list()
    except Exception as error:
        raise UserError(
            f"{hub_id} is neither a local file or folder nor readable from the hub ({type(error).__name__}); "
            f"give --data-path a .jsonl file or a folder with {split}.jsonl"
        ) from None
