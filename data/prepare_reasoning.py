"""Write the rows of the reasoning format: GSM8K's train items and, if wanted, generated word problems.

    uv run python data/prepare_reasoning.py
    uv run python data/prepare_reasoning.py --data-path data/raw/gsm8k --num-problems 1000

Into --out-dir (data/processed/reasoning):

    train.jsonl, val.jsonl  rows {"question", "reasoning", "answer"}: the steps without calculator notes, the number
    stats.json              how many, from where, and what was left out and why

sft/sft_reasoning.py renders a row as question, <think>..</think>, <answer>..</answer> and injects mul tokens: the
rows are the same for both conditions. They depend on the seed and the flags alone. Left out and counted are questions
of GSM8K's test set, questions that were there before, and items without steps or without a number behind "####".
"""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import write_json, write_jsonl
from data.chat_rows import read_rows
from data.held_out import gsm8k_test_questions
from data.reasoning import gsm8k_as_reasoning, without_notes
from data.world.problems import distinct_problems


@dataclass
class PrepareReasoningConfig:
    """Write question, reasoning and answer rows for SFT."""

    data_path: Path | None = None  # .jsonl or .parquet file, or folder with train.jsonl, in place of hub_id
    hub_id: str = "openai/gsm8k"  # data set on the Hugging Face hub
    out_dir: Path = Path("data/processed/reasoning")  # where the files go
    num_problems: int = 0  # generated word problems to add
    val_fraction: float = 0.05  # of the rows, kept apart in val.jsonl
    keep_notes: bool = False  # leave calculator notes such as <<6*9=54>> in the steps
    allow_bad_rows: bool = False  # go on when more than 1% of the items cannot be used
    seed: int = 0  # of the generated problems and of the split


def main() -> None:
    config = parse_config(PrepareReasoningConfig)
    if not 0 <= config.val_fraction < 1:
        raise UserError(f"--val-fraction {config.val_fraction}: expected at least 0 and below 1")
    if config.num_problems < 0:
        raise UserError(f"--num-problems {config.num_problems}: expected 0 or more")
    source = config.data_path or config.hub_id
    test = gsm8k_test_questions(config.data_path, config.hub_id)
    gsm8k = read_rows(source, gsm8k_as_reasoning, hub_config="main", allow_bad_rows=config.allow_bad_rows)
    problems = distinct_problems(config.num_problems, random.Random(f"{config.seed}/reasoning problems"))
    parts = {"gsm8k": gsm8k.rows, "problems": [gsm8k_as_reasoning(problem.row()) for problem in problems]}

    rows: dict[str, dict[str, str]] = {}  # by question
    kept, dropped = Counter(), Counter(gsm8k.dropped)
    for name, those in parts.items():
        for row in those:
            if test.occur_in(row["question"]):
                dropped["test_question"] += 1
            elif row["question"] in rows:
                dropped["repeated_question"] += 1
            else:
                rows[row["question"]] = row if config.keep_notes else without_notes(row)
                kept[name] += 1

    order = list(rows.values())
    random.Random(f"{config.seed}/reasoning split").shuffle(order)
    val_count = round(len(order) * config.val_fraction)
    splits = {"train": order[val_count:], "val": order[:val_count]}
    if not splits["train"]:
        raise UserError(
            f"{len(order)} rows and --val-fraction {config.val_fraction} leave none to train on; give more rows"
        )
    for name, those in splits.items():
        write_jsonl(config.out_dir / f"{name}.jsonl", those)
    statistics = {
        "seed": config.seed,
        "source": str(source),
        "calculator_notes": "kept" if config.keep_notes else "removed",
        "rows": {name: len(those) for name, those in splits.items()},
        "from": dict(kept),
        "dropped": dict(dropped),
    }
    # The statistics come last: where they are, everything else is complete.
    write_json(config.out_dir / "stats.json", statistics)
    for key in ("rows", "from", "dropped"):
        print(f"{key:<8}" + (", ".join(f"{count:,} {name}" for name, count in statistics[key].items()) or "none"))


if __name__ == "__main__":
    run_script(main)
