"""Fixtures of more than one file: stage directories of both conditions, and pictures that are not drawn."""

from pathlib import Path

import pytest

from tests.stage_directories import make_stages
from tokenizer.mul_facts import CONDITIONS


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
