"""The training loop: the same numbers however they are computed, and the same run however it is interrupted."""

import shutil
from pathlib import Path

import pytest
import torch

from common.distributed import World
from common.errors import UserError
from common.files import read_json, read_jsonl
from pretrain.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from pretrain.flops import utilisation
from pretrain.settings import TrainConfig
from pretrain.train import train
from tests.helpers import TINY_TRAINING, one_line_error, run, write_random_shards

CPU = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_random_shards(tmp_path_factory.mktemp("shards"))


def tiny_config(data_dir: Path, output_dir: Path, **training) -> TrainConfig:
    config = TrainConfig(data_dir=data_dir, output_dir=output_dir, device="cpu")
    config.model.n_layer, config.model.n_head, config.model.n_embd, config.model.block_size = 1, 2, 8, 16
    values = {"batch_size": 2, "total_batch_size": 64, "max_steps": 4, "warmup_steps": 2} | training
    for key, value in values.items():
        setattr(config.training, key, value)
    config.logging.interval, config.eval.interval, config.eval.val_steps = 1, 4, 2
    return config


def losses(output_dir: Path) -> list[dict]:
    """The log without what depends on the clock and the machine."""
    rows, clocked = read_jsonl(output_dir / "log.jsonl"), ("tokens_per_second", "peak_memory_bytes", "seconds")
    return [{k: v for k, v in row.items() if k not in clocked} for row in rows]


