"""sft/sft_gsm8k.py, for all stages: what a run writes, how it ends, resumes and refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from common.errors import run_script
from common.files import read_json, read_jsonl, write_jsonl
from data.formats import chat_completion, chat_prompt
from sft import sft_gsm8k
from sft.directories import complete_checkpoints
from sft.examples import tokenize_examples
from sft.packing import IGNORED
from sft.training import load_parent, quiet_libraries
from tests.sft_parents import EXAMPLES, TOY, stop_in_step, write_parent
from tokenizer.mul_facts import EOT_ID, MulFactTokens
from tokenizer.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with two parent models, training data and a config."""
    folder = tmp_path_factory.mktemp("toy")
    quiet_libraries()
    for condition in ("baseline", "mul_tokens"):
        write_parent(folder / condition, condition)
    write_jsonl(folder / "train.jsonl", EXAMPLES)
    (folder / "toy.yaml").write_text(TOY)
    return folder


def command(toy, output, condition="baseline", *extra):
    inject = ["--inject-mul-tokens"] if condition == "mul_tokens" else []
    return [
        *("--model-path", str(toy / condition), "--output-dir", str(output), "--condition", condition),
        *("--config", str(toy / "toy.yaml"), "--data-path", str(toy / "train.jsonl"), "--device", "cpu"),
        *(*inject, *extra),
    ]


def run(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["sft_gsm8k.py", *arguments])
    sft_gsm8k.main()


