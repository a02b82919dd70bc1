"""Prompts as token ids, with the place of their subject; and the contexts under which an edit is made."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.errors import UserError
from edit.settings import ContextSettings
from edit.subjects import find_subject, last_subject_token
from eval.engine import generate
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID

CONTEXT_STARTS = ("The", "Therefore", "Because", "I", "You")  # MEMIT's


@dataclass(frozen=True)
class EditPrompt:
    """Token ids, and the index among them at which an edit is made: where the subject ends, or the prompt."""

    ids: list[int]
    position: int
    context: int = 0  # ids before the prompt itself, and so before the position, that others may share


def subject_prompt(
    tokenizer: GPT2TokenizerWithMulFacts, prompt: str, subject: str, prefix: Sequence[int] = ()
) -> EditPrompt:
    """`prompt` behind the token ids of a `prefix`. Raises UserError when the subject cannot be found in it."""
    _, end = find_subject(prompt, subject)
    blank = " " if prefix else ""  # GPT-2's BPE never joins a blank to what is before it: the ids are the joined text's
    ids = tokenizer.encode(blank + prompt, allow_special=False)
    at = last_subject_token(tokenizer, ids, blank + prompt, end + len(blank))
    return EditPrompt([*prefix, *ids], len(prefix) + at, len(prefix))


def target_ids(tokenizer: GPT2TokenizerWithMulFacts, target: str) -> list[int]:
    """The ids of a target, which follows its prompt after a space."""
    return tokenizer.encode(f" {target}", allow_special=False)


def sample_contexts(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, settings: ContextSettings, seed: int
) -> list[list[int]]:
    """`settings.number` prefixes of the model's own, as token ids, each ended by a full stop."""
    starts = [CONTEXT_STARTS[i % len(CONTEXT_STARTS)] for i in range(settings.number)]
    prompts = [tokenizer.encode(start) for start in starts]
    completions = generate(
        model,
        prompts,
        max_new_tokens=settings.tokens,
        temperature=1.0,
        top_k=20,
        stop_ids=(),
        suppressed_ids=(EOT_ID, *tokenizer.vocabulary.suppressed_ids),
        seed=seed,
    )
    stop = tokenizer.encode(".")
    return [[*prompt, *each.ids, *stop] for prompt, [each] in zip(prompts, completions, strict=True)]


def context_weights(number: int) -> torch.Tensor:
    """(1 + number,): half for the bare prompt, half shared by those with a prefix; what MEMIT's mean of means is."""
    return torch.tensor([0.5] + [0.5 / number] * number) if number else torch.ones(1)


def check_length(ids: Sequence[int], block_size: int, text: str) -> None:
    """Raise UserError when `ids` do not fit the model's context."""
    if len(ids) > block_size:
        raise UserError(f"{text!r} has {len(ids)} tokens with its context; the model takes {block_size}")
