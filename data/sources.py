"""Where a corpus comes from: documents of local files, of the hub and of the generated arithmetic, one at a time.

A source is a sequence of parts (files, mostly) in an order drawn from the seed, each a sequence of documents. Its place
is the number of the part and of the document in it, so that a run that was stopped goes on there without reading what
lies before. `DocumentSequence` mixes sources to one sequence, the same for every condition.
"""

import hashlib
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from data.documents import SUFFIXES, check_file, document_files, read_file
from data.encoding import families_record, utf8
from data.item_files import HUB_TIMEOUT_SECONDS
from data.world.arithmetic import arithmetic_documents
from data.world.family_arithmetic import FAMILIES, family_documents
from tokenizer.families import DEFAULT_FAMILIES

ARITHMETIC = "arithmetic"
ARITHMETIC_PART = 4500  # documents; a hundred rounds of its forms
# As data/probes.py words its questions. The generated world asks for the table so too; here no probe shall occur.
_WORDS_OF_PROBES = re.compile(r"What is \d+ (?:times|plus) \d+\?")


class SourceName(NamedTuple):
    """A source as named on the command line: PATH[=WEIGHT] or HUB_ID[:CONFIG][=WEIGHT]."""

    name: str
    config: str | None
    weight: float | None
    local: bool

    @property
    def label(self) -> str:
        """The name without the weight."""
        return f"{self.name}:{self.config}" if self.config else self.name


@dataclass
class Source:
    """One source and how far it has been read.

    `read(part, skip)` yields the documents of a part from number `skip` on, empty ones as "".
    """

    name: str
    share: float  # of the sequence's bytes
    identity: dict[str, Any]  # what the documents are: names and sizes of files, or a revision of the hub
    num_parts: float
    read: Callable[[int, int], Iterator[str]]
    part: int = 0
    row: int = 0
    size: int = 0  # bytes of the documents so far, one for each one's end-of-text included
    empty: int = 0  # documents that were left out because there was nothing in them
    _documents: Iterator[str] | None = None

    def next_document(self) -> str | None:
        """The next document that is not empty; None when there is none."""
        while self.part < self.num_parts:
            if self._documents is None:
                self._documents = self.read(self.part, self.row)
            for text in self._documents:
                self.row += 1
                if text:
                    self.size += len(utf8(text)) + 1
                    return text
                self.empty += 1
            self.part, self.row, self._documents = self.part + 1, 0, None
        return None

    def place(self) -> dict[str, int]:
        """What `go_to` needs to go on here."""
        return {"part": self.part, "row": self.row, "size": self.size, "empty": self.empty}

    def go_to(self, place: dict[str, int]) -> None:
        """Go on where `place` was taken."""
        self.part, self.row, self.size, self.empty = (place[key] for key in ("part", "row", "size", "empty"))
        self._documents = None


class Document(NamedTuple):
    """A document of the sequence."""

    number: int
    source: str
    text: str
    common: bool  # whether it begins within the part of the sequence that every condition reads


class DocumentSequence:
    """The documents of several sources as one sequence, which depends on the sources alone.

    The next document is from the source that is furthest behind its share of the bytes, so the shares hold to within a
    document everywhere. The sequence ends where one of the sources has no more documents.

    common_bytes: how far every condition reads: a document takes at most one token per byte and one for its
    end-of-text, so a budget of N tokens reaches every document that begins in the first N bytes, counted so.
    """

    def __init__(self, sources: list[Source], common_bytes: int):
        self.sources, self.common_bytes = sources, common_bytes
        self.number = 0  # of the next document
        self.sha256 = ""  # of the documents so far that begin within common_bytes
        self.dry: str | None = None  # the source that ended the sequence

    def __iter__(self) -> Iterator[Document]:
        while True:
            source = min(self.sources, key=lambda source: source.size / source.share)
            common = sum(source.size for source in self.sources) < self.common_bytes
            text = source.next_document()
            if text is None:
                self.dry = source.name
                return
            if common:
                # A chain of hashes, because it can be stopped, written down and taken up again.
                digest = hashlib.sha256(utf8(text)).hexdigest()
                self.sha256 = hashlib.sha256((self.sha256 + digest).encode()).hexdigest()
            self.number += 1
            yield Document(self.number - 1, source.name, text, common)

    def place(self) -> dict[str, Any]:
        """What `go_to` needs to go on here, JSON-ready."""
        places = {source.name: source.place() for source in self.sources}
        return {"number": self.number, "sha256": self.sha256, "sources": places}

    def go_to(self, place: dict[str, Any]) -> None:
        """Go on where `place` was taken."""
        self.number, self.sha256 = place["number"], place["sha256"]
        for source in self.sources:
            source.go_to(place["sources"][source.name])


