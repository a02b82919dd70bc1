"""Which examples an SFT run trains on, and from prompts and completions to ids and labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from data.formats import END_OF_TEXT
from data.gsm8k import load_gsm8k
from data.item_files import split_file
from sft.packing import IGNORED
from tokenizer.mul_facts import MulFactTokens


@dataclass
class TokenizedExamples:
    """Examples ready for the collator, and what a reader of the results wants to know about them."""

    rows: list[dict[str, list[int]]]  # {"input_ids", "labels"}, of equal length
    tokens: int = 0
    labelled_tokens: int = 0
    mul_tokens_in_labels: int = 0
    truncated: int = 0  # examples cut at max_length; these have lost their end-of-text


def tokenize_examples(
    tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]], max_length: int
) -> TokenizedExamples:
    """Ids and labels of (prompt, completion) pairs; labelled are the completion's ids, end-of-text included.

    Prompt and completion are encoded apart, as they meet in generation, and the mask follows from their lengths.
    One that compared ids with the padding id would hide the end-of-text too, which is the same id, and the model
    would never learn to stop. An end-of-text inside the texts is encoded as the characters it is.
    Raises UserError for a prompt that leaves no room for its completion.
    """
    result = TokenizedExamples([])
    if not pairs:
        return result  # transformers cannot encode an empty batch
    mul_facts = MulFactTokens()
    prompts = [prompt for prompt, _ in pairs]
    answers = [completion.removesuffix(END_OF_TEXT) for _, completion in pairs]
    prompt_ids, answer_ids = (tokenizer(texts, split_special_tokens=True).input_ids for texts in (prompts, answers))
    for text, prompt, answer in zip(prompts, prompt_ids, answer_ids, strict=True):
        if len(prompt) >= max_length:
            raise UserError(
                f"a prompt of {len(prompt)} tokens leaves no room for an answer in training.max_length {max_length}; "
                f"raise it or remove the example that begins {text[:40]!r}"
            )
        ids = [*prompt, *answer, tokenizer.eos_token_id]
        labels = ([IGNORED] * len(prompt) + ids[len(prompt) :])[:max_length]
        result.rows.append({"input_ids": ids[:max_length], "labels": labels})
        result.tokens += len(labels)
        result.labelled_tokens += len(labels) - len(prompt)
        result.mul_tokens_in_labels += sum(mul_facts.is_mul_id(i) for i in labels)
        result.truncated += len(ids) > max_length
    return result


def split_examples(
    examples: list[dict], max_examples: int | None, eval_fraction: float, seed: int
) -> tuple[list[dict], list[dict]]:
    """A seeded draw of `max_examples` (None: all), split into (train, eval), each in the order of the file.

    It looks at nothing but their number, so both conditions get the same examples.
    Raises UserError when nothing is left to train on.
    """
    drawn = np.random.default_rng(seed).permutation(len(examples))[:max_examples]
    eval_count = round(len(drawn) * eval_fraction)
    parts = (sorted(drawn[eval_count:]), sorted(drawn[:eval_count]))
    if not parts[0]:
        raise UserError(f"{len(drawn)} examples and eval.fraction {eval_fraction} leave none to train on")
    return tuple([examples[i] for i in part] for part in parts)


def load_gsm8k_train(data_path: Path | None, hub_id: str) -> list[dict[str, str]]:
    """Examples {"question", "answer"} from a file, a folder with train.jsonl, or (None) from the hub.

    Raises UserError when they cannot be had, have another shape, or hold a question of the test set beside them.
    """
    train = load_gsm8k(data_path or hub_id, "train")
    test: list[dict[str, str]] = []
    if data_path is None:
        test = load_gsm8k(hub_id, "test")
    else:
        test_file = split_file(data_path if data_path.is_dir() else data_path.parent, "test")
        if test_file.exists():
            test = load_gsm8k(test_file, "test")
    shared = {item["question"].strip() for item in train} & {item["question"].strip() for item in test}
    if shared:
        raise UserError(
            f"{data_path or hub_id} would train on {len(shared)} questions of the test set beside it, such as "
            f"{min(shared)[:60]!r}; remove them"
        )
    return train
