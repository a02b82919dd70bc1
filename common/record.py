"""run.json: what a run was, so that it can be reproduced, and compared with another one field by field."""

import platform
import subprocess
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from common.config import to_dict
from common.files import read_json, sha256_file, write_json

PACKAGES = ("torch", "transformers", "trl", "datasets", "tiktoken", "tokenizers", "numpy")


@dataclass
class RunRecord:
    """One stage of one condition. `save` writes it; `wall_seconds` counts from construction."""

    stage: str  # "pretrain", "export", "sft_gsm8k", "eval_gsm8k", ...
    config: Any  # the script's config dataclass
    condition: str
    seed: int
    parent: Path | None = None  # the model directory (or checkpoint) that the stage started from
    data: dict[str, Any] = field(default_factory=dict)  # fingerprint and counts of what was read
    started: float = field(default_factory=time.time)

    def save(self, output_dir: Path, results: dict[str, Any], *, name: str = "run.json", **counts: Any) -> None:
        """Write `output_dir`/`name`. `counts`: tokens, steps and the like, at the top level.

        Stages that share a directory, as the benchmarks do, give their records names of their own.
        """
        write_json(
            Path(output_dir) / name,
            {
                "stage": self.stage,
                "condition": self.condition,
                "seed": self.seed,
                "config": to_dict(self.config),
                "parent": describe_parent(self.parent),
                "data": self.data,
                **counts,
                "results": results,
                "git_commit": git_commit(),
                "packages": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
                "hardware": hardware(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
                "wall_seconds": round(time.time() - self.started, 2),
            },
        )


def describe_parent(path: Path | None) -> dict[str, Any] | None:
    """Path, weights' sha256 and run.json (without its results) of the model directory a stage started from.

    The chain of parents is nested, so that one run.json tells the whole lineage after the parents are deleted.
    """
    if path is None:
        return None
    path = Path(path)
    weights = path / "model.safetensors" if path.is_dir() else path
    record_path = (path if path.is_dir() else path.parent) / "run.json"
    record = read_json(record_path) if record_path.exists() else None
    if record is not None:
        record.pop("results", None)
    return {"path": str(path), "sha256": sha256_file(weights) if weights.exists() else None, "run": record}


def chain_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The run records from the first ancestor to `record` itself, out of the nested parents."""
    chain = [record]
    while chain[0].get("parent") and chain[0]["parent"].get("run"):
        chain.insert(0, chain[0]["parent"]["run"])
    return chain


def git_commit() -> str | None:
    """The commit of this checkout, with "+" when there are uncommitted changes; None outside a repository."""

    def git(*arguments: str) -> str:
        root = Path(__file__).parent
        return subprocess.run(("git", *arguments), cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> dict[str, Any]:
    """Processor, its count and, where there is one, the accelerator."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "accelerators": torch.cuda.device_count(),
    }


def _cpu_name() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(row.split(":", 1)[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
