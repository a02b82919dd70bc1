"""Fixtures of more than one file: stage directories, finished studies, and pictures that are not drawn."""

import shutil
from pathlib import Path

import hypothesis
import pytest

from tests.stage_directories import make_stages
from tokenizer.mul_facts import CONDITIONS

# Every run tries the same examples, however long each takes: a test that fails today fails tomorrow.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture
def call(monkeypatch):
    """Runs a script's main in this process, as from the command line: call(script, *arguments)."""

    def run(script, *arguments):
        monkeypatch.setattr("sys.argv", ["script", *map(str, arguments)])
        script.main()

    return run


@pytest.fixture
def pictures(monkeypatch, request):
    """Drawing is most of the time here, so only tests that ask for `drawn` draw; the others get an empty picture."""
    if "drawn" not in request.fixturenames:
        from scripts import report_plots  # matplotlib takes a second, which only these tests need

        monkeypatch.setattr(report_plots, "_png", lambda draw, colours: b"")


@pytest.fixture
def drawn():
    """Asks for real plots."""


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, dict[str, Path]]:
    return {condition: make_stages(tmp_path, condition) for condition in CONDITIONS}


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory) -> Path:
    """A folder with three finished seeds (tests/study_runs.py), for tests that change nothing in it."""
    from scripts import report_plots
    from tests.study_runs import make_seeds

    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_plots, "_png", lambda draw, colours: b"")
        make_seeds(patch, root)
    return root


@pytest.fixture
def seeds(finished_study: Path, tmp_path: Path, pictures) -> list[Path]:
    """The three seeds' folders, copies which a test may change."""
    shutil.copytree(finished_study, tmp_path / "study")
    return sorted((tmp_path / "study").glob("seed_*"))


@pytest.fixture
def study(tmp_path: Path, monkeypatch):
    """Runs the report over the folders of seeds; returns its numbers and its Markdown."""
    from common.files import read_json
    from scripts import report
    from tests.study_runs import call

    def run(folders: list[Path], *more: str) -> tuple[dict, str]:
        out = tmp_path / "out"
        call(monkeypatch, report, "--seeds", *folders, "--output-dir", out, *more)
        return read_json(out / "study.json"), (out / "study.md").read_text()

    return run
