"""TinyGSM's questions with worked answers in words, in shards for both conditions.

    uv run python data/tinygsm/prepare_tinygsm.py --num-shards 10 --shard-size 10_000 --workers 8
    uv run python data/tinygsm/prepare_tinygsm.py --data-path rows.jsonl --gsm8k path/to/gsm8k --max-rows 5000

Into --out-dir (data/processed/tinygsm):

    shard_00000_{condition}.jsonl   rows {"question", "answer"} of the first --shard-size rows that were drawn, ...
    shard_00000_counts.json         how many, and by reason what was left out
    combined_{condition}.jsonl      the shards in order, which sft/sft_tinygsm.py reads
    counts.json                     the sums, the arguments and a fingerprint

A row's Python function is interpreted (data/tinygsm/interpreter.py), never run, and its steps are written down
(data/tinygsm/conversion.py). In mul_tokens the answers are injected, and "plain_answer" holds them as in baseline.
Both conditions hold the same questions in the same order. Questions of GSM8K's test set are left out.

Rows are drawn by --seed and stay in the order of the source. A run that was killed goes on at its last whole shard when
the command is given again; shards do not depend on --workers. The drawn rows are held in memory, about 1 GB a million.
"""

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_path, read_json, write_json, write_jsonl
from data.chat_rows import BadRow, read_rows
from data.encoding import families_record, map_in_order
from data.gsm8k import load_gsm8k
from data.held_out import HeldOutQuestions
from data.tinygsm.conversion import convert
from data.tinygsm.converted import CONVERTED_DIR, combined_path
from data.tinygsm.values import Unsupported
from tokenizer.families import DEFAULT_FAMILIES, families_name
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import CONDITIONS, Condition

FORMAT = 1  # of the answers; raise it when the same row gives another one, so that no run mixes the two
ROWS_PER_TASK = 500
COUNTS = ("rows", "converted", "with_mul_tokens", "mul_tokens")

Pair = tuple[str, str]  # question and code, or question and answer


@dataclass
class PrepareTinyGSMConfig:
    """Convert TinyGSM's Python solutions to worked answers in words."""

    data_path: Path | None = None  # .jsonl or .parquet file of {"question", "code"}, or folder with train.*, for hub_id
    hub_id: str = "TinyGSM/TinyGSM"  # data set on the Hugging Face hub
    out_dir: Path = CONVERTED_DIR  # where the files go
    num_shards: int = 10  # shards to write; fewer where the rows end
    shard_size: int = 10_000  # rows of the source per shard
    max_rows: int | None = None  # rows of the source in all, in place of num_shards
    gsm8k: Path | None = None  # GSM8K's test items: .jsonl or .parquet file or folder with test.*, for gsm8k_hub_id
    gsm8k_hub_id: str = "openai/gsm8k"  # GSM8K on the hub
    allow_bad_rows: bool = False  # go on when more than 1% of the rows are not of this schema
    workers: int = 1  # processes
    families: str = DEFAULT_FAMILIES  # token families of tokenizer/families.yaml, such as mul+digits
    seed: int = 0  # draws the rows


def question_and_code(row: Any) -> Pair:
    """The two texts of a TinyGSM row. Raises BadRow."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "code")):
        raise BadRow("missing_keys")
    question, code = row["question"].strip(), row["code"]
    if not question:
        raise BadRow("empty_question")
    try:
        (question + code).encode()
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair, which is no character
        raise BadRow("not_utf8") from None
    return question, code


def load_test_items(config: PrepareTinyGSMConfig) -> list[dict[str, str]]:
    """GSM8K's test items. Raises UserError when they cannot be had: nothing is converted without them."""
    try:
        return load_gsm8k(config.gsm8k or config.gsm8k_hub_id, "test")
    except UserError as error:  # of what the reader calls --data-path
        raise UserError(f"GSM8K's test questions must be left out: {error}".replace("--data-path", "--gsm8k")) from None


def convert_rows(rows: list[Pair]) -> list[Pair]:
    """Questions with their answers. Where a solution is not supported, the pair is ("", reason)."""
    converted = []
    for question, code in rows:
        try:
            converted.append((question, convert(code)))
        except Unsupported as reason:
            converted.append(("", str(reason)))
    return converted


def write_shards(config: PrepareTinyGSMConfig, rows: list[Pair], test: HeldOutQuestions, arguments: dict) -> list[dict]:
    """Write the shards that are not there yet, and return the counts of all."""
    parts = [rows[start : start + config.shard_size] for start in range(0, len(rows), config.shard_size)]
    found = [finished_shard(counts_path(config.out_dir, number), arguments) for number in range(len(parts))]
    tasks = [_tasks(part) for part, counts in zip(parts, found, strict=True) if counts is None]
    results = map_in_order(convert_rows, itertools.chain.from_iterable(tasks), config.workers)
    with contextlib.closing(results), tqdm(total=len(rows), desc="converting", unit=" rows") as bar:
        for number, part in enumerate(parts):
            if found[number] is None:
                converted = itertools.chain.from_iterable(next(results) for _ in _tasks(part))
                found[number] = write_shard(config, number, converted, test) | {"arguments": arguments}
                write_json(counts_path(config.out_dir, number), found[number])  # last: where it is, the shard is whole
            bar.update(len(part))
    return found


