"""Read a study's config and print it as shell assignments: run_study.sh's first step.

uv run python scripts/study.py --config scripts/configs/study_cpu.yaml
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.config import parse_config
from common.errors import UserError, run_script


@dataclass
class StageFlags:
    """Further arguments of stages, as on a command line: they come after the pipeline's own and win."""

    text: str = ""  # of data/prepare_text.py
    pretrain: str = ""  # of pretrain/train.py
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
    size: Literal["quick", "demo", "demo_real"] = "demo"  # names the configs of every stage
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # of training; both conditions run each
    data_seed: int = 0  # of the generated data, the same for all seeds, so that all are asked the same problems
    gsm8k: str = ""  # GSM8K's folder in place of generated problems; needs size demo_real
    text: str = ""  # documents to mix into the generated ones
    flags: StageFlags = field(default_factory=StageFlags)  # of both conditions
    mul_tokens_flags: StageFlags = field(default_factory=StageFlags)  # of mul_tokens alone: what an ablation changes


def main() -> None:
    config = parse_config(StudyConfig)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds) or min(config.seeds) < 0:
        raise UserError(f"seeds {config.seeds}: expected different numbers of at least 0, and one or more")
    if bool(config.gsm8k) != (config.size == "demo_real"):
        raise UserError("gsm8k and size demo_real go together: real problems need the longer context")
    origin = (
        "synthetic: generated world" if not config.gsm8k + config.text else "real data mixed with the synthetic world"
    )
    values = {"size": config.size, "data_seed": config.data_seed, "gsm8k": config.gsm8k, "text": config.text}
    values |= {"description": f"{origin}, data seed {config.data_seed}"}
    for name, value in values.items():
        print(f"{name}={shlex.quote(str(value))}")
    print(f"seeds=({' '.join(map(str, config.seeds))})")
    both = {"baseline": [config.flags], "mul_tokens": [config.flags, config.mul_tokens_flags]}
    for condition, given in both.items():
        for stage in vars(config.flags):
            words = [word for flags in given for word in shlex.split(getattr(flags, stage))]
            if words:
                print(f"flags_{stage}_{condition}={shlex.quote(shlex.join(words))}")


if __name__ == "__main__":
    run_script(main)
