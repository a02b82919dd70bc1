"""A study over paired seeds: its config and its jobs; the report over the seeds is in test_report.py."""

import subprocess

import pytest

from common.errors import UserError
from scripts import study
from tests.helpers import ROOT


def test_a_config_becomes_shell_assignments(call, capsys):
    call(study, "--config", ROOT / "scripts/configs/study_cpu.yaml")
    lines = capsys.readouterr().out.splitlines()
    assert "size=demo" in lines and "seeds=(0 1 2)" in lines
    assert any(line.startswith("description=") and "synthetic" in line for line in lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--seeds", "1", "1"], "different"), (["--seeds", "-1"], "at least 0"), (["--size", "demo_real"], "gsm8k")],
)
def test_settings_that_cannot_be(flags, message, call):
    with pytest.raises(UserError, match=message):
        call(study, *flags)


def test_jobs_are_printed_one_per_condition_and_seed():
    command = ["bash", "scripts/run_study.sh", "scripts/configs/study_cpu.yaml", "--print-jobs"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and len(lines) == 7
    assert ["--only-seed" in line and "--only-condition" in line for line in lines] == [True] * 6 + [False]


@pytest.mark.parametrize("arguments", [[], ["--quik"], ["scripts/configs/study_cpu.yaml", "--only-seed", "9"]])
def test_a_wrong_call_is_one_line(arguments):
    command = ["bash", "scripts/run_study.sh", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
