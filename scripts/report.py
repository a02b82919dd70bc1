"""The report of a study: what differs between the conditions once the luck of training counts too.

    uv run python scripts/report.py --seeds outputs/study_cpu/seed_{0,1,2} --output-dir outputs/study_cpu

Each folder is a finished run of the pipeline with its comparison.json; both conditions of a seed share it, and all
seeds are asked the same items. Writes study.html (one file, with plots: verdict first, then every table), study.md
(the same without plots) and study.json (the numbers). A seed whose conditions are not comparable ends the report with
what differs.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import write_json, write_text
from scripts.report_blocks import Paragraph, to_markdown
from scripts.report_html import to_html
from scripts.study_numbers import load_seeds, study_numbers
from scripts.study_sections import build_study_report


@dataclass
class ReportConfig:
    """Report over the seeds of a study."""

    seeds: list[Path]  # the folders of the seeds, each with comparison.json and the stages' directories
    output_dir: Path  # where study.html, study.md and study.json go
    data_description: str = ""  # printed at the top, such as "synthetic: generated world"
    price_per_gpu_hour: float = 3.5  # US dollars, as in scripts/plan_run.py; used where the records name a GPU


def main() -> None:
    config = parse_config(ReportConfig)
    if not config.seeds or len({path.name for path in config.seeds}) < len(config.seeds):
        raise UserError(
            "--seeds needs one or more folders with different names, such as outputs/study_cpu/seed_{0,1,2}"
        )
    if config.output_dir.exists() and not config.output_dir.is_dir():
        raise UserError(f"--output-dir {config.output_dir} is a file; give a directory")
    seeds = load_seeds(config.seeds)
    study = study_numbers(seeds, config.data_description)
    command = shlex.join(["uv", "run", "python", "scripts/report.py", *sys.argv[1:]])
    report = build_study_report(study, seeds, command, config.price_per_gpu_hour)
    write_json(config.output_dir / "study.json", study)
    write_text(config.output_dir / "study.md", to_markdown(report))
    write_text(config.output_dir / "study.html", to_html(report))
    for block in report.head:
        if isinstance(block, Paragraph):
            print(block.text)


if __name__ == "__main__":
    run_script(main)
