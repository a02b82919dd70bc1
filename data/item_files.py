"""Items of a benchmark, one row each, from the hub or from files in its place."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from common.errors import UserError
from common.files import read_jsonl
from data.documents import parquet_errors

if TYPE_CHECKING:
    import datasets

HUB_TIMEOUT_SECONDS = 5
SUFFIXES = (".jsonl", ".parquet")


def load_rows(source: Path | str, split: str, hub_config: str | None = None) -> tuple[Path | str, list[dict[str, Any]]]:
    """The rows of a split, and the file or hub id that they are from, for messages about them.

    source: a .jsonl or .parquet file, a folder with one named {split}, or a hub id (of whose configurations
    `hub_config` is taken). A file is taken whole, whatever its name. A Path is always local. Raises UserError when it
    cannot be read or has no rows; without a network a hub id fails within seconds.
    """
    path = Path(source)
    if isinstance(source, Path) or path.exists() or path.suffix in SUFFIXES:
        source = split_file(path, split)
        rows = _read_parquet(source) if source.suffix == ".parquet" else read_jsonl(source)
    else:
        rows = load_from_hub(source, split, hub_config).to_list()
    if not rows:
        raise UserError(f"{source} holds no items; expected one on every line")
    return source, rows


def split_file(path: Path, split: str) -> Path:
    """The file of a split: in a folder {split}.jsonl, or {split}.parquet where that is there instead."""
    if not path.is_dir():
        return path
    parquet = path / f"{split}.parquet"
    return parquet if parquet.exists() else path / f"{split}.jsonl"


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    with parquet_errors(path):
        return pq.read_table(path).to_pylist()


def load_from_hub(hub_id: str, split: str, config: str | None = None) -> "datasets.Dataset":
    """A split of a hub data set, which stays on disk. Raises UserError, within seconds, when it cannot be had."""
    import datasets
    from huggingface_hub import HfApi

    try:
        # `datasets` would try an unreachable hub again and again for half a minute.
        HfApi().dataset_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
    except Exception:  # no network, a proxy's page, offline mode: the cache may still hold the data
        datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(hub_id, config, split=split)
    except Exception as error:
        raise UserError(
            f"{hub_id} is neither a local file or folder nor readable from the hub ({type(error).__name__}); "
            f"give --data-path a .jsonl file or a folder with {split}.jsonl"
        ) from None
