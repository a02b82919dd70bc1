"""run_study.sh: its order, jobs and locks, with stages that run no Python; disks that are full or cannot be written."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers import ROOT, one_line_error
from tokenizer.mul_facts import CONDITIONS

needs_uv = pytest.mark.skipif(shutil.which("uv") is None, reason="run_study.sh runs its stages with uv")

# ---- the driver, with stages that only leave behind what they end with

# `uv`, as the driver calls it. LOG gets a line per stage; STUDY is a settings file, printed in study.py's place.
UV = r"""#!/usr/bin/env bash
case "$*" in
    sync*) exit ;;
    *" -u -c "*) cat && exit ;; # labels
    *scripts/study.py*) cat "$STUDY" && exit ;;
esac
shift 3
echo "$@" >>"$LOG"
[[ -z ${FAIL:-} || "$*" != *$FAIL* ]] || exit 1
out="" condition=""
for ((i = 1; i <= $#; i++)); do
    next=$((i + 1))
    case "${!i}" in --output-dir | --out-dir) out=${!next} ;; --condition) condition=${!next} ;; esac
done
mkdir -p "$out"
case "$1" in
    data/prepare_text.py) touch "$out/${condition}_stats.json" ;;
    data/tokenize_to_bin.py) touch "$out/meta.json" ;;
    data/prepare_reasoning.py) touch "$out/stats.json" ;;
    sft/*) touch "$out/sft_results.json" "$out/run.json" ;;
    rl/*) touch "$out/grpo_results.json" "$out/run.json" ;;
    edit/run_memit.py) touch "$out/memit_results.json" "$out/run.json" ;;
    edit/run_edit_eval.py) touch "$out/run_edit_eval.json" ;;
    eval/run_arithmetic_probes.py) touch "$out/run_probes.json" ;;
    eval/run_*) name=${1##*/} && touch "$out/${name%.py}.json" ;;
    scripts/compare_runs.py) touch "$out/comparison.json" ;;
    scripts/report*) touch "$out/study.json" ;;
    *) touch "$out/run.json" ;;
