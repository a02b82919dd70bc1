"""Supervised fine-tuning in lessons of rising difficulty, each from the model of the one before.

    uv run python sft/sft_curriculum.py --config sft/configs/curriculum.yaml --condition baseline
    uv run python sft/sft_curriculum.py --config sft/configs/curriculum.yaml --condition mul_tokens --inject-mul-tokens

    tier_1 .. tier_5      generated drills (data/drills/tiers.py)
    one_step, two_steps   generated word problems (data/world/problems.py)
    the last one          GSM8K, with GSM-SBS (data/gsm_sbs/) repeated among it

The last lesson writes --output-dir, the others a model directory each under {output_dir}_stages. A run that was
stopped goes on with --resume: finished lessons stay as they are, the lesson that was under way goes on from its last
checkpoint. Every lesson trains by the same config file. Without a network add --data-path, as for sft_gsm8k.py.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed as dist

from common.config import parse_config, to_dict
from common.errors import UserError, run_script
from common.files import read_json, sha256_file
from data.drills.tiers import TIERS, drills
from data.drills.word_problems import STEPS, word_problems
from data.gsm_sbs.decompositions import COUNT, decompositions
from data.held_out import gsm8k_test_questions
from sft.examples import Example, chat_example, load_gsm8k_train, split_examples
from sft.stage import StageConfig, check_stage, run_stage

STAGE = "sft_curriculum"
# Of a config, what may differ between a finished lesson and the run that goes on behind it.
UNCHECKED = {"config", "model_path", "output_dir", "device", "resume", "force"}


@dataclass
class Config(StageConfig):
    """Fine-tune a GPT-2 model directory on drills, word problems, and GSM8K among step-by-step products."""

    data_path: Path | None = None  # GSM8K: .jsonl file, or folder with train.jsonl, in place of hub_id
    hub_id: str = "openai/gsm8k"  # GSM8K on the Hugging Face hub
    allow_bad_rows: bool = False  # go on when more than 1% of GSM8K's rows cannot be used
    drills_per_tier: int = 700  # tier 2, the table, has 729 questions
    num_problems: int = 1500  # word problems with one step, and as many with two
    num_decompositions: int = COUNT  # GSM-SBS examples of the last lesson
    sbs_repeats: int = 3  # times that each of them is there


@dataclass(frozen=True)
class Lesson:
    """What one stage directory is trained on."""

    name: str
    examples: list[Example]
    source: str
    dropped: dict[str, int]  # by reason
    held_out: list[Example] | None = None  # for the eval loss; none: some of the examples


def lessons_of(config: Config) -> list[Lesson]:
    """The lessons in order. Each has a random stream of its own; none has a question of the test set."""
    gsm8k = load_gsm8k_train(config.data_path, config.hub_id, config.allow_bad_rows)
    test = gsm8k_test_questions(config.data_path, config.hub_id)
    generated: dict[str, list[dict[str, str]]] = {}
    for tier in TIERS:
        stream = random.Random(f"{config.seed}/tier_{tier}")
        generated[f"tier_{tier}"] = drills(config.drills_per_tier, (tier,), stream)[tier]
    for steps, name in zip(STEPS, ("one_step", "two_steps"), strict=True):
        generated[name] = word_problems(config.num_problems, steps, random.Random(f"{config.seed}/{name}"))
    sbs = decompositions(config.num_decompositions, random.Random(f"{config.seed}/gsm_sbs"))

    lessons = []
    for name, items in generated.items():
        kept = test.without(items)
        dropped = {"test_question": len(items) - len(kept)}
        lessons.append(Lesson(name, [chat_example(**item) for item in kept], f"generated: {name}", dropped))
    # Repeated is what is trained, after the split: no copy of a held-out example may stand among the others. The
    # trainer draws an order of its own, in which the copies are spread.
    copies = dict.fromkeys((chat_example(**item) for item in test.without(sbs)), config.sbs_repeats)
    once = [*(chat_example(**item) for item in gsm8k.rows), *copies]
    train, held_out = split_examples(once, None, config.eval.fraction, config.seed)
    last = [example for example in train for _ in range(copies.get(example, 1))]
    source = f"{config.data_path or config.hub_id}, and {config.sbs_repeats} times {len(copies)} decompositions"
    dropped = gsm8k.dropped | {"test_question": len(sbs) - len(copies)}
    return [*lessons, Lesson("gsm8k", last, source, dropped, held_out)]


def is_finished(config: Config) -> bool:
    """Whether `output_dir` holds this very lesson, trained to its end, from these weights.

    Raises UserError when it holds another one, or when it does and the run was not told to go on.
    """
    if config.force or not (config.output_dir / "run.json").exists():
        return False
    found, wanted = read_json(config.output_dir / "run.json"), to_dict(config)
    changed = [key for key in wanted.keys() - UNCHECKED if found["config"].get(key) != wanted[key]]
    if found["parent"]["sha256"] != sha256_file(config.model_path / "model.safetensors"):
        changed.append("parent model")
    if changed:
        raise UserError(f"{config.output_dir} was trained with another {min(changed)}; pass --force to start anew")
    if not config.resume:
        raise UserError(f"{config.output_dir} is finished; pass --resume to go on behind it or --force to start anew")
    return True


def main() -> None:
    config = check_stage(parse_config(Config), STAGE)
    lessons = lessons_of(config)
    stages = config.output_dir.with_name(f"{config.output_dir.name}_stages")
    model_path = config.model_path
    for number, lesson in enumerate(lessons, start=1):
        is_last = number == len(lessons)
        output_dir = config.output_dir if is_last else stages / f"{number}_{lesson.name}"
        lesson_config = replace(config, model_path=model_path, output_dir=output_dir)
        if is_finished(lesson_config):
            print(f"{output_dir} is finished")
        else:
            run_stage(
                lesson_config,
                stage=STAGE if is_last else f"{STAGE}_{lesson.name}",
                results_name="sft_results.json",
                examples=lesson.examples,
                source=lesson.source,
                dropped=lesson.dropped,
                held_out=lesson.held_out,
            )
            if dist.is_initialized():
                dist.barrier()  # under torchrun the others wait until the main process has written the model
        model_path = output_dir


if __name__ == "__main__":
    run_script(main)
