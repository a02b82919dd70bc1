"""What a run of days needs: kills, SIGTERM, full disks, spikes, retention, evaluations that change nothing."""

import json
import os
import random
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from common.config import parse_config
from common.distributed import World
from common.errors import UserError
from common.files import locked_directory, read_json, read_jsonl, write_jsonl
from pretrain.checkpoint import checkpoints, latest_checkpoint, load_checkpoint, prune_checkpoints
from pretrain.settings import SpikeConfig, TrainConfig
from pretrain.spikes import SpikeGuard
from pretrain.train import train
from tests.helpers import ROOT, TINY_TRAINING, run, start_process, write_random_shards
from tests.test_train import CPU, assert_same_state, losses, tiny_config


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_random_shards(tmp_path_factory.mktemp("shards"))


def parsed(arguments: list) -> TrainConfig:
    """The config of a command line, as pretrain/train.py reads it."""
    return parse_config(TrainConfig, [*map(str, arguments), "--device=cpu"])


def write_hellaswag(path: Path) -> Path:
    endings = ["sits on a mat.", "flies to the moon.", "reads a book.", "is a fish."]
    write_jsonl(path, [{"ind": i, "ctx": f"Cat {i}", "label": i % 4, "endings": endings} for i in range(6)])
    return path


# -- kills ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_nothing(kills, shards, tmp_path):
    """kill -9 while it trains and saves: it always resumes, and ends as a run that was never killed."""
    # Every step is saved, so that most kills meet a save; thousands of steps would be needed to be sure otherwise.
    steps = 4 * kills + 10
    config = tiny_config(shards, tmp_path / "killed", max_steps=steps)
    config.checkpoint.interval, config.checkpoint.keep_last = 1, 2
    rng, resumed_from = random.Random(0), []
    for _ in range(kills):
        before = latest_checkpoint(config.output_dir)
        process = start_process(train, config, CPU)
        # Wait until it has gone on by a step or so, then strike anywhere in the steps after that.
        deadline = time.time() + 60
        while latest_checkpoint(config.output_dir) == before and time.time() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join()
        found = latest_checkpoint(config.output_dir)
        resumed_from.append(load_checkpoint(found)["step"])  # what is there is whole
    assert resumed_from == sorted(resumed_from) and resumed_from[-1] < steps, "the kills came after the end"
    train(config, CPU)

    whole = tiny_config(shards, tmp_path / "whole", max_steps=steps)
    whole.checkpoint.interval, whole.checkpoint.keep_last = 1, 2
    train(whole, CPU)
    states = [load_checkpoint(c.output_dir / f"model_{steps:06}.pt") for c in (config, whole)]
    assert_same_state(*states)
    assert losses(config.output_dir) == losses(whole.output_dir)
    assert not list(config.output_dir.glob("*.partial")), "half-written checkpoints of killed processes stay"


