"""The README's commands, as written, one after the other at toy size in a folder of their own."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.files import read_json, read_jsonl
from tests.helpers import ROOT, TINY_TRAINING

README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README.replace("\\\n", " "), re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
TORCHRUN = ["torchrun", "--standalone", "--nproc_per_node=8"]  # one process here; test_train.py has two
# The only thing added to a command: toy sizes.
TOY_SIZE = {
    "data/prepare_text.py": ["--num-documents=400"],
    "pretrain/train.py": ["--training.max-steps=4", "--eval.val-steps=2"],
    "pretrain/train.py under torchrun": [
        *(*TINY_TRAINING, "--training.max-steps=2", "--output-dir=outputs/scaled"),
        *("--hellaswag.interval=0", "--samples.interval=0"),  # HellaSwag is on the hub
    ],
    "sft/sft_gsm8k.py": ["--training.max-examples=64", "--training.epochs=1"],
    "eval/run_gsm8k.py": ["--max-samples=4", "--max-new-tokens=8"],
    "eval/run_arithmetic_probes.py": ["--max-samples=4", "--max-new-tokens=8"],
}
# Who runs what needs more than this; run_tests.sh is what runs this file.
ELSEWHERE = {
    "scripts/compare_studies.py": "test_compare_studies.py",
    "scripts/run_demo.sh": "test_demo.py",
    "scripts/run_study.sh": "test_study*.py",
    "scripts/run_10b.sh": "test_run_10b.py",
    "scripts/slurm_10b.sh": "test_run_10b.py",
    "scripts/slurm_study.sh": "test_study*.py",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the commands find the configs, and what the quick demo leaves, and write all else."""
    folder = tmp_path_factory.mktemp("readme")
    for configs in ROOT.glob("*/configs"):
        shutil.copytree(configs, folder / configs.relative_to(ROOT))
    (folder / "outputs/demo_quick").mkdir(parents=True)
    # The change of "Your first change" is tried on the models of the commands before it.
    (folder / "outputs/demo_quick/raw").symlink_to(folder / "data/raw")
    (folder / "outputs/demo_quick/sft_reasoning_mul_tokens").symlink_to(folder / "outputs/sft_gsm8k_mul_tokens")
    (folder / "outputs/demo_quick/grpo_mul_tokens").symlink_to(folder / "outputs/grpo_bonus")
    return folder


@pytest.fixture(scope="module")
def after_the_commands(folder) -> Path:
    """The folder, after the README's commands. In this process: each would spend most of its time on imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in COMMANDS:
            if ELSEWHERE.keys() & set(command):
                continue
            elif command[:3] == ["uv", "run", "python"]:
                run(patch, command[3], command[4:], command[3])
            elif command[:5] == ["uv", "run", *TORCHRUN]:
                run(patch, command[5], command[6:], f"{command[5]} under torchrun")
            elif command[0] == "cp":
                shutil.copy(*command[1:])
                make_the_first_change(Path(command[2]))
    return folder


def run(patch: pytest.MonkeyPatch, script: str, arguments: list[str], sizes: str) -> None:
    patch.setattr("sys.argv", [script, *arguments, *TOY_SIZE.get(sizes, [])])
    try:
        importlib.import_module(script.removesuffix(".py").replace("/", ".")).main()
    except SystemExit as stop:
        assert stop.code == 0, script


def make_the_first_change(config: Path) -> None:
    """The README's line, under `reward:`, as its second step says."""
    line = re.search(r"```yaml\n +reward:\n(?: .*\n)*? +(mul_tokens: .*)\n", README)[1]
    config.write_text(config.read_text().replace("reward:\n", f"reward:\n  {line}\n"))


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
    for name in ("hf_mul_tokens", "sft_gsm8k_mul_tokens", "grpo_bonus"):
        directory = after_the_commands / "outputs" / name
        assert AutoModelForCausalLM.from_pretrained(directory).config.vocab_size == 50349
        assert len(AutoTokenizer.from_pretrained(directory)) == 50349


def test_the_first_change_is_what_was_trained_with(after_the_commands):
    grpo = after_the_commands / "outputs/grpo_bonus"
    assert read_json(grpo / "run.json")["config"]["reward"]["mul_tokens"] == 0.4
    assert len(read_jsonl(grpo / "log.jsonl")) > 0 and (grpo / "analysis.json").exists()


def test_the_config_of_every_scaled_command_is_as_written(after_the_commands):
    config = read_json(after_the_commands / "outputs/scaled/run.json")["config"]
    assert config["training"]["optimizer"] == "adamw" and config["config"].endswith("gpt2_124m.yaml")


def test_some_test_runs_what_is_not_run_here_with_its_flags():
    for command in COMMANDS:
        script = next((word for word in command if word.endswith(".sh") or word in ELSEWHERE), "scripts/run_tests.sh")
        if script == "scripts/run_tests.sh":
            continue
        assert script in ELSEWHERE, f"{script}: no test is known to run it"
        text = "".join(path.read_text() for path in (ROOT / "tests").glob(ELSEWHERE[script]))
        assert Path(script).name in text
        for flag in command:
            assert not flag.startswith("--") or f'"{flag}"' in text, f"no test gives {flag} to {script}"


def test_every_command_is_of_a_kind_that_is_tested():
    kinds = (["uv", "run", "python"], ["uv", "run", *TORCHRUN], ["uv", "run", "pytest"], ["bash"], ["sbatch"], ["cp"])
    for command in COMMANDS:
        assert any(command[: len(kind)] == kind for kind in kinds), command
        if command[2:3] == ["pytest"]:
            assert all((ROOT / word).exists() for word in command[3:] if word.startswith("tests/"))


def test_the_messages_that_it_explains_are_the_code_s():
    rows = README.split("| what you see |")[1].split("\n\n")[0].splitlines()[2:]
    sources = "".join(path.read_text() for kind in ("py", "sh") for path in ROOT.glob(f"[!t.]*/*.{kind}"))
    pieces = [
        piece.strip(" ;,")
        for row in rows
        for span in re.findall("`(.*?)`", row.split("|")[1])
        for piece in span.split("...")
    ]
    assert len(pieces) > 15
    assert [piece for piece in pieces if piece not in sources] == []


def test_the_readme_names_files_that_exist():
    for path in set(re.findall(r"`((?:[\w.]+/)+\w+\.(?:py|sh|yaml|md|json))`", README)):
        assert (ROOT / path).exists() or path.startswith(("outputs/", "data/raw", "data/processed")), path
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists(), path
