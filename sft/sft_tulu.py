"""Supervised fine-tuning on Tulu 3's mixture of conversations: a model directory in, a model directory out.

    uv run python sft/sft_tulu.py --config sft/configs/tulu.yaml --condition baseline \\
        --model-path outputs/hf_baseline_10b --output-dir outputs/sft_tulu_baseline
    uv run python sft/sft_tulu.py --config sft/configs/tulu.yaml --condition mul_tokens \\
        --model-path outputs/hf_mul_tokens_10b --output-dir outputs/sft_tulu_mul_tokens

Without a network add --data-path: a .jsonl or .parquet file with a column `messages` of {"role", "content"}, or a
folder with such files. System and user turns are read, every assistant turn is trained with an end-of-text of its own;
in mul_tokens the products in assistant turns become tokens. Conversations that hold a question of GSM8K's test set are
left out and counted; with local data --test-path says where it is. Beside the model: tulu_sft_results.json, log.jsonl,
run.json.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from data.chat_rows import messages, read_rows
from data.held_out import test_questions_of
from sft.examples import messages_example, without_test_questions
from sft.stage import StageConfig, check_stage, run_stage

STAGE = "sft_tulu"
GSM8K_HUB_ID = "openai/gsm8k"


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory on conversations."""

    data_path: Path | None = None  # .jsonl or .parquet file, or folder with train.jsonl or train*.parquet, for hub_id
    hub_id: str = "allenai/tulu-3-sft-mixture"  # data set on the Hugging Face hub
    subset_size: int = 200_000  # conversations to use, drawn by seed
    inject_mul_tokens: bool = False  # needs not be given: this stage always injects in mul_tokens
    allow_bad_rows: bool = False  # go on when more than 1% of the rows cannot be used
    test_path: Path | None = None  # GSM8K's test set, file or folder; default: with hub_id the hub's, else none


def main() -> None:
    config = check_stage(parse_config(Config), STAGE)
    if config.subset_size < 1:
        raise UserError(f"--subset-size {config.subset_size}: expected a positive number of conversations")
    config = replace(config, inject_mul_tokens=config.condition == "mul_tokens")
    conversations = read_rows(
        config.data_path or config.hub_id,
        messages,
        subset_size=config.subset_size,
        seed=config.seed,
        allow_bad_rows=config.allow_bad_rows,
    )
    test = test_questions_of(config.test_path or (GSM8K_HUB_ID if config.data_path is None else None))
    examples, test_rows = without_test_questions([messages_example(turns) for turns in conversations.rows], test)
    run_stage(
        config,
        stage=STAGE,
        results_name="tulu_sft_results.json",
        examples=examples,
        source=str(config.data_path or config.hub_id),
        dropped=conversations.dropped | test_rows,
    )


if __name__ == "__main__":
    run_script(main)
