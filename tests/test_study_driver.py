"""The driver of a study: settings, jobs, order, what an ablation takes over, and what kills and full disks do to it."""

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from common.config import config_from_yaml, parse_config
from common.errors import UserError
from common.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from data import prepare_text
from eval import responses, run_arithmetic_probes, run_gsm8k
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from pretrain.settings import TrainConfig
from rl.settings import GRPOConfig
from scripts import compare_runs, compare_studies, report_plots, study, take_stages
from scripts.study_numbers import load_seeds, study_numbers
from sft import sft_drills, sft_gsm8k, sft_reasoning
from sft.embeddings import unseen_tokens
from tests.helpers import ROOT, one_line_error
from tests.stage_directories import make_stages
from tokenizer.mul_facts import CONDITIONS, FIRST_MUL_ID, Condition

needs_uv = pytest.mark.skipif(shutil.which("uv") is None, reason="run_study.sh runs its stages with uv")
CONFIGS = ROOT / "scripts/configs"
ABLATIONS = sorted(CONFIGS.glob("ablation_*.yaml"))


@pytest.fixture
def call(monkeypatch):
    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        script.main()

    return run


# ---- settings


def write_config(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_of_both_conditions_and_of_mul_tokens_alone(tmp_path, call, capsys):
    text = "flags: {grpo: --training.iterations 3, sft: '--output-dir \"a b\"'}\nmul_tokens_flags: {sft: --no-inject-x}"
    call(study, "--config", write_config(tmp_path / "config.yaml", text))
    lines = capsys.readouterr().out.splitlines()
    assert "flags_grpo_baseline='--training.iterations 3'" in lines
    assert "flags_grpo_mul_tokens='--training.iterations 3'" in lines
    words = subprocess.run(
        [
            "bash",
            "-c",
            'eval "$1"; eval "more=($flags_sft_mul_tokens)"; printf "%s|" "${more[@]}"',
            "",
            "\n".join(lines),
        ],
        capture_output=True,
        text=True,
    ).stdout
    assert words == "--output-dir|a b|--no-inject-x|", "spaces survive both shells"
    assert any(line.startswith("description=") and "in mul_tokens sft --no-inject-x" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mul_tokens_flags: {pretrain: --training.max-steps 5}", "--training.max-steps is no flag of injection"),
        ('flags: {sft: "--x \'open"}', "quotation"),
        ("size: 10b\nflags: {grpo: --training.iterations 3}", "10b has no flags"),
        ("size: 10b\nbuilds_on: outputs/x", "has no builds_on"),
    ],
)
def test_settings_that_cannot_be(tmp_path, call, text, message):
    with pytest.raises(UserError, match=message):
        call(study, "--config", write_config(tmp_path / "config.yaml", text))


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_is_the_main_study_but_for_what_it_changes(path):
    main, ablation = (config_from_yaml(study.StudyConfig, p) for p in (CONFIGS / "study_cpu.yaml", path))
    same = ("size", "seeds", "data_seed", "gsm8k", "text")
    assert [getattr(main, key) for key in same] == [getattr(ablation, key) for key in same]
    assert ablation.builds_on == "outputs/study_cpu"
    study.check_injection(study.split_flags(ablation.mul_tokens_flags))
    shared, changed = study.split_flags(main.flags), study.split_flags(ablation.flags)
    for stage, words in shared.items():
        assert changed[stage][: len(words)] == words, "what the main study says comes first, or nothing is taken over"
    assert changed != shared or study.split_flags(ablation.mul_tokens_flags)
    # Every argument is one that the stage knows.
    classes = {"text": prepare_text.PrepareTextConfig, "pretrain": TrainConfig, "grpo": GRPOConfig}
    classes |= {"drills": sft_drills.Config, "sft": sft_gsm8k.Config, "reasoning": sft_reasoning.Config}
    classes |= {"problems": run_gsm8k.GSM8KConfig, "probes": run_arithmetic_probes.ProbesConfig}
    for flags in (ablation.flags, ablation.mul_tokens_flags):
        for stage, words in study.split_flags(flags).items():
            before = ["--condition", "mul_tokens"]
            before += ["--model-path", "x"] if stage in ("problems", "probes") else []
            before += ["--inject-mul-tokens"] if stage in ("sft", "reasoning") else []
            config = parse_config(classes[stage], [*before, *words])
            if "--no-inject-mul-tokens" in words:
                assert not config.inject_mul_tokens


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
(stage one "" bash -c 'sleep 1' ; stage two "" touch "$out/two"; touch "$out/after") >"$out/output" 2>&1 &
sleep 0.3
kill -9 $$"""
    subprocess.run(["bash", "-c", script, "bash", str(tmp_path)], cwd=ROOT, timeout=20)
    deadline = time.time() + 10
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


@needs_uv
def test_a_disk_that_fills_up_ends_the_stage_and_loses_nothing(tmp_path):
    config = write_config(tmp_path / "toy.yaml", "size: quick\nseeds: [0]\n")
    with small_disk(tmp_path / "disk", "700k") as disk:
        command = ["bash", "scripts/run_study.sh", str(config), "--output-dir", str(disk / "study")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert result.returncode == 2, result.stdout + result.stderr
        assert "[text baseline] error: no space left on the disk" in result.stdout
        assert "Traceback" not in result.stdout + result.stderr
        raw = disk / "study/seed_0/raw"
        assert not (raw / "baseline_stats.json").exists(), "what says that the text is complete"
        assert not [path for path in raw.rglob("*") if "partial" in path.name]


# ---- what an ablation takes over

ARGUMENTS = {"size": "demo", "data_seed": "0", "gsm8k": "''", "text": "''", "description": "'a b'"}


def make_seed(folder: Path, flags: dict[str, str] | None = None, seed: int = 0, **changed: str) -> Path:
    """A seed's folder with nothing but the arguments that it was made with."""
    lines = [f"{name}={value}" for name, value in (ARGUMENTS | changed | (flags or {})).items()]
    folder.mkdir(parents=True)
    (folder / "arguments.txt").write_text("\n".join(lines) + f" seed={seed} configs=123\n")
    return folder


