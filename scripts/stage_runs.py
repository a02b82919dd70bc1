"""The stage directories of one condition, read into memory: run records, results, logs and responses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json, read_jsonl
from common.record import chain_of
from tokenizer.mul_facts import CONDITIONS

# An evaluation directory holds several runs, so their records have names of their own.
BENCHMARKS = ("gsm8k", "probes", "word_problems", "sanity", "hellaswag", "domains")
RECORD_NAMES = ("run.json", *(f"run_{name}.json" for name in (*BENCHMARKS, "token_probes", "edit_eval")))
# What a stage of each kind calls its results. An SFT stage may have its name before: tulu_sft_results.json.
RESULTS = {"pretrain": "results.json", "sft": "*sft_results.json", "grpo": "grpo_results.json"}
RESULTS |= {"edit_memit": "memit_results.json", "eval_edit": "edit_eval_results.json"}
OF = " of "


@dataclass
class ConditionRuns:
    """What the directories of one condition hold. Dicts are keyed by stage name, `responses` by benchmark."""

    condition: str
    directories: dict[str, Path] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)  # run.json of each stage
    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # the file that RESULTS names
    logs: dict[str, list[dict]] = field(default_factory=dict)  # log.jsonl of the training stages
    responses: dict[str, list[dict]] = field(default_factory=dict)
    model_configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # config.json of model directories


def load_condition(condition: str, directories: list[Path]) -> ConditionRuns:
    """Read every stage directory of `condition`.

    Of several directories with the same benchmark the first keeps its name; of the others it is "gsm8k of grpo", after
    the stage that made the model. Raises UserError for a directory that is missing, has no run record, belongs to the
    other condition, or repeats a stage that another one holds.
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
            stage = _own_name(stage, record, runs.records)
            if stage in runs.records:
                first = runs.directories[stage]
                raise UserError(f"{first} and {directory} both hold stage {stage} of {condition}; give one")
            runs.records[stage] = record
            runs.directories[stage] = directory
            _read_stage(runs, stage, directory)
        _read_responses(runs, directory)
    return runs


def pretraining_runs(given: list[Path]) -> list[Path]:
    """The directories of pretraining runs that the user gave, by default those of both conditions, as far as they are
    there. Raises UserError when there are none."""
    runs = given or [path for c in CONDITIONS if (path := Path(f"outputs/pretrain_{c}")).is_dir()]
    if not runs:
        raise UserError("neither outputs/pretrain_baseline nor outputs/pretrain_mul_tokens exists; name --runs")
    return runs


def stage_kind(stage: str) -> str:
    """ "pretrain" or "sft" for the training stages (`sft_gsm8k` is an "sft"), else the stage's own name."""
    return next((kind for kind in ("pretrain", "sft") if stage.startswith(kind)), stage)


def benchmark_kind(name: str) -> str:
    """The benchmark of "gsm8k of grpo": "gsm8k"."""
    return name.partition(OF)[0]


def model_stage(name: str) -> str | None:
    """The stage whose model "gsm8k of grpo" is about: "grpo"; None for the first of its kind."""
    return name.partition(OF)[2] or None


def common_benchmarks(baseline: ConditionRuns, mul_tokens: ConditionRuns) -> list[str]:
    """The benchmarks that both conditions have responses to, in BENCHMARKS' order, the first of a kind first."""
    both = [name for name in baseline.responses if mul_tokens.responses.get(name) and baseline.responses[name]]
    return sorted(both, key=lambda name: (BENCHMARKS.index(benchmark_kind(name)), name.partition(OF)[1]))


def curve(log: list[dict], key: str, count: str = "step") -> tuple[list[int], list[float]]:
    """Steps and values of a log's rows that hold `key`; of a step logged twice, as after a resume, the last.

    count: what a row calls its step; GRPO's "iteration".
    """
    points = {row[count]: row[key] for row in log if row.get(key) is not None}
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def common_stages(baseline: ConditionRuns, mul_tokens: ConditionRuns) -> list[str]:
    """The stages whose directories were given for both conditions, in the order in which they ran."""
    common = [stage for stage in baseline.records if stage in mul_tokens.records]
    return sorted(common, key=lambda stage: (len(chain_of(baseline.records[stage])), stage))


def parent_stage(record: dict[str, Any]) -> str | None:
    """The stage that made the model; None of one from elsewhere, such as OpenAI's."""
    run = (record.get("parent") or {}).get("run")
    return run["stage"] if run else None


def _own_name(name: str, record: dict[str, Any], taken: dict[str, Any]) -> str:
    """`name`, or, if an evaluation of that name is there, the name with the stage whose model this one is of."""
    parent = parent_stage(record)
    return f"{name}{OF}{parent}" if name in taken and record["stage"].startswith("eval_") and parent else name


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
    names = RESULTS.get(stage_kind(stage), "")
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
            kind, record_path = benchmark, directory / f"run_{benchmark}.json"
            if benchmark in runs.responses and record_path.is_file():
                benchmark = _own_name(benchmark, read_json(record_path), runs.responses)
            if benchmark in runs.responses:
                raise UserError(f"{path}: another directory of {runs.condition} holds {benchmark} too; give one")
            rows = read_jsonl(path)
            if kind == "hellaswag":
                rows = list(map(_hellaswag_row, rows))
            elif kind == "domains":
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
