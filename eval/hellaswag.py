"""HellaSwag: which of four endings does the model find likeliest? Two protocols, three metrics, each with its name.

acc_norm_token   the ending of highest mean log-probability per token, on the text as published, " " + ending after
                 the context (as build-nanogpt's hellaswag.py and llm.c score it)
acc_norm_char    the ending of highest log-probability per character, on lm-evaluation-harness's text (its task
                 hellaswag, version 1.0): activity label before the context, wikiHow's brackets taken out
acc              the ending of highest log-probability on that same text

Of equal endings the first is chosen. Benchmark text is scored as it is in both conditions: multiplications in it are
not rewritten in mul_tokens, so that both conditions are asked the same and see the same BPE ids.

A context is computed once for its four endings (eval/continuations.py), and what is the same in both protocols once
for both.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from common.distributed import World
from common.errors import UserError
from data.hellaswag import HellaSwagItem
from data.hellaswag import load_hellaswag as load_hellaswag
from eval.continuations import Pair, continuation_logprobs
from eval.stats import wilson_interval
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID

METRICS = ("acc_norm_token", "acc_norm_char", "acc")


@dataclass(frozen=True)
class ItemScore:
    """What the model finds of one item's endings. Log-probabilities are sums over an ending's tokens, in nats.

    A list is empty where no metric that was asked for needs it.
    """

    index: int  # position in the list of items
    id: str
    label: int
    raw_logprobs: list[float]  # of the endings as published
    token_counts: list[int]
    preprocessed_logprobs: list[float]  # of the endings as lm-evaluation-harness preprocesses them
    char_counts: list[int]
    truncated: bool = False  # whether a context was cut from the left to fit the model

    @property
    def choices(self) -> dict[str, int]:
        """The ending that each metric that was asked for chooses; the first of equal ones."""
        values = {
            "acc_norm_token": _normalised(self.raw_logprobs, self.token_counts),
            "acc_norm_char": _normalised(self.preprocessed_logprobs, self.char_counts),
            "acc": self.preprocessed_logprobs,
        }
        return {metric: max(range(len(v)), key=v.__getitem__) for metric, v in values.items() if v}

    @property
    def correct(self) -> dict[str, bool]:
        """Whether each metric's choice is the right ending."""
        return {metric: choice == self.label for metric, choice in self.choices.items()}


def score_items(
    model: GPT,
    items: Sequence[HellaSwagItem],
    tokenizer: GPT2TokenizerWithMulFacts,
    device: torch.device,
    dtype: torch.dtype,
    rank: int = 0,
    world_size: int = 1,
    batch_tokens: int | None = None,
    metrics: Sequence[str] = METRICS,
    progress: bool = False,
) -> list[ItemScore]:
    """The scores of this rank's items: rank, rank + world_size, rank + 2 world_size, ...

    Only what `metrics` need is computed: where the two protocols' texts differ, acc_norm_token alone is half the work.
    Matrix products are in `dtype`, in batches of `batch_tokens`. What does not fit the model's context is cut from the
    left, and the item says so. The model's train/eval mode is as before afterwards, and no random number is drawn.
    Raises UserError for an ending longer than the model's context.
    """
    own = list(enumerate(items))[rank::world_size]
    nothing: list[list[Pair]] = [[] for _ in own]
    raw = encode_texts([_raw_text(item) for _, item in own], tokenizer) if METRICS[0] in metrics else nothing
    preprocessed = nothing
    if not set(metrics).isdisjoint(METRICS[1:]):
        preprocessed = encode_texts([_preprocessed_text(item) for _, item in own], tokenizer)

    limit = model.config.block_size
    fitted: dict[Pair, Pair] = {}
    for (_, item), *pairs in zip(own, raw, preprocessed, strict=True):
        for context, ending in chain(*pairs):
            if len(ending) > limit:
                raise UserError(f"HellaSwag item {item.id}: an ending has {len(ending)} tokens, the context {limit}")
            # The last token is predicted and never fed, so limit + 1 fit.
            fitted[context, ending] = (context[-(limit + 1 - len(ending)) :], ending)
    wanted = list(dict.fromkeys(fitted.values()))
    found = dict(zip(wanted, continuation_logprobs(model, wanted, device, dtype, batch_tokens, progress), strict=True))
    return [
        ItemScore(
            index=index,
            id=item.id,
            label=item.label,
            raw_logprobs=[found[fitted[pair]] for pair in raw_pairs],
            token_counts=[len(ending) for _, ending in raw_pairs],
            preprocessed_logprobs=[found[fitted[pair]] for pair in preprocessed_pairs],
            char_counts=[len(preprocess(ending)) for ending in item.endings] if preprocessed_pairs else [],
            truncated=any(fitted[pair] != pair for pair in (*raw_pairs, *preprocessed_pairs)),
        )
        for (index, item), raw_pairs, preprocessed_pairs in zip(own, raw, preprocessed, strict=True)
    ]


