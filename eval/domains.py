"""Has a model forgotten everything but arithmetic? Two numbers: calculations where none were asked for, and prose."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from eval.continuations import continuation_logprobs
from eval.resampling import bootstrap_mean, paired_bootstrap
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID

_OPERAND = r"[$€£(]?[0-9][0-9.,]*[%)]?"
_CALCULATION = re.compile(
    "|".join(
        (
            r"[0-9][%)]?\s?[+*×÷]\s?[$€£(]?[0-9]",
            # A slash in a date or a fraction (9/11, 24/7, 3/4 of the vote) has no blanks, and a hyphen between numbers
            # is more often a span than a difference: these need blanks or a result, a minus both.
            rf"[0-9][%)]?\s/\s{_OPERAND}",
            rf"[0-9][%)]?/{_OPERAND}\sequals\s[$€£-]?[0-9]",
            rf"[0-9][%)]?\s[-−]\s{_OPERAND}\s(?:is|equals|makes|leaves)\s[$€£-]?[0-9]",
            r"=\s?[$€£-]?\s?[0-9]",
            r"<<[^<>]*[0-9][^<>]*>>",  # a calculator note
            r"<MUL_[1-9]_[1-9]_",
            r"####\s?[$€£-]?[0-9]",
        )
    )
)


def is_arithmetic(response: str) -> bool:
    """Whether a response calculates: an operation on two numbers, an equation, a calculator note, a mul token, or
    `#### number`. A number alone, such as a year, is no calculation, nor a date, a fraction, or a span.
    """
    return _CALCULATION.search(response) is not None


def prose_bits(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, paragraphs: Sequence[str], device: torch.device
) -> tuple[list[float], int]:
    """Bits that each paragraph costs, and how many tokens all have. A paragraph begins behind an end-of-text.

    One that is longer than the model's context is scored in windows, each of them behind an end-of-text of its own.
    """
    size = model.config.block_size
    pairs, owners = [], []
    for number, ids in enumerate(tokenizer.encode_batch(list(paragraphs), allow_special=False)):
        for start in range(0, len(ids), size):
            pairs.append(((EOT_ID,), tuple(ids[start : start + size])))
            owners.append(number)
    nats = continuation_logprobs(model, pairs, device, torch.float32)
    bits = np.bincount(owners, weights=-np.array(nats) / math.log(2), minlength=len(paragraphs))
    return bits.tolist(), sum(len(ending) for _, ending in pairs)


def prose_summary(bits: Sequence[float], tokens: int, paragraphs: Sequence[str]) -> dict[str, Any]:
    """Bits per byte with its interval over paragraphs, which is the same measure for any tokenizer, and perplexity."""
    per_byte = [b / len(text.encode()) for b, text in zip(bits, paragraphs, strict=True)]
    found = bootstrap_mean(per_byte, bounds=None)
    return {
        "bits_per_byte": round(found.mean, 6),
        "bits_per_byte_95": [round(found.low, 6), round(found.high, 6)],
        "perplexity": round(2 ** (sum(bits) / tokens), 4),
        "paragraphs": len(paragraphs),
        "tokens": tokens,
    }


def prose_change(before: Sequence[float], after: Sequence[float], paragraphs: Sequence[str]) -> dict[str, Any]:
    """What training cost, in bits per byte: after minus before, with its interval over paragraphs."""
    sizes = [len(text.encode()) for text in paragraphs]
    sides = ([b / size for b, size in zip(bits, sizes, strict=True)] for bits in (before, after))
    found = paired_bootstrap(*sides, bounds=None)
    return {
        "bits_per_byte": round(found.difference, 6),
        "bits_per_byte_95": [round(found.low, 6), round(found.high, 6)],
        "p": round(found.p_value, 6),
    }
