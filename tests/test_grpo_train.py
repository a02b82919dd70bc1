"""rl/grpo_train.py at toy size: what it writes, resumes, shares over processes and refuses."""

import json
import shutil
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.device import memory_bytes
from common.errors import UserError
from common.files import read_json, read_jsonl, write_jsonl, write_text
from pretrain.checkpoint import latest_checkpoint
from pretrain.hf_weights import MODEL_FILES, load_model_dir
from rl import grpo_train
from rl.run_log import RunLog
from tests.grpo_runs import write_policy
from tests.helpers import run

# Responses differ in length, and the penalty makes rewards of the lengths: the model is never right.
TOY = """
rollout: {prompts: 3, group_size: 4, max_new_tokens: 8, refills: 1}
objective: {overlong: penalty, overlong_buffer: 8}
training: {iterations: 3, learning_rate: 1.0e-3, warmup: 2, schedule: cosine, dtype: float32}
eval: {prompts: 4, interval: 2, keep_best: false}
checkpoint_interval: 3
completions_interval: 2
device: cpu
"""
ITEMS = [
    {"question": f"Sam has {a} bags of {b}. How many?", "answer": f"{a}*{b}=<<{a}*{b}={a * b}>>{a * b}\n#### {a * b}"}
    for a in range(2, 8)
    for b in range(3, 7)
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A policy of each condition, problems, a config."""
    root = tmp_path_factory.mktemp("grpo")
    for condition in ("baseline", "mul_tokens"):
        write_policy(root / condition, condition)
    write_jsonl(root / "gsm8k/train.jsonl", ITEMS)
    write_text(root / "toy.yaml", TOY)
    return root


def arguments(root, output, *more, condition="baseline"):
    paths = [f"--config={root / 'toy.yaml'}", f"--data-path={root / 'gsm8k'}", f"--output-dir={output}"]
    return [*paths, f"--model-path={root / condition}", f"--condition={condition}", *more]


def train(root, output, *more, **options):
    """A run in this process, as the script's command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["grpo_train.py", *arguments(root, output, *more, **options)])
        grpo_train.main()


def stop_at(iteration, root, output, *more):
    """Leave a run as a kill would before it logs `iteration`, counted from 0."""
    log = RunLog.iteration

    def log_until_then(self, row):
        if row["iteration"] == iteration:
            raise InterruptedError
        log(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "iteration", log_until_then)
        with pytest.raises(InterruptedError):
            train(root, output, *more)


def log_of(directory):
    """The log's rows, without times."""
    rows = read_jsonl(directory / "log.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def weights_of(directory):
    return load_model_dir(directory).state_dict()


# -- what a run writes ------------------------------------------------------------------------------------------------
def test_a_run_writes_a_model_directory_with_its_results(root, tmp_path):
    output = tmp_path / "out"
    result = run("rl/grpo_train.py", *arguments(root, output, condition="mul_tokens"))
    assert "20 problems, 4 held out" in result.stdout and "wrote" in result.stdout
    results = {"grpo_results.json", "log.jsonl", "completions.jsonl", "curves.png"}
    assert {path.name for path in output.iterdir()} == MODEL_FILES | results
    model, tokenizer = AutoModelForCausalLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert tokenizer.decode(tokenizer("<MUL_6_9_54>")["input_ids"]) == "<MUL_6_9_54>"
    assert model(**tokenizer("User: Sam", return_tensors="pt")).logits.isfinite().all()
    before = weights_of(root / "mul_tokens")
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(output).items())
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")

    rows = [row for row in log_of(output) if "reward_mean" in row]
    assert [row["iteration"] for row in rows] == [0, 1, 2] and all(row["updates"] == 1 for row in rows)
    assert [row["iteration"] for row in log_of(output) if "eval_accuracy" in row] == [0, 2, 3]
    for row in rows:
        assert 0 < row["kept_fraction"] <= 1 and 1 <= row["tries"] <= 2 and row["grad_norm"] > 0
        assert row["groups_all_wrong"] <= row["groups_kept"] / row["kept_fraction"] and row["accuracy"] == 0
        assert 1 <= row["response_tokens"] <= 8 and row["entropy"] > 0 and row["log_ratio_rms"] < 1e-4
    responses = read_jsonl(output / "completions.jsonl")
    assert {row["iteration"] for row in responses} == {0, 2}
    assert {row["finish_reason"] for row in responses} == {"stop", "length"}
    assert {row["question"] for row in responses} <= {item["question"] for item in ITEMS}

    results, record = read_json(output / "grpo_results.json"), read_json(output / "run.json")
    assert results["iterations"] == results["updates"] == results["written_iteration"] == 3
    assert (results["eval_n"], results["eval_accuracy_first"]) == (4, 0.0)
    assert record["stage"] == "grpo" and record["results"] == results and record["steps"] == 3
    assert record["parent"]["path"] == str(root / "mul_tokens") and record["parent"]["run"]["stage"] == "export"
    assert record["data"]["problems"] == 20 and record["data"]["held_out"] == 4


def test_the_weights_that_did_best_on_the_held_out_problems_are_written(root, tmp_path, monkeypatch):
    accuracies = iter([0.25, 0.5, 0.5])
    monkeypatch.setattr(grpo_train.Sampler, "accuracy", lambda *_: next(accuracies))
    train(root, tmp_path / "best", "--eval.keep-best")  # evaluated at 0, 2 and 3: of equal ones the first
    assert read_json(tmp_path / "best/grpo_results.json")["written_iteration"] == 2
    accuracies = iter([0.5, 0.25, 0.25])
    train(root, tmp_path / "worse", "--eval.keep-best")
    accuracies = iter([0.5, 0.25, 0.25])
    train(root, tmp_path / "last")
    parent, best, worse, last = (
        weights_of(path) for path in (root / "baseline", tmp_path / "best", tmp_path / "worse", tmp_path / "last")
    )
    assert all(torch.equal(value, parent[name]) for name, value in worse.items())
    assert not torch.equal(best["wte.weight"], parent["wte.weight"])
    assert not torch.equal(best["wte.weight"], last["wte.weight"])


# -- going on ---------------------------------------------------------------------------------------------------------
def test_a_resumed_run_ends_as_one_that_was_never_stopped(root, tmp_path):
    """Bit for bit, with two epochs per batch; what was logged after the checkpoint is made again."""
    more = ["--training.iterations=6", "--training.epochs=2", "--objective.kl-coefficient=0.1"]
    train(root, tmp_path / "whole", *more)
    stop_at(4, root, tmp_path / "stopped", *more)
    assert latest_checkpoint(tmp_path / "stopped").name == "model_000003.pt"
    assert max(row["iteration"] for row in log_of(tmp_path / "stopped")) == 4
    with pytest.raises(UserError, match="holds an unfinished run; pass --resume to go on or --force to start anew"):
        train(root, tmp_path / "stopped", *more)
    with pytest.raises(UserError, match="unfinished run with training"):
        train(root, tmp_path / "stopped", *more, "--resume", "--training.epochs=3")
    train(root, tmp_path / "stopped", *more, "--resume")
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "stopped")
    assert read_jsonl(tmp_path / "whole/completions.jsonl") == read_jsonl(tmp_path / "stopped/completions.jsonl")
    last = log_of(tmp_path / "whole")[-2]
    assert last["updates"] == 2 and last["log_ratio_rms"] > 1e-5, "the second epoch must be off the sampler's policy"


