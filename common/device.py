"""Where and how precisely to compute."""

import contextlib
import os
import random
import resource
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch

from common.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises UserError when a named device is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is visible; use --device cpu or --device auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no MPS device is there; use --device cpu or --device auto")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` takes bfloat16 where the hardware multiplies it natively, else float32.

    A CPU without AVX512-BF16 or AMX emulates bfloat16 and is several times slower with it than with float32.
    """
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Matrix products in `dtype`, weights and sums in float32; nothing at all for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def clock(device: torch.device) -> float:
    """Seconds, once a GPU has done what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """Bytes that this process uses now, and at most so far: the allocator's on a GPU, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # not getrusage: its peak includes the parent's, from before the program was loaded
        rows = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(rows["VmRSS"].split()[0]) * 1024, int(rows["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def free_memory_bytes(device: torch.device) -> int:
    """Bytes that could be allocated now, this process's cached blocks included."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # no word on what is free: half of all


class DelayedScalars:
    """Scalars that a device computes in every step, read when they are there instead of waited for.

    Reading a value on the host waits for all that was queued before it, and the device then idles until the host has
    queued more. Copied to pinned memory and read a step later, they cost nothing.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.waiting: deque = deque()

    def push(self, step: int, values: torch.Tensor) -> None:
        """Queue the copy of `values` (k,), which belong to `step`."""
        arrived = None
        if self.device.type == "cuda":
            values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self.waiting.append((step, values, arrived))

    def take(self, all_but: int) -> list[tuple[int, list[float]]]:
        """The steps and their values in order, except for the newest `all_but`, which may still be on their way."""
        taken = []
        while len(self.waiting) > all_but:
            step, values, arrived = self.waiting.popleft()
            if arrived is not None:
                arrived.synchronize()
            taken.append((step, values.tolist()))
        return taken
