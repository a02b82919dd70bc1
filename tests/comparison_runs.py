"""What the tests of the comparison share: a run of it in this process over stage directories made here."""

import sys
from pathlib import Path

from scripts import compare_runs
from tokenizer.mul_facts import CONDITIONS


def run(monkeypatch, root: Path, sides: dict[str, list[Path]], *more: str) -> int:
    """Run main() in this process; return its exit code (UserErrors pass)."""
    flags = ["--baseline", *map(str, sides["baseline"]), "--mul-tokens", *map(str, sides["mul_tokens"])]
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", *flags, "--output-dir", str(root / "out"), *more])
    try:
        compare_runs.main()
    except SystemExit as stop:
        return stop.code
    return 0


def directories(stages: dict[str, dict[str, Path]], *names: str) -> dict[str, list[Path]]:
    return {c: [stages[c][name] for name in names or stages[c]] for c in CONDITIONS}