def score_everywhere(
    model: GPT,
    items: Sequence[HellaSwagItem],
    tokenizer: GPT2TokenizerWithMulFacts,
    world: World,
    dtype: torch.dtype,
    metrics: Sequence[str] = METRICS,
    progress: bool = False,
) -> list[ItemScore]:
    """The scores of all items in their order, on every process; the work is shared out."""
    own = score_items(
        model,
        items,
        tokenizer,
        world.device,
        dtype,
        world.rank,
        world.size,
        metrics=metrics,
        progress=progress and world.is_main,
    )
    return sorted(world.gather(own), key=lambda score: score.index)


def hellaswag_accuracy(
    model: GPT, items: Sequence[HellaSwagItem], tokenizer: GPT2TokenizerWithMulFacts, world: World, dtype: torch.dtype
) -> dict[str, Any]:
    """What a training log holds of HellaSwag: the Karpathy-style accuracy, its standard error, the number of items."""
    scores = score_everywhere(model, items, tokenizer, world, dtype, metrics=("acc_norm_token",))
    found = summarise(scores)["acc_norm_token"]
    return {
        "hellaswag_acc_norm_token": found["value"],
        "hellaswag_acc_norm_token_stderr": found["stderr"],
        "hellaswag_items": found["n"],
    }


def summarise(scores: Sequence[ItemScore]) -> dict[str, dict[str, Any]]:
    """Per metric that was asked for: value, its standard error (of a mean, as lm-evaluation-harness has it), n, the
    95% Wilson interval. `scores` is not empty.
    """
    results = {}
    for metric in scores[0].choices:
        n, right = len(scores), sum(score.correct[metric] for score in scores)
        value = right / n
        results[metric] = {
            "value": round(value, 6),
            "stderr": round(math.sqrt(value * (1 - value) / max(n - 1, 1)), 6),
            "n": n,
            "num_correct": right,
            "wilson_95": [round(end, 6) for end in wilson_interval(right, n)],
        }
    return results


def preprocess(text: str) -> str:
    """lm-evaluation-harness's rewriting of a HellaSwag text (lm_eval/tasks/hellaswag/utils.py of 0.4.13)."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _raw_text(item: HellaSwagItem) -> tuple[str, list[str]]:
    return item.context, [f" {ending}" for ending in item.endings]


def _preprocessed_text(item: HellaSwagItem) -> tuple[str, list[str]]:
    # The harness moves blanks at the end of a context to the endings, so that these begin with a whole token.
    context = preprocess(item.labelled_context)
    stripped = context.rstrip()
    return stripped, [f"{context[len(stripped) :]} {preprocess(ending)}" for ending in item.endings]


def encode_texts(texts: list[tuple[str, list[str]]], tokenizer: GPT2TokenizerWithMulFacts) -> list[list[Pair]]:
    """Ids of each context with each of its endings; end-of-text stands for an empty context, as in the harness.

    The harness encodes context and ending as one string and cuts the ids where those of the context end. GPT-2 never
    joins a blank to what is before it, so encoding them apart gives the same, and no context is encoded four times.
    """
    flat = [text for context, endings in texts for text in (context, *endings)]
    ids = iter(tokenizer.encode_batch(flat, allow_special=False))
    pairs = []
    for _, endings in texts:
        context = tuple(next(ids)) or (EOT_ID,)
        pairs.append([(context, tuple(next(ids))) for _ in endings])
    return pairs


def _normalised(logprobs: list[float], counts: list[int]) -> list[float]:
    # An ending that preprocessing left empty has no characters; the harness's division makes it minus infinity too.
    return [p / count if count else -math.inf for p, count in zip(logprobs, counts, strict=True)]