def test_a_finished_run_is_replaced_by_force_alone(root, tmp_path):
    train(root, tmp_path / "out", "--training.iterations=1")
    before = read_json(tmp_path / "out/run.json")
    with pytest.raises(UserError, match="already holds a finished run; choose another or pass --force"):
        train(root, tmp_path / "out", "--training.iterations=1")
    assert read_json(tmp_path / "out/run.json") == before
    train(root, tmp_path / "out", "--training.iterations=2", "--force")
    assert read_json(tmp_path / "out/grpo_results.json")["iterations"] == 2


def test_two_processes_make_the_run_of_one(root, tmp_path):
    train(root, tmp_path / "1")
    run("rl/grpo_train.py", *arguments(root, tmp_path / "2"), processes=2)
    one, two = log_of(tmp_path / "1"), log_of(tmp_path / "2")
    assert len(one) == len(two)
    for expected, row in zip(one, two, strict=True):
        parts = expected.pop("parts", None), row.pop("parts", None)
        assert parts[0] == parts[1] and row.pop("kl", None) is expected.pop("kl", None) is None  # no reference
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-5)
    weights = weights_of(tmp_path / "1")
    assert all(torch.allclose(value, weights[name], atol=1e-5) for name, value in weights_of(tmp_path / "2").items())
    texts = [[row["response"] for row in read_jsonl(tmp_path / f"{n}/completions.jsonl")] for n in (1, 2)]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_memory_stays_flat_over_200_iterations(root, tmp_path, monkeypatch):
    sizes, log = [], RunLog.iteration

    def log_and_weigh(self, row):
        log(self, row)
        sizes.append(memory_bytes(torch.device("cpu"))[0])

    monkeypatch.setattr(RunLog, "iteration", log_and_weigh)
    small = ["--rollout.prompts=2", "--rollout.group-size=2", "--rollout.max-new-tokens=3", "--rollout.refills=0"]
    more = ["--training.iterations=200", "--eval.interval=50", "--checkpoint-interval=50"]
    train(root, tmp_path / "out", *small, *more, "--objective.overlong-buffer=3")
    assert len(sizes) == 200
    # A gradient that is kept is 1.6 MB, so one per iteration would come to 240.
    assert max(sizes[180:]) - max(sizes[40:60]) < 30e6


