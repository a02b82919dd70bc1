"""What several test files need: tiny shards, a tiny config, a script run as a user runs it."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from data.encoding import tokenizer_of
from data.shards import Split, open_stream, write_shard
from pretrain.model import GPT, GPTConfig
from tokenizer.mul_facts import EOT_ID, Condition

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# Eight-wide models: the vocabulary is the real one, so the head is all there is to wait for.
TINY_TRAINING = [
    "--model.n-layer=1",
    "--model.n-head=2",
    "--model.n-embd=8",
    "--model.block-size=16",
    "--training.batch-size=2",
    "--training.total-batch-size=64",
    "--training.warmup-steps=2",
    "--logging.interval=1",
    "--eval.interval=4",
    "--eval.val-steps=2",
]


def write_random_shards(directory: Path, seed: int = 0) -> Path:
    """Two train shards and a validation shard of random ids."""
    rng = np.random.default_rng(seed)
    for name, size in (("train_00000", 700), ("train_00001", 611), ("val_00000", 200)):
        write_shard(directory / f"{name}.npy", rng.integers(0, 50257, size).astype(np.uint16))
    return directory


def documents_in(directory: Path, split: Split, condition: Condition) -> list[str]:
    """The documents in a split's shards, decoded."""
    stream = open_stream(directory, split)
    ids = stream.read(0, len(stream))
    starts = np.flatnonzero(ids == EOT_ID)
    assert starts[0] == 0
    return [tokenizer_of(condition).decode(piece[1:].tolist()) for piece in np.split(ids, starts[1:])]


def random_gpt(config: GPTConfig, seed: int = 0) -> GPT:
    """Every parameter random, biases and LayerNorms too, and larger than at initialisation: nothing hides."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def run(script: str, *arguments: object, processes: int = 1, check: bool = True) -> subprocess.CompletedProcess:
    """Run a script of the repository with one thread per process; `processes` > 1 puts it under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, script, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def cpu_seconds(function: Callable, *arguments: object, repeats: int = 3) -> float:
    """The processor time of the fastest of some calls: what waits for other programs does not count.

    A limit on the clock's time fails wherever a machine is busy with something else for a second.
    """
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function(*arguments)
        times.append(time.process_time() - started)
    return min(times)


def start_process(function: Callable, *arguments: object) -> multiprocessing.Process:
    """A process that can be killed: forked from a server that has the imports behind it, its output thrown away.

    As fast as a plain fork, which would copy whatever locks this process's threads hold at that moment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pretrain.train", "data.prepare_fineweb", "torch._dynamo"])
    process = context.Process(target=_quietly, args=(function, *arguments))
    process.start()
    return process


def _quietly(function: Callable, *arguments: object) -> None:
    torch.set_num_threads(1)
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        function(*arguments)


def one_line_error(result: subprocess.CompletedProcess) -> str:
    """The message of a user's mistake, after checking that it is one line, exit code 2 and no traceback."""
    assert result.returncode == 2, result.stdout + result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
    return errors[0]
