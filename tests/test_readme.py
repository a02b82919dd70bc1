"""The README's commands, as written, in a copy of the repository; and the help of every script."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.files import read_json
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line)[3:]  # behind `uv run python`
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("uv run python ")
]
# The only thing added to a command: toy sizes.
TOY_SIZE = {
    "data/prepare_text.py": ["--num-documents=400"],
    "pretrain/train.py": ["--training.max-steps=4", "--eval.val-steps=2"],
    "sft/sft_gsm8k.py": ["--training.max-examples=64", "--training.epochs=1"],
    "eval/run_gsm8k.py": ["--max-samples=4", "--max-new-tokens=8"],
    "eval/run_arithmetic_probes.py": ["--max-samples=4", "--max-new-tokens=8"],
}
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("data", "pretrain", "sft", "eval", "rl", "edit", "scripts")
    for path in (ROOT / folder).glob("*.py")
    if "run_script(main)" in path.read_text()
)


@pytest.fixture(scope="module")
def after_the_commands(tmp_path_factory) -> Path:
    """The folder in which the README's commands were run one after the other."""
    copy = tmp_path_factory.mktemp("clone")
    folders = ("common", "tokenizer", "data", "pretrain", "sft", "eval", "rl", "edit", "scripts", "third_party")
    for folder in folders:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("raw", "processed", "__pycache__"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)}
    for script, *arguments in COMMANDS:
        command = [sys.executable, script, *arguments, *TOY_SIZE.get(script, [])]
        result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{script}: {result.stdout}{result.stderr}"
    return copy


def test_the_commands_leave_what_the_readme_says(after_the_commands):
    outputs = after_the_commands / "outputs"
    assert (after_the_commands / "data/raw/train_mul_tokens.txt").exists()
    assert (after_the_commands / "data/raw/mul_tokens_stats.json").exists()
    for name in ("train_00000.npy", "val_00000.npy", "meta.json"):
        assert (after_the_commands / "data/processed/mul_tokens" / name).exists()
    for name in ("log.txt", "log.jsonl", "results.json", "run.json"):
        assert (outputs / "pretrain_mul_tokens" / name).exists()
    assert list((outputs / "pretrain_mul_tokens").glob("model_*.pt"))
    results = read_json(outputs / "eval_sft_gsm8k_mul_tokens" / "gsm8k_results.json")
    assert results["num_total"] == 4
    chain = read_json(outputs / "sft_gsm8k_mul_tokens" / "run.json")["parent"]["run"]
    assert chain["stage"] == "export" and chain["parent"]["run"]["stage"] == "pretrain"


def test_every_model_directory_loads_with_the_auto_classes(after_the_commands):
    for name in ("hf_mul_tokens", "sft_gsm8k_mul_tokens"):
        directory = after_the_commands / "outputs" / name
        assert AutoModelForCausalLM.from_pretrained(directory).config.vocab_size == 50349
        assert len(AutoTokenizer.from_pretrained(directory)) == 50349


def test_the_readme_names_scripts_and_files_that_exist():
    for path in set(re.findall(r"`([\w/]+/\w+\.(?:py|sh|yaml))`", README)):
        assert (ROOT / path).exists() or (ROOT / "pretrain" / "configs" / path).exists(), path


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_option(script, monkeypatch, capsys):
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [script, "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code in (0, None)
    assert "usage:" in capsys.readouterr().out
    assert "uv run python " + script in (module.__doc__ or ""), "the docstring shows how to call it"
