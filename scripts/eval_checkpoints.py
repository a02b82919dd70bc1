"""HellaSwag on every checkpoint of pretraining runs: the learning curve that a single number hides.

    uv run python scripts/eval_checkpoints.py
    uv run python scripts/eval_checkpoints.py --runs outputs/pretrain_baseline --data-path data/raw/hellaswag \
        --max-samples 1000
    uv run torchrun --standalone --nproc_per_node=8 scripts/eval_checkpoints.py

Writes to outputs/checkpoint_evals/{condition}: hellaswag_{step}.json per checkpoint, and summary.json and summary.csv
of all of them. What is evaluated already is skipped, so it may be called again while the run goes on; a checkpoint that
has been deleted since keeps its result. scripts/plot_checkpoint_curve.py draws the curve.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.config import parse_config
from common.device import pick_dtype
from common.distributed import World, joined_world
from common.errors import UserError, run_script
from common.files import read_json, write_json
from data.encoding import tokenizer_of
from data.hellaswag import HUB_ID, HellaSwagItem, items_sha256, load_hellaswag
from eval.hellaswag import METRICS, score_everywhere, summarise
from pretrain.checkpoint import checkpoints, load_checkpoint, model_from_checkpoint
from scripts.figure_files import write_csv
from scripts.stage_runs import pretraining_runs
from tokenizer.families import DEFAULT_FAMILIES


@dataclass
class EvalCheckpointsConfig:
    """HellaSwag on every checkpoint of pretraining runs. One process, or many under torchrun."""

    runs: list[Path] = field(default_factory=list)  # directories of pretrain/train.py; default outputs/pretrain_*
    output_dir: Path = Path("outputs/checkpoint_evals")  # a folder per condition goes here
    data_path: Path | None = None  # .jsonl or .parquet file, or a folder with validation.jsonl; default the hub's
    max_samples: int | None = None  # only the first so many items
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the matrix products; auto: bfloat16 where it is native
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU


def main() -> None:
    config = parse_config(EvalCheckpointsConfig)
    with joined_world(config.device) as world:
        evaluate(config, world)


def evaluate(config: EvalCheckpointsConfig, world: World) -> None:
    """Every run's checkpoints in the order of their steps."""
    runs = pretraining_runs(config.runs)
    settings = [run_settings(run) for run in runs]
    conditions = [setting["condition"] for setting in settings]
    for run, condition in zip(runs, conditions, strict=True):
        if conditions.count(condition) > 1:
            raise UserError(f"{run}: two runs of {condition} would share a folder; evaluate them one --output-dir each")
    items = load_hellaswag(config.data_path, config.max_samples)
    for run, setting in zip(runs, settings, strict=True):
        evaluate_run(config, run, setting, items, world)


def evaluate_run(
    config: EvalCheckpointsConfig, run: Path, settings: dict[str, Any], items: list[HellaSwagItem], world: World
) -> None:
    """Evaluate the checkpoints of one run that have no result yet, and write the summary of those that have."""
    condition, output_dir = settings["condition"], config.output_dir / settings["condition"]
    dtype = pick_dtype(config.dtype, world.device)
    identity = {"items_sha256": items_sha256(items), "n": len(items), "dtype": str(dtype)}
    paths = list(checkpoints(run).values())
    if not paths:
        raise UserError(f"{run} holds no checkpoint (model_*.pt); train it first")
    done = finished_results(output_dir, identity)
    todo = [path for path in paths if path.exists() and done.get(path.name, {}).get("file") != file_identity(path)]
    # A run that goes on saves and prunes meanwhile: the first process decides for all.
    todo = [Path(name) for name in world.gather([str(path) for path in todo] if world.is_main else [])]
    if world.is_main:
        print(f"{condition}: {len(todo)} of {len(paths)} checkpoints in {run} to evaluate", flush=True)
    for number, path in enumerate(todo, start=1):
        started = time.time()
        state, file = open_checkpoint(path)
        if not all(world.gather([state is not None])):
            if world.is_main:
                print(f"{condition} {number}/{len(todo)}: {path} has been deleted, skipped", flush=True)
            continue
        model = model_from_checkpoint(state).to(world.device)
        tokenizer = tokenizer_of(condition, state.get("families", DEFAULT_FAMILIES))
        scores = score_everywhere(model, items, tokenizer, world, dtype, progress=True)
        if not world.is_main:
            continue
        result = {
            "step": state["step"],
            "tokens": state["step"] * settings["training"]["total_batch_size"],
            **summarise(scores),
            "condition": condition,
            "checkpoint": str(path),
            "file": file,
            "source": str(config.data_path or HUB_ID),
            **identity,
            "seconds": round(time.time() - started, 2),
        }
        write_json(output_dir / f"hellaswag_{state['step']:06d}.json", result)
        headline = result["acc_norm_token"]
        print(
            f"{condition} {number}/{len(todo)}: step {result['step']}, {result['tokens']:,} tokens: acc_norm_token "
            f"{headline['value']:.4f} ± {headline['stderr']:.4f} ({headline['n']} items, {result['seconds']:.0f} s)",
            flush=True,
        )
    if world.is_main:
        write_summary(output_dir, condition, identity)


def open_checkpoint(path: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """A checkpoint's state and its file's identity; None when the run has deleted it since."""
    try:
        file = file_identity(path)
        return load_checkpoint(path), file
    except (FileNotFoundError, UserError):
        if path.exists():
            raise  # it is there, and no checkpoint
        return None, {}


def run_settings(run: Path) -> dict[str, Any]:
    """The config of a pretraining run. Raises UserError for another kind of directory."""
    settings = read_json(run / "config.json") if (run / "config.json").is_file() else {}
    if "training" not in settings:
        raise UserError(f"{run} is not the directory of a pretraining run; give those that pretrain/train.py wrote")
    return settings


def finished_results(output_dir: Path, identity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The results that lie in `output_dir`, by the name of their checkpoint.

    Raises UserError when they are of other items or another precision: they would not be points of one curve.
    """
    results = [read_json(path) for path in sorted(output_dir.glob("hellaswag_*.json"))]
    for result in results:
        for key, value in identity.items():
            if result[key] != value:
                raise UserError(
                    f"{output_dir} holds results with {key} {result[key]}, not {value}; give another --output-dir"
                )
    return {Path(result["checkpoint"]).name: result for result in results}


def file_identity(path: Path) -> dict[str, Any]:
    """Tells a checkpoint from one that another run wrote to the same place; hashing gigabytes would take longer."""
    stat = path.stat()
    return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def write_summary(output_dir: Path, condition: str, identity: dict[str, Any]) -> None:
    """summary.json and summary.csv: every result in `output_dir` in the order of the steps."""
    results = sorted(finished_results(output_dir, identity).values(), key=lambda result: result["step"])
    keys = ("step", "tokens", *METRICS, "checkpoint")
    points = [{key: result[key] for key in keys} for result in results]
    write_json(output_dir / "summary.json", {"condition": condition, **identity, "checkpoints": points})
    columns = [
        {"step": p["step"], "tokens": p["tokens"]}
        | {
            f"{metric}{suffix}": p[metric][key]
            for metric in METRICS
            for suffix, key in (("", "value"), ("_stderr", "stderr"))
        }
        for p in points
    ]
    write_csv(output_dir / "summary.csv", columns)


if __name__ == "__main__":
    run_script(main)