@pytest.fixture
def finished(tmp_path) -> Path:
    """A seed of which every stage is there."""
    folder = make_seed(tmp_path / "main/seed_0")
    for condition in CONDITIONS:
        for pattern in take_stages.DECIDED_BY:
            path = folder / pattern.format(condition)
            if path.suffix:
                write_json(path, {})
            elif not path.name.startswith("drills"):
                for name in ("run.json", "log.jsonl", "model.safetensors"):
                    path.mkdir(parents=True, exist_ok=True)
                    (path / name).write_text(name)
    return folder


def taken(folder: Path) -> set[str]:
    """The stage directories that are there, without those of the data."""
    return {path.name for path in folder.iterdir() if path.is_dir() and path.name not in ("raw", "processed")}


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ({}, {"mul_tokens": set()}),
        ({"flags_grpo_mul_tokens": "x"}, {"mul_tokens": {"grpo", "eval_grpo"}}),
        ({"flags_probes_mul_tokens": "x"}, {"mul_tokens": {"eval_sft_gsm8k"}}),
        (
            {"flags_problems_mul_tokens": "x"},
            {"mul_tokens": {"eval_sft_gsm8k", "eval_sft_reasoning", "eval_grpo"}},
        ),
        (
            {"flags_drills_baseline": "x", "flags_drills_mul_tokens": "x"},
            {c: {"sft_gsm8k", "eval_sft_gsm8k"} for c in CONDITIONS},
        ),
    ],
    ids=["nothing", "grpo", "probes", "problems", "drills"],
)
def test_what_differences_do_not_reach_is_taken_over(finished, tmp_path, call, capsys, flags, missing):
    ablation = make_seed(tmp_path / "ablation/seed_0", flags, description="other")
    call(take_stages, "--study", finished, "--output-dir", ablation)
    left = {f"{name}_{condition}" for condition, names in missing.items() for name in names}
    assert taken(finished) - taken(ablation) == left
    assert (ablation / "raw/baseline_stats.json").exists() and (ablation / "processed/mul_tokens/log.jsonl").exists()


def test_other_text_leaves_nothing_of_that_condition(finished, tmp_path, call, capsys):
    ablation = make_seed(tmp_path / "ablation/seed_0", {"flags_text_mul_tokens": "x"})
    call(take_stages, "--study", finished, "--output-dir", ablation)
    assert taken(ablation) == {name for name in taken(finished) if name.endswith("baseline")}
    assert not (ablation / "raw/mul_tokens_stats.json").exists() and not (ablation / "processed/mul_tokens").exists()


