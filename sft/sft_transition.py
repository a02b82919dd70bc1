"""Supervised fine-tuning between conversations and TinyGSM: a mixture of both, and of GSM8K, whose style lies between.

    uv run python sft/sft_transition.py --config sft/configs/transition.yaml --condition baseline
    uv run python sft/sft_transition.py --config sft/configs/transition.yaml --condition mul_tokens --inject-mul-tokens

A model that has learnt to converse (sft_tulu.py) and then sees nothing but sft_tinygsm.py's terse lines forgets the one
for the other. Here it meets them among conversations, in the shares of the config's `mixture`. All three are chat, and
every assistant turn is trained. Without a network give --instruction-path and --gsm8k-path; TinyGSM's answers are
written before by data/tinygsm/prepare_tinygsm.py. What holds a question of GSM8K's test set is left out and counted.
Beside the model: transition_sft_results.json, log.jsonl, run.json.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from common.config import parse_config
from common.errors import UserError, run_script
from data.chat_rows import messages, read_rows
from data.held_out import gsm8k_test_questions, test_questions_of
from data.tinygsm.converted import CONVERTED_DIR, combined_path, load_converted
from sft.examples import Example, chat_example, load_gsm8k_train, messages_example, without_test_questions
from sft.stage import StageConfig, check_stage, run_stage

STAGE = "sft_transition"


@dataclass
class Mixture:
    """The kinds of examples, by their shares."""

    instruction: float = 0.4  # share of the examples that are conversations
    gsm8k: float = 0.2  # share that are GSM8K's word problems
    tinygsm: float = 0.4  # share that are TinyGSM's worked answers


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory on a mixture of conversations, GSM8K and TinyGSM."""

    model_path: Path | None = None  # model directory to start from; default: outputs/sft_tulu_{condition}
    mixture: Mixture = field(default_factory=Mixture)
    num_examples: int = 20_000  # of all kinds, drawn by seed
    instruction_path: Path | None = None  # file or folder of conversations as for sft_tulu.py, for instruction_hub_id
    instruction_hub_id: str = "allenai/tulu-3-sft-mixture"  # conversations on the Hugging Face hub
    gsm8k_path: Path | None = None  # GSM8K: .jsonl file, or folder with train.jsonl, in place of gsm8k_hub_id
    gsm8k_hub_id: str = "openai/gsm8k"  # GSM8K on the Hugging Face hub
    tinygsm_path: Path | None = None  # converted rows; default: data/processed/tinygsm/combined_{condition}.jsonl
    allow_bad_rows: bool = False  # go on when more than 1% of a kind's rows cannot be used
    test_path: Path | None = None  # GSM8K's test set, file or folder; default: beside gsm8k_path, or the hub's


def shares_to_counts(mixture: Mixture, num_examples: int) -> dict[str, int]:
    """The number of examples of each kind. Raises UserError for shares that are none, or do not add up to 1."""
    shares = asdict(mixture)
    if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        found = ", ".join(f"{kind} {share:g}" for kind, share in shares.items())
        raise UserError(f"mixture: expected shares of at least 0 that add up to 1, found {found}")
    if num_examples < 1:
        raise UserError(f"--num-examples {num_examples}: expected a positive number")
    return {kind: round(share * num_examples) for kind, share in shares.items()}


def instruction_examples(config: Config, count: int) -> tuple[list[Example], dict[str, int]]:
    """`count` conversations, drawn by seed, and what was left out by reason."""
    source = config.instruction_path or config.instruction_hub_id
    rows = read_rows(source, messages, subset_size=count, seed=config.seed, allow_bad_rows=config.allow_bad_rows)
    return [messages_example(turns) for turns in rows.rows], rows.dropped


def gsm8k_examples(config: Config, count: int) -> tuple[list[Example], dict[str, int]]:
    """`count` items of GSM8K's train split, drawn by seed, and what was left out by reason."""
    items = load_gsm8k_train(config.gsm8k_path, config.gsm8k_hub_id, config.allow_bad_rows)
    drawn = sorted(np.random.default_rng(config.seed).permutation(len(items.rows))[:count])
    return [chat_example(**items.rows[i]) for i in drawn], items.dropped


def tinygsm_examples(config: Config, count: int) -> tuple[list[Example], dict[str, int]]:
    """`count` worked answers, drawn by seed, and what was left out by reason."""
    path = config.tinygsm_path or combined_path(CONVERTED_DIR, config.condition)
    items = load_converted(path, max_rows=count, seed=config.seed, allow_bad_rows=config.allow_bad_rows)
    return [chat_example(**item) for item in items.rows], items.dropped


KINDS = {"instruction": instruction_examples, "gsm8k": gsm8k_examples, "tinygsm": tinygsm_examples}


def main() -> None:
    config = parse_config(Config)
    parent = config.model_path or Path(f"outputs/sft_tulu_{config.condition}")
    config = check_stage(replace(config, model_path=parent), STAGE)
    counts = shares_to_counts(config.mixture, config.num_examples)
    if config.test_path is None:
        test = gsm8k_test_questions(config.gsm8k_path, config.gsm8k_hub_id)
    else:
        test = test_questions_of(config.test_path)

    examples, dropped, kept_by_kind = [], Counter(), {}
    for kind, count in counts.items():
        if count == 0:
            continue
        found, bad = KINDS[kind](config, count)
        if len(found) + sum(bad.values()) < count:
            raise UserError(
                f"mixture.{kind}: {count} examples wanted, {len(found)} there; lower its share or num_examples"
            )
        kept, test_rows = without_test_questions(found, test)
        dropped.update(bad)
        dropped.update(test_rows)
        kept_by_kind[kind] = len(kept)
        examples += kept
    run_stage(
        config,
        stage=STAGE,
        results_name="transition_sft_results.json",
        examples=examples,
        source=", ".join(f"{count} of {kind}" for kind, count in kept_by_kind.items()),
        dropped=dict(dropped),
    )


if __name__ == "__main__":
    run_script(main)
