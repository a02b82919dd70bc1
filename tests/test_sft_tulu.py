"""sft/sft_tulu.py, and the four commands that take a pretrained model through both mixtures, as they are written."""

import shlex
import sys

import pytest

from common.errors import run_script
from common.files import read_json, write_jsonl
from sft import sft_gsm8k, sft_tulu
from sft.training import quiet_libraries
from tests.helpers import ROOT
from tests.sft_parents import write_parent

CONVERSATIONS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {a}*{b}?"},
            {"role": "assistant", "content": f"It is {a}*{b} = {a * b}."},
            {"role": "user", "content": f"And {b}*{b}?"},
            {"role": "assistant", "content": f"That is {b} * {b}."},
        ]
    }
    for a in range(2, 10)
    for b in range(2, 5)
]
ITEMS = [{"question": f"What is {a}*7?", "answer": f"{a}*7 = {a * 7}\n#### {a * 7}"} for a in range(2, 10)]
COMMANDS = """
sft/sft_tulu.py --model-path outputs/hf_baseline_10b --output-dir outputs/sft_tulu_baseline \
    --condition baseline --config sft/configs/tulu.yaml
sft/sft_gsm8k.py --model-path outputs/sft_tulu_baseline --output-dir outputs/sft_gsm8k_baseline \
    --condition baseline --config sft/configs/gsm8k.yaml
sft/sft_tulu.py --model-path outputs/hf_mul_tokens_10b --output-dir outputs/sft_tulu_mul_tokens \
    --condition mul_tokens --config sft/configs/tulu.yaml
sft/sft_gsm8k.py --model-path outputs/sft_tulu_mul_tokens --output-dir outputs/sft_gsm8k_mul_tokens \
    --condition mul_tokens --inject-mul-tokens --config sft/configs/gsm8k.yaml
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the two pretrained models, local data, and the repository's sft/."""
    folder = tmp_path_factory.mktemp("work")
    quiet_libraries()
    for condition in ("baseline", "mul_tokens"):
        write_parent(folder / "outputs" / f"hf_{condition}_10b", condition, n_positions=1024)
    (folder / "sft").symlink_to(ROOT / "sft")
    write_jsonl(folder / "tulu.jsonl", CONVERSATIONS)
    write_jsonl(folder / "gsm8k.jsonl", ITEMS)
    return folder


def run(monkeypatch, folder, script, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    run_script({"sft/sft_tulu.py": sft_tulu.main, "sft/sft_gsm8k.py": sft_gsm8k.main}[script])


def test_the_four_commands_run_as_written(folder, monkeypatch):
    """On tiny models; without a network the data's path is all that is added."""
    for command in COMMANDS.strip().split("\n"):
        script, *arguments = shlex.split(command)
        data = "tulu.jsonl" if "tulu.py" in script else "gsm8k.jsonl"
        run(monkeypatch, folder, script, *arguments, "--data-path", data)
    results = {
        name: read_json(folder / "outputs" / name / file)
        for name, file in (
            ("sft_tulu_baseline", "tulu_sft_results.json"),
            ("sft_tulu_mul_tokens", "tulu_sft_results.json"),
            ("sft_gsm8k_baseline", "sft_results.json"),
            ("sft_gsm8k_mul_tokens", "sft_results.json"),
        )
    }
    for name, found in results.items():
        assert found["train_loss"] > 0 and found["tokens_per_second"] > 0 and found["dropped"] == {}
        assert (found["mul_tokens_seen"] > 0) == ("mul_tokens" in name)
    assert results["sft_tulu_mul_tokens"]["mul_tokens_seen"] == 2 * len(CONVERSATIONS)
    records = [
        read_json(folder / "outputs" / f"sft_tulu_{condition}" / "run.json") for condition in ("baseline", "mul_tokens")
    ]
    assert records[0]["data"]["documents_sha256"] == records[1]["data"]["documents_sha256"]
    assert records[0]["steps"] == records[1]["steps"] and records[1]["config"]["inject_mul_tokens"]
    chain = read_json(folder / "outputs/sft_gsm8k_mul_tokens/run.json")["parent"]["run"]
    assert chain["stage"] == "sft_tulu" and chain["mul_tokens_seen"] == 2 * len(CONVERSATIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subset-size=0"], "--subset-size 0"),
        (["--data-path=gsm8k.jsonl"], "8 of 8 rows cannot be used (8 missing_keys), the first is gsm8k.jsonl, line 1"),
        (["--data-path=none.jsonl"], "none.jsonl does not exist"),
        (["--data-path=tulu.jsonl", "--test-path=none.jsonl"], "none.jsonl does not exist"),
        (["--inject-mul-tokens"], "leave it off in baseline"),
    ],
)
def test_a_mistake_is_one_line(folder, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        parent = ("--model-path", "outputs/hf_baseline_10b", "--output-dir", "outputs/other")
        run(monkeypatch, folder, "sft/sft_tulu.py", *parent, *arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("error: ") and message in line
    assert not (folder / "outputs/other").exists()


def test_conversations_with_a_test_question_are_left_out(folder, monkeypatch):
    write_jsonl(folder / "test.jsonl", [{"question": "And 3 * 3?", "answer": "#### 9"}])
    flags = ("--model-path=outputs/hf_baseline_10b", "--data-path=tulu.jsonl", "--output-dir=outputs/searched")
    run(monkeypatch, folder, "sft/sft_tulu.py", *flags, "--test-path=test.jsonl", "--training.epochs=1")
    results = read_json(folder / "outputs/searched/tulu_sft_results.json")
    assert results["dropped"] == {"test_question": 8}  # a third of them asks it, in the second turn
    assert results["examples"] + results["eval_examples"] == len(CONVERSATIONS) - 8


def test_bad_rows_and_long_ones_are_in_the_results(folder, monkeypatch, capsys):
    long = [CONVERSATIONS[0]["messages"][0], {"role": "assistant", "content": "and so on " * 600}]
    write_jsonl(folder / "mixed.jsonl", [*CONVERSATIONS, {"messages": []}, {"messages": long}])
    arguments = ("--model-path", "outputs/hf_mul_tokens_10b", "--condition=mul_tokens", "--eval.fraction=0")
    extra = ("--allow-bad-rows", "--embedding-init=compose", "--training.epochs=1", "--data-path=mixed.jsonl")
    run(monkeypatch, folder, "sft/sft_tulu.py", *arguments, *extra, "--output-dir=outputs/mixed")
    results = read_json(folder / "outputs/mixed/tulu_sft_results.json")
    assert results["dropped"] == {"wrong_role_order": 1, "cut_by_max_length": 1}
    assert results["examples"] == len(CONVERSATIONS) and results["embeddings_initialised"] == 49
    assert "left out: mixed.jsonl, line 25: wrong_role_order" in capsys.readouterr().out
