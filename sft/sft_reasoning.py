"""Supervised fine-tuning on reasoning: a question, then <think>..</think><answer>..</answer>, which alone is trained.

    uv run python data/prepare_reasoning.py
    uv run python sft/sft_reasoning.py --config sft/configs/reasoning.yaml --condition baseline
    uv run python sft/sft_reasoning.py --config sft/configs/reasoning.yaml --condition mul_tokens --inject-mul-tokens

The first command writes the rows for both conditions, from GSM8K: train.jsonl is trained, val.jsonl tells which weights
have the lowest loss and are written. Where there is no val.jsonl, eval.fraction of the rows is held out in its place. A
response is complete at </answer>: end-of-text is trained behind it, and generation_config.json stops at either.
Beside the model: sft_results.json, log.jsonl, run.json.
"""

from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from data.chat_rows import CheckedRows, read_rows
from data.reasoning import question_reasoning_answer
from sft.examples import reasoning_example
from sft.stage import StageConfig, check_stage, merged_counts, run_stage
from tokenizer.mul_facts import ANSWER_CLOSE, EOT_ID, REASONING_TAGS

STAGE = "sft_reasoning"


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory to think and answer between tags."""

    data_path: Path = Path("data/processed/reasoning")  # folder with train.jsonl (and val.jsonl), or one .jsonl file
    allow_bad_rows: bool = False  # go on when more than 1% of the rows cannot be used


def main() -> None:
    config = check_stage(parse_config(Config), STAGE)
    if not config.data_path.exists():
        raise UserError(f"--data-path {config.data_path} does not exist; data/prepare_reasoning.py writes such rows")
    train = read_rows(config.data_path, question_reasoning_answer, allow_bad_rows=config.allow_bad_rows)
    val, val_path = CheckedRows(), config.data_path / "val.jsonl"
    if val_path.is_file() and val_path.stat().st_size > 0:  # with --val-fraction 0 it was written empty
        val = read_rows(val_path, question_reasoning_answer, allow_bad_rows=config.allow_bad_rows)
    run_stage(
        config,
        stage=STAGE,
        results_name="sft_results.json",
        examples=[reasoning_example(**row) for row in train.rows],
        source=str(config.data_path),
        dropped=merged_counts(train.dropped, val.dropped),
        held_out=[reasoning_example(**row) for row in val.rows] or None,
        stop_ids=(EOT_ID, REASONING_TAGS[ANSWER_CLOSE]),
    )


if __name__ == "__main__":
    run_script(main)
