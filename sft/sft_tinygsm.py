"""Supervised fine-tuning on TinyGSM's worked answers: a model directory in, a model directory out.

    uv run python data/tinygsm/prepare_tinygsm.py --num-shards 10 --shard-size 10_000
    uv run python sft/sft_tinygsm.py --config sft/configs/tinygsm.yaml --condition baseline
    uv run python sft/sft_tinygsm.py --config sft/configs/tinygsm.yaml --condition mul_tokens --inject-mul-tokens

The first command writes the answers for both conditions (without a network it takes local rows). The others go on from
sft_transition.py's models; --model-path names another one, such as sft_tulu.py's. Injection is done here, from the
answers that both conditions share. The first command leaves out the questions of GSM8K's test set; of rows from
elsewhere --test-path does. Beside the model: tinygsm_sft_results.json, log.jsonl, run.json.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from common.config import parse_config
from common.errors import run_script
from data.held_out import test_questions_of
from data.tinygsm.converted import CONVERTED_DIR, combined_path, load_converted
from sft.examples import chat_example, without_test_questions
from sft.stage import StageConfig, check_stage, run_stage

STAGE = "sft_tinygsm"


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory on TinyGSM's worked answers."""

    model_path: Path | None = None  # model directory to start from; default: outputs/sft_transition_{condition}
    data_path: Path | None = None  # file of converted rows; default: data/processed/tinygsm/combined_{condition}.jsonl
    allow_bad_rows: bool = False  # go on when more than 1% of the rows cannot be used
    test_path: Path | None = None  # GSM8K's test set, file or folder, for rows that the first command did not write


def main() -> None:
    config = parse_config(Config)
    parent = config.model_path or Path(f"outputs/sft_transition_{config.condition}")
    config = check_stage(replace(config, model_path=parent), STAGE)
    path = config.data_path or combined_path(CONVERTED_DIR, config.condition)
    items = load_converted(path, allow_bad_rows=config.allow_bad_rows)
    examples = [chat_example(**item) for item in items.rows]
    examples, test_rows = without_test_questions(examples, test_questions_of(config.test_path))
    run_stage(
        config,
        stage=STAGE,
        results_name="tinygsm_sft_results.json",
        examples=examples,
        source=str(path),
        dropped=items.dropped | test_rows,
    )


if __name__ == "__main__":
    run_script(main)
