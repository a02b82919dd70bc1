"""The stage directories of one condition, read into memory: run records, results, logs and responses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json, read_jsonl

# An evaluation directory holds several runs, so their records have names of their own.
BENCHMARKS = ("gsm8k", "probes", "word_problems", "sanity", "hellaswag", "domains")
RECORD_NAMES = ("run.json", *(f"run_{name}.json" for name in (*BENCHMARKS, "token_probes")))


@dataclass
class ConditionRuns:
    """What the directories of one condition hold. Dicts are keyed by stage name, `responses` by benchmark."""

    condition: str
    directories: dict[str, Path] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)  # run.json of each stage
    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # results.json / *sft_results.json
    logs: dict[str, list[dict]] = field(default_factory=dict)  # log.jsonl of the training stages
    responses: dict[str, list[dict]] = field(default_factory=dict)
    model_configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # config.json of model directories


def load_condition(condition: str, directories: list[Path]) -> ConditionRuns:
    """Read every stage directory of `condition`; their order does not matter.

    Raises UserError for a directory that is missing, has no run record, belongs to the other condition, or
    repeats a stage that another one holds.
    """
    runs = ConditionRuns(condition)
    for directory in directories:
        for stage, record in _read_records(directory).items():
            if record["condition"] != condition:
                flag = condition.replace("_", "-")
                raise UserError(
                    f"{directory} is a run of condition {record['condition']}, but was given under --{flag}; "
                    f"give it under --{record['condition'].replace('_', '-')}"
                )
            if stage in runs.records:
                first = runs.directories[stage]
                raise UserError(f"{first} and {directory} both hold stage {stage} of {condition}; give one")
            runs.records[stage] = record
            runs.directories[stage] = directory
            _read_stage(runs, stage, directory)
        _read_responses(runs, directory)
    return runs


def stage_kind(stage: str) -> str:
    """ "pretrain" or "sft" for the training stages (`sft_gsm8k` is an "sft"), else the stage's own name."""
    return next((kind for kind in ("pretrain", "sft") if stage.startswith(kind)), stage)


def chain_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The run records from the first ancestor to `record` itself, out of the nested parents."""
    chain = [record]
    while chain[0].get("parent") and chain[0]["parent"].get("run"):
        chain.insert(0, chain[0]["parent"]["run"])
    return chain


def curve(log: list[dict], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a log's rows that hold `key`; of a step logged twice, as after a resume, the last."""
    points = {row["step"]: row[key] for row in log if row.get(key) is not None}
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def common_stages(baseline: ConditionRuns, mul_tokens: ConditionRuns) -> list[str]:
    """The stages whose directories were given for both conditions, in the order in which they ran."""
    common = [stage for stage in baseline.records if stage in mul_tokens.records]
    return sorted(common, key=lambda stage: (len(chain_of(baseline.records[stage])), stage))


def _read_records(directory: Path) -> dict[str, dict[str, Any]]:
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory; give the stage directories of finished runs")
    paths = [directory / name for name in RECORD_NAMES if (directory / name).is_file()]
    if not paths:
        raise UserError(f"{directory} has no run.json; it is not the output of a finished stage")
    records = {}
    for path in paths:
        record = read_json(path)
        missing = [key for key in ("stage", "condition", "seed", "config") if key not in record]
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}; it is not a run record of this project")
        records[record["stage"]] = record
    return records


def _read_stage(runs: ConditionRuns, stage: str, directory: Path) -> None:
    # An SFT stage may have its name before that of its results: tulu_sft_results.json.
    names = {"pretrain": "results.json", "sft": "*sft_results.json"}.get(stage_kind(stage), "")
    for results in directory.glob(names) if names else ():
        runs.results[stage] = read_json(results)
        log = directory / "log.jsonl"
        runs.logs[stage] = read_jsonl(log) if log.is_file() else []
    if (directory / "config.json").is_file():
        config = read_json(directory / "config.json")
        if "model_type" in config:  # a model directory's; pretraining keeps a config.json of its own kind
            runs.model_configs[stage] = config


def _read_responses(runs: ConditionRuns, directory: Path) -> None:
    for benchmark in BENCHMARKS:
        path = directory / f"{benchmark}_responses.jsonl"
        if path.is_file():
            if benchmark in runs.responses:
                raise UserError(f"{path}: another directory of {runs.condition} holds {benchmark} too; give one")
            rows = read_jsonl(path)
            if benchmark == "hellaswag":
                rows = list(map(_hellaswag_row, rows))
            elif benchmark == "domains":
                rows = [_domains_row(row) for row in rows if not row["numeric"]]
            runs.responses[benchmark] = rows


def _hellaswag_row(row: dict[str, Any]) -> dict[str, Any]:
    """A HellaSwag item as the other benchmarks have theirs: acc_norm_token decides, the other two metrics beside it."""
    right = row["correct"]
    common = {"index": row["index"], "question": row["id"], "gold": row["label"], "correct": right["acc_norm_token"]}
    return common | {"correct_acc_norm_char": right["acc_norm_char"], "correct_acc": right["acc"]}


def _domains_row(row: dict[str, Any]) -> dict[str, Any]:
    """A prompt that asks for no calculation: a response without one is right."""
    return row | {"gold": "no calculation", "correct": not row["arithmetic"], "category": row["domain"]}
