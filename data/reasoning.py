"""Rows {"question", "reasoning", "answer"}: what data/formats.py renders with <think> and <answer> tags."""

import re
from typing import Any

from common.errors import UserError
from data.chat_rows import BadRow, question_and_answer
from data.formats import split_gsm8k_answer
from tokenizer.mul_facts import REASONING_TAGS

FIELDS = ("question", "reasoning", "answer")
_NOTE = re.compile(r"<<[^<>]*>>")


def question_reasoning_answer(row: Any) -> dict[str, str]:
    """The three texts of a row, none empty, none with a tag, which would end a part before its end. Raises BadRow."""
    if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in FIELDS):
        raise BadRow("missing_keys")
    row = {field: row[field] for field in FIELDS}
    if not row["reasoning"].strip():
        raise BadRow("empty_reasoning")
    for trained in ("reasoning", "answer"):
        question_and_answer({"question": row["question"], "answer": row[trained]})
    if any(tag in text for tag in REASONING_TAGS for text in row.values()):
        raise BadRow("holds_a_tag")
    return row


def gsm8k_as_reasoning(item: Any) -> dict[str, str]:
    """A GSM8K item as such a row: its steps, and the number behind "####". Raises BadRow for what has not both."""
    item = question_and_answer(item)
    try:
        reasoning, answer = split_gsm8k_answer(item["answer"])
    except UserError:
        raise BadRow("no_final_answer") from None
    return question_reasoning_answer({"question": item["question"].strip(), "reasoning": reasoning, "answer": answer})


def without_notes(row: dict[str, str]) -> dict[str, str]:
    """The row without the calculator notes of its steps: "6 * 9 = <<6*9=54>>54" says the same twice."""
    return row | {"reasoning": _NOTE.sub("", row["reasoning"])}
