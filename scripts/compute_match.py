"""The compute-match audit: may two sets of runs be compared at all?

Everything that a stage's run record says is compared between the conditions, along the chain of parents. Only
what the intervention itself changes (injection, and with it token data), and what does not decide a result
(paths, device, logging), may differ. A verdict needs every other field to be equal.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from common.record import chain_of
from pretrain.hf_weights import FAMILIES_KEY
from scripts.stage_runs import ConditionRuns, common_benchmarks, common_stages, stage_kind
from tokenizer.families import DEFAULT_FAMILIES
from tokenizer.mul_facts import CONDITIONS

Status = Literal["ok", "differs", "may differ"]
ABSENT = "absent"

# Config keys, by the last part of their name, that say where things lie and which condition it is.
MAY_DIFFER = {"condition", "config", "model", "checkpoint", "parent", "device", "resume", "force", "contamination"}
MAY_DIFFER |= {"sets"}  # which other questions were asked in the same call
MAY_DIFFER |= {"text", "corpus", "prose"}  # paths of the condition's own text
MAY_DIFFER |= {"hellaswag"}  # the path of items, whose content the record's data name
MAY_DIFFER_SECTIONS = {"logging", "checkpoint", "hellaswag", "samples"}
# What a run record says of its data and does not depend on tokenization, hence not on injection.
DATA_CONTENT = {"documents_sha256", "sha256", "examples", "eval_examples", "items", "families"}
ARCHITECTURE = ("vocab_size", "n_layer", "n_head", "n_embd", "n_positions", "activation_function")


@dataclass
class AuditRow:
    """One field of one stage, in both conditions."""

    stage: str
    field: str
    baseline: Any
    mul_tokens: Any
    status: Status

    def sentence(self) -> str:
        """The difference in words, for the line that refuses a verdict."""
        sides = f"{_short(self.baseline)} in baseline and {_short(self.mul_tokens)} in mul_tokens"
        return f"{self.field} is {sides} (stage {self.stage})"


def audit(baseline: ConditionRuns, mul_tokens: ConditionRuns) -> list[AuditRow]:
    """Compare every stage that both conditions have, and their ancestors. Differing rows forbid a verdict."""
    common = common_stages(baseline, mul_tokens)
    rows = []
    for stage in common:
        chains = [_names(chain_of(runs.records[stage])) for runs in (baseline, mul_tokens)]
        if len(chains[0]) + len(chains[1]) > 2:
            rows.append(_row(stage, "chain of parents", " > ".join(chains[0]), " > ".join(chains[1])))
    (lineage_a, foreign_a), (lineage_b, foreign_b) = (_lineage(runs, common) for runs in (baseline, mul_tokens))
    for stage in sorted(foreign_a | foreign_b):
        sides = ["another" if stage in foreign else "this one" for foreign in (foreign_a, foreign_b)]
        rows.append(AuditRow(stage, "the run that later stages came from", *sides, "differs"))
    for path in lineage_a:
        if path in lineage_b:
            rows += _stage_rows(path[-1], lineage_a[path], lineage_b[path])
    for stage in common:
        configs = [runs.model_configs.get(stage) for runs in (baseline, mul_tokens)]
        if any(configs):
            for key in ARCHITECTURE:
                sides = [(config or {}).get(key, ABSENT) for config in configs]
                rows.append(_row(stage, f"config.json: {key}", *sides))
            families = [(config or {}).get(FAMILIES_KEY, DEFAULT_FAMILIES) for config in configs]
            rows.append(_row(stage, f"config.json: {FAMILIES_KEY}", *families))
    for benchmark in common_benchmarks(baseline, mul_tokens):
        rows += _question_rows(benchmark, baseline.responses[benchmark], mul_tokens.responses[benchmark])
    return rows


def mismatches(rows: list[AuditRow]) -> list[str]:
    """One sentence per field that forbids a verdict; empty when the runs are comparable."""
    return [row.sentence() for row in rows if row.status == "differs"]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as {"training.max_steps": 400, ...}; anything else, lists too, is a leaf."""
    if not isinstance(value, dict):
        return {prefix: value}
    leaves = {}
    for key, inner in value.items():
        leaves |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _names(chain: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(record["stage"] for record in chain)


def _lineage(runs: ConditionRuns, stages: list[str]) -> tuple[dict[tuple, dict[str, Any]], set[str]]:
    """Every record of the given stages and their ancestors, by the path of stage names that leads to it.

    Also the stages whose directory holds another run than the one that a later stage names as its ancestor.
    """
    lineage: dict[tuple, dict[str, Any]] = {}
    foreign = set()
    for stage in sorted(stages, key=lambda stage: len(chain_of(runs.records[stage]))):
        chain = chain_of(runs.records[stage])
        for depth, record in enumerate(chain, start=1):
            known = lineage.setdefault(_names(chain[:depth]), record)
            if any(record.get(key) != known.get(key) for key in ("started", "config", "data")):
                foreign.add(record["stage"])
    return lineage, foreign


def _stage_rows(stage: str, a: dict[str, Any], b: dict[str, Any]) -> Iterator[AuditRow]:
    own = (a["condition"], b["condition"]) == CONDITIONS
    yield AuditRow(stage, "condition", a["condition"], b["condition"], "may differ" if own else "differs")
    yield _row(stage, "git_commit", a.get("git_commit"), b.get("git_commit"), may_differ=True)
    yield _row(stage, "seed", a["seed"], b["seed"])
    for key in ("steps", "tokens", "dtype"):
        if key in a or key in b:
            # Injection shortens SFT examples; only in pretraining is the budget itself counted in tokens.
            free = key == "tokens" and stage_kind(stage) != "pretrain"
            yield _row(stage, key, a.get(key, ABSENT), b.get(key, ABSENT), free)
    parents = [side.get("parent") or {} for side in (a, b)]
    if any(parents) and not any(parent.get("run") for parent in parents):
        # Weights from elsewhere, such as openai-community/gpt2: no record says how they came to be, so the same file.
        yield _row(stage, "parent.sha256", *(parent.get("sha256", ABSENT) for parent in parents))
    configs = flatten(a["config"]), flatten(b["config"])
    for key in dict.fromkeys([*configs[0], *configs[1]]):
        if key in ("condition", "seed"):  # the record's own, above, are what the run used
            continue
        yield _row(stage, key, configs[0].get(key, ABSENT), configs[1].get(key, ABSENT), _is_free(key))
    data = flatten(a.get("data") or {}), flatten(b.get("data") or {})
    if stage_kind(stage) == "pretrain":
        yield _documents_row(stage, *data)
    for key in dict.fromkeys([*data[0], *data[1]]):
        if key == "documents_sha256" and stage_kind(stage) == "pretrain":
            continue
        free = not DATA_CONTENT & set(key.split("."))
        yield _row(stage, f"data.{key}", data[0].get(key, ABSENT), data[1].get(key, ABSENT), free)


def _documents_row(stage: str, a: dict[str, Any], b: dict[str, Any]) -> AuditRow:
    """By their hash, or, for public pre-tokenized data that has none, by the very same tokens."""
    hashes = [side.get("documents_sha256") or "not recorded" for side in (a, b)]
    same_tokens = a.get("fingerprint") is not None and a.get("fingerprint") == b.get("fingerprint")
    same = hashes[0] == hashes[1] != "not recorded"
    return AuditRow(stage, "data.documents_sha256", *hashes, "ok" if same or same_tokens else "differs")


def _question_rows(benchmark: str, a: list[dict], b: list[dict]) -> Iterator[AuditRow]:
    yield _row(benchmark, "number of items", len(a), len(b))
    yield _row(benchmark, "questions in order (sha256)", _questions_sha256(a), _questions_sha256(b))


def _questions_sha256(rows: list[dict]) -> str:
    text = "\x1e".join(f"{row['index']}\x1f{row['question']}\x1f{row['gold']}" for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_free(key: str) -> bool:
    parts = key.split(".")
    last = parts[-1]
    return (
        last in MAY_DIFFER
        or last.endswith(("_dir", "_path"))
        or last.startswith("inject")
        or (len(parts) > 1 and parts[0] in MAY_DIFFER_SECTIONS)
    )


def _row(stage: str, field: str, a: Any, b: Any, may_differ: bool = False) -> AuditRow:
    status: Status = "ok" if a == b else "may differ" if may_differ else "differs"
    return AuditRow(stage, field, a, b, status)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:24]}...{text[-8:]}"