esac
"""
SETTINGS = "size=quick\ndata_seed=0\ngsm8k=''\ntext=''\ndescription=toy\nbuilds_on=''\nseeds=(0 1)"


class Driver:
    """A checkout with the driver alone, and a `uv` that runs no Python."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.out = root, root / "log", root / "out"
        for folder in ("scripts", "pretrain", "sft", "rl", "edit"):
            (root / folder).mkdir()
        for name in ("run_study.sh", "run_demo.sh", "setup.sh", "stages.sh", "pipeline.sh", "slurm_study.sh"):
            shutil.copy(ROOT / "scripts" / name, root / "scripts")
        for config in ("pretrain/quick", "sft/quick", "sft/quick_reasoning", "rl/quick", "edit/demo"):
            folder, name = config.split("/")
            (root / folder / "configs").mkdir(exist_ok=True)
            (root / folder / "configs" / f"{name}.yaml").touch()
        (root / "edit/facts.json").touch()
        for folder in ("bin", ".venv"):
            (root / folder).mkdir()
        self.command("uv", UV)
        self.settings = root / "settings"
        self.settings.write_text(SETTINGS)
        self.environment = os.environ | {"PATH": f"{root}/bin:{os.environ['PATH']}"}
        self.environment |= {"STUDY": str(self.settings), "LOG": str(self.log)}

    def command(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def __call__(self, *arguments: object, script: str = "run_study.sh", **more: str) -> subprocess.CompletedProcess:
        config = [] if script == "run_demo.sh" else ["toy.yaml"]
        command = ["bash", f"scripts/{script}", *config, *map(str, arguments)]
        environment = self.environment | more
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=120)

    def stages(self) -> list[str]:
        """The scripts that were called, each with its seed's folder, in order; the log starts anew."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        found = []
        for line in lines:
            seed = re.search(r"seed_\d", line.split("--seeds")[0])
            condition = next((c for c in CONDITIONS if f"_{c}" in line or f"--condition {c}" in line), "")
            condition = "" if "scripts/" in line else condition
            found.append(" ".join(filter(None, [line.split()[0], seed[0] if seed else "", condition])))
        return found


@pytest.fixture
def driver(tmp_path) -> Driver:
    root = tmp_path / "checkout"
    root.mkdir()
    return Driver(root)


def test_the_main_result_of_all_seeds_comes_before_grpo_and_editing(driver):
    result = driver("--output-dir", driver.out)
    assert result.returncode == 0, result.stdout + result.stderr
    stages = driver.stages()
    reports = [i for i, stage in enumerate(stages) if stage.startswith("scripts/report")]
    assert len(reports) == 2 and reports[1] == len(stages) - 1
    early, late = stages[: reports[0]], stages[reports[0] :]
    for seed in ("seed_0", "seed_1"):
        for condition in CONDITIONS:
            assert f"eval/run_arithmetic_probes.py {seed} {condition}" in early
            assert f"rl/grpo_train.py {seed} {condition}" in late and f"edit/run_memit.py {seed} {condition}" in late
        for part in (early, late):
            assert part.count(f"scripts/compare_runs.py {seed}") == 1, "each part ends with the seed's own report"
    assert not any(stage.startswith(("rl/", "edit/")) for stage in early)


def test_a_second_call_makes_reports_and_nothing_else(driver):
    driver("--output-dir", driver.out)
    driver.stages()
    result = driver("--output-dir", driver.out)
    assert result.returncode == 0 and "complete, skipped" in result.stdout
    reports = [stage.split("/")[1].split("_")[0].split(".")[0] for stage in driver.stages()]
    assert reports == ["compare", "compare", "report"], "once, although they come in two parts"


def test_jobs_are_one_per_condition_and_seed_and_the_reports(driver):
    (driver.root / ".venv").rmdir()  # what is said about making it must not pass for a job
    result = driver("--output-dir", driver.out, "--print-jobs")
    jobs = result.stdout.splitlines()
    assert len(jobs) == 5 and not driver.out.exists()
    seeds_and_conditions = [f"--only-seed {seed} --only-condition {c}" for seed in (0, 1) for c in CONDITIONS]
    assert [
        job.strip()[-len(end) :] for job, end in zip(jobs, seeds_and_conditions, strict=False)
    ] == seeds_and_conditions
    for number, job in enumerate(jobs):
        done = subprocess.run(job, shell=True, cwd=driver.root, env=driver.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        stages = driver.stages()
        if number < 4:
            others = CONDITIONS[1 - number % 2]
            assert "rl/grpo_train.py" in " ".join(stages) and not any(others in stage for stage in stages)
            assert not any(stage.startswith("scripts/") for stage in stages), "no report where half is missing"
    assert [stage for stage in stages if not stage.startswith("scripts/")] == [], "the last one finds everything there"
    assert len(stages) == 3


def test_both_conditions_of_a_seed_may_run_at_once_but_none_twice(driver):
    folder = driver.out / "seed_0"
    folder.mkdir(parents=True)
    only = ["--output-dir", driver.out, "--only-seed", 0, "--only-condition"]
    with open(folder / ".lock_baseline", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in ([*only, "baseline"], ["--output-dir", driver.out]):
            result = driver(*arguments)
            assert result.returncode == 2 and result.stderr.count("\n") == 1
            assert "another run is writing in" in result.stderr and driver.stages() == []
        assert driver(*only, "mul_tokens").returncode == 0


def test_the_last_seed_is_claimed_before_the_first_one_runs(driver):
    folder = driver.out / "seed_1"
    folder.mkdir(parents=True)
    with open(folder / ".lock_mul_tokens", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert driver("--output-dir", driver.out).returncode == 2 and driver.stages() == []


def test_a_stage_that_fails_ends_the_study_and_the_next_call_goes_on_there(driver):
    result = driver("--output-dir", driver.out, FAIL="sft_gsm8k.py --force --inject-mul-tokens")
    assert result.returncode == 1 and "scripts/compare_runs.py" not in " ".join(driver.stages())
    assert driver("--output-dir", driver.out).returncode == 0
    stages = driver.stages()
    assert "pretrain/train.py seed_0 mul_tokens" not in stages and "sft/sft_gsm8k.py seed_0 mul_tokens" in stages


def test_other_settings_do_not_reuse_the_folder(driver):
    driver("--output-dir", driver.out)
    driver.settings.write_text(SETTINGS + "\nflags_grpo_baseline=x")
    result = driver("--output-dir", driver.out)
    assert result.returncode == 2 and "give another --output-dir" in result.stderr
    driver.settings.write_text(SETTINGS.replace("builds_on=''", "builds_on=elsewhere"))
    driver.stages()
    assert driver("--output-dir", driver.out).returncode == 0, "where it was taken from is no other study"
    assert driver.log.read_text().count("take_stages.py --study elsewhere/seed_") == 2


def test_drills_are_a_stage_only_where_they_are_asked_for(driver):
    flags = "".join(f"\nflags_drills_{c}='--num-drills 7'\nflags_sft_{c}='--a \"b c\"'" for c in CONDITIONS)
    driver.settings.write_text(SETTINGS + flags)
    driver("--output-dir", driver.out, "--only-seed", 0)
    lines = [line for line in driver.log.read_text().splitlines() if line.startswith("sft/")]
    drills = [line for line in lines if line.startswith("sft/sft_drills.py")]
    assert len(drills) == 2 and all(line.endswith("--num-drills 7") for line in drills)
    sft = [line for line in lines if line.startswith("sft/sft_gsm8k.py")]
    assert all(
        "--model-path " + str(driver.out / "seed_0/drills_") in line and line.endswith("--a b c") for line in sft
    )
    compared = next(line for line in driver.log.read_text().splitlines() if "compare_runs" in line)
    assert "drills_baseline" in compared and "drills_mul_tokens" in compared


def test_token_families_are_those_of_text_and_shards(driver):
    driver.settings.write_text(SETTINGS + "\nfamilies=mul+digits")
    driver("--output-dir", driver.out, "--only-seed", 0)
    lines = driver.log.read_text().splitlines()
    asked = [line for line in lines if "--families mul+digits" in line]
    assert asked == [line for line in lines if line.startswith(("data/prepare_text.py", "data/tokenize_to_bin.py"))]


def test_size_10b_is_run_10b_for_each_seed(driver):
    (driver.root / "scripts/run_10b.sh").write_text('echo "10b $*"; exit 3')
    driver.settings.write_text(SETTINGS.replace("quick", "10b"))
    result = driver("--output-dir", driver.out, "--", "--dry-run", "--allow-cpu")
    lines = [line for line in result.stdout.splitlines() if line.startswith("10b")]
    assert result.returncode == 0
    assert lines == [
        f"10b --seed {seed} --data-seed 0 --output-root {driver.out}/seed_{seed} --dry-run --allow-cpu"
        for seed in (0, 1)
    ]
    result = driver("--output-dir", driver.out, "--only-seed", 1, "--only-condition", "baseline")
    assert result.stdout == f"10b --seed 1 --data-seed 0 --output-root {driver.out}/seed_1 --skip-mul-tokens\n"
    driver.settings.write_text(SETTINGS)
    assert "for studies of size 10b" in driver("--", "--dry-run").stderr


def test_the_demo_is_the_same_pipeline_and_can_be_forced(driver):
    def demo(*arguments: str) -> subprocess.CompletedProcess:
        return driver("--quick", "--output-dir", driver.out, *arguments, script="run_demo.sh")

    assert demo().returncode == 0
    stages = driver.stages()
    assert len(stages) == 30 and stages[-1] == "scripts/compare_runs.py" and "run_domains" not in str(stages)
    assert demo().stdout.count("complete, skipped") == 29
    driver.stages()
    forced = demo("--force")
    assert forced.returncode == 0 and sorted(driver.stages()) == sorted(stages), forced.stderr
    with open(driver.out / ".lock_baseline", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is writing in" in one_line_error(demo("--force"))


@pytest.mark.parametrize(
    "arguments",
    [["--quik"], ["--only-condition", "both"], ["--only-seed", "9"], ["--only-seed"], ["--output-dir"]],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line(driver, arguments):
    result = driver(*arguments)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")


SBATCH = """#!/usr/bin/env bash
echo "$@" >>submitted
[[ $1 != --parsable ]] || echo 4321
"""


def test_on_slurm_the_jobs_are_an_array_and_the_reports_wait_for_it(driver):
    driver.command("sbatch", SBATCH)
    result = driver("--output-dir", driver.out, script="slurm_study.sh")
    assert result.returncode == 0, result.stderr
    array, reports = (driver.root / "submitted").read_text().splitlines()
    assert "--array=1-4" in array and "--dependency=afterok:4321" in reports
    job = {"SLURM_SUBMIT_DIR": str(driver.root), "SLURM_JOB_ID": "1"}
    driver("--output-dir", driver.out, script="slurm_study.sh", SLURM_ARRAY_TASK_ID="2", **job)
    stages = driver.stages()
    assert "rl/grpo_train.py seed_0 mul_tokens" in stages and not any("baseline" in stage for stage in stages)
    driver("--output-dir", driver.out, script="slurm_study.sh", **job)
    assert driver.stages()[-1].startswith("scripts/report")


def test_a_condition_whose_script_was_killed_ends_with_its_stage(tmp_path):
    script = """
