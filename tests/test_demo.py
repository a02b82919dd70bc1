"""The demo at toy size, end to end: both conditions from nothing to a report, and what a second call does."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common.files import read_json
from tests.helpers import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("uv") is None, reason="the demo runs its stages with uv"),
]


def demo(*arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", "scripts/run_demo.sh", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    output_dir = tmp_path_factory.mktemp("demo") / "out"
    result = demo("--quick", "--output-dir", output_dir)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return output_dir, result


def test_the_demo_ends_with_a_report(finished):
    output_dir, result = finished
    assert result.stdout.splitlines()[-1].startswith(f"report: {output_dir}/report.html")
    html = (output_dir / "report.html").read_text()
    assert "synthetic" in html and "http" not in html.replace("http://www.w3.org", "")
    assert (output_dir / "report.md").exists() and (output_dir / "comparison.json").exists()


def test_the_conditions_are_comparable_and_differ_in_the_injection(finished):
    output_dir, _ = finished
    baseline, mul_tokens = (
        read_json(output_dir / f"pretrain_{condition}" / "run.json") for condition in ("baseline", "mul_tokens")
    )
    for key in ("model", "training"):
        assert baseline["config"][key] == mul_tokens["config"][key]
    assert baseline["data"]["documents_sha256"] == mul_tokens["data"]["documents_sha256"]
    assert baseline["tokens"] == mul_tokens["tokens"]
    assert baseline["data"]["mul_tokens_seen"] == 0 < mul_tokens["data"]["mul_tokens_seen"]


def test_a_second_call_skips_everything(finished):
    output_dir, _ = finished
    result = demo("--quick", "--output-dir", output_dir)
    assert result.returncode == 0 and result.stdout.count("complete, skipped") == 29


def test_other_arguments_do_not_reuse_the_folder(finished):
    output_dir, _ = finished
    result = demo("--quick", "--seed", 1, "--output-dir", output_dir)
    assert result.returncode == 2 and "--force" in result.stderr


@pytest.mark.parametrize("arguments", [["--quik"], ["--gsm8k"]])
def test_a_wrong_argument_is_one_line(arguments):
    result = demo(*arguments)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
