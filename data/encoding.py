"""Documents to ids on many processes, for every script that writes token shards.

A document becomes end-of-text and then its ids, after injection in `mul_tokens`. Its literal <|endoftext|> stays text,
so that no document can forge a border.
"""

import functools
import hashlib
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Literal, TypeVar

import numpy as np

from common.errors import UserError
from data.shards import Split, fingerprint
from tokenizer.families import DEFAULT_FAMILIES, chosen_families, families_name
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import EOT_ID, Condition

BATCH_CHARACTERS = 1_000_000  # of text per task of a worker
BYTES_WORTH_A_WORKER = 8_000_000  # of input; below, starting another process takes longer than it saves

# tiktoken's regular expression gives up on several hundred thousand characters of white space.
PIECE_CHARACTERS = 100_000
# A lone space or line feed begins a BPE word, whatever stands around it.
_WORD_BORDER = re.compile(r"(?<=\S)(?=[ \n]\S)")

# What is known of each document, the columns of Encoded.counts.
INJECTION_COUNTS = ("with_result", "bare", "wrong_result", "refused")
COUNTS = (
    "documents",
    "tokens",
    "mul_tokens",  # tokens of the chosen families
    "text_bytes",
    "text_characters",
    "injected_before",  # 1 for a document that held mul tokens as text when it was read
    *INJECTION_COUNTS,
)

Mode = Literal["weak", "strict", "none"]
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass
class Batch:
    """Documents for one task. `groups` says what each counts for; `after` goes with them untouched."""

    texts: list[str]
    groups: list[Hashable]
    after: Any = None


@dataclass
class Encoded:
    """A batch as ids: (tokens,) uint16, and of each document its counts: (documents, len(COUNTS)) int64."""

    ids: np.ndarray
    counts: np.ndarray
    groups: list[Hashable]
    after: Any = None

    @property
    def lengths(self) -> np.ndarray:
        """Ids of each document."""
        return self.counts[:, COUNTS.index("tokens")]

    def ids_of(self, *groups: Hashable) -> np.ndarray:
        """The ids of the documents of these groups, in order."""
        chosen = np.array([group in groups for group in self.groups])
        return self.ids if chosen.all() else self.ids[np.repeat(chosen, self.lengths)]

    def add_to(self, totals: Mapping[Any, Counter]) -> None:
        """Add the documents' counts to the totals of their groups."""
        for group in set(self.groups):
            rows = np.array([other == group for other in self.groups])
            totals[group].update(dict(zip(COUNTS, self.counts[rows].sum(axis=0).tolist(), strict=True)))


def encode_batch(condition: Condition, mode: Mode, batch: Batch, families: str = DEFAULT_FAMILIES) -> Encoded:
    """Inject (unless `mode` is "none") and encode the documents of a batch."""
    vocabulary = tokenizer_of(condition, families).vocabulary
    pieces, rows = [], []
    for text in batch.texts:
        injected, injection = text, (0,) * len(INJECTION_COUNTS)
        if mode != "none":
            injected, stats = _injector(mode, families).inject_with_stats(text)
            injection = tuple(getattr(stats, name) for name in INJECTION_COUNTS)
        ids = encode_document(condition, injected, families)
        held = holds_mul_token(text, families)
        pieces.append(ids)
        rows.append((1, len(ids), vocabulary.count_facts(ids), len(utf8(text)), len(text), held, *injection))
    return Encoded(np.concatenate(pieces), np.array(rows, dtype=np.int64), batch.groups, batch.after)


def encode_document(condition: Condition, text: str, families: str = DEFAULT_FAMILIES) -> np.ndarray:
    """End-of-text and the ids of `text`, uint16.

    Text of more than 100,000 characters is encoded in pieces that end before a space. The ids are those of the whole,
    unless as many characters in a row have no such place: then a piece ends among them.
    """
    encode = tokenizer_of(condition, families).encode
    ids = [EOT_ID]
    if len(text) <= PIECE_CHARACTERS:
        ids += encode(text, allow_special=False)
        return np.array(ids, dtype=np.uint16)
    arrays = [np.array(ids, dtype=np.uint16)]
    arrays += [np.array(encode(piece, allow_special=False), dtype=np.uint16) for piece in pieces_of(text)]
    return np.concatenate(arrays)


def pieces_of(text: str) -> Iterator[str]:
    """Cut a long text into pieces of at most PIECE_CHARACTERS, at word borders where there is one."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        for earliest in (max(end - 1000, start + 1), start + 1):  # prose has a border near; look far only if not
            borders = [match.start() for match in _WORD_BORDER.finditer(text, earliest, end)]
            if borders:
                end = borders[-1]
                break
        yield text[start:end]
        start = end
    yield text[start:]


def map_in_order(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """map() over processes, a few tasks ahead at most: Executor.map would read the whole corpus first.

    One worker is this process. Raises UserError when a worker was killed.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        pending: deque = deque()
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise UserError("a worker was killed (out of memory?); give fewer --workers and run again") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the main process, and end with it even when it was killed and could not say so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def is_validation(number: int, val_fraction: float) -> bool:
    """Whether document `number` is held out: a hash of the number, in [0, 1), is below `val_fraction`.

    Not of its text, which injection changes; not every 50th, because corpora have periods.
    """
    return unit_hash(str(number)) < val_fraction


def unit_hash(key: str) -> float:
    """A hash of `key` in [0, 1): below a share for about that share of all keys."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def split_record(split: Split, counts: Mapping[str, int], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """What meta.json says of a split: its counts and its fingerprint, which data/shards.py checks."""
    entries = [(s["name"], s["tokens"], s["digest"]) for s in shards if s["split"] == split]
    names = ("documents", "tokens", "mul_tokens", "text_bytes", "text_characters")
    return {name: counts[name] for name in names} | {"fingerprint": fingerprint(entries)}


def injection_record(mode: Mode, counts: Mapping[str, int]) -> dict[str, Any]:
    """What meta.json says of the injection."""
    return {"mode": mode} | ({name: counts[name] for name in INJECTION_COUNTS} if mode != "none" else {})


def families_record(families: str) -> dict[str, str]:
    """What meta.json and other records say of the token families: nothing of the default."""
    return {} if families == DEFAULT_FAMILIES else {"families": families_name(families)}


def utf8(text: str) -> bytes:
    """The text's bytes. JSON can hold half of a surrogate pair, which no UTF-8 can; the tokenizer replaces it too."""
    return text.encode(errors="replace")


def holds_mul_token(text: str, families: str) -> bool:
    """Whether a token of the families stands in the text as it was read."""
    return any(
        family.prefix in text and any(fact.token in text for fact in family.facts)
        for family in chosen_families(families)
    )


# Built once in each process.
@functools.cache
def tokenizer_of(condition: Condition, families: str = DEFAULT_FAMILIES) -> GPT2TokenizerWithMulFacts:
    """The tokenizer of a condition with these token families."""
    return GPT2TokenizerWithMulFacts(condition, families)


@functools.cache
def _injector(mode: Literal["weak", "strict"], families: str) -> MulExpressionInjector:
    return MulExpressionInjector(mode, families)