def parse_source(argument: str) -> SourceName:
    """Take a --source apart. Raises UserError for a weight that is not positive."""
    rest, equals, weight = argument.rpartition("=")
    try:
        number = float(weight) if equals else None
    except ValueError:  # the equals sign belongs to the name
        rest, number = argument, None
    if number is not None and not 0 < number < math.inf:
        raise UserError(f"--source {argument}: the weight must be a positive number")
    name = rest if number is not None else argument
    if Path(name).exists() or Path(name).suffix in SUFFIXES or name.startswith((".", "/", "~")) or name.count("/") > 1:
        return SourceName(name, None, number, local=True)
    name, _, config = name.partition(":")
    return SourceName(name, config or None, number, local=False)


def shares_of(names: list[SourceName], math_fraction: float) -> list[float]:
    """Each source's share of the bytes. Raises UserError when only some have a weight."""
    weights = [name.weight for name in names]
    if any(weights) and not all(weights):
        missing = next(name.name for name in names if name.weight is None)
        raise UserError(f"--source {missing} has no weight and others have one; write {missing}=WEIGHT")
    numbers = [weight or 1.0 for weight in weights]
    return [(1 - math_fraction) * number / sum(numbers) for number in numbers]


def file_source(path: str, share: float, text_column: str, seed: int) -> Source:
    """Local files, each a part. Raises UserError when one cannot be read, as far as its start shows."""
    files = document_files(Path(path).expanduser())
    for file in files:
        check_file(file, text_column)
    order = _order(len(files), seed)
    identity = {"files": [{"name": file.name, "bytes": file.stat().st_size} for file in files]}
    return Source(
        path, share, identity, len(files), lambda part, skip: read_file(files[order[part]], text_column, skip)
    )


def hub_source(name: SourceName, share: float, text_column: str, seed: int, revision: str | None) -> Source:
    """The train split of a data set on the hub, streamed; each of its files is a part.

    revision: the commit to read; None takes the newest. Raises UserError within seconds without a network.
    """
    import datasets
    from huggingface_hub import HfApi

    remedy = f"name a local file or folder of {', '.join(SUFFIXES)}, or a data set on the hub"
    try:
        # `datasets` would try an unreachable hub again and again for half a minute.
        revision = HfApi().dataset_info(name.name, revision=revision, timeout=HUB_TIMEOUT_SECONDS).sha
        builder = datasets.load_dataset_builder(name.name, name.config, revision=revision)
        # Of parquet files, only this column is downloaded.
        options = {"columns": [text_column]} if hasattr(builder.config, "columns") else {}
        stream = datasets.load_dataset(
            name.name, name.config, split="train", revision=revision, streaming=True, **options
        )
        if stream.column_names is not None and text_column not in stream.column_names:
            raise UserError(f"{name.name} has no column `{text_column}`; give --text-column")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--source {name.name} cannot be read from the hub ({_brief(error)}); {remedy}") from None

    order = _order(stream.num_shards, seed)

    def read(part: int, skip: int) -> Iterator[str]:
        rows = iter(stream.shard(num_shards=len(order), index=order[part]).skip(skip))
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:
                raise UserError(f"{name.name}: reading from the hub stopped ({_brief(error)}); run again") from None
            if not isinstance(row.get(text_column), str | None):
                raise UserError(f"{name.name}: `{text_column}` is not a string; give --text-column")
            yield row[text_column] or ""

    return Source(name.label, share, {"revision": revision}, len(order), read)


def arithmetic_source(share: float, seed: int, families: str = DEFAULT_FAMILIES) -> Source:
    """Endless generated arithmetic (data/world/arithmetic.py), without the questions of the probes.

    Of the token families besides `mul` that `families` names, a tenth as many documents each.
    """
    further = [family for family in FAMILIES if family in families.split("+")]

    def read(part: int, skip: int) -> Iterator[str]:
        rng = random.Random(f"{seed}/{ARITHMETIC}/{part}")
        texts = arithmetic_documents(ARITHMETIC_PART, rng)
        for family in further:
            texts += family_documents(family, ARITHMETIC_PART // 10, rng)
        if further:
            rng.shuffle(texts)
        return islice((text for text in texts if not _WORDS_OF_PROBES.search(text)), skip, None)

    return Source(ARITHMETIC, share, {"seed": seed, **families_record(families)}, math.inf, read)


def _order(num_parts: int, seed: int) -> list[int]:
    return random.Random(f"{seed}/parts").sample(range(num_parts), num_parts)


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
