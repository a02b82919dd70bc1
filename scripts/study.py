"""Read a study's config and print it as shell assignments: run_study.sh's first step.

uv run python scripts/study.py --config scripts/configs/study_cpu.yaml
"""

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from common.config import parse_config
from common.errors import UserError, run_script


@dataclass
class StageFlags:
    """Further arguments of stages, as on a command line: they come after the pipeline's own and win."""

    text: str = ""  # of data/prepare_text.py
    pretrain: str = ""  # of pretrain/train.py
    drills: str = ""  # of sft/sft_drills.py, a stage before sft that is there only when this says something
    sft: str = ""  # of sft/sft_gsm8k.py
    reasoning: str = ""  # of sft/sft_reasoning.py
    problems: str = ""  # of eval/run_gsm8k.py
    probes: str = ""  # of eval/run_arithmetic_probes.py
    grpo: str = ""  # of rl/grpo_train.py
    memit: str = ""  # of edit/run_memit.py


@dataclass
class StudyConfig:
    """Which seeds of which size a study runs, on which data."""

    config: Path | None = None  # YAML file with the values of this study
    size: Literal["quick", "demo", "demo_real", "10b"] = "demo"  # names the configs of every stage; 10b: run_10b.sh
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # of training; both conditions run each
    data_seed: int = 0  # of the generated data, the same for all seeds, so that all are asked the same problems
    gsm8k: str = ""  # GSM8K's folder in place of generated problems; needs size demo_real (10b: in place of the hub's)
    text: str = ""  # documents to mix into the generated ones
    families: str = ""  # token families of tokenizer/families.yaml, such as mul+digits; empty: the default
    builds_on: str = ""  # folder of another study, whose stages are taken over where nothing that decides them differs
    flags: StageFlags = field(default_factory=StageFlags)  # of both conditions
    mul_tokens_flags: StageFlags = field(default_factory=StageFlags)  # of mul_tokens alone: of injection, nothing else


def main() -> None:
    config = parse_config(StudyConfig)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds) or min(config.seeds) < 0:
        raise UserError(f"seeds {config.seeds}: expected different numbers of at least 0, and one or more")
    words = {"flags": split_flags(config.flags), "mul_tokens_flags": split_flags(config.mul_tokens_flags)}
    if config.size == "10b":
        check_10b(config, words)
    elif bool(config.gsm8k) != (config.size == "demo_real"):
        raise UserError("gsm8k and size demo_real go together: real problems need the longer context")
    check_injection(words["mul_tokens_flags"])
    for name, value in {"size": config.size, "data_seed": config.data_seed, "gsm8k": config.gsm8k}.items():
        print(f"{name}={shlex.quote(str(value))}")
    print(f"text={shlex.quote(config.text)}")
    print(f"description={shlex.quote(description(config))}")
    if config.families:
        print(f"families={shlex.quote(config.families)}")
    print(f"builds_on={shlex.quote(config.builds_on)}")
    print(f"seeds=({' '.join(map(str, config.seeds))})")
    both = {"baseline": [words["flags"]], "mul_tokens": [words["flags"], words["mul_tokens_flags"]]}
    for condition, given in both.items():
        for stage in vars(config.flags):
            of_stage = [word for flags in given for word in flags.get(stage, [])]
            if of_stage:
                print(f"flags_{stage}_{condition}={shlex.quote(shlex.join(of_stage))}")


def split_flags(flags: StageFlags) -> dict[str, list[str]]:
    """The words of each stage that has some. Raises UserError for quotes that do not close."""
    try:
        return {stage: shlex.split(text) for stage, text in asdict(flags).items() if text.strip()}
    except ValueError as error:
        raise UserError(f"flags {flags}: {error}; close the quotes") from None


def check_injection(mul_tokens: dict[str, list[str]]) -> None:
    """Raise UserError for a flag of mul_tokens alone that the audit would refuse after hours of training."""
    for stage, words in mul_tokens.items():
        for word in words:
            if word.startswith("--") and not word.removeprefix("--no-").lstrip("-").startswith("inject"):
                raise UserError(
                    f"mul_tokens_flags.{stage}: {word} is no flag of injection, and the conditions would not be "
                    "comparable; put it under flags, for both"
                )


def check_10b(config: StudyConfig, words: dict[str, dict]) -> None:
    """Raise UserError for what scripts/run_10b.sh does not know."""
    for name in ("text", "families", "builds_on"):
        if getattr(config, name):
            raise UserError(f"size 10b runs scripts/run_10b.sh, which has no {name}; leave it out")
    for name, given in words.items():
        if given:
            raise UserError(f"size 10b has no {name}; give run_10b.sh's own behind --, as run_study.sh --help shows")


def description(config: StudyConfig) -> str:
    """What stands at the top of every report: where the data is from, and what was changed in mul_tokens."""
    if config.size == "10b":
        return ""  # the records say it
    origin = "synthetic: generated world"
    if config.gsm8k + config.text:
        origin = "real data mixed with the synthetic world"
    if config.families:
        origin += f", token families {config.families}"
    changes = [f"{stage} {text}" for stage, text in asdict(config.mul_tokens_flags).items() if text.strip()]
    return f"{origin}, data seed {config.data_seed}" + (f"; in mul_tokens {', '.join(changes)}" if changes else "")


if __name__ == "__main__":
    run_script(main)
