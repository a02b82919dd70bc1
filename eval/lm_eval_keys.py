"""Results under the names of lm-evaluation-harness (0.4.13), so that tools which read its files read ours.

Only where the meaning is the same. GSM8K's two exact matches are therefore computed by the harness's own rules (its
task gsm8k, version 3), which differ from ours in eval/answers.py: strings are compared, so `18.00` is not `18`, and the
first `####` counts. What the harness does not have (intervals, format, pass@k) keeps our own names.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

INVALID = "[invalid]"
UNTIL = ("Question:", "</s>", "<|im_end|>")

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (re.compile(","), re.compile(r"\$"), re.compile(r"(?s).*#### "), re.compile(r"\.$"))


def strict_match(response: str) -> str:
    """What the harness's filter strict-match takes from a response."""
    match = _STRICT.search(_until(response))
    return match[1].strip() if match else INVALID


def flexible_extract(response: str) -> str:
    """What its filter flexible-extract takes: the last number of any form."""
    matches = list(_FLEXIBLE.finditer(_until(response)))
    return (matches[-1][1] or matches[-1][2]).strip() if matches else INVALID


def exact_match(extracted: str, gold_answer: str) -> bool:
    """Its metric exact_match, as task gsm8k sets it up; `gold_answer` is the item's whole answer."""
    return _normalised(extracted) == _normalised(gold_answer)


def gsm8k_scores(responses: Sequence[str], gold_answers: Sequence[str]) -> dict[str, list[bool]]:
    """Whether each response is right, by key of the harness."""
    pairs = list(zip(responses, gold_answers, strict=True))
    return {
        "exact_match,strict-match": [exact_match(strict_match(response), gold) for response, gold in pairs],
        "exact_match,flexible-extract": [exact_match(flexible_extract(response), gold) for response, gold in pairs],
    }


def result_keys(task: str, scores: dict[str, Sequence[bool]], items: int) -> dict[str, Any]:
    """The harness's top-level keys for one task, zero-shot. scores: {"metric,filter": right or wrong by item}.

    items: how many the task has, of which those in `scores` were evaluated. Standard errors are of a mean, as there.
    """
    n = len(next(iter(scores.values())))
    values: dict[str, Any] = {"name": task, "alias": task, "sample_len": n}
    for key, right in scores.items():
        metric, _, filter_name = key.partition(",")
        mean = sum(right) / n
        values[key] = mean
        values[f"{metric}_stderr,{filter_name}"] = math.sqrt(mean * (1 - mean) / (n - 1)) if n > 1 else "N/A"
    return {
        "results": {task: values},
        "n-shot": {task: 0},
        "n-samples": {task: {"original": items, "effective": n}},
        "higher_is_better": {task: {key.partition(",")[0]: True for key in scores}},
    }


def _until(response: str) -> str:
    for stop in UNTIL:
        response = response.split(stop, 1)[0]
    return response


def _normalised(text: str) -> str:
    for ignored in _IGNORED:
        text = ignored.sub("", text)
    return text.lower()
