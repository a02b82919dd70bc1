"""The log of a run, for people (log.txt, the terminal) and for programs (log.jsonl), and whose a directory is."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median

from common.distributed import World
from common.errors import UserError
from common.files import locked_directory, read_json, read_jsonl, write_json, write_jsonl, write_text

# What may differ between a run and its continuation without making it another run.
# How spikes are met is in it, so that a run that ended before one can go on past it.
MAY_CHANGE = {"config", "resume", "device", "output_dir", "data_dir", "logging", "checkpoint", "hellaswag", "samples"}
MAY_CHANGE |= {"spikes"}
# Within the training section: how an update is divided among processes and micro-steps, and how it is computed.
TRAINING_MAY_CHANGE = {"batch_size", "compile"}


class RunLog:
    """Appends to log.txt, log.jsonl and samples.jsonl. After a resume, rows beyond the checkpoint's step go first.

    quiet: writes nothing, for all ranks but the first. track: also gets every row of log.jsonl (pretrain/trackers.py).
    """

    def __init__(self, output_dir: Path, resumed_at: int, quiet: bool, track: Callable[[dict], None]):
        self.quiet, self.track = quiet, track
        self.text, self.rows, self.samples = (output_dir / f for f in ("log.txt", "log.jsonl", "samples.jsonl"))
        if quiet:
            return
        for path in (self.rows, self.samples):
            kept = [row for row in whole_rows(path) if row["step"] <= resumed_at] if resumed_at else []
            write_jsonl(path, kept)
        if not resumed_at:
            write_text(self.text, "")

    def say(self, line: str) -> None:
        """One line for people."""
        if not self.quiet:
            print(line, flush=True)
            with open(self.text, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def train_row(self, row: dict, max_steps: int, seconds_left: float) -> None:
        """A step: step, loss, lr, grad_norm, tokens_per_second, mfu (None where unknown), peak_memory_bytes."""
        mfu = "n/a" if row["mfu"] is None else f"{row['mfu']:.1%}"
        self.say(
            f"step {row['step']:>6}/{max_steps} | loss {row['loss']:.4f} | lr {row['lr']:.2e} | "
            f"norm {row['grad_norm']:.3f} | {row['tokens_per_second']:,.0f} tok/s | MFU {mfu} | "
            f"{row['peak_memory_bytes'] / 2**30:.1f} GiB | {timedelta(seconds=round(seconds_left))} left"
        )
        self._append(self.rows, row)

    def eval_row(self, row: dict) -> None:
        """An evaluation: step and what was measured."""
        self.say(f"step {row['step']:>6} | " + " | ".join(f"{k} {v:.4f}" for k, v in row.items() if k != "step"))
        self._append(self.rows, row)

    def sample_row(self, row: dict) -> None:
        """A sampled text: step, prompt, text."""
        self.say(f"step {row['step']:>6} | {row['prompt']}>{row['text']!r}")
        self._append(self.samples, row)

    def last_values(self) -> dict:
        """The newest value of every column; of tokens_per_second and mfu the median over the run."""
        rows = read_jsonl(self.rows)
        values: dict = {}
        for row in rows:
            values |= row
        for key in ("tokens_per_second", "mfu"):
            known = [row[key] for row in rows if row.get(key) is not None]
            values[key] = median(known) if known else None
        return values

    def _append(self, path: Path, row: dict) -> None:
        if not self.quiet:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if path == self.rows:
                self.track(row)


@contextlib.contextmanager
def claimed_directory(output_dir: Path, identity: dict, resume: bool, world: World) -> Iterator[None]:
    """Have `output_dir` for the run `identity` alone while the block lasts. Raises UserError as check_same_run."""
    check_same_run(output_dir, identity, resume, world)
    with locked_directory(output_dir) if world.is_main else contextlib.nullcontext():
        yield


def check_same_run(output_dir: Path, identity: dict, resume: bool, world: World) -> None:
    """Claim `output_dir` for the run `identity`, or check that it is this run's.

    Raises UserError when another run is in it, naming a field that differs, or this one with --no-resume.
    """
    path = output_dir / "config.json"
    found = read_json(path) if path.exists() else None
    world.barrier()  # everyone has looked before rank 0 writes
    if found is not None:
        here, there = comparable(identity), comparable(found)
        for key in here:
            if here[key] != there.get(key):
                raise UserError(
                    f"{output_dir} holds a different run: {key} is {there.get(key)} there and {here[key]} here; "
                    "choose another --output-dir"
                )
        if not resume:
            raise UserError(
                f"{output_dir} already holds this run; continue it without --no-resume or choose another --output-dir"
            )
    elif world.is_main:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)


def comparable(identity: dict) -> dict[str, object]:
    """The fields that make a run what it is, sections flattened to `section.key`."""
    fields: dict[str, object] = {}
    for key, value in identity.items():
        if key not in MAY_CHANGE:
            fields |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
    return {key: value for key, value in fields.items() if key.removeprefix("training.") not in TRAINING_MAY_CHANGE}


def whole_rows(path: Path) -> list[dict]:
    """The rows of a log whose last line a killed process may have left unfinished; none where there is no log."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]