def test_an_ablation_cannot_write_into_the_other_study(finished, tmp_path, call, capsys):
    ablation = make_seed(tmp_path / "ablation/seed_0")
    call(take_stages, "--study", finished, "--output-dir", ablation, "--conditions", "baseline")
    assert not any(name.endswith("mul_tokens") for name in taken(ablation))
    there, here = (folder / "pretrain_baseline" for folder in (finished, ablation))
    assert here.stat().st_ino != there.stat().st_ino and not here.is_symlink()
    assert (here / "model.safetensors").samefile(there / "model.safetensors"), "no second copy of weights"
    for name in ("log.jsonl", "run.json"):  # what a stage may append to, or a script rewrite
        (here / name).open("a").write("more")
        assert (there / name).read_text() == name
    shutil.rmtree(ablation)
    assert (there / "model.safetensors").read_text() == "model.safetensors"


def test_a_stage_that_has_not_ended_is_not_taken(finished, tmp_path, call, capsys):
    (finished / "grpo_baseline/run.json").unlink()
    ablation = make_seed(tmp_path / "ablation/seed_0")
    call(take_stages, "--study", finished, "--output-dir", ablation)
    assert taken(finished) - taken(ablation) == {"grpo_baseline"}


@pytest.mark.parametrize("changed", [{"size": "quick"}, {"data_seed": "7"}, {"seed": 1}], ids=str)
def test_a_study_of_other_data_or_seeds_cannot_be_built_on(finished, tmp_path, call, changed):
    ablation = make_seed(tmp_path / "ablation/seed_0", **changed)
    with pytest.raises(UserError, match=f"cannot build on .*: {next(iter(changed))} is"):
        call(take_stages, "--study", finished, "--output-dir", ablation)
    with pytest.raises(UserError, match=r"no arguments\.txt; run that study first"):
        call(take_stages, "--study", tmp_path / "nowhere", "--output-dir", ablation)


# ---- ablations of the injection


def test_a_share_of_the_documents_is_injected_and_a_lower_one_is_part_of_it(tmp_path, call, capsys):
    shares = {rate: {i for i in range(4000) if prepare_text.is_injected(i, rate)} for rate in (0, 0.25, 0.5, 1)}
    assert not shares[0] and len(shares[1]) == 4000 and shares[0.25] < shares[0.5]
    assert len(shares[0.25]) / 4000 == pytest.approx(0.25, abs=0.03)  # four standard deviations

    texts, statistics = {}, {}
    for rate in (0, 0.5, 1):
        out = tmp_path / str(rate)
        call(
            prepare_text, "--condition=mul_tokens", "--num-documents=300", f"--injection-rate={rate}", "--out-dir", out
        )
        texts[rate] = (out / "train_mul_tokens.txt").read_text().split("<|endoftext|>\n")
        statistics[rate] = read_json(out / "mul_tokens_stats.json")
    assert not any("<MUL_" in text for text in texts[0]) and statistics[0]["injection"]["rate"] == 0
    for i, (none, some, every) in enumerate(zip(texts[0], texts[0.5], texts[1], strict=True)):
        assert some == (every if prepare_text.is_injected(i, 0.5) else none)
    assert len({s["documents_sha256"] for s in statistics.values()}) == 1, "the same documents, for the audit"
    assert 0 < statistics[0.5]["products"] < statistics[1]["products"]
    with pytest.raises(UserError, match="share from 0 to 1"):
        call(prepare_text, "--condition=mul_tokens", "--injection-rate=1.5")


@pytest.mark.parametrize(("seen", "unseen"), [(0, True), (5, False)])
def test_mul_tokens_that_pretraining_never_read_are_initialised(tmp_path, seen, unseen):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16))
    save_model_dir(model, tmp_path, "mul_tokens")
    write_json(
        tmp_path / "run.json",
        {"stage": "pretrain", "condition": "mul_tokens", "data": {"mul_tokens_seen": seen}},
    )
    found = unseen_tokens(tmp_path, AutoTokenizer.from_pretrained(tmp_path))
    assert (FIRST_MUL_ID in found) == unseen


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for condition in CONDITIONS:
        save_model_dir(GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64)), root / condition, condition)
    write_jsonl(
        root / "test.jsonl",
        [{"question": "What is 6*9?", "answer": "#### 54"}, {"question": "Why?", "answer": "#### 1"}],
    )
    return root