source scripts/setup.sh; source scripts/stages.sh
uv() { shift 2; "$@"; }
out=$1 dry_run=no
mkdir -p "$out/logs"
(
    stage one "" bash -c "touch $out/begun; sleep 1"
    stage two "" touch "$out/two"
    touch "$out/after"
) >"$out/output" 2>&1 &
until [[ -e $out/begun ]]; do sleep 0.1; done
kill -9 $$"""
    subprocess.run(["bash", "-c", script, "bash", str(tmp_path)], cwd=ROOT, timeout=120)
    deadline = time.time() + 60
    while "[one] done" not in (tmp_path / "output").read_text() and time.time() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    assert "[one] done" in (tmp_path / "output").read_text()
    assert not (tmp_path / "two").exists() and not (tmp_path / "after").exists()


# ---- a disk that is full, or cannot be written


@contextmanager
def small_disk(folder: Path, size: str):
    """A file system of its own at `folder`. Skips the test where none can be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_folder_that_cannot_be_written_is_one_line(driver, tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        result = driver("--output-dir", disk / "study")
        assert result.returncode == 2 and driver.stages() == []
        assert result.stderr == f"error: cannot write to {disk}/study/seed_0: Read-only file system\n"
    (tmp_path / "file").touch()
    result = driver("--output-dir", tmp_path / "file")
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and "Not a directory" in result.stderr


def test_a_full_disk_is_one_line_before_anything_runs(driver, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "filler").write_bytes(bytes(64 * 1024))
        result = driver("--output-dir", disk / "study")
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert "cannot write to" in result.stderr and "No space left on device" in result.stderr


WRITERS = {
    "safetensors": "from safetensors.numpy import save_file; save_file({'a': numpy.zeros(10**6)}, partial)",
    "torch": "import torch; torch.save(torch.zeros(10**6), partial)",
    "numpy": "numpy.save(open(partial, 'wb'), numpy.zeros(10**6))",
    "python": "partial.write_bytes(bytes(10**7))",
}
SCRIPT = """
import numpy, sys
from common.errors import run_script
from common.files import atomic_path
def main():
    with atomic_path(sys.argv[1]) as partial:
        {}
run_script(main)"""


@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_library_meets_the_full_disk_it_is_one_line(tmp_path, writer):
    with small_disk(tmp_path / "disk", "1m") as disk:
        command = [sys.executable, "-c", SCRIPT.format(WRITERS[writer]), str(disk / "file")]
        error = one_line_error(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120))
        assert error.startswith("error: no space left on the disk") and not list(disk.iterdir())


@needs_uv
def test_a_disk_that_fills_up_ends_the_stage_and_loses_nothing(tmp_path):
    config = tmp_path / "toy.yaml"
    config.write_text("size: quick\nseeds: [0]\n")
    with small_disk(tmp_path / "disk", "700k") as disk:
        command = ["bash", "scripts/run_study.sh", str(config), "--output-dir", str(disk / "study")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert result.returncode == 2, result.stdout + result.stderr
        assert "[text baseline] error: no space left on the disk" in result.stdout
        assert "Traceback" not in result.stdout + result.stderr
        raw = disk / "study/seed_0/raw"
        assert not (raw / "baseline_stats.json").exists(), "what says that the text is complete"
        assert not [path for path in raw.rglob("*") if "partial" in path.name]
