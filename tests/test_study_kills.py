"""A quick study that is killed at random moments ends with the results of one that was not."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from common.files import read_json, sha256_file
from tests.helpers import ROOT

needs_uv = pytest.mark.skipif(shutil.which("uv") is None, reason="run_study.sh runs its stages with uv")

KILLS = 3
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
        before = log.stat().st_size if log.exists() else 0
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
        said = log.read_bytes()[before:].decode()  # not only by this call: what a kill left alive writes there too
        assert code == 2 and "error: another run is writing in" in said, f"call {calls} ended with {code}: {said}"
        time.sleep(1)


@pytest.mark.slow
@needs_uv
def test_a_study_that_is_killed_again_and_again_ends_with_the_same_results(tmp_path):
    cache = tmp_path / "cache"
    text = f"size: quick\nseeds: [0]\nflags: {{memit: --covariance.cache {cache}}}\n"
    config, out = tmp_path / "toy.yaml", tmp_path / "study"
    config.write_text(text)
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
