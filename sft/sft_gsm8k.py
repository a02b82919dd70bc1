"""Supervised fine-tuning on GSM8K: a model directory in, a model directory out.

    uv run python sft/sft_gsm8k.py --config sft/configs/gsm8k.yaml --condition baseline \\
        --model-path outputs/hf_baseline --output-dir outputs/sft_gsm8k_baseline
    uv run python sft/sft_gsm8k.py --config sft/configs/gsm8k.yaml --condition mul_tokens --inject-mul-tokens \\
        --model-path outputs/hf_mul_tokens --output-dir outputs/sft_gsm8k_mul_tokens

Without a network add --data-path: a .jsonl file of {"question", "answer"}, or a folder that holds train.jsonl.
Trained are the answers and their end-of-text. Beside the model: sft_results.json, log.jsonl, run.json.
"""

from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import run_script
from sft.examples import chat_example, load_gsm8k_train
from sft.stage import StageConfig, check_stage, run_stage

STAGE = "sft_gsm8k"


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory on GSM8K."""

    data_path: Path | None = None  # .jsonl file, or folder with train.jsonl, in place of hub_id
    hub_id: str = "openai/gsm8k"  # data set on the Hugging Face hub
    allow_bad_rows: bool = False  # go on when more than 1% of the rows cannot be used


def main() -> None:
    config = check_stage(parse_config(Config), STAGE)
    items = load_gsm8k_train(config.data_path, config.hub_id, config.allow_bad_rows)
    run_stage(
        config,
        stage=STAGE,
        results_name="sft_results.json",
        examples=[chat_example(**item) for item in items.rows],
        source=str(config.data_path or config.hub_id),
        dropped=items.dropped,
    )


if __name__ == "__main__":
    run_script(main)