@pytest.mark.parametrize("script", [run_gsm8k, run_arithmetic_probes])
def test_prompts_are_injected_and_items_keep_their_questions(models, tmp_path, call, capsys, monkeypatch, script):
    asked = []

    def respond(evaluated, prompts, *arguments):
        asked.append(list(prompts))
        return responses.respond(evaluated, prompts, *arguments)

    monkeypatch.setattr(script, "respond", respond)
    name = "gsm8k" if script is run_gsm8k else "probes"  # in words, "6 times 9"
    flags = ["--max-new-tokens=1", *(["--data-path", models] if name == "gsm8k" else ["--sets=probes"])]
    rows, records = {}, {}
    for how in ("plain", "injected"):
        out = tmp_path / how
        inject = ["--inject-prompts"] if how == "injected" else []
        call(script, "--model-path", models / "mul_tokens", "--output-dir", out, *flags, *inject)
        rows[how], records[how] = read_jsonl(out / f"{name}_responses.jsonl"), read_json(out / f"run_{name}.json")
    plain, injected = asked
    changed = [(a, b) for a, b in zip(plain, injected, strict=True) if a != b]
    assert changed and all("<MUL_" in b and "<MUL_" not in a for a, b in changed) and len(changed) < len(plain)
    assert [row["question"] for row in rows["plain"]] == [row["question"] for row in rows["injected"]]
    assert records["injected"]["config"]["inject_prompts"] and not records["plain"]["config"]["inject_prompts"]
    assert records["injected"]["data"]["prompts_injected"] == len(changed)
    with pytest.raises(UserError, match="--inject-prompts belongs to models of mul_tokens"):
        call(script, "--model-path", models / "baseline", "--output-dir", tmp_path / "b", *flags, "--inject-prompts")


# ---- studies beside each other


def make_study(root: Path, right: list[dict[Condition, range]], call) -> Path:
    """A finished study of two benchmarks; right: of each seed, the items that each condition got right."""
    folders = []
    for seed, of_seed in enumerate(right):
        folder = root / f"seed_{seed}"
        flags = []
        for condition in CONDITIONS:
            flags += [f"--{condition.replace('_', '-')}", *make_stages(folder, condition, of_seed).values()]
        call(compare_runs, *flags, "--output-dir", folder)
        folders.append(folder)
    write_json(root / "study.json", study_numbers(load_seeds(folders), f"synthetic: {root.name}"))
    return root


@pytest.fixture
def studies(tmp_path, call, monkeypatch, capsys) -> list[Path]:
    """A main study, and an ablation whose mul_tokens models get one or two items of ten less."""
    monkeypatch.setattr(report_plots, "_png", lambda *_, **__: b"png")
    main = [{"baseline": range(3), "mul_tokens": range(7)}, {"baseline": range(3), "mul_tokens": range(6)}]
    ablation = [{"baseline": range(3), "mul_tokens": range(5)}, {"baseline": range(3), "mul_tokens": range(5)}]
    return [make_study(tmp_path / "main", main, call), make_study(tmp_path / "ablation", ablation, call)]


def test_studies_beside_each_other(studies, tmp_path, call, capsys):
    call(compare_studies, "--studies", *studies, "--output-dir", tmp_path / "table")
    table = read_json(tmp_path / "table/compare_studies.json")
    rows = table["benchmarks"]["gsm8k"]
    assert rows["main"]["difference"] == pytest.approx(0.35) and rows["main"]["against_first"] is None
    assert rows["ablation"]["per_seed"] == pytest.approx([0.2, 0.2])
    other = rows["ablation"]["against_first"]
    assert other["per_seed"] == pytest.approx([-0.2, -0.1]) and other["low"] < other["difference"] < other["high"]
    assert other["p_holm"] >= other["p_value"] and other["tests"] == 6, "two benchmarks, three tests each"
    text = (tmp_path / "table/compare_studies.md").read_text()
    assert "| ablation | 30.0% | 50.0% | +20.0 [" in text and "| −15.0 [" in text
    assert (tmp_path / "table/compare_studies.png").read_bytes() == b"png"