# -- what goes wrong --------------------------------------------------------------------------------------------------
def test_a_user_s_mistake_is_named_before_anything_is_read(root, tmp_path):
    with pytest.raises(UserError, match=r"^rollout\.group_size is 1; an advantage needs at least 2 responses$"):
        train(root, tmp_path / "out", "--rollout.group-size=1", "--model-path=nowhere")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--condition=mul_tokens"], "baseline"),
        (["--data-path={root}/empty"], "train"),
        (["--eval.prompts=24"], "there are only 24 different problems; lower it"),
        (["--rollout.max-new-tokens=60"], "every prompt of .* has more than 4 tokens"),
        (["--model-path={root}/nowhere"], "nowhere"),
        (["--objective.clip-low=2"], "objective.clip_low 2"),
    ],
)
def test_mistakes_are_named(root, tmp_path, more, message):
    (root / "empty").mkdir(exist_ok=True)
    write_jsonl(root / "empty/test.jsonl", ITEMS)
    with pytest.raises(UserError, match=message):
        train(root, tmp_path / "out", *[option.format(root=root) for option in more])
    assert not (tmp_path / "out/run.json").exists()


def test_prompts_that_are_too_long_are_left_out_and_counted(root, tmp_path):
    long = {"question": "Sam has " + "many " * 60 + "bags of 2. How many?", "answer": "#### 2"}
    write_jsonl(tmp_path / "data/train.jsonl", [*ITEMS, long])
    train(root, tmp_path / "out", f"--data-path={tmp_path / 'data'}", "--training.iterations=1")
    data = read_json(tmp_path / "out/run.json")["data"]
    assert data["dropped"] == {"prompt_too_long": 1} and data["problems"] + data["held_out"] == len(ITEMS)


def test_an_answer_without_a_number_is_named(root, tmp_path):
    write_jsonl(tmp_path / "data/train.jsonl", [*ITEMS, {"question": "How many?", "answer": "Nobody knows."}])
    with pytest.raises(UserError, match="item 25: the answer has no number"):
        train(root, tmp_path / "out", f"--data-path={tmp_path / 'data'}")


def test_a_reward_that_raises_names_the_response(root, tmp_path, monkeypatch):
    def reward(rollout):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(grpo_train, "build_reward", lambda *_: reward)
    with pytest.raises(UserError, match=r"the reward failed on the response '.*' to 'Sam has .*ZeroDivisionError"):
        train(root, tmp_path / "out", "--eval.prompts=0")


def test_a_gradient_that_is_no_number_stops_the_run_with_its_checkpoint(root, tmp_path, monkeypatch):
    norms = iter([1.0, 1.0, 1.0, 1.0, float("nan")])
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(next(norms)))
    with pytest.raises(UserError, match="the gradient is nan at iteration 4; lower"):
        train(root, tmp_path / "out", "--training.iterations=6")
    assert latest_checkpoint(tmp_path / "out").name == "model_000003.pt"


def test_a_model_that_cannot_stop_and_a_constant_reward_end_with_alarms(root, tmp_path, capsys):
    """No response ends, none is right: nothing to learn, and the run says so, once."""
    write_policy(tmp_path / "endless", stops=False)
    more = ["--training.iterations=14", "--objective.overlong=train", f"--model-path={tmp_path / 'endless'}"]
    train(root, tmp_path / "out", *more, "--rollout.max-new-tokens=5", "--objective.entropy-start=0.01")
    printed = capsys.readouterr().out
    alarms = [line for line in printed.splitlines() if line.startswith("alarm, ")]
    assert len(alarms) == 2 and all("iteration 9" in line for line in alarms), printed
    assert "there is nothing to learn from" in alarms[0] and "100% of the responses do not end" in alarms[1]
    text = (tmp_path / "out/log.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    rows = [row for row in map(json.loads, text.splitlines()) if "reward_mean" in row]
    assert len(rows) == 14
    assert all(row["kept_fraction"] == row["updates"] == 0 and row["loss"] is None for row in rows)
    before = weights_of(tmp_path / "endless")
    assert all(torch.equal(value, before[name]) for name, value in weights_of(tmp_path / "out").items())
    shutil.rmtree(tmp_path / "out")
