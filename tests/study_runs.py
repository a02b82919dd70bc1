"""What the tests of a study's report share: comparisons and reports run in this process."""

import sys
from pathlib import Path

from scripts import compare_runs
from tests.stage_directories import add_post_training, make_stages
from tokenizer.mul_facts import CONDITIONS


def call(monkeypatch, script, *arguments) -> None:
    """Run a script's main() with these arguments."""
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    script.main()


def compare(monkeypatch, folder: Path, sides: dict[str, list[Path]]) -> None:
    """Write the comparison of both conditions' stage directories into `folder`."""
    flags = [word for c in CONDITIONS for word in (f"--{c.replace('_', '-')}", *sides[c])]
    call(monkeypatch, compare_runs, *flags, "--output-dir", folder)


def make_seeds(monkeypatch, root: Path) -> None:
    """Three finished seeds under `root`. In seed s mul_tokens gets s more of ten items right than baseline."""
    for seed in range(3):
        folder = root / f"seed_{seed}"
        right = {"baseline": range(3), "mul_tokens": range(3 + seed)}
        stages = {c: list(make_stages(folder, c, right).values()) for c in CONDITIONS}
        compare(monkeypatch, folder, {c: [*stages[c], *add_post_training(folder, c)] for c in CONDITIONS})
