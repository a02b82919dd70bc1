"""The log of a run, for people (log.txt, the terminal) and for programs (log.jsonl), and whose a directory is."""

import json
from pathlib import Path

from common.distributed import World
from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl, write_text

# What may differ between a run and its continuation without making it another run.
MAY_CHANGE = {"config", "resume", "device", "output_dir", "data_dir", "logging", "checkpoint"}
# Within the training section: how an update is divided among processes and micro-steps, and how it is computed.
TRAINING_MAY_CHANGE = {"batch_size", "compile"}


class RunLog:
    """Appends to log.txt and log.jsonl. After a resume, rows beyond the checkpoint's step are dropped first."""

    def __init__(self, output_dir: Path, resumed_at: int, quiet: bool):
        self.quiet = quiet
        self.text, self.rows = output_dir / "log.txt", output_dir / "log.jsonl"
        if quiet:
            return
        output_dir.mkdir(parents=True, exist_ok=True)
        if resumed_at:
            write_jsonl(self.rows, [row for row in whole_rows(self.rows) if row["step"] <= resumed_at])
        else:
            write_text(self.text, "")
            write_text(self.rows, "")

    def say(self, line: str) -> None:
        """One line for people."""
        if not self.quiet:
            print(line, flush=True)
            with open(self.text, "a") as file:
                file.write(line + "\n")

    def train_row(self, row: dict, max_steps: int, seconds_left: float) -> None:
        """A training step: step, loss, lr, grad_norm, tokens_per_second, mfu (None where unknown)."""
        mfu = "n/a" if row["mfu"] is None else f"{row['mfu']:.1%}"
        self.say(
            f"step {row['step']:>6}/{max_steps} | loss {row['loss']:.4f} | lr {row['lr']:.2e} | "
            f"norm {row['grad_norm']:.3f} | {row['tokens_per_second']:,.0f} tok/s | MFU {mfu} | "
            f"{seconds_left:.0f} s left"
        )
        self._append(row)

    def val_row(self, row: dict) -> None:
        """A validation: step, val_loss."""
        self.say(f"step {row['step']:>6} | validation loss {row['val_loss']:.4f}")
        self._append(row)

    def last_values(self) -> dict:
        """The newest value of every column."""
        values: dict = {}
        for row in read_jsonl(self.rows):
            values |= row
        return values

    def _append(self, row: dict) -> None:
        if not self.quiet:
            with open(self.rows, "a") as file:
                file.write(json.dumps(row) + "\n")


def check_same_run(output_dir: Path, identity: dict, resume: bool, world: World) -> None:
    """Claim `output_dir` for the run `identity`, or check that it is this run's.

    Raises UserError when another run is in it, naming a field that differs, or this one without --resume.
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
                f"{output_dir} already holds this run; continue it with --resume or choose another --output-dir"
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
    """The rows of a log whose last line a killed process may have left unfinished."""
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]
