"""Take over, for an ablation, what another study has done already: the stages that their differences do not reach.

    uv run python scripts/take_stages.py --study outputs/study_cpu/seed_0 --output-dir outputs/ablation_none/seed_0

Both folders are a seed's, with the arguments.txt of run_study.sh, which calls this where a config has `builds_on`. A
stage is taken over when its own arguments and those of all stages before it are equal, condition by condition: of an
ablation of the injection all of baseline, of one of GRPO everything before GRPO. What is missing or unfinished there
is run here. Nothing can be written into the other study from here: weights, checkpoints and shards, which no stage
changes once they are written, are hard links where the file system has them, everything else is a copy.
"""

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import atomic_directory, atomic_path
from tokenizer.mul_facts import CONDITIONS, Condition

LINKED = {".safetensors", ".pt", ".npy"}
# Of arguments.txt: what decides every stage.
GENERAL = ("size", "seed", "data_seed", "gsm8k", "text", "families", "configs")
PRETRAIN = ("text", "pretrain")
CHAT, REASONING = (*PRETRAIN, "drills", "sft"), (*PRETRAIN, "reasoning")
# What lies in a seed's folder, in the order in which it is made, with the stages whose arguments decide it.
DECIDED_BY = {
    "raw/gsm8k": ("text",),
    "raw/facts.jsonl": ("text",),
    "raw/passages.jsonl": ("text",),
    "raw/train_{}.txt": ("text",),
    "raw/{}_bytes.json": ("text",),
    "raw/{}_stats.json": ("text",),  # says that the others are complete
    "processed/{}": ("text",),
    "processed/reasoning": ("text",),
    "pretrain_{}": PRETRAIN,
    "hf_{}": PRETRAIN,
    "eval_hf_{}": PRETRAIN,
    "drills_{}": (*PRETRAIN, "drills"),
    "sft_gsm8k_{}": CHAT,
    "eval_sft_gsm8k_{}": (*CHAT, "problems", "probes"),
    "sft_reasoning_{}": REASONING,
    "eval_sft_reasoning_{}": (*REASONING, "problems"),
    "grpo_{}": (*REASONING, "grpo"),
    "eval_grpo_{}": (*REASONING, "grpo", "problems"),
    "facts_{}": PRETRAIN,
    "memit_{}": (*PRETRAIN, "memit"),
    "eval_memit_{}": (*PRETRAIN, "memit"),
}


@dataclass
class TakeConfig:
    """Take over the stages of a study's seed that an ablation does not change."""

    study: Path  # folder of a seed of the other study
    output_dir: Path  # folder of the same seed of the ablation
    conditions: tuple[Condition, ...] = CONDITIONS  # of which to take over stages


def main() -> None:
    config = parse_config(TakeConfig)
    there, here = read_arguments(config.study), read_arguments(config.output_dir)
    for name in GENERAL:
        if there.get(name) != here.get(name):
            raise UserError(
                f"{config.output_dir} cannot build on {config.study}: {name} is {there.get(name)} there and "
                f"{here.get(name)} here; make them equal, or leave builds_on out"
            )
    taken = []
    for condition in config.conditions:
        for pattern, stages in DECIDED_BY.items():
            if any(there.get(f"flags_{s}_{condition}") != here.get(f"flags_{s}_{condition}") for s in stages):
                continue
            name = pattern.format(condition)
            source, target = config.study / name, config.output_dir / name
            if is_complete(source, name) and not target.exists():
                take(source, target)
                taken.append(name)
    print(f"taken over from {config.study}: {', '.join(taken) or 'nothing new'}")


def read_arguments(folder: Path) -> dict[str, str]:
    """What a seed was made with. Raises UserError for a folder that no study made."""
    path = folder / "arguments.txt"
    if not path.is_file():
        raise UserError(f"{folder} is no seed of a study: it has no arguments.txt; run that study first")
    assignments = (word.partition("=") for word in shlex.split(path.read_text(encoding="utf-8")))
    return {name: value for name, _, value in assignments}


def is_complete(source: Path, name: str) -> bool:
    """Whether a stage is there and has ended. The folders of data are renamed into place, or vouched for by another."""
    if name.startswith(("raw/", "processed/")):
        return source.exists()
    return any(source.glob("run*.json"))  # the last thing that a stage writes


def take(source: Path, target: Path) -> None:
    """Bring a file or folder over, whole or not at all."""
    if source.is_dir():
        with atomic_directory(target) as partial:
            shutil.copytree(source, partial, copy_function=link_or_copy, dirs_exist_ok=True)
    else:
        with atomic_path(target) as partial:
            shutil.copyfile(source, partial)


def link_or_copy(source: str, target: str) -> None:
    """A hard link of what is never written to again, if the file system allows it; else a copy."""
    if Path(source).suffix in LINKED:
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)


if __name__ == "__main__":
    run_script(main)
