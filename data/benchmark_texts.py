"""The texts of benchmark items that no training text should hold, by benchmark and by the id that responses files have.

gsm8k      question and answer; id: position in the test split, from 0
hellaswag  context with its right ending, without wikiHow's [title], [step] and so on, and also with them, as published;
           id: the published `ind`
probes     question; id: the question itself, which neither --seed nor --max-samples of an evaluation moves
"""

import hashlib
import re
from collections.abc import Iterable

from data.hellaswag import HellaSwagItem
from data.probes import Probe

Texts = dict[str, tuple[str, ...]]  # id of an item to its texts


def gsm8k_texts(items: list[dict[str, str]]) -> Texts:
    """Question and answer of each item."""
    return {str(i): (item["question"], item["answer"]) for i, item in enumerate(items)}


def hellaswag_texts(items: Iterable[HellaSwagItem]) -> Texts:
    """Context and right ending of each item, as one text: in what they were cut from, they are one."""
    published = {item.id: f"{item.context} {item.endings[item.label]}" for item in items}
    return {item: tuple(dict.fromkeys((re.sub(r"\[.*?\]", " ", text), text))) for item, text in published.items()}


def probe_texts(probes: Iterable[Probe]) -> Texts:
    """The question of each probe."""
    return {probe.question: (probe.question,) for probe in probes}


def texts_sha256(texts: Texts) -> str:
    """Hex sha256 of ids and texts in order."""
    lines = ("\x1f".join((item, *those)) for item, those in texts.items())
    return hashlib.sha256("\x1e".join(lines).encode(errors="replace")).hexdigest()