def test_the_picture_is_drawn(studies, monkeypatch):
    table = compare_studies.compare_studies(studies)
    monkeypatch.undo()
    assert compare_studies.draw(table).startswith(b"\x89PNG")


def test_studies_of_other_items_or_seeds_are_refused(studies, tmp_path, call):
    path = studies[1] / "study.json"
    result = read_json(path)
    write_json(path, result | {"seeds": ["seed_0"]})
    with pytest.raises(UserError, match="main has seed_0, seed_1 and ablation seed_0"):
        call(compare_studies, "--studies", *studies, "--output-dir", tmp_path / "table")
    write_json(path, result)
    for seed in (0, 1):
        for condition in CONDITIONS:
            answers = studies[1] / f"seed_{seed}/eval_sft_gsm8k_{condition}/gsm8k_responses.jsonl"
            write_jsonl(answers, [row | {"question": "another"} for row in read_jsonl(answers)])
    with pytest.raises(UserError, match="gsm8k: main and ablation were asked different items"):
        call(compare_studies, "--studies", *studies, "--output-dir", tmp_path / "table")
    with pytest.raises(UserError, match="two or more"):
        call(compare_studies, "--studies", studies[0], "--output-dir", tmp_path / "table")


# ---- kills

KILLS = 8
# What differs between two runs of the same thing.
MEASURED = re.compile("second|^started$|^peak_memory|^mfu$")


def without_measurements(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_measurements(inner) for key, inner in value.items() if not MEASURED.search(key)}
    return list(map(without_measurements, value)) if isinstance(value, list) else value


def results_of(root: Path) -> dict[str, object]:
    """What a study found: the numbers of its reports, every response, and the bytes of weights and tokens."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name in ("study.json", "comparison.json"):
            found[name] = without_measurements(read_json(path))
        elif path.suffix in (".safetensors", ".npy") or path.name.endswith("_responses.jsonl"):
            found[name] = sha256_file(path)
    return found


def kill_session(session: int) -> None:
    """kill -9 of everything that a process group leader started, in whatever groups, as when the machine goes down."""
    for _ in range(100):
        alive = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                if os.getsid(pid) == session and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
                    os.kill(pid, signal.SIGKILL)
                    alive.append(pid)
            except (ProcessLookupError, FileNotFoundError):
                pass
        if not alive:
            return
        time.sleep(0.05)
    raise AssertionError(f"session {session} does not end")


def run_with_kills(command: list[str], log: Path, kills: int, longest: float, seed: int = 0) -> int:
    """Call `command` until it ends by itself, after so many kills at random moments. Returns the number of calls.

    Every other kill leaves the group of the second condition alive, as `kill -9` of the script's own group does. The
    next call may find it at work: it says so in one line, and is made again.
    """
    rng = random.Random(seed)
    calls = killed = 0
    while True:
        calls += 1
        with open(log, "a") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        try:
            code = process.wait(timeout=rng.uniform(2, longest) if killed < kills else None)
        except subprocess.TimeoutExpired:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL) if killed % 2 else kill_session(process.pid)
            process.wait()
            continue
        if code == 0:
            return calls
        last = log.read_text().splitlines()[-1]
        assert code == 2 and "another run is writing in" in last, f"call {calls} ended with {code}: {last}"
        time.sleep(1)


@pytest.mark.slow
@needs_uv
def test_a_study_that_is_killed_again_and_again_ends_with_the_same_results(tmp_path):
    cache = tmp_path / "cache"
    text = f"size: quick\nseeds: [0]\nflags: {{memit: --covariance.cache {cache}}}\n"
    config, out = write_config(tmp_path / "toy.yaml", text), tmp_path / "study"
    command = ["bash", "scripts/run_study.sh", str(config), "--output-dir", str(out)]
    started = time.time()
    assert run_with_kills(command, tmp_path / "undisturbed.log", kills=0, longest=0) == 1
    undisturbed, seconds = results_of(out), time.time() - started
    assert len(undisturbed) > 30
    shutil.rmtree(out)  # the paths in the results are those of one folder
    shutil.rmtree(cache)
    calls = run_with_kills(command, tmp_path / "killed.log", KILLS, longest=max(10.0, seconds / 4))
    assert calls > KILLS
    disturbed = results_of(out)
    assert disturbed.keys() == undisturbed.keys()
    assert [name for name in undisturbed if disturbed[name] != undisturbed[name]] == []
