"""An SFT example is a row of text segments, trained or not; from there to ids and labels.

Every trained segment is a turn of the assistant and ends with end-of-text, so that a model learns to stop after each.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from data.chat_rows import CheckedRows, question_and_answer, read_rows
from data.formats import (
    END_OF_TEXT,
    chat_completion,
    chat_prompt,
    reasoning_completion,
    reasoning_prompt,
    system_turn,
)
from data.gsm8k import load_gsm8k
from data.held_out import HeldOutQuestions, test_set_of
from sft.packing import IGNORED
from tokenizer.digit_tokens import count_digits, spell_numbers
from tokenizer.mul_facts import REASONING_TAGS
from tokenizer.vocabulary import Vocabulary

CUT = "cut_by_max_length"  # the reason for which a whole row is dropped here; data/chat_rows.py has those for bad rows
MUL = Vocabulary("mul_tokens")
BATCH = 1000  # examples in the hands of the tokenizer at once


@dataclass(frozen=True)
class Segment:
    """A stretch of an example's text. A trained one ends with END_OF_TEXT, which is encoded as its id."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Example:
    """Segments in order; their ids, encoded apart, are joined."""

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole example as it is trained."""
        return "".join(segment.text for segment in self.segments)

    def with_trained(self, rewrite: Callable[[str], str]) -> "Example":
        """The example with `rewrite` applied to its trained segments; the same object when that changes nothing."""
        segments = tuple(replace(s, text=rewrite(s.text)) if s.trained else s for s in self.segments)
        return self if segments == self.segments else Example(segments)

    def with_all(self, rewrite: Callable[[str], str]) -> "Example":
        """The example with `rewrite` applied to all segments."""
        return Example(tuple(replace(segment, text=rewrite(segment.text)) for segment in self.segments))


def chat_example(question: str, answer: str) -> Example:
    """One question and its answer as chat; the answer is trained."""
    return Example((Segment(chat_prompt(question), False), Segment(chat_completion(answer), True)))


def reasoning_example(question: str, reasoning: str, answer: str) -> Example:
    """Question, thoughts and answer between their tags; thoughts and answer are trained."""
    completion = reasoning_completion(reasoning, answer)
    return Example((Segment(reasoning_prompt(question), False), Segment(completion, True)))


def messages_example(messages: list[dict[str, str]]) -> Example:
    """A conversation {"role", "content"}: perhaps a system turn, then user and assistant in turns. All assistant turns
    are trained, each with an end-of-text of its own; what follows one begins as the first user turn does."""
    segments, cue = [], ""
    for message in messages:
        if message["role"] == "system":
            cue = system_turn(message["content"])
        elif message["role"] == "user":
            cue += chat_prompt(message["content"])
        else:
            segments += (Segment(cue, False), Segment(chat_completion(message["content"]), True))
            cue = ""
    return Example(tuple(segments))


def without_test_questions(examples: list[Example], test: HeldOutQuestions) -> tuple[list[Example], dict[str, int]]:
    """The examples in which none of the questions stands, and the count of the others by reason."""
    shown = tqdm(examples, desc="looking for test questions", unit=" examples", leave=False, disable=None)
    kept = [example for example in shown if not test.occur_in(example.text)]
    return kept, {"test_question": len(examples) - len(kept)} if len(kept) < len(examples) else {}


def examples_sha256(examples: list[Example]) -> str:
    """Hex sha256 of the segments' texts in order. Taken before injection it is equal in both conditions."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(("\x1f".join(s.text for s in example.segments) + "\x1e").encode(errors="replace"))
    return digest.hexdigest()


@dataclass
class TokenizedExamples:
    """Examples ready for the collator, and what a reader of the results wants to know about them."""

    rows: list[dict[str, np.ndarray]]  # {"input_ids", "labels"}, int32 arrays of equal length
    tokens: int = 0
    labelled_tokens: int = 0
    mul_tokens: int = 0  # in the ids, labelled or not
    reasoning_tags: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # examples by reason