def _tasks(part: list[Pair]) -> list[list[Pair]]:
    return [part[start : start + ROWS_PER_TASK] for start in range(0, len(part), ROWS_PER_TASK)]


def write_shard(
    config: PrepareTinyGSMConfig, number: int, converted: Iterable[Pair], test: HeldOutQuestions
) -> dict[str, Any]:
    """Write what `convert_rows` gave to a shard's file of each condition; return its counts."""
    injector = MulExpressionInjector(families=config.families)
    plain, injected, dropped = [], [], Counter()
    counts = dict.fromkeys(COUNTS, 0)
    for question, answer in converted:
        counts["rows"] += 1
        if not question:
            dropped[answer] += 1
        elif test.occur_in(question):
            dropped["test_question"] += 1
        else:
            text, statistics = injector.inject_with_stats(answer)
            plain.append({"question": question, "answer": answer})
            injected.append({"question": question, "answer": text, "plain_answer": answer})
            counts["converted"] += 1
            counts["mul_tokens"] += statistics.injected
            counts["with_mul_tokens"] += statistics.injected > 0
    for condition, rows in zip(CONDITIONS, (plain, injected), strict=True):
        write_jsonl(shard_path(config.out_dir, number, condition), rows)
    return counts | {"dropped": dict(sorted(dropped.items()))}


def shard_path(out_dir: Path, number: int, condition: Condition) -> Path:
    """A shard's file of a condition."""
    return out_dir / f"shard_{number:05d}_{condition}.jsonl"


def counts_path(out_dir: Path, number: int) -> Path:
    """What a shard holds."""
    return out_dir / f"shard_{number:05d}_counts.json"


def combine(out_dir: Path, num_shards: int, condition: Condition) -> str:
    """Write the shards' rows to one file; return the sha256 of its bytes."""
    digest = hashlib.sha256()
    with atomic_path(combined_path(out_dir, condition)) as partial, open(partial, "wb") as file:
        for number in range(num_shards):
            content = shard_path(out_dir, number, condition).read_bytes()
            digest.update(content)
            file.write(content)
    return digest.hexdigest()


def finished_shard(path: Path, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The counts of a whole shard; None where there is none. Raises UserError when it is of another run."""
    if not path.exists():
        return None
    counts = read_json(path)
    earlier = counts.get("arguments", {})
    for key in arguments | earlier:
        before, now = earlier.get(key), arguments.get(key)
        if before != now:
            raise UserError(
                f"{path.parent} was made with {key} {before}, not {now}; name another folder with --out-dir"
            )
    return counts


def main() -> None:
    config = parse_config(PrepareTinyGSMConfig)
    config.families = families_name(config.families)
    max_rows = config.num_shards * config.shard_size if config.max_rows is None else config.max_rows
    for flag, value in (("--max-rows", max_rows), ("--shard-size", config.shard_size), ("--workers", config.workers)):
        if value < 1:
            raise UserError(f"{flag} {value}: expected a positive number")
    test_items = load_test_items(config)
    test = HeldOutQuestions(item["question"] for item in test_items)
    source = config.data_path or config.hub_id
    read = read_rows(
        source, question_and_code, subset_size=max_rows, seed=config.seed, allow_bad_rows=config.allow_bad_rows
    )
    rows = read.rows
    arguments = {
        "format": FORMAT,
        "shard_size": config.shard_size,
        "rows_sha256": _sha256(rows),
        "test_items_sha256": _sha256([(item["question"],) for item in test_items]),
        **families_record(config.families),
    }

    shards = write_shards(config, rows, test, arguments)
    combined = {key: sum(shard[key] for shard in shards) for key in COUNTS}
    dropped = sum((Counter(shard["dropped"]) for shard in shards), Counter(read.dropped))
    if not combined["converted"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common(5))
        raise UserError(f"{source}: none of {len(rows)} rows could be converted ({reasons}); expected TinyGSM's schema")
    hashes = {condition: combine(config.out_dir, len(shards), condition) for condition in CONDITIONS}
    summary = {
        "source": str(source),
        "seed": config.seed,
        "shards": len(shards),
        **combined,
        "dropped": dict(dropped.most_common()),
        "combined_sha256": hashes,
        "arguments": arguments,
    }
    write_json(config.out_dir / "counts.json", summary)

    print(f"{combined['converted']:,} of {combined['rows']:,} rows converted ({combined['mul_tokens']:,} mul tokens)")
    for reason, count in dropped.most_common():
        print(f"{count:>9,} left out: {reason}")
    print(f"{len(shards)} shards, combined_*.jsonl and counts.json are in {config.out_dir}")


def _sha256(rows: list[tuple[str, ...]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\x1f".join(row) + "\x1e").encode(errors="replace"))
    return digest.hexdigest()


if __name__ == "__main__":
    run_script(main)
