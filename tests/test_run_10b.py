"""run_10b.sh: its plan and checks, what a dry run prints, and what SIGTERM does to a stage and to a SLURM job."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.config import config_from_yaml
from common.errors import UserError
from common.files import write_json
from pretrain.checkpoint import checkpoint_path, prune_checkpoints
from pretrain.settings import CheckpointConfig, TrainConfig, TrainingConfig
from scripts import plan_run
from tests.helpers import ROOT, one_line_error
from tokenizer.mul_facts import CONDITIONS

needs_uv = pytest.mark.skipif(shutil.which("uv") is None, reason="run_10b.sh runs its stages with uv")
TINY_BUDGET = 100 * 512  # of pretrain/configs/tiny.yaml


def plan(monkeypatch, tmp_path: Path, *arguments: object, config: str = "tiny", allow_cpu: bool = True) -> None:
    roots = ["--data-root", tmp_path / "data", "--output-root", tmp_path / "out"]
    flags = ["--pretrain-config", ROOT / f"pretrain/configs/{config}.yaml", *roots, *(["--allow-cpu"] * allow_cpu)]
    monkeypatch.setattr("sys.argv", ["plan_run.py", *map(str, [*flags, *arguments])])
    plan_run.main()


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def write_meta(data_root: Path, tokens: int) -> None:
    for condition in CONDITIONS:
        write_json(data_root / condition / "meta.json", {"splits": {"train": {"tokens": tokens}}})


# ---- the plan


def test_time_and_cost_follow_from_the_assumptions(monkeypatch, tmp_path, capsys):
    plan(monkeypatch, tmp_path, "--gpus=8", "--gpu=H100", "--price-per-gpu-hour=2", config="gpt2_124m")
    out = capsys.readouterr().out
    tokens = 19_073 * 524_288
    flops = 6 * (124_510_464 - 1024 * 768) + 12 * 12 * 768 * 1024
    speed = 0.40 * 989e12 * 8 / flops
    hours = 2 * tokens / speed / 3600
    assert f"{tokens:,} per condition" in out
    assert f"{hours * 60:.1f} minutes at {speed:,.0f} tokens/s, an assumption: 40% of 989 TFLOP/s" in out
    assert f"{hours * 8:.1f} GPU-hours, ${hours * 16:.0f} at $2.00" in out
    assert "disk" not in out  # another machine's


def test_a_measured_speed_replaces_the_assumption(monkeypatch, tmp_path, capsys):
    plan(monkeypatch, tmp_path, "--tokens-per-second=512", "--conditions", "baseline")
    assert "pretraining 100 seconds at 512 tokens/s" in capsys.readouterr().out


def test_without_a_gpu_it_says_how_long_this_cpu_takes(monkeypatch, tmp_path):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(UserError, match=r"1,650\.\d days; give --allow-cpu"):
        plan(monkeypatch, tmp_path, config="gpt2_124m", allow_cpu=False)


def test_a_gpu_of_unknown_peak_needs_the_speed(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="--tokens-per-second"):
        plan(monkeypatch, tmp_path, "--gpus=1", "--gpu=RTX 9999")


def test_gpus_without_their_name_are_those_of_this_machine(monkeypatch, tmp_path, capsys):
    """As scripts/slurm_10b.sh asks: all nodes' GPUs, of the kind that is here."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**15))
    plan(monkeypatch, tmp_path, "--gpus=4", config="gpt2_124m")
    assert "40% of 989 TFLOP/s" in capsys.readouterr().out


def test_what_an_interrupted_data_stage_has_written_is_not_asked_for_again(monkeypatch, tmp_path, capsys):
    def needed():
        plan(monkeypatch, tmp_path, "--target-tokens=1000000000", "--conditions", "baseline")
        return float(re.search(r"disk: ([\d.]+) GB needed", capsys.readouterr().out)[1])

    before = needed()
    path = tmp_path / "data/baseline/train_00000.npy"
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, 1_000_000_000)
    assert needed() == pytest.approx(before - 1.0, abs=0.11)


