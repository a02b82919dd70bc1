"""Write the training text of one condition, and the records that SFT, evaluation and editing read.

    uv run python data/prepare_text.py --condition baseline
    uv run python data/prepare_text.py --condition mul_tokens
    uv run python data/prepare_text.py --condition baseline --gsm8k path/to/gsm8k --text path/to/parquet_files

Into --out-dir (data/raw):

    train_{condition}.txt       documents, separated by lines with only <|endoftext|>
    {condition}_stats.json      counts by kind, injection, and a fingerprint of the documents before injection
    {condition}_bytes.json      bytes of each document before injection, which the injected text no longer shows
    gsm8k/train.jsonl           word problems and drills for SFT, or the GSM8K train items from --gsm8k
    gsm8k/test.jsonl            word problems for evaluation, or the GSM8K test items from --gsm8k
    facts.jsonl, passages.jsonl records of the generated world (data/world/)

The documents and their order depend on the seed and the other flags, not on the condition: they are made
once, and injection is the last step. A line with only <|endoftext|> inside a document is dropped, so no
document can forge a border. Documents and train items that contain a test question are left out, and the
statistics count them.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_path, write_json, write_jsonl, write_text
from data.documents import document_files, read_documents
from data.encoding import families_record, unit_hash
from data.formats import chat_document, split_gsm8k_answer
from data.gsm8k import load_gsm8k
from data.held_out import HeldOutQuestions
from data.item_files import split_file
from data.world.arithmetic import arithmetic_documents, drills
from data.world.facts import fact_documents, fact_records
from data.world.family_arithmetic import FAMILIES, family_documents
from data.world.passages import passage_documents, passage_records
from data.world.problems import Problem, distinct_problems, problems
from tokenizer.families import DEFAULT_FAMILIES, families_name
from tokenizer.inject_mul import InjectionMode, InjectionStats, MulExpressionInjector
from tokenizer.mul_facts import END_OF_TEXT, Condition

# Parts of the generated documents, by number. In GPT-2 tokens: 36, 57, 2 and 4%, in all 39 a document.
SHARES = {"arithmetic": 0.5, "problems": 0.44, "facts": 0.03, "passages": 0.03}
FAMILY_SHARE = 0.1  # documents of each further token family, beside the generated documents
SFT_PROBLEMS, SFT_DRILLS = 1600, 400
TEST_PROBLEMS, PASSAGE_RECORDS = 300, 200
PIECE_CHARACTERS = 2000


@dataclass
class PrepareTextConfig:
    """Write the training text of one condition and the records of later stages."""

    condition: Condition  # mul_tokens rewrites single-digit products to tokens; baseline leaves them
    out_dir: Path = Path("data/raw")  # where the files go
    seed: int = 0  # of the generated world and the order of documents
    num_documents: int = 24_000  # generated documents of all kinds
    injection_mode: InjectionMode = "weak"  # strict rewrites a product only when its right result follows
    injection_rate: float = 1.0  # share of the documents that are injected; which, their numbers decide, not the seed
    families: str = DEFAULT_FAMILIES  # token families of tokenizer/families.yaml, such as mul+digits
    gsm8k: Path | None = None  # folder with GSM8K's train.jsonl and test.jsonl
    text: Path | None = None  # folder (or file) of .parquet, .jsonl or .txt documents to add
    max_text_characters: int = 2_000_000  # of --text, taken from its start


class Document(NamedTuple):
    """A training document and where it comes from: a kind of the generated world, "gsm8k" or "text"."""

    kind: str
    text: str


def generated_documents(config: PrepareTextConfig, test_keys: set, passages: list[dict]) -> list[Document]:
    """The documents of the generated world, kind by kind. Each kind has a random stream of its own."""
    counts = {kind: round(share * config.num_documents) for kind, share in SHARES.items()}
    texts = {
        "arithmetic": arithmetic_documents(counts["arithmetic"], _rng(config, "arithmetic")),
        "problems": [
            chat_document(problem.question, problem.answer)
            for problem in problems(counts["problems"], _rng(config, "problems"), test_keys)
        ],
        "facts": fact_documents(counts["facts"], _rng(config, "facts")),
        "passages": passage_documents(counts["passages"], _rng(config, "passages"), passages),
    }
    for family in FAMILIES:  # what the chosen token families besides `mul` say, on top
        if family in config.families.split("+"):
            count = round(FAMILY_SHARE * config.num_documents)
            texts[family] = family_documents(family, count, _rng(config, f"family {family}"))
    return [Document(kind, text) for kind, those in texts.items() for text in those]


def read_gsm8k(folder: Path) -> tuple[list[dict], list[dict]]:
    """GSM8K's train and test items. Raises UserError when a file is missing or of another schema."""
    splits = []
    for split in ("train", "test"):
        splits.append(load_gsm8k(folder, split))
        for number, item in enumerate(splits[-1], start=1):
            try:
                split_gsm8k_answer(item["answer"])
            except UserError as error:
                raise UserError(f"{split_file(folder, split)}, item {number}: {error}") from None
    return splits[0], splits[1]


