"""torchrun's processes: who am I, how many are we, and the mean over all of us."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from common.device import pick_device


@dataclass(frozen=True)
class World:
    """This process's place. Outside torchrun it is the only one: rank 0 of 1."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Rank 0 writes the files and the log."""
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a float tensor over all processes; the tensor itself when there is one."""
        if self.size == 1:
            return value
        total = value.detach().to(self.device, copy=True)
        dist.all_reduce(total)  # gloo has no mean
        return total / self.size

    def gather(self, values: list) -> list:
        """Everybody's lists joined in the order of ranks, on every process; the list itself when there is one."""
        if self.size == 1:
            return values
        parts: list[list] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def barrier(self) -> None:
        """Wait for everybody."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def joined_world(device_name: str) -> Iterator[World]:
    """torchrun's process group for as long as it is needed: NCCL on CUDA, one GPU per local rank, and gloo on CPUs."""
    device = pick_device(device_name)
    if "RANK" not in os.environ:
        yield World(rank=0, size=1, device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
    finally:
        dist.destroy_process_group()