def test_a_batch_that_the_gpus_cannot_share_is_found_before_the_data_is_made(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="total_batch_size 524288 is not a multiple"):
        plan(monkeypatch, tmp_path, "--gpus=6", "--gpu=H100", config="gpt2_124m")


def test_too_few_tokens_to_prepare_and_the_number_that_is_enough(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"give --target-tokens \d+") as error:
        plan(monkeypatch, tmp_path, f"--target-tokens={TINY_BUDGET}")
    enough = str(error.value).split("--target-tokens ")[-1].split()[0]
    plan(monkeypatch, tmp_path, "--target-tokens", enough)


def test_the_tokens_of_shards_that_are_there_count(monkeypatch, tmp_path):
    write_meta(tmp_path / "data", TINY_BUDGET)  # one short: the last target is a token further
    with pytest.raises(UserError, match=r"51,200 to be read, 51,199 in .*baseline; lower training\.max_steps"):
        plan(monkeypatch, tmp_path, "--target-tokens=999999")
    write_meta(tmp_path / "data", TINY_BUDGET + 1)
    plan(monkeypatch, tmp_path, "--skip-data", "--target-tokens=1")


def test_skip_data_needs_the_shards(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"--skip-data, but .*meta\.json is not there"):
        plan(monkeypatch, tmp_path, "--skip-data")


def test_disk_space_is_that_of_shards_and_checkpoints(monkeypatch, tmp_path):
    parameters = plan_run.GPT(plan_run.GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=128)).num_parameters()
    # Of each condition: shards, 2% of them for validation; 2 checkpoints that stay, one that is being written and 2 of
    # SFT; two model directories.
    needed = 2 * (2 * 1_020_000 + parameters * (12 * 5 + 4 * 2))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, needed))
    plan(monkeypatch, tmp_path, "--target-tokens=1000000")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, needed - 1))
    with pytest.raises(UserError, match="GB needed"):
        plan(monkeypatch, tmp_path, "--target-tokens=1000000")


@pytest.mark.parametrize(("keep_last", "keep_every"), [(None, None), (1, None), (3, None), (2, 30), (9, 20)])
def test_the_checkpoints_counted_are_those_that_training_leaves(tmp_path, keep_last, keep_every):
    checkpoint = CheckpointConfig(interval=10, keep_last=keep_last, keep_every=keep_every)
    config = TrainConfig(training=TrainingConfig(max_steps=125), checkpoint=checkpoint)
    for step in [*range(10, 125, 10), 125]:
        checkpoint_path(tmp_path, step).touch()
        prune_checkpoints(tmp_path, keep_last, keep_every)
    assert plan_run.checkpoints_kept(config) == len(list(tmp_path.glob("model_*.pt")))


# ---- the script


