"""scripts/setup.sh, where there is no uv and none can be had."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import ROOT, one_line_error


@pytest.fixture
def machine(tmp_path) -> dict[str, str]:
    """The environment of a machine with a shell and a few commands; `python3` is added by the tests."""
    (tmp_path / "bin").mkdir()
    for name in ("dirname", "ln", "mkdir"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}


def set_up(machine: dict[str, str]) -> subprocess.CompletedProcess:
    command = [shutil.which("bash"), "-c", "set -euo pipefail; source scripts/setup.sh; set_up"]
    return subprocess.run(command, cwd=ROOT, env=machine, capture_output=True, text=True, timeout=120)


def test_without_python_it_says_so(machine):
    assert one_line_error(set_up(machine)).startswith("error: python3 is not installed")


def test_when_uv_cannot_be_installed_it_says_where_the_reason_is(machine):
    python = Path(machine["PATH"]) / "python3"
    python.write_text(f"#!{shutil.which('bash')}\necho no network; exit 1\n")
    python.chmod(0o755)
    error = one_line_error(set_up(machine))
    log = Path(machine["HOME"]) / ".local/share/domain-token-gpt2/uv/install.log"
    assert error.startswith(f"error: uv could not be installed ({log} says why)")
    assert log.read_text() == "no network\nno network\n"
