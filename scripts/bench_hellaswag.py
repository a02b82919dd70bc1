"""HellaSwag scoring beside lm-evaluation-harness on the same checkpoint: time, and whether both choose alike.

    uv run python scripts/bench_hellaswag.py --model-path outputs/hf_baseline --data-path validation.jsonl
    uv run python scripts/bench_hellaswag.py --model-path outputs/hf_baseline --max-samples 40 --output bench.json

lm_eval is no dependency of this project: install it in an environment of its own beside the project's packages. Theirs
is its Hugging Face model and its multiple-choice task over its own preprocessing, at the fastest of --batch-sizes as
found in an untimed round. Both compute acc and acc_norm_char in float32 and are timed from texts to log-probabilities,
in turns, so that a busy machine slows both; the ratio is the median of the rounds'.
"""

import importlib.util
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from common.config import parse_config, to_dict
from common.device import pick_device
from common.errors import UserError, run_script
from common.files import write_json, write_jsonl
from common.record import git_commit, hardware
from data.encoding import tokenizer_of
from data.hellaswag import HellaSwagItem, load_hellaswag
from eval.benchmark import resolve_condition
from eval.hellaswag import ItemScore, score_items, summarise
from pretrain.hf_weights import load_model_dir

GOAL = 3.0
METRICS = ("acc_norm_char", "acc")  # the harness's: acc_norm and acc
LM_EVAL = "0.4.13"


@dataclass
class BenchConfig:
    """Time HellaSwag scoring beside lm-evaluation-harness and compare the choices."""

    model_path: Path  # GPT-2 model directory, loaded by both
    data_path: Path | None = None  # a .jsonl or .parquet file or a folder with validation.jsonl; default: the hub's
    max_samples: int | None = 100  # the first so many items
    rounds: int = 3  # timed rounds of both
    batch_sizes: list[int] = field(default_factory=lambda: [8, 16, 32])  # tried for theirs; the fastest is timed
    threads: int | None = None  # CPU threads; default all cores
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    output: Path | None = None  # also write the figures to this JSON file


def main() -> None:
    config = parse_config(BenchConfig)
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(f"lm_eval is not installed; in another environment: uv pip install 'lm_eval[hf]=={LM_EVAL}'")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    tokenizer = tokenizer_of(resolve_condition(config.model_path, None))
    items = load_hellaswag(config.data_path, config.max_samples)
    gpt = load_model_dir(config.model_path, device)
    task, harness = build_harness(config.model_path, items, device)

    def ours() -> list[ItemScore]:
        return score_items(gpt, items, tokenizer, device, torch.float32, metrics=METRICS)

    def theirs() -> list[tuple[float, bool]]:
        return harness.loglikelihood(task.instances, disable_tqdm=True)

    untimed = {}
    for size in config.batch_sizes:
        harness.batch_size_per_gpu = size
        untimed[size] = timed(theirs)[0]
    harness.batch_size_per_gpu = min(untimed, key=untimed.__getitem__)
    ours()
    seconds: dict[str, list[float]] = {"ours": [], "lm_eval": []}
    for _ in tqdm(range(config.rounds), desc="timing", unit="round"):
        elapsed, scores = timed(ours)
        seconds["ours"].append(elapsed)
        elapsed, responses = timed(theirs)
        seconds["lm_eval"].append(elapsed)

    agreement = compare(task, items, scores, responses)
    ratio = median(b / a for a, b in zip(seconds["ours"], seconds["lm_eval"], strict=True))
    rate = {name: len(items) / median(times) for name, times in seconds.items()}
    print(f"{config.model_path}: {len(items)} items, float32, {device}, {torch.get_num_threads()} threads")
    print(f"ours     {rate['ours']:>8.2f} items/s")
    print(f"lm_eval  {rate['lm_eval']:>8.2f} items/s (batch size {harness.batch_size_per_gpu})")
    met = "met" if ratio >= GOAL else "missed"
    print(f"ratio {ratio:.2f} (median of {config.rounds} rounds; goal: at least {GOAL:.1f}): {met}")
    for metric in METRICS:
        print(f"{metric}: equal choices on {agreement['equal_choices'][metric]} of {len(items)} items")
    print(f"largest difference of a log-probability {agreement['largest_difference']:.1e}")
    if config.output:
        figures = {"config": to_dict(config), "items": len(items), "dtype": "float32", "device": str(device)}
        figures |= {"lm_eval_batch_size": harness.batch_size_per_gpu, "lm_eval_untimed_seconds": untimed}
        figures |= {"seconds": seconds, "items_per_second": rate, "ratio": ratio, "goal": GOAL, **agreement}
        figures |= {"metrics": summarise(scores), "lm_eval": version("lm_eval"), "torch": torch.__version__}
        write_json(config.output, figures | {"hardware": hardware(), "git_commit": git_commit()})
    if any(n < len(items) for n in agreement["equal_choices"].values()):
        sys.exit(1)


def build_harness(model_path: Path, items: list[HellaSwagItem], device: torch.device) -> tuple[Any, Any]:
    """The harness's task over `items`, preprocessed by its own code, with its requests built, and its model."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.hellaswag.utils import preprocess

    rows = [
        {
            "query": preprocess(item.labelled_context),
            "choices": [preprocess(ending) for ending in item.endings],
            "label": item.label,
        }
        for item in items
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "validation.jsonl"
        write_jsonl(path, rows)
        task = ConfigurableTask(
            config={
                "task": "hellaswag",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"validation": str(path)}, "cache_dir": folder},
                "output_type": "multiple_choice",
                "validation_split": "validation",
                "doc_to_text": "{{query}}",
                "doc_to_target": "{{label}}",
                "doc_to_choice": "choices",
                "num_fewshot": 0,
                "metric_list": [
                    {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                    for metric in ("acc", "acc_norm")
                ],
            }
        )
        task.build_all_requests()
    return task, HFLM(pretrained=str(model_path), dtype="float32", device=str(device), batch_size=1)


def timed(work: Any) -> tuple[float, Any]:
    """Seconds that `work` takes, and what it returns. Both results are on the host, so nothing is still running."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def compare(
    task: Any, items: list[HellaSwagItem], scores: list[ItemScore], responses: list[tuple[float, bool]]
) -> dict[str, Any]:
    """On how many items both choose the same ending, by our metrics' names, and how far log-probabilities differ.

    An item counts when the choice is equal and the harness's own scoring of it agrees with ours.
    """
    equal = {"acc": 0, "acc_norm_char": 0}
    difference = 0.0
    docs = list(task.validation_docs())
    for i, (item, score, doc) in enumerate(zip(items, scores, docs, strict=True)):
        results = responses[len(item.endings) * i : len(item.endings) * (i + 1)]
        logprobs = np.array([logprob for logprob, _ in results])
        lengths = np.array([len(choice) for choice in doc["choices"]], dtype=float)
        chosen = {"acc": int(np.argmax(logprobs)), "acc_norm_char": int(np.argmax(logprobs / lengths))}
        verdict = task.process_results(doc, results)
        for metric, name in (("acc", "acc"), ("acc_norm_char", "acc_norm")):
            equal[metric] += chosen[metric] == score.choices[metric] and verdict[name] == score.correct[metric]
        difference = max(difference, float(np.abs(logprobs - score.preprocessed_logprobs).max()))
    return {"equal_choices": equal, "largest_difference": difference}


if __name__ == "__main__":
    run_script(main)
