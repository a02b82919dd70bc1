"""Supervised fine-tuning on GSM-SBS, products taken apart step by step: a warm start before reinforcement learning.

    uv run python sft/sft_gsm_sbs.py --config sft/configs/gsm_sbs.yaml --condition baseline \\
        --model-path outputs/sft_gsm8k_baseline --output-dir outputs/sft_sbs_baseline
    uv run python sft/sft_gsm_sbs.py --config sft/configs/gsm_sbs.yaml --condition mul_tokens --inject-mul-tokens \\
        --model-path outputs/sft_gsm8k_mul_tokens --output-dir outputs/sft_sbs_mul_tokens

Asked for 12 × 12, the answer goes (10 + 2) × 12 = 10 × 12 + 2 × 12 and on, down to products of two digits, and back up
to 144 (data/gsm_sbs/decompositions.py). The examples are generated, in the chat format; nothing is downloaded.
Beside the model: sft_results.json, log.jsonl, run.json.
"""

import random
from dataclasses import dataclass

from common.config import parse_config
from common.errors import run_script
from data.gsm_sbs.decompositions import COUNT, decompositions
from sft.examples import chat_example
from sft.stage import StageConfig, check_stage, run_stage

STAGE = "sft_sbs"


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory on step-by-step decompositions of products."""

    num_decompositions: int = COUNT  # examples to generate, all of different products


def main() -> None:
    config = check_stage(parse_config(Config), STAGE)
    items = decompositions(config.num_decompositions, random.Random(f"{config.seed}/gsm_sbs"))
    run_stage(
        config,
        stage=STAGE,
        results_name="sft_results.json",
        examples=[chat_example(**item) for item in items],
        source=f"{len(items)} generated decompositions",
        dropped={},
    )


if __name__ == "__main__":
    run_script(main)