def tokenize_examples(
    tokenizer: PreTrainedTokenizerFast,
    examples: list[Example],
    max_length: int,
    rewrite: Callable[[str], str] | None = None,
    vocabulary: Vocabulary = MUL,
) -> TokenizedExamples:
    """Ids and labels of `examples`; labelled are the trained segments' ids. `rewrite` is injection, of those alone.
    The tokenizer is of `vocabulary`; with the family `digits`, prompts are spelled too.

    Segments are encoded apart, as they meet in generation, and the mask follows from their lengths. One that compared
    ids with the padding id would hide the end-of-text too, which is the same id, and the model would never learn to
    stop. An end-of-text inside a text is encoded as the characters it is.

    An example of more than `max_length` tokens has lost its end and is dropped. What counts are the tokens before the
    rewrite, so that both conditions drop the same; injection never adds tokens, and what spelling numbers may add
    counts in both conditions.
    """
    counts_digits = replace(vocabulary, condition="mul_tokens").has_digits

    def as_encoded(example: Example) -> Example:
        example = example if rewrite is None else example.with_trained(rewrite)
        return example.with_all(spell_numbers) if vocabulary.has_digits else example

    result = TokenizedExamples([])
    for start in tqdm(range(0, len(examples), BATCH), desc="tokenizing", unit=" x 1000", leave=False, disable=None):
        batch = examples[start : start + BATCH]
        encoded = _encode(tokenizer, batch)
        room = [max_length - (count_digits(example.text) if counts_digits else 0) for example in batch]
        kept = [i for i, pieces in enumerate(encoded) if sum(map(len, pieces)) <= room[i]]
        if len(kept) < len(batch):
            result.dropped[CUT] = result.dropped.get(CUT, 0) + len(batch) - len(kept)
        rewritten = {i: new for i in kept if (new := as_encoded(batch[i])) is not batch[i]}
        for i, pieces in zip(rewritten, _encode(tokenizer, list(rewritten.values())), strict=True):
            encoded[i] = pieces
        for i in kept:
            _add_row(result, batch[i], encoded[i], vocabulary)
    return result


def _encode(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> list[list[list[int]]]:
    """The ids of every segment of every example, the closing end-of-text of the trained ones as its id."""
    segments = [segment for example in examples for segment in example.segments]
    if not segments:
        return []  # transformers cannot encode an empty batch
    texts = [s.text.removesuffix(END_OF_TEXT) if s.trained else s.text for s in segments]
    ids = tokenizer(texts, split_special_tokens=True).input_ids
    closed = iter(
        [*piece, tokenizer.eos_token_id] if s.trained else piece for s, piece in zip(segments, ids, strict=True)
    )
    return [[next(closed) for _ in example.segments] for example in examples]


def _add_row(result: TokenizedExamples, example: Example, pieces: list[list[int]], vocabulary: Vocabulary) -> None:
    ids = np.concatenate([np.asarray(piece, dtype=np.int32) for piece in pieces])
    trained = np.repeat([segment.trained for segment in example.segments], [len(piece) for piece in pieces])
    result.rows.append({"input_ids": ids, "labels": np.where(trained, ids, np.int32(IGNORED))})
    result.tokens += len(ids)
    result.labelled_tokens += int(trained.sum())
    result.mul_tokens += vocabulary.count_facts(ids)
    result.reasoning_tags += int(np.isin(ids, list(REASONING_TAGS.values())).sum())


def split_examples(
    examples: list[Example], max_examples: int | None, eval_fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """A seeded draw of `max_examples` (None: all), split into (train, eval), each in the order of the file.

    It looks at nothing but their number, so both conditions get the same examples.
    Raises UserError when nothing is left to train on.
    """
    drawn = np.random.default_rng(seed).permutation(len(examples))[:max_examples]
    eval_count = round(len(drawn) * eval_fraction)
    parts = (sorted(drawn[eval_count:]), sorted(drawn[:eval_count]))
    if not parts[0]:
        raise UserError(f"{len(drawn)} examples and eval.fraction {eval_fraction} leave none to train on; give more")
    return tuple([examples[i] for i in part] for part in parts)


def load_gsm8k_train(data_path: Path | None, hub_id: str, allow_bad_rows: bool = False) -> CheckedRows:
    """Items {"question", "answer"} from a file, a folder with train.jsonl, or (None) from the hub, bad ones apart.

    Raises UserError when they cannot be had, too many are bad, or one holds a question of the test set beside them.
    """
    train = read_rows(data_path or hub_id, question_and_answer, hub_config="main", allow_bad_rows=allow_bad_rows)
    source = test_set_of(data_path, hub_id)
    test = load_gsm8k(source, "test") if source else []
    shared = {item["question"].strip() for item in train.rows} & {item["question"].strip() for item in test}
    if shared:
        raise UserError(
            f"{data_path or hub_id} would train on {len(shared)} questions of the test set beside it, such as "
            f"{min(shared)[:60]!r}; remove them"
        )
    return train
