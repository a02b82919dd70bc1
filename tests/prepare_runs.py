"""A small corpus with products and empty documents, and runs of data/prepare_fineweb.py over it."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.prepare_fineweb import PrepareConfig

NUM_DOCUMENTS = 400


def text_of(i: int, rng: random.Random) -> str:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return f"Document {i}: {a}*{b}={a * b}, or {b} × {a}. It goes on é " + "and on " * rng.randint(0, 40)


def write_corpus(folder: Path, num_files: int = 3, num_documents: int = NUM_DOCUMENTS) -> Path:
    folder.mkdir(parents=True)
    rng = random.Random(0)
    for part in range(num_files):
        texts = [text_of(i, rng) for i in range(part * num_documents, (part + 1) * num_documents)]
        texts[5] = ""
        pq.write_table(pa.table({"text": texts}), folder / f"part_{part}.parquet", row_group_size=50)
    return folder


def config_of(corpus: Path, out_dir: Path, **changes) -> PrepareConfig:
    values = {"condition": "mul_tokens", "target_tokens": 20_000, "shard_size": 3000, "math_fraction": 0.1}
    values |= {"val_fraction": 0.05, "workers": 1, "source": (str(corpus),), "out_dir": out_dir} | changes
    return PrepareConfig(**values)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
