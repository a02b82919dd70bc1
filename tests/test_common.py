"""Configs, files, errors and records: what every script relies on."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from common.config import config_from_yaml, parse_config, to_dict
from common.errors import UserError, run_script
from common.files import atomic_directory, atomic_path, read_json, read_jsonl, write_json, write_text
from common.record import RunRecord
from tests.helpers import ROOT


@dataclass
class Optimiser:
    max_lr: float = 1e-3  # peak learning rate
    steps: int = 10  # updates
    warmup: int | None = None  # updates of warm-up


@dataclass
class Settings:
    """Train something."""

    config: Path | None = None  # YAML file
    mode: Literal["weak", "strict"] = "weak"  # how
    resume: bool = False  # go on
    training: Optimiser = field(default_factory=Optimiser)


def yaml_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_command_line_overrides_yaml_overrides_defaults(tmp_path):
    path = yaml_file(tmp_path, "mode: strict\ntraining: {max_lr: 2.0e-3, steps: 7}\n")
    config = parse_config(Settings, ["--config", str(path), "--training.steps", "9"])
    assert config == Settings(path, "strict", False, Optimiser(2e-3, 9, None))


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    assert config_from_yaml(Settings, yaml_file(tmp_path, "training: {max_lr: 6e-4}")).training.max_lr == 6e-4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainin: {}", "unknown key trainin; the nearest valid one is training"),
        ("training: {max_l: 1}", "unknown key training.max_l; the nearest valid one is training.max_lr"),
        ("training: {steps: many}", "training.steps"),
        ("training: {steps: 1.5}", "training.steps"),
        ("mode: soft", "mode"),
        ("training: 3", "training"),
        ("- a list", "expected keys and values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(tmp_path, text, expected):
    with pytest.raises(UserError) as error:
        config_from_yaml(Settings, yaml_file(tmp_path, text))
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--training.step", "3"], "--training.steps"),
        (["--training.steps", "x"], "--training.steps"),
        (["--mode", "soft"], "'weak', 'strict'"),
        (["--config"], "--config needs a path"),
        (["--config", "absent.yaml"], "absent.yaml does not exist"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, expected):
    with pytest.raises(UserError) as error:
        parse_config(Settings, arguments)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_help_shows_the_values_of_the_named_file(tmp_path, capsys):
    path = yaml_file(tmp_path, "training: {steps: 77}")
    with pytest.raises(SystemExit) as stop:
        parse_config(Settings, ["--config", str(path), "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "77" in shown and "peak learning rate" in shown and "Train something." in shown


def test_a_config_survives_as_json(tmp_path):
    config = Settings(config=tmp_path / "c.yaml")
    write_json(tmp_path / "c.json", to_dict(config))
    assert read_json(tmp_path / "c.json")["training"] == {"max_lr": 1e-3, "steps": 10, "warmup": None}


def test_a_failure_while_writing_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "whole")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_the_directory_as_it_was(tmp_path):
    path = tmp_path / "directory"
    with atomic_directory(path) as partial:
        (partial / "a").write_text("whole")
    with pytest.raises(ZeroDivisionError), atomic_directory(path) as partial:
        (partial / "a").write_text("half")
        raise ZeroDivisionError
    assert (path / "a").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_reading_names_the_file_and_the_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2"):
        read_jsonl(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "absent.json")


def test_a_users_mistake_ends_a_script_with_one_line_and_two(capsys):
    def main():
        raise UserError("the thing is wrong; do this")

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: the thing is wrong; do this\n"


def test_a_bug_is_not_mistaken_for_a_users_mistake():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 / 0)


def test_a_record_holds_the_chain_of_parents(tmp_path):
    for stage, parent in (("export", None), ("sft", tmp_path / "export"), ("rl", tmp_path / "sft")):
        directory = tmp_path / stage
        directory.mkdir()
        (directory / "model.safetensors").write_text(stage)
        RunRecord(stage, Settings(), "baseline", 3, parent).save(directory, {"loss": 1.0}, steps=5)
    record = read_json(tmp_path / "rl" / "run.json")
    assert record["results"] == {"loss": 1.0} and record["steps"] == 5 and record["seed"] == 3
    assert record["config"]["training"]["steps"] == 10
    assert record["parent"]["run"]["stage"] == "sft"
    assert record["parent"]["run"]["parent"]["run"]["stage"] == "export"
    assert len(record["parent"]["sha256"]) == 64
    assert record["packages"]["torch"] and record["hardware"]["cpu"]


def test_importing_a_package_of_ours_does_nothing_at_import(tmp_path):
    """No files, no output, no seeds: a module is imported for what it defines."""
    code = "import common.config, common.record, data.loader, tokenizer.gpt2_tiktoken, pretrain.train"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == result.stderr == ""
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_read_enough_ends_a_script_quietly():
    """`--help | head`: what is written is more than a pipe holds, and nobody reads on."""
    code = "from common.errors import run_script; run_script(lambda: print('x\\n' * 200_000, flush=True))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141
