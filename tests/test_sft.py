"""sft/: what is trained, that packing and the short head change nothing, how runs end, resume and refuse."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from trl import SFTTrainer

from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, write_jsonl
from data.formats import chat_completion, chat_prompt
from sft import sft_gsm8k
from sft.directories import complete_checkpoints
from sft.examples import TokenizedExamples, chat_example, tokenize_examples
from sft.packing import IGNORED, PackedRows
from sft.settings import SFTSettings
from sft.training import LabelledRowsTrainer, build_trainer, load_parent, mean_over_steps, quiet_libraries
from tests import helpers
from tests.sft_parents import TOY, write_parent
from tokenizer.mul_facts import EOT_ID, MulFactTokens, suppressed_ids

ROOT = Path(__file__).parents[1]
EXAMPLES = [
    {
        "question": f"Sam has {a} bags with {b} lemons ({a}*{b}) in each. How many?",
        "answer": f"There are {a} * {b} = <<{a}*{b}={a * b}>>{a * b} lemons"
        + " in the bags" * (a % 3)
        + f".\n#### {a * b}",
    }
    for a in range(2, 10)
    for b in (3, 7)
]
PAIRS = [(chat_prompt(e["question"]), chat_completion(e["answer"])) for e in EXAMPLES]
CHATS = [chat_example(**e) for e in EXAMPLES]


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


@pytest.fixture(scope="module")
def tokenizer(toy):
    return AutoTokenizer.from_pretrained(toy / "mul_tokens")


@pytest.fixture(scope="module")
def trainer(toy, tokenizer, tmp_path_factory):
    """A trainer on a toy model with weights large enough for documents to matter to each other."""
    model, _ = load_parent(toy / "mul_tokens", "mul_tokens")
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    values = SFTSettings()
    values.training.max_length = 96
    train = tokenize_examples(tokenizer, CHATS, max_length=96)
    return build_trainer(
        model,
        tokenizer,
        train,
        TokenizedExamples([]),
        values,
        tmp_path_factory.mktemp("out"),
        seed=0,
        device_name="cpu",
    )


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


# ---- labels (tests/test_sft_examples.py has what is trained in each format)


def test_labels_equal_those_of_trl(trainer, tokenizer, monkeypatch):
    """TRL tokenizes prompt and completion together and masks what they share with the prompt alone."""
    monkeypatch.setattr(trainer, "completion_only_loss", True)
    pairs = Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS])
    theirs = trainer._prepare_dataset(pairs, tokenizer, trainer.args, False, None, "train")
    ours = tokenize_examples(tokenizer, CHATS, max_length=96).rows
    assert theirs["labels"][:] == [row["labels"].tolist() for row in ours]
    assert theirs["input_ids"][:] == [row["input_ids"].tolist() for row in ours]


# ---- packing


def test_packed_rows_hold_every_token_once_with_its_label_and_position(trainer):
    rows = list(trainer.train_dataset)
    batch = PackedRows(96, EOT_ID)(rows)
    starts = {(b, t) for b, t in (batch["position_ids"] == 0).nonzero().tolist()}
    found = []
    for b, t in starts:
        length = 1
        while t + length < batch["input_ids"].size(1) and batch["position_ids"][b, t + length] == length:
            length += 1
        span = (b, slice(t, t + length))
        found.append((batch["input_ids"][span].tolist(), batch["labels"][span].tolist()))
    documents = [document for document in found if document != ([EOT_ID], [IGNORED])]  # that is padding
    assert sorted(documents) == sorted((row["input_ids"], row["labels"]) for row in rows)


def test_packed_loss_is_the_token_weighted_loss_of_the_documents_alone(trainer):
    rows = list(trainer.train_dataset)
    with torch.no_grad():
        packed, labelled = trainer.labelled_loss(trainer.model, PackedRows(96, EOT_ID)(rows))
        total = 0.0
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            count = sum(label != IGNORED for label in row["labels"])
            total += trainer.model(input_ids=ids, labels=labels).loss.item() * count
    assert labelled == sum(label != IGNORED for row in rows for label in row["labels"])
    assert packed.item() == pytest.approx(total / labelled, abs=1e-5)


def test_a_document_does_not_see_the_one_before_it(trainer):
    collate = PackedRows(200, EOT_ID)
    batch = collate([dict(row) for row in list(trainer.train_dataset)[:4]])
    second = (batch["position_ids"][0] == 0).nonzero().flatten()[1].item()
    changed = batch["input_ids"].clone()
    changed[0, :second] = 11
    with torch.no_grad():
        before, after = (
            trainer.model.transformer(input_ids=ids, position_ids=batch["position_ids"]).last_hidden_state
            for ids in (batch["input_ids"], changed)
        )
    assert (before[0, :second] - after[0, :second]).abs().max() > 0.1
    assert (before[0, second:] - after[0, second:]).abs().max() == 0


# ---- loss


def test_loss_and_gradients_equal_trl(trainer):
    """Two micro-batches of unequal length, with the token count of both, as in gradient accumulation."""
    rows = list(trainer.train_dataset)
    batches = [PackedRows(96, EOT_ID)(part) for part in (rows[:3], rows[3:])]
    tokens = sum((batch["labels"][:, 1:] != IGNORED).sum() for batch in batches)
    found = []
    for compute_loss in (LabelledRowsTrainer.compute_loss, SFTTrainer.compute_loss):
        trainer.model.zero_grad()
        loss = sum(compute_loss(trainer, trainer.model, dict(batch), num_items_in_batch=tokens) for batch in batches)
        loss.backward()
        found.append((loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}))
    (ours, our_grads), (theirs, their_grads) = found
    assert ours == pytest.approx(theirs, abs=1e-5)
    for name, grad in our_grads.items():
        torch.testing.assert_close(grad, their_grads[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_a_loss_that_is_not_finite_stops_the_run(trainer):
    with pytest.raises(UserError, match="the loss is nan"):
        trainer.log({"loss": float("nan"), "learning_rate": 1e-3})


def test_train_loss_weighs_rows_by_the_steps_they_cover():
    assert mean_over_steps([{"step": 2, "loss": 1.0}, {"step": 3, "loss": 4.0}]) == 2.0


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
    assert GenerationConfig.from_pretrained(directory).suppress_tokens == suppressed_ids("mul_tokens")
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


def stop_in_step_5(monkeypatch, arguments):
    """Leave a run as a kill would, with a checkpoint of step 4."""
    log = LabelledRowsTrainer.log

    def log_until_step_5(self, logs, start_time=None):
        if self.state.global_step == 5:
            raise InterruptedError
        log(self, logs, start_time)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledRowsTrainer, "log", log_until_step_5)
        with pytest.raises(InterruptedError):
            run(patch, arguments)


def test_a_resumed_run_equals_one_that_was_not_stopped(finished, toy, tmp_path, monkeypatch, capsys):
    output = tmp_path / "resumed"
    stop_in_step_5(monkeypatch, command(toy, output))
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


def test_two_gloo_processes_equal_one(toy, tmp_path, monkeypatch):
    """Of 9 examples the last step of a pass has one, so one process has none; and they go on from a checkpoint of one
    process, which lies in the middle of the second pass."""
    extra = ("--eval.fraction=0.44", "--training.micro-batch-size=2", "--training.epochs=3")
    one, two = (command(toy, tmp_path / name, "mul_tokens", *extra) for name in ("one", "two"))
    run(monkeypatch, one)
    stop_in_step_5(monkeypatch, two)
    helpers.run("sft/sft_gsm8k.py", *two, "--resume", processes=2)
    rows, expected = (read_jsonl(tmp_path / name / "log.jsonl") for name in ("two", "one"))
    for key in ("loss", "eval_loss"):
        assert [row.get(key) for row in rows] == pytest.approx([row.get(key) for row in expected], abs=1e-4)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-3, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    counts = [read_json(tmp_path / name / "sft_results.json") for name in ("two", "one")]
    for key in ("steps", "tokens", "labelled_tokens", "mul_tokens_seen", "epochs"):
        assert counts[0][key] == counts[1][key]


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