def test_two_runs_in_one_directory_are_refused(shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run")
    train(config, CPU)
    with locked_directory(config.output_dir), pytest.raises(UserError, match="another process is writing"):
        train(config, CPU)


def test_sigterm_under_torchrun_saves_on_all_processes_at_one_step(shards, tmp_path):
    arguments = ["--data-dir", shards, *TINY_TRAINING, "--training.max-steps=400", "--output-dir", tmp_path / "run"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, "-u", *launcher, "pretrain/train.py", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("step      3/"):
            process.terminate()
            break
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "stopped by SIGTERM after step" in output
    state = load_checkpoint(latest_checkpoint(tmp_path / "run"))
    assert 3 <= state["step"] < 400 and state["loader"]["cursor"] == state["step"] * 4


def test_sigterm_saves_and_the_same_command_goes_on(shards, tmp_path, capsys):
    arguments = ["--data-dir", shards, *TINY_TRAINING, "--training.max-steps=40", "--output-dir"]
    command = [sys.executable, "-u", "pretrain/train.py", *map(str, [*arguments, tmp_path / "stopped"])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step      2/"):
            process.terminate()
            break
    rest = process.stdout.read()
    assert process.wait() == 143 and "stopped by SIGTERM after step" in rest, rest
    assert not (tmp_path / "stopped" / "run.json").exists()
    step = load_checkpoint(latest_checkpoint(tmp_path / "stopped"))["step"]
    assert 2 <= step < 40
    train(parsed([*arguments, tmp_path / "stopped"]), CPU)
    assert f"after step {step}" in capsys.readouterr().out

    train(parsed([*arguments, tmp_path / "whole"]), CPU)
    assert_same_state(*(load_checkpoint(tmp_path / name / "model_000040.pt") for name in ("stopped", "whole")))
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(shards, tmp_path, monkeypatch, capsys):
    from common.errors import run_script

    config = tiny_config(shards, tmp_path / "run", max_steps=4)
    config.checkpoint.interval = 2
    save, saves = torch.save, []

    def save_until_full(state, file):
        saves.append(state)
        if len(saves) == 1:
            save(state, file)
        else:
            with open("/dev/full", "wb") as full:  # a device on which every write finds the disk full
                save(state, full)

    monkeypatch.setattr(torch, "save", save_until_full)
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: train(config, CPU))
    assert stop.value.code == 2
    assert "no space left on the disk" in capsys.readouterr().err
    assert list(checkpoints(config.output_dir)) == [2] and not list(config.output_dir.glob("*.partial"))
    monkeypatch.setattr(torch, "save", save)
    train(config, CPU)
    assert (config.output_dir / "run.json").exists()


# -- retention --------------------------------------------------------------------------------------------------------
def test_the_last_and_every_mth_checkpoint_are_kept(shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run", max_steps=10)
    config.checkpoint.interval, config.checkpoint.keep_last, config.checkpoint.keep_every = 1, 2, 4
    train(config, CPU)
    assert list(checkpoints(config.output_dir)) == [4, 8, 9, 10]


def test_pruning_without_a_number_deletes_nothing_but_partial_files(tmp_path):
    for name in ("model_000001.pt", "model_000002.pt", "model_000010.pt", ".model_000011.pt.77.partial", "log.txt"):
        (tmp_path / name).write_bytes(b"x")
    prune_checkpoints(tmp_path, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "log.txt",
        "model_000001.pt",
        "model_000002.pt",
        "model_000010.pt",
    ]
    prune_checkpoints(tmp_path, 1, None)
    assert list(checkpoints(tmp_path)) == [10]


@pytest.mark.parametrize(("last", "every"), [(2, 3), (None, 4)])
def test_a_retention_that_contradicts_itself_is_refused(last, every, shards, tmp_path):
    config = tiny_config(shards, tmp_path / "run")
    config.checkpoint.interval, config.checkpoint.keep_last, config.checkpoint.keep_every = 2, last, every
    with pytest.raises(UserError, match="keep_every"):
        train(config, CPU)


# -- evaluations ------------------------------------------------------------------------------------------------------
def test_hellaswag_and_samples_in_the_loop_change_nothing(shards, tmp_path):
    plain = tiny_config(shards, tmp_path / "plain", max_steps=6)
    watched = tiny_config(shards, tmp_path / "watched", max_steps=6)
    watched.hellaswag.data_path, watched.hellaswag.interval = write_hellaswag(tmp_path / "hellaswag.jsonl"), 2
    watched.samples.interval, watched.samples.max_new_tokens = 3, 4
    for config in (plain, watched):
        config.checkpoint.interval = 6
        train(config, CPU)
    assert_same_state(*(load_checkpoint(c.output_dir / "model_000006.pt") for c in (plain, watched)))
    rows = read_jsonl(watched.output_dir / "log.jsonl")
    assert [row["step"] for row in rows if "hellaswag_acc_norm_token" in row] == [2, 4, 6]
    assert {row["hellaswag_items"] for row in rows if "hellaswag_items" in row} == {6}
    samples = read_jsonl(watched.output_dir / "samples.jsonl")
    assert [row["step"] for row in samples] == [3] * 6 + [6] * 6 and all(row["text"] for row in samples)
    assert (
        read_json(watched.output_dir / "results.json")["hellaswag_acc_norm_token"]
        == rows[-1]["hellaswag_acc_norm_token"]
    )


def test_two_processes_score_hellaswag_like_one(shards, tmp_path):
    items = write_hellaswag(tmp_path / "hellaswag.jsonl")
    arguments = ["--data-dir", shards, *TINY_TRAINING, "--training.max-steps=2", f"--hellaswag.data-path={items}"]
    arguments += ["--hellaswag.interval=2", "--samples.interval=2", "--output-dir"]
    train(parsed([*arguments, tmp_path / "1"]), CPU)
    run("pretrain/train.py", *arguments, tmp_path / "2", processes=2)
    one, two = ([r for r in losses(tmp_path / n) if "hellaswag_items" in r] for n in ("1", "2"))
    assert one == two
    assert len(read_jsonl(tmp_path / "2" / "samples.jsonl")) == 6, "one process writes the samples"


def test_a_world_that_does_not_divide_the_batch_is_one_line(shards, tmp_path):
    config = tiny_config(shards, tmp_path / "o", total_batch_size=32)
    with pytest.raises(UserError, match=r"training\.total_batch_size 32 is not a multiple of .* = 64"):
        train(config, World(rank=0, size=2, device=torch.device("cpu")))
    assert not (tmp_path / "o").exists()


# -- spikes -----------------------------------------------------------------------------------------------------------
def test_a_spike_is_far_above_its_window_and_needs_a_full_one():
    guard = SpikeGuard(SpikeConfig(action="skip", threshold=6.0, window=4))
    assert [guard.inspect(loss, 1.0 + 0.1 * loss) for loss in (3.0, 3.1, 2.9)] == [None] * 3
    assert guard.inspect(50.0, 1.3) is None, "three values are no window"
    assert guard.inspect(3.0, 1.3) is None
    for loss in (3.0, 3.1, 2.9, 3.05):
        guard.inspect(loss, 1.0 + 0.1 * loss)
    assert guard.inspect(3.1, 1.31) is None
    assert "loss 9" in guard.inspect(9.0, 1.31)
    assert "gradient norm 7" in guard.inspect(3.0, 7.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_a_spike_and_stays_out_of_the_window(value):
    guard = SpikeGuard(SpikeConfig(action="skip", window=2))
    for loss in (1.0, 1.1):
        guard.inspect(loss, 1.0)
    assert guard.inspect(value, 1.0) == f"loss {value}"
    assert guard.inspect(1.0, 1.0) is None and len(guard.windows["loss"]) == 2


def poison(shards: Path, directory: Path) -> Path:
    """Shards of one id whose 40th row is random: the loss falls to nothing and then jumps."""
    import numpy as np

    from data.shards import write_shard

    ids = np.full(1400, 11, dtype=np.uint16)
    ids[40 * 16 : 44 * 16] = np.random.default_rng(0).integers(0, 50257, 64)
    write_shard(directory / "train_00000.npy", ids)
    write_shard(directory / "val_00000.npy", ids[:200])
    return directory


@pytest.mark.parametrize("action", ["skip", "stop", "off"])
def test_the_guard_acts_on_a_poisoned_batch(action, shards, tmp_path):
    config = tiny_config(
        poison(shards, tmp_path / "data"), tmp_path / "run", max_steps=14, total_batch_size=64, max_lr=1e-2
    )
    config.spikes.action, config.spikes.window = action, 5
    config.checkpoint.interval = 1
    if action == "stop":
        with pytest.raises(UserError, match=r"step 11: loss .* stopped before the update.*model_000010.pt"):
            train(config, CPU)
        config.spikes.action = "skip"  # and so past it
        train(config, CPU)
        assert "skipped: loss" in (config.output_dir / "log.txt").read_text()
        return
    train(config, CPU)
    moved = {}
    for step in (9, 10):
        a, b = (
            load_checkpoint(config.output_dir / f"model_{s:06d}.pt")["model"]["wte.weight"] for s in (step, step + 1)
        )
        moved[step + 1] = not torch.equal(a, b)
    assert moved == {10: True, 11: action == "off"}
    assert ("skipped: loss" in (config.output_dir / "log.txt").read_text()) == (action == "skip")


def test_the_guards_windows_are_part_of_a_checkpoint():
    guard, resumed = (SpikeGuard(SpikeConfig(action="skip", window=3)) for _ in range(2))
    for loss in (1.0, 1.1, 1.0, 1.2):
        guard.inspect(loss, loss)
    resumed.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert resumed.inspect(9.0, 1.0) == guard.inspect(9.0, 1.0) is not None


# -- trackers ---------------------------------------------------------------------------------------------------------
def test_a_tracker_that_is_not_installed_is_one_line(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = tiny_config(shards, tmp_path / "run")
    config.logging.tracker = "wandb"
    with pytest.raises(UserError, match="wandb, which is not installed"):
        train(config, CPU)


def test_a_tracker_gets_the_rows_of_the_log(shards, tmp_path, monkeypatch):
    rows, runs = [], []

    class Run:
        def log(self, values, step):
            rows.append({"step": step} | values)

    class Wandb:
        @staticmethod
        def init(**arguments):
            runs.append(arguments["id"])
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    config = tiny_config(shards, tmp_path / "run", max_steps=2)
    config.logging.tracker = "wandb"
    train(config, CPU)
    known = [{k: v for k, v in row.items() if v is not None} for row in read_jsonl(config.output_dir / "log.jsonl")]
    assert rows == known and [row["step"] for row in rows] == [1, 2, 2]
    train(config, CPU)
    assert len(runs) == 2 and runs[0] == runs[1], "a resumed run goes on in the same curves"


def test_tensorboard_gets_the_rows_of_the_log(shards, tmp_path, monkeypatch):
    rows, purged = [], []

    class SummaryWriter:
        def __init__(self, directory, purge_step):
            purged.append(purge_step)

        def add_text(self, name, text): ...

        def add_scalar(self, name, value, step):
            rows.append((name, value, step))

        def flush(self): ...

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    config = tiny_config(shards, tmp_path / "run", max_steps=2)
    config.logging.tracker = "tensorboard"
    train(config, CPU)
    logged = read_jsonl(config.output_dir / "log.jsonl")
    assert [("loss", row["loss"], row["step"]) for row in logged if "loss" in row] == [
        r for r in rows if r[0] == "loss"
    ]
    train(config, CPU)
    assert purged == [None, 3]
