"""Batches for pretraining from one global cursor.

The shards of a split are one stream of N ids. Row r is ids r*T to r*T + T of it: T inputs and, shifted by
one, T targets. An epoch has R = (N - 1) // T rows; the fewer than T ids after the last one are never read.
Row numbers run on over epochs, modulo R. The cursor counts the rows that all ranks together have consumed; a
batch takes the next B * world_size rows, and rank k gets the k-th B of them.

So a row may span two shards, all ranks cross a shard border in the same step, and a run resumes on any number
of ranks. Loaders whose ranks each watch their own position cross borders in different steps and drift apart.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from data.shards import Split, open_stream


class TokenLoader:
    """Rows of a split in order, for one rank.

    data_dir: folder of shards. Raises UserError when they are damaged (data/shards.py) or less than one row.
    batch_size: B, rows per batch and rank. block_size: T. rank, world_size: which process, of how many.
    """

    def __init__(
        self,
        data_dir: Path | str,
        split: Split,
        batch_size: int,
        block_size: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.stream = open_stream(data_dir, split)
        self.batch_size, self.block_size = batch_size, block_size
        self.rank, self.world_size = rank, world_size
        self.pinned = torch.cuda.is_available()
        self.cursor = 0
        # Pinning memory in a thread that has not chosen its GPU would open a context on the first one.
        choose_gpu = (torch.cuda.set_device, (torch.cuda.current_device(),)) if self.pinned else (None, ())
        self.reader = ThreadPoolExecutor(1, initializer=choose_gpu[0], initargs=choose_gpu[1])
        self.ahead: Future | None = None  # the batch at the cursor, being read while the device computes
        self.rows_per_epoch = (len(self.stream) - 1) // block_size
        if self.rows_per_epoch < 1:
            raise UserError(
                f"{data_dir}: the {split} split has {len(self.stream):,} tokens, one row needs "
                f"{block_size + 1:,}; tokenize more text or lower the block size"
            )

    def next_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64 (B, T) each, in pinned memory when there is a CUDA device.

        The batch after it is read meanwhile. The cursor counts what was handed out, not what was read ahead.
        """
        batch = (self.ahead or self._read_at_cursor()).result()
        self.cursor += self.batch_size * self.world_size
        self.ahead = self._read_at_cursor()
        return batch

    def fixed_batches(self, num_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The split's first `num_rows` rows (at most one epoch), divided among the ranks. The cursor stays.

        Inputs and targets int64 (b, T), 1 <= b <= B: a rank's last batch may be smaller, and ranks may differ
        by one row. Sum losses weighted by b, add over ranks and divide by the rows.
        """
        num_rows = min(num_rows, self.rows_per_epoch)
        first, end = (num_rows * rank // self.world_size for rank in (self.rank, self.rank + 1))
        for row in range(first, end, self.batch_size):
            yield self._rows(row, min(self.batch_size, end - row))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on here, the same on every rank."""
        return {"cursor": self.cursor, "fingerprint": self.stream.fingerprint, "block_size": self.block_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, also with another batch size or number of ranks.

        Raises UserError when it is of other data or another block size: its cursor would mean other text.
        """
        if state["fingerprint"] != self.stream.fingerprint:
            raise UserError(
                f"{self.stream.data_dir}: the {self.stream.split} data has fingerprint "
                f"{self.stream.fingerprint[:12]}, the run to resume read {state['fingerprint'][:12]}; "
                "give the --data-dir it was started with, or start a new run"
            )
        if state["block_size"] != self.block_size:
            raise UserError(
                f"{self.stream.data_dir}: block size is {self.block_size}, the run to resume read rows of "
                f"{state['block_size']}; give the block size it was started with, or start a new run"
            )
        self.cursor, self.ahead = state["cursor"], None

    @property
    def tokens_seen(self) -> int:
        """Targets in the rows consumed by all ranks."""
        return self.cursor * self.block_size

    @property
    def epoch(self) -> int:
        """Whole passes over the split that lie behind the cursor."""
        return self.cursor // self.rows_per_epoch

    def describe(self) -> dict[str, Any]:
        """What was read so far, for run.json.

        Documents, mul tokens and bytes of text seen are tokens_seen times the split's averages in meta.json.
        """
        stream, meta = self.stream, self.stream.meta
        record = {
            "data_dir": str(stream.data_dir),
            "split": stream.split,
            "fingerprint": stream.fingerprint,
            "split_tokens": len(stream),
            "tokens_seen": self.tokens_seen,
        }
        if meta is not None:
            counts, passes = meta["splits"][stream.split], self.tokens_seen / len(stream)
            record |= {key: meta[key] for key in ("condition", "tokenizer_fingerprint", "documents_sha256")}
            record |= {key: meta[key] for key in ("families",) if key in meta}
            known = (key for key in ("documents", "mul_tokens", "text_bytes") if counts[key] is not None)
            record |= {f"{key}_seen": round(counts[key] * passes) for key in known}
        return record

    def _read_at_cursor(self) -> Future:
        return self.reader.submit(self._rows, self.cursor + self.rank * self.batch_size, self.batch_size)

    def _rows(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, (count, T) each, of the rows `first` and following, modulo the epoch."""
        T = self.block_size
        x, y = (torch.empty((count, T), dtype=torch.int64, pin_memory=self.pinned) for _ in range(2))
        done = 0
        while done < count:
            row = (first + done) % self.rows_per_epoch
            run = min(count - done, self.rows_per_epoch - row)  # neighbours in the stream, up to the epoch's end
            ids = self.stream.read(row * T, (row + run) * T + 1)
            # One pass over the ids each: uint16 from the memory map to int64 in the tensor.
            np.copyto(x[done : done + run].numpy(), ids[:-1].reshape(run, T))
            np.copyto(y[done : done + run].numpy(), ids[1:].reshape(run, T))
            done += run
        return x, y
