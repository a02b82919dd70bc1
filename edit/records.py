"""Edits as they lie in files, in two formats, and as the rest of edit/ takes them.

ours          [{subject, prompt, target_new, target_old, paraphrases: [...], neighbors: [{prompt, answer}], group}]
CounterFact   [{case_id, requested_rewrite: {prompt with "{}", subject, target_new: {str}, target_true: {str},
              relation_id}, paraphrase_prompts, neighborhood_prompts, generation_prompts}]  (Meng et al. 2022)

.json holds a list, .jsonl a record on each line. A prompt ends where its target begins, and targets are of any length.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json, read_jsonl
from edit.subjects import find_subject, holds_subject


@dataclass(frozen=True)
class Neighbor:
    """A prompt about something else, whose answer is to stay."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class EditRecord:
    """One fact to change: after `prompt`, `target_new` in place of `target_old`."""

    id: str
    group: str  # what the results are summed up by: the relation
    subject: str
    prompt: str
    target_new: str
    target_old: str
    paraphrases: tuple[str, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    generation_prompts: tuple[str, ...] = ()  # what fluency is measured on; the prompt where there are none


def load_edits(path: Path | str, max_edits: int | None = None) -> list[EditRecord]:
    """The records of a file, the first `max_edits` of them. Raises UserError naming the first bad one."""
    path = Path(path)
    rows = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: expected a list of edits, found {type(rows).__name__ if rows else 'none'}")
    if max_edits is not None and max_edits < 1:
        raise UserError(f"--max-edits {max_edits}: expected at least 1")
    records = []
    for number, row in enumerate(rows[:max_edits], start=1):
        try:
            records.append(read_record(row, number))
        except UserError as error:
            raise UserError(f"{path}, record {number}: {error}") from None
    return records


def read_record(row: Any, number: int) -> EditRecord:
    """One record of either format. Raises UserError that says what is wrong with it."""
    if not isinstance(row, dict):
        raise UserError(f"expected an object, found {type(row).__name__}")
    record = _from_counterfact(row, number) if "requested_rewrite" in row else _from_ours(row, number)
    find_subject(record.prompt, record.subject)
    if record.target_new == record.target_old:
        raise UserError(f"target_new and target_old are both {record.target_new!r}")
    for neighbor in record.neighbors:
        if neighbor.answer == record.target_new:
            raise UserError(f"the neighbor {neighbor.prompt!r} has target_new as its answer; nothing could be measured")
    return record


def edited_elsewhere(records: Sequence[EditRecord]) -> list[list[bool]]:
    """For each record's neighbors: is its subject itself edited in this batch?

    Such a neighbor is meant to change, or shares its subject with a fact that is; specificity is measured without it.
    """
    subjects = {record.subject for record in records}

    def holds_one(neighbor: Neighbor) -> bool:
        return any(holds_subject(neighbor.prompt, subject) for subject in subjects)

    return [[holds_one(neighbor) for neighbor in record.neighbors] for record in records]


def _from_ours(row: dict, number: int) -> EditRecord:
    neighbors = _list(row, "neighbors", dict)
    return EditRecord(
        id=str(row.get("id", number - 1)),
        group=str(row.get("group", row.get("relation", "all"))),
        subject=_string(row, "subject"),
        prompt=_string(row, "prompt"),
        target_new=_string(row, "target_new"),
        target_old=_string(row, "target_old"),
        paraphrases=_texts(row, "paraphrases"),
        neighbors=tuple(Neighbor(_string(each, "prompt"), _string(each, "answer")) for each in neighbors),
        generation_prompts=_texts(row, "generation_prompts"),
    )


def _from_counterfact(row: dict, number: int) -> EditRecord:
    rewrite = _dict(row, "requested_rewrite")
    subject, template = _string(rewrite, "subject"), _string(rewrite, "prompt")
    if template.count("{}") != 1:
        raise UserError(f"requested_rewrite.prompt {template!r}: expected one {{}} for the subject")
    old = _string(_dict(rewrite, "target_true"), "str")
    return EditRecord(
        id=str(row.get("case_id", number - 1)),
        group=str(rewrite.get("relation_id", "all")),
        subject=subject,
        prompt=template.replace("{}", subject),
        target_new=_string(_dict(rewrite, "target_new"), "str"),
        target_old=old,
        paraphrases=_texts(row, "paraphrase_prompts"),
        # In CounterFact the neighbors are other subjects of which the old target is true.
        neighbors=tuple(Neighbor(text, old) for text in _texts(row, "neighborhood_prompts")),
        generation_prompts=tuple(dict.fromkeys(_texts(row, "generation_prompts"))),
    )


def _string(row: dict, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{key}: expected text, found {value!r}")
    return value.strip()


def _dict(row: dict, key: str) -> dict:
    if not isinstance(row.get(key), dict):
        raise UserError(f"{key}: expected an object, found {row.get(key)!r}")
    return row[key]


def _list(row: dict, key: str, kind: type) -> list:
    values = row.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise UserError(f"{key}: expected a list of {'texts' if kind is str else 'objects'}, found {values!r}")
    return values


def _texts(row: dict, key: str) -> tuple[str, ...]:
    texts = tuple(text.strip() for text in _list(row, key, str))
    if "" in texts:  # it has no last token to read an answer at
        raise UserError(f"{key}: text {texts.index('') + 1} of {len(texts)} is blank")
    return texts


def to_row(record: EditRecord) -> dict[str, Any]:
    """The record in our format, as `load_edits` reads it."""
    return asdict(record)