def paragraph_pieces(text: str, limit: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a document at paragraph borders into pieces of at most `limit` characters.

    A longer paragraph is cut between sentences; only a single sentence longer than that gives a longer piece.
    Windows and old Mac line ends become plain line feeds.
    """
    piece = ""
    for paragraph in re.split(r"(?<=\n)(?=[^\n])", text.replace("\r\n", "\n").replace("\r", "\n")):
        for part in [paragraph] if len(paragraph) <= limit else re.split(r"(?<=[.!?]\s)", paragraph):
            if piece and len(piece) + len(part) > limit:
                yield piece.strip()
                piece = ""
            piece += part
    yield piece.strip()


def text_documents(config: PrepareTextConfig, test: HeldOutQuestions, left_out: Counter) -> Iterator[Document]:
    """The pieces of --text in the order of its files, up to --max-text-characters."""
    room = config.max_text_characters
    for text in read_documents(config.text):
        # Whole documents are checked, because a border between pieces could cut a question in two.
        if test.occur_in(text):
            left_out["text"] += 1
            continue
        for piece in filter(None, paragraph_pieces(text)):
            room -= len(piece)
            if room < 0:
                return
            yield Document("text", piece)


def without_borders(text: str) -> str:
    """The text without lines that would read as a border between documents."""
    if END_OF_TEXT not in text:
        return text
    return "\n".join(line for line in text.split("\n") if line.strip() != END_OF_TEXT)


def write_corpus(documents: list[Document], config: PrepareTextConfig, path: Path) -> dict:
    """Inject (in mul_tokens), write the text file and the documents' sizes, and return the counts.

    `products` are those that the injection's mode and rate rewrite, counted in both conditions alike.
    """
    injector = MulExpressionInjector(config.injection_mode, config.families)
    injection = InjectionStats()
    kinds: dict[str, Counter] = {}
    fingerprint = hashlib.sha256()
    sizes = []
    with atomic_path(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        for i, document in enumerate(tqdm(documents, desc=f"writing {path.name}", unit=" documents")):
            fingerprint.update(f"{document.text}\0".encode())
            sizes.append(len(document.text.encode()))
            injected, statistics = document.text, InjectionStats()
            if is_injected(i, config.injection_rate):
                injected, statistics = injector.inject_with_stats(document.text)
            injection += statistics
            text = injected if config.condition == "mul_tokens" else document.text
            file.write(f"{END_OF_TEXT}\n" * (i > 0) + text + "\n")
            counts = {"documents": 1, "characters": len(text), "products": statistics.injected}
            kinds.setdefault(document.kind, Counter()).update(counts)
    write_text(config.out_dir / f"{config.condition}_bytes.json", json.dumps(sizes))
    described = {"mode": config.injection_mode, "rate": config.injection_rate}
    return {
        "condition": config.condition,
        "seed": config.seed,
        **sum(kinds.values(), Counter()),
        "kinds": {kind: dict(kinds[kind]) for kind in sorted(kinds)},
        "injection": described | asdict(injection) if config.condition == "mul_tokens" else None,
        "documents_sha256": fingerprint.hexdigest(),
        **families_record(config.families),
    }


def is_injected(number: int, rate: float) -> bool:
    """Whether the products of document `number` are rewritten: a hash of the number, in [0, 1), is below `rate`.

    A lower rate injects some of the documents that a higher one does, and no others.
    """
    return unit_hash(f"injection/{number}") < rate


def _rng(config: PrepareTextConfig, stream: str) -> random.Random:
    return random.Random(f"{config.seed}/{stream}")


def synthetic_problems(config: PrepareTextConfig) -> tuple[list[dict], list[Problem]]:
    """SFT's items (word problems and drills, mixed) and the test problems."""
    # The test problems come first, so that training can avoid them; the number of documents does not change them.
    test = distinct_problems(TEST_PROBLEMS, _rng(config, "test problems"))
    train = distinct_problems(SFT_PROBLEMS, _rng(config, "sft problems"), {problem.key for problem in test})
    items = [problem.row() for problem in train] + drills(SFT_DRILLS, _rng(config, "sft drills"))
    _rng(config, "sft order").shuffle(items)
    return items, test


def main() -> None:
    config = parse_config(PrepareTextConfig)
    config.families = families_name(config.families)
    if config.num_documents < 100:
        raise UserError(f"--num-documents {config.num_documents}: the generated world needs at least 100")
    if config.max_text_characters < 1:
        raise UserError(f"--max-text-characters {config.max_text_characters}: expected a positive number")
    if not 0 <= config.injection_rate <= 1:
        raise UserError(f"--injection-rate {config.injection_rate}: expected a share from 0 to 1")
    if config.text is not None:
        document_files(config.text)  # a wrong path is an error before the work, not after it

    train_items, test_problems = synthetic_problems(config)
    test_items = [problem.row() for problem in test_problems]
    if config.gsm8k is not None:
        train_items, test_items = read_gsm8k(config.gsm8k)
    passages = passage_records(PASSAGE_RECORDS, _rng(config, "passage records"))

    # No training document or item contains a test question; `left_out` counts by kind what did.
    test = HeldOutQuestions(item["question"] for item in test_items)
    left_out: Counter = Counter()
    documents = []
    for document in generated_documents(config, {problem.key for problem in test_problems}, passages):
        if test.occur_in(document.text):
            left_out[document.kind] += 1
        else:
            documents.append(document)
    if config.gsm8k is not None:
        kept = [item for item in train_items if not test.occur_in(item["question"])]
        left_out["gsm8k"] = len(train_items) - len(kept)
        train_items = kept
        documents += [Document("gsm8k", chat_document(**item)) for item in train_items]
    if config.text is not None:
        documents += text_documents(config, test, left_out)
    documents = [Document(kind, text) for kind, raw in documents if (text := without_borders(raw)).strip()]
    _rng(config, "order").shuffle(documents)

    write_jsonl(config.out_dir / "gsm8k" / "train.jsonl", train_items)
    write_jsonl(config.out_dir / "gsm8k" / "test.jsonl", test_items)
    write_jsonl(config.out_dir / "facts.jsonl", fact_records(_rng(config, "fact records")))
    write_jsonl(config.out_dir / "passages.jsonl", passages)
    text_path = config.out_dir / f"train_{config.condition}.txt"
    statistics = write_corpus(documents, config, text_path)
    source = "synthetic" if config.gsm8k is None else str(config.gsm8k)
    statistics["gsm8k"] = {"source": source, "train_items": len(train_items), "test_items": len(test_items)}
    statistics["left_out"] = dict(+left_out)
    # The statistics come last: where they are, everything else is complete.
    write_json(config.out_dir / f"{config.condition}_stats.json", statistics)

    for kind, counts in statistics["kinds"].items():
        print(f"{kind:<12}" + "  ".join(f"{number:>9,} {name}" for name, number in counts.items()))
    print(f"{text_path}: {statistics['documents']:,} documents, {statistics['characters']:,} characters")


if __name__ == "__main__":
    run_script(main)
