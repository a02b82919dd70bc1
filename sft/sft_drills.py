"""Supervised fine-tuning on generated drills that are made of what mul tokens stand for: alone, or beside GSM8K.

    uv run python sft/sft_drills.py --config sft/configs/drills.yaml --condition mul_tokens --inject-mul-tokens
    uv run python sft/sft_drills.py --config sft/configs/drills.yaml --condition mul_tokens --inject-mul-tokens \\
        --mix-gsm8k --output-dir outputs/sft_drills_gsm8k_mul_tokens

The first command writes outputs/sft_drills_mul_tokens. It is also the first stage of two: sft_gsm8k.py goes on from
there with --model-path. The second trains on drills and GSM8K, half and half; without a network it takes --data-path,
as sft_gsm8k.py does. The tiers are those of data/drills/tiers.py, by default all that have a product in them.
Beside the model: sft_results.json, log.jsonl, run.json.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import run_script
from data.chat_rows import CheckedRows
from data.drills.tiers import PRODUCT_TIERS, Tier, drills
from data.held_out import gsm8k_test_questions
from sft.examples import chat_example, load_gsm8k_train
from sft.stage import StageConfig, check_stage, run_stage

STAGE = "sft_drills"
NUM_DRILLS = 4000


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory on arithmetic drills, alone or with as many GSM8K items."""

    tiers: tuple[Tier, ...] = PRODUCT_TIERS  # 1 sums, 2 the table, 3 and 4 with a second step, 5 two digits times one
    num_drills: int | None = None  # to generate; default: 4000, with mix_gsm8k as many as there are GSM8K items
    mix_gsm8k: bool = False  # train on GSM8K beside the drills
    data_path: Path | None = None  # GSM8K: .jsonl file, or folder with train.jsonl, in place of hub_id
    hub_id: str = "openai/gsm8k"  # GSM8K on the Hugging Face hub
    allow_bad_rows: bool = False  # go on when more than 1% of GSM8K's rows cannot be used


def main() -> None:
    config = check_stage(parse_config(Config), STAGE)
    gsm8k = CheckedRows()
    if config.mix_gsm8k:
        gsm8k = load_gsm8k_train(config.data_path, config.hub_id, config.allow_bad_rows)
    count = config.num_drills or len(gsm8k.rows) or NUM_DRILLS
    by_tier = drills(count, config.tiers, random.Random(f"{config.seed}/drills"))
    items = [item for those in by_tier.values() for item in those]
    source = ", ".join(f"{len(those)} drills of tier {tier}" for tier, those in by_tier.items())
    dropped = dict(gsm8k.dropped)
    if config.mix_gsm8k:
        test = gsm8k_test_questions(config.data_path, config.hub_id)
        kept = test.without(items)
        dropped["test_question"] = len(items) - len(kept)
        items = kept + gsm8k.rows
        source += f", {len(gsm8k.rows)} items of {config.data_path or config.hub_id}"
    run_stage(
        config,
        stage=STAGE,
        results_name="sft_results.json",
        examples=[chat_example(**item) for item in items],
        source=source,
        dropped=dropped,
    )


if __name__ == "__main__":
    run_script(main)