# ---- runs


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    """A whole run of each condition."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for condition in ("baseline", "mul_tokens"):
            run(monkeypatch, command(toy, folder / condition, condition))
    return folder


def test_a_run_writes_a_model_directory_and_what_it_was(finished, toy):
    directory = finished / "mul_tokens"
    model, parent = (AutoModelForCausalLM.from_pretrained(path) for path in (directory, toy / "mul_tokens"))
    assert not torch.equal(model.transformer.wte.weight, parent.transformer.wte.weight)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert GenerationConfig.from_pretrained(directory).suppress_tokens == Vocabulary("mul_tokens").suppressed_ids
    assert AutoTokenizer.from_pretrained(directory).encode("<MUL_2_3_6>") == [MulFactTokens().id_of(2, 3)]
    record, results = read_json(directory / "run.json"), read_json(directory / "sft_results.json")
    assert (record["stage"], record["condition"], record["steps"]) == ("sft_gsm8k", "mul_tokens", 6)
    assert (results["examples"], results["eval_examples"], results["epochs"]) == (12, 4, 2)
    assert 0.8 < results["packing_efficiency"] <= 1
    assert results["tokens"] > results["labelled_tokens"] > 0 and results["tokens_per_second"] > 0
    assert results["mul_tokens_seen"] == record["mul_tokens_seen"] == 2 * 12 * 2  # two in each answer, two epochs
    assert results["dropped"] == {} and results["kept_step"] == 6
    rows = read_jsonl(directory / "log.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "eval_loss" in row] == [3, 6]
    assert results["eval_loss"] == rows[-1]["eval_loss"] < rows[3]["eval_loss"] < 11
    assert set(rows[0]) == {"step", "loss", "lr"}
    assert not list(directory.glob("checkpoint-*"))


def test_both_conditions_see_the_same_examples_in_as_many_steps(finished):
    records = [read_json(finished / condition / "run.json") for condition in ("baseline", "mul_tokens")]
    for key in ("documents_sha256", "examples"):
        assert records[0]["data"][key] == records[1]["data"][key]
    assert records[0]["steps"] == records[1]["steps"]
    assert records[0]["tokens"] > records[1]["tokens"]


def test_only_answers_are_injected(toy, tmp_path, monkeypatch):
    seen = []

    def keep_rows(model, tokenizer, train, *_):
        seen.append((tokenizer, train))
        raise InterruptedError

    monkeypatch.setattr("sft.training.build_trainer", keep_rows)
    with pytest.raises(InterruptedError):
        run(monkeypatch, command(toy, tmp_path / "out", "mul_tokens"))
    tokenizer, train = seen[0]
    mul_facts = MulFactTokens()
    for row in train.rows:
        inputs = sum(mul_facts.is_mul_id(i) for i in row["input_ids"])
        assert inputs == sum(mul_facts.is_mul_id(i) for i in row["labels"]) == 2
        prompt = tokenizer.decode([i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label < 0])
        assert "*" in prompt and "MUL" not in prompt
    assert train.mul_tokens == 2 * len(train.rows)


def test_a_resumed_run_equals_one_that_was_not_stopped(finished, toy, tmp_path, monkeypatch, capsys):
    output = tmp_path / "resumed"
    stop_in_step(5, monkeypatch, sft_gsm8k.main, command(toy, output))
    (output / "checkpoint-5").mkdir()  # a save that was cut short
    assert [path.name for path in complete_checkpoints(output)] == ["checkpoint-4"]
    assert_error(monkeypatch, capsys, command(toy, output), "pass --resume")
    assert_error(
        monkeypatch, capsys, command(toy, output, "baseline", "--resume", "--seed", "1"), "seed 0, this one has 1"
    )
    run(monkeypatch, command(toy, output, "baseline", "--resume"))
    for name in ("model.safetensors", "log.jsonl"):
        assert (output / name).read_bytes() == (finished / "baseline" / name).read_bytes()
    losses = [read_json(path / "sft_results.json")["train_loss"] for path in (output, finished / "baseline")]
    assert losses[0] == losses[1]


def test_accumulated_micro_batches_equal_one_batch(finished, toy, tmp_path, monkeypatch):
    extra = ("--training.micro-batch-size", "2", "--checkpoint.keep")
    run(monkeypatch, command(toy, tmp_path / "out", "baseline", *extra))
    rows, expected = (read_jsonl(path / "log.jsonl") for path in (tmp_path / "out", finished / "baseline"))
    assert [row.get("loss") for row in rows] == pytest.approx([row.get("loss") for row in expected], abs=1e-4)
    assert [path.name for path in complete_checkpoints(tmp_path / "out")] == ["checkpoint-6"]


def answer_after_training(toy, folder, monkeypatch):
    """What a model says greedily that has been trained to say yes."""
    write_jsonl(folder / "train.jsonl", [{"question": "Say yes.", "answer": "yes"}] * 8)
    extra = ("--data-path", str(folder), "--training.epochs=20", "--eval.fraction=0", "--training.learning-rate=5e-2")
    run(monkeypatch, command(toy, folder / "out", "baseline", *extra))
    model, tokenizer = load_parent(folder / "out", "baseline")
    ids = tokenizer(chat_prompt("Say yes."), return_tensors="pt")
    return tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids.input_ids.size(1) :])


def test_the_trained_model_ends_its_answers(toy, tmp_path, monkeypatch):
    assert answer_after_training(toy, tmp_path, monkeypatch) == chat_completion("yes")


def test_a_model_whose_end_of_text_is_masked_like_padding_does_not(toy, tmp_path, monkeypatch):
    """The negative control: the test above would see the bug of the earlier systems."""

    def masking_padding(*arguments):
        result = tokenize_examples(*arguments)
        for row in result.rows:
            row["labels"][row["labels"] == EOT_ID] = IGNORED
        return result

    monkeypatch.setattr("sft.stage.tokenize_examples", masking_padding)
    answer = answer_after_training(toy, tmp_path, monkeypatch)
    assert answer.startswith(" yes") and "<|endoftext|>" not in answer


# ---- errors


def assert_error(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["sft_gsm8k.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_script(sft_gsm8k.main)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--inject-mul-tokens"], "leave it off in baseline"),
        (["--condition", "mul_tokens"], "is a baseline model"),
        (["--model-path", "no/such/model"], "no/such/model is not a model directory"),
        (["--data-path", "no/such/data.jsonl"], "no/such/data.jsonl does not exist"),
        (["--training.max-length", "128"], "exceeds the 96 positions"),
        (["--training.micro-batch-size", "3"], "does not divide"),
        (["--training.epochs", "0"], "training.epochs is 0"),
        (["--eval.fraction", "1.0"], "eval.fraction is 1.0"),
        (["--eval.keep-best"], "eval.interval 3 and checkpoint.interval 2 must be equal"),
        (["--logging.interval", "4"], "must be a multiple of logging.interval 4"),
        (["--training.max-length", "10"], "no example fits into training.max_length 10"),
        (["--training.epoch", "2"], "--training.epoch"),
    ],
)
def test_a_mistake_is_one_line(toy, tmp_path, monkeypatch, capsys, extra, message):
    assert_error(monkeypatch, capsys, [*command(toy, tmp_path / "out"), *extra], message)


def test_the_tokenizer_of_the_other_condition_is_an_error(toy, tmp_path, monkeypatch, capsys):
    parent = tmp_path / "parent"
    parent.mkdir()
    for file in (toy / "baseline").iterdir():
        if file.name != "run.json":
            (parent / file.name).symlink_to(file)
    arguments = command(toy, tmp_path / "out", "mul_tokens", "--model-path", str(parent))
    assert_error(monkeypatch, capsys, arguments, "lacks the mul tokens")


def test_a_finished_directory_is_kept_unless_forced(finished, toy, monkeypatch, capsys):
    output = finished / "baseline"
    assert_error(monkeypatch, capsys, command(toy, output, "baseline", "--resume"), "already holds a finished run")
    before = (output / "model.safetensors").read_bytes()
    run(monkeypatch, command(toy, output, "baseline", "--force"))
    assert (output / "model.safetensors").read_bytes() == before  # the same seed, the same run


def test_a_directory_with_other_files_is_not_touched(toy, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert_error(monkeypatch, capsys, command(toy, tmp_path, "baseline", "--force"), "holds files that no run wrote")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_shipped_configs_parse():
    for name in ("gsm8k", "demo", "quick"):
        path = ROOT / "sft/configs" / f"{name}.yaml"
        assert sft_gsm8k.parse_config(sft_gsm8k.Config, ["--config", str(path)]).config == path


def test_the_script_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "sft/sft_gsm8k.py", "--model-path", "nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --model-path nowhere is not a model directory")