def assert_same_state(a: dict, b: dict, exact: bool = True) -> None:
    def leaves(value, name=""):
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from leaves(inner, f"{name}/{key}")
        else:
            yield name, value

    left, right = dict(leaves(a)), dict(leaves(b))
    assert left.keys() == right.keys()
    for name, value in left.items():
        if not isinstance(value, torch.Tensor):
            assert value == right[name], name
        elif exact:
            assert torch.equal(value, right[name]), name
        else:
            torch.testing.assert_close(value, right[name], rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def one_process(shards, tmp_path_factory) -> Path:
    """Ten steps in a process of its own, checkpoints after 5 and 10."""
    output_dir = tmp_path_factory.mktemp("runs") / "whole"
    arguments = [*TINY_TRAINING, "--training.max-steps=10", "--checkpoint.interval=5"]
    run("pretrain/train.py", "--data-dir", shards, "--output-dir", output_dir, *arguments)
    return output_dir


def test_gradient_accumulation_changes_nothing(shards, tmp_path):
    train(tiny_config(shards, tmp_path / "whole", batch_size=4), CPU)
    train(tiny_config(shards, tmp_path / "parts", batch_size=1), CPU)
    whole, parts = (load_checkpoint(latest_checkpoint(tmp_path / name))["model"] for name in ("whole", "parts"))
    assert_same_state(whole, parts, exact=False)
    for a, b in zip(losses(tmp_path / "whole"), losses(tmp_path / "parts"), strict=True):
        if "loss" in a:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_two_gloo_processes_equal_one(one_process, shards, tmp_path):
    arguments = [*TINY_TRAINING, "--training.max-steps=10", "--checkpoint.interval=5"]
    run("pretrain/train.py", "--data-dir", shards, "--output-dir", tmp_path / "two", *arguments, processes=2)
    one, two = (load_checkpoint(directory / "model_000010.pt") for directory in (one_process, tmp_path / "two"))
    assert_same_state(one["model"], two["model"], exact=False)
    assert one["loader"] == two["loader"]
    train_rows = [[row for row in losses(d) if "loss" in row] for d in (one_process, tmp_path / "two")]
    for a, b in zip(*train_rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_ten_steps_equal_five_and_a_new_process_and_five_bit_for_bit(one_process, shards, tmp_path):
    stopped = shutil.copytree(one_process, tmp_path / "stopped")
    arguments = ["--data-dir", shards, "--output-dir", stopped, *TINY_TRAINING, "--training.max-steps=10"]
    # As if it had been killed after step 7: the last checkpoint is step 5's, the log is ahead of it.
    (stopped / "model_000010.pt").unlink()
    (stopped / "results.json").unlink()
    rows = (stopped / "log.jsonl").read_text().splitlines(keepends=True)
    (stopped / "log.jsonl").write_text("".join(rows[:8]))
    result = run("pretrain/train.py", *arguments, "--checkpoint.interval=5")
    assert "after step 5" in result.stdout
    assert_same_state(load_checkpoint(one_process / "model_000010.pt"), load_checkpoint(stopped / "model_000010.pt"))
    assert losses(one_process) == losses(stopped)
    assert (
        read_json(stopped / "results.json")["final_val_loss"]
        == read_json(one_process / "results.json")["final_val_loss"]
    )


def test_resuming_on_two_processes_continues_the_same_data(one_process, shards, tmp_path):
    moved = shutil.copytree(one_process, tmp_path / "moved")
    arguments = ["--data-dir", shards, "--output-dir", moved, *TINY_TRAINING, "--training.max-steps=10"]
    (moved / "model_000010.pt").unlink()
    run("pretrain/train.py", *arguments, "--checkpoint.interval=5", processes=2)
    one, two = (load_checkpoint(directory / "model_000010.pt") for directory in (one_process, moved))
    assert_same_state(one["model"], two["model"], exact=False)
    assert one["loader"] == two["loader"]


def test_a_kill_during_a_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    state = {"model": {"w": torch.ones(3)}, "model_config": {}, "step": 5}
    save_checkpoint(tmp_path / "model_000005.pt", state)

    def killed(value, file):
        file.write(b"half of a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "model_000010.pt", state)
    assert latest_checkpoint(tmp_path) == tmp_path / "model_000005.pt"
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 5


def test_a_partial_file_of_a_killed_process_is_not_a_checkpoint(tmp_path):
    (tmp_path / ".model_000010.pt.123.partial").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None


def test_a_non_finite_loss_stops_before_the_update(shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run", max_steps=8, max_lr=1e20)
    config.checkpoint.interval = 1
    with pytest.raises(UserError, match="; stopped") as error:
        train(config, CPU)
    last = load_checkpoint(latest_checkpoint(tmp_path / "run"))
    assert str(latest_checkpoint(tmp_path / "run")) in str(error.value)
    assert all(tensor.isfinite().all() for tensor in last["model"].values())


def test_mfu_is_unknown_on_a_cpu_and_right_on_a_known_gpu(monkeypatch):
    assert utilisation(1000.0, 10, torch.device("cpu"), 1) is None
    cuda = torch.device("cuda", 0)
    for name, peak in (("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert utilisation(1e6, 860e6, cuda, 2) == pytest.approx(1e6 * 860e6 / (2 * peak))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Other GPU")
    assert utilisation(1e6, 860e6, cuda, 2) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--training.max-step=3"], "max-steps"),
        (["--training.max-steps=many"], "max-steps"),
        (["--condition=mul"], "mul_tokens"),
        (["--config=nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--data-dir=nowhere"], "nowhere"),
        (["--training.total-batch-size=63"], "not a multiple"),
        (["--model.n-head=3"], "multiple of model.n_head"),
    ],
)
def test_wrong_input_is_one_line(arguments, expected, shards, tmp_path, capsys):
    # In this process: what the script does with a UserError is common.errors' matter, and tested there.
    from common.config import parse_config

    with pytest.raises(UserError) as error:
        config = parse_config(TrainConfig, ["--data-dir", str(shards), "--output-dir", str(tmp_path / "o"), *arguments])
        train(config, CPU)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_directory_of_another_run_is_refused(one_process, shards):
    result = run("pretrain/train.py", "--data-dir", shards, "--output-dir", one_process, "--seed=1", check=False)
    assert "different run" in one_line_error(result)


def test_no_resume_refuses_the_directory_of_this_run(shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run")
    train(config, CPU)
    config.resume = False
    with pytest.raises(UserError, match="without --no-resume"):
        train(config, CPU)


def test_resuming_on_other_data_is_refused(shards, tmp_path):
    train(tiny_config(shards, tmp_path / "run"), CPU)
    other = tiny_config(write_random_shards(tmp_path / "other", seed=1), tmp_path / "run")
    with pytest.raises(UserError, match="fingerprint"):
        train(other, CPU)


def test_compiled_training_equals_eager(shards, tmp_path):
    train(tiny_config(shards, tmp_path / "eager", max_steps=2, compile="off"), CPU)
    train(tiny_config(shards, tmp_path / "compiled", max_steps=2, compile="on"), CPU)
    eager, compiled = (load_checkpoint(latest_checkpoint(tmp_path / n))["model"] for n in ("eager", "compiled"))
    assert_same_state(eager, compiled, exact=False)


@pytest.mark.parametrize("key", ["eval.interval", "logging.interval", "training.batch_size", "model.n_head"])
def test_a_value_that_no_run_can_have_is_named(key, shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run")
    section, name = key.split(".")
    setattr(getattr(config, section), name, 0)
    with pytest.raises(UserError, match=f"{key} is 0"):
        train(config, CPU)


def test_resuming_with_another_micro_batch_goes_on(shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run", max_steps=4)
    config.checkpoint.interval = 2
    train(config, CPU)
    (tmp_path / "run" / "model_000004.pt").unlink()
    (tmp_path / "run" / "run.json").unlink()
    config.training.batch_size = 4
    train(config, CPU)
    whole = tiny_config(shards, tmp_path / "whole", max_steps=4)
    train(whole, CPU)
    resumed, straight = (load_checkpoint(tmp_path / name / "model_000004.pt")["model"] for name in ("run", "whole"))
    assert_same_state(resumed, straight, exact=False)


def test_a_log_row_that_a_kill_cut_short_does_not_stop_a_resume(shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run", max_steps=4)
    config.checkpoint.interval = 2
    train(config, CPU)
    expected = losses(tmp_path / "run")
    (tmp_path / "run" / "model_000004.pt").unlink()
    (tmp_path / "run" / "run.json").unlink()
    with open(tmp_path / "run" / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')
    train(config, CPU)
    assert losses(tmp_path / "run") == expected
