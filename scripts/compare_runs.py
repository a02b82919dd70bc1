"""Compare the stages of both conditions and say, with statistics, whether they differ.

    uv run python scripts/compare_runs.py --output-dir outputs/comparison \
        --baseline outputs/{pretrain,hf,sft_gsm8k,eval_sft_gsm8k}_baseline \
        --mul-tokens outputs/{pretrain,hf,sft_gsm8k,eval_sft_gsm8k}_mul_tokens

Each list names stage directories, any subset, in any order. Writes comparison.json (all numbers), report.md and
report.html (one file, with plots). A verdict is given only when the compute-match audit finds that the runs differ
in nothing but the intervention; otherwise the report names the fields that differ and the exit code is 3.
"""

import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import write_json, write_text
from scripts.comparison import compare
from scripts.report_blocks import to_markdown
from scripts.report_content import build_report
from scripts.report_html import to_html
from scripts.stage_runs import load_condition

NOT_COMPARABLE = 3  # exit code; 1 is Python's for a crash, 2 ours for a user's mistake


@dataclass
class CompareConfig:
    """Compare the stages of both conditions: tables, plots, paired tests, and the compute-match audit."""

    baseline: list[Path]  # stage directories of the baseline condition, any subset, in any order
    mul_tokens: list[Path]  # stage directories of the mul_tokens condition
    output_dir: Path  # where comparison.json, report.md and report.html go
    data_description: str = ""  # printed at the top, such as "synthetic: generated world, seed 0"


def main() -> None:
    config = parse_config(CompareConfig)
    if config.output_dir.exists() and not config.output_dir.is_dir():
        raise UserError(f"--output-dir {config.output_dir} is a file; give a directory")
    both = {
        "baseline": load_condition("baseline", config.baseline),
        "mul_tokens": load_condition("mul_tokens", config.mul_tokens),
    }
    comparison = compare(**both) | {"data_description": config.data_description}
    command = shlex.join(["uv", "run", "python", "scripts/compare_runs.py", *sys.argv[1:]])
    report = build_report(comparison, both, config.data_description, command)

    write_json(config.output_dir / "comparison.json", _finite(comparison))
    write_text(config.output_dir / "report.md", to_markdown(report))
    write_text(config.output_dir / "report.html", to_html(report))

    for block in report.head:
        print(block.text)
    print(f"wrote {config.output_dir / 'report.html'}, report.md and comparison.json")
    if not comparison["comparable"]:
        sys.exit(NOT_COMPARABLE)


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: null in their place."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    run_script(main)