def run_10b(*arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", "scripts/run_10b.sh", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@needs_uv
def test_a_dry_run_prints_every_command_and_runs_none(tmp_path):
    roots = ["--data-root", tmp_path / "data", "--output-root", tmp_path / "out"]
    result = run_10b("--dry-run", "--allow-cpu", "--seed", 3, "--config", "pretrain/configs/tiny.yaml", *roots)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
    stages = [line.split("]")[0][1:] for line in result.stdout.splitlines() if line.startswith("[")]
    per_condition = ("pretrain", "export", "checkpoints", "hellaswag", "sft", "gsm8k", "probes")
    expected = [*(f"data {condition}" for condition in CONDITIONS), "contamination"]
    expected += [f"{stage} {condition}" for condition in CONDITIONS for stage in per_condition]
    assert stages == [*expected, "report", "report", "report"]
    assert "check ok     disk" in result.stdout
    commands = {line.split("]")[0][1:]: line for line in result.stdout.splitlines() if line.startswith("[")}
    assert f"--target-tokens {TINY_BUDGET + 1} " in commands["data baseline"]
    assert f"--output-dir {tmp_path}/out/pretrain_mul_tokens" in commands["pretrain mul_tokens"]
    assert "--inject-mul-tokens" in commands["sft mul_tokens"] and "inject" not in commands["sft baseline"]
    # The two conditions' commands differ in the condition and the injection only.
    for stage in ("data", *per_condition):
        as_baseline = commands[f"{stage} mul_tokens"].replace(" --inject-mul-tokens", "")
        assert as_baseline.replace("mul_tokens", "baseline") == commands[f"{stage} baseline"]


@needs_uv
def test_what_a_dry_run_cannot_start_is_one_line(tmp_path):
    roots = ["--data-root", tmp_path / "data", "--output-root", tmp_path / "out"]
    result = run_10b("--dry-run", "--allow-cpu", "--skip-baseline", "--skip-data", *roots)
    assert "--skip-data, but" in one_line_error(result)
    assert "[pretrain mul_tokens]" in result.stdout and "[pretrain baseline]" not in result.stdout
    assert "[data" not in result.stdout and "no comparison: only mul_tokens is there" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--dry-runs"], ["--seed"], ["tiny"], ["--skip-baseline", "--skip-mul-tokens"], ["--config", "nowhere.yaml"]],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line(arguments):
    assert one_line_error(run_10b(*arguments))


def test_both_configs_named_by_default_exist():
    text = (ROOT / "scripts/run_10b.sh").read_text()
    assert "config=pretrain/configs/gpt2_124m.yaml" in text and "sft_config=sft/configs/gsm8k.yaml" in text
    config = config_from_yaml(TrainConfig, ROOT / "pretrain/configs/gpt2_124m.yaml")
    assert config.training.max_steps * config.training.total_batch_size == 9_999_745_024


# ---- SIGTERM

STAGE = """
set -euo pipefail
source scripts/setup.sh
source scripts/stages.sh
trap 'exit 143' TERM
out=$1 dry_run=no
mkdir -p "$out/logs"
stage training "$out/run.json" python -u -c "
import signal, sys, time
def save(*_):
    time.sleep(0.5)
    print('saved')
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print('started')
time.sleep(60)"
echo "not reached"
"""


@needs_uv
def test_sigterm_lets_a_stage_save_and_keeps_its_last_words(tmp_path):
    command = ["bash", "-c", STAGE, "bash", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert "started" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(timeout=120) == 143
    assert "[training] saved" in rest and "not reached" not in rest
    assert (tmp_path / "logs/training.log").read_text() == "started\nsaved\n"


@pytest.fixture
def cluster(tmp_path) -> dict[str, str]:
    """A submit folder whose run_10b.sh waits for SIGTERM, or fails, and the commands that SLURM brings."""
    files = {
        "scripts/run_10b.sh": '[[ $* == *fail* ]] && exit 2; trap "sleep 1; exit 143" TERM; echo "$@"; sleep 30 & wait',
        "bin/scontrol": '[[ $1 == show ]] && printf "node7\\nnode8\\n" || echo "$@" >>requeued',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "4321", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    return os.environ | job | {"SLURM_JOB_NODELIST": "node[7-8]", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def test_a_slurm_job_goes_back_to_the_queue_after_sigterm(cluster, tmp_path):
    command = ["bash", str(ROOT / "scripts/slurm_10b.sh"), "--seed", "1"]
    process = subprocess.Popen(command, env=cluster, stdout=subprocess.PIPE, text=True)
    arguments = process.stdout.readline()
    assert "--nnodes=2 --nproc_per_node=8" in arguments and "--rdzv_endpoint=node7:24321" in arguments
    assert arguments.startswith("--skip-data") and arguments.endswith("--gpus 16 --seed 1\n")
    time.sleep(0.5)  # until it knows the number of the run that printed this
    process.send_signal(signal.SIGTERM)  # as `--signal=B:TERM` does: to the batch shell alone
    assert process.wait(timeout=120) == 143
    assert (tmp_path / "requeued").read_text() == "requeue 4321\n"


def test_a_slurm_job_that_fails_stays_failed(cluster, tmp_path):
    command = ["bash", str(ROOT / "scripts/slurm_10b.sh"), "--fail", "yes"]
    assert subprocess.run(command, env=cluster, capture_output=True, timeout=120).returncode == 2
    assert not (tmp_path / "requeued").exists()
