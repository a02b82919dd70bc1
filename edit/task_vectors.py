"""Arithmetic on the difference between two models' weights (Ilharco et al. 2023); TIES and DARE merge several.

States are those of our GPT: each weight once, the tied head as the embedding that it is.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.errors import UserError
from common.files import atomic_path

State = dict[str, Tensor]


def extract(base: State, tuned: State) -> State:
    """tuned - base. Raises UserError when they are not of one architecture."""
    if {name: tensor.shape for name, tensor in base.items()} != {name: t.shape for name, t in tuned.items()}:
        raise UserError("the two models have different shapes; a task vector needs one architecture")
    # In float64 the difference is exact enough for base + vector to round to the tuned weight again.
    return {name: tuned[name].double() - base[name].double() for name in base}


def apply(base: State, vector: State, alpha: float = 1.0) -> State:
    """base + alpha * vector, in base's dtype; a negative alpha takes the task away."""
    return {name: (tensor.double() + alpha * vector[name]).to(tensor.dtype) for name, tensor in base.items()}


def save_vector(path: Path, vector: State, condition: str) -> None:
    """Write a vector in float32, with the condition of the models that it is the difference of."""
    with atomic_path(path) as partial:
        save_file({name: t.float().contiguous() for name, t in vector.items()}, partial, {"condition": condition})


def load_vector(path: Path, base: State, condition: str) -> State:
    """What `save_vector` wrote, for a base of these shapes and condition. Raises UserError for anything else."""
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata()["condition"]
            vector = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} holds no task vector ({error}); run_task_vectors.py --operation extract writes one"
        ) from None
    if found != condition:
        raise UserError(f"{path} is a task vector of {found}, the base a model of {condition}")
    if {name: tensor.shape for name, tensor in base.items()} != {name: t.shape for name, t in vector.items()}:
        raise UserError(f"{path} and the base have different shapes; a task vector needs one architecture")
    return vector


def ties(vectors: Sequence[State], density: float) -> State:
    """One vector of several: trim, elect a sign, average those that agree (TIES; Yadav et al. 2023).

    density: share of each vector's entries, the largest over all its weights, that is kept.
    """
    trimmed = [_trim(vector, density) for vector in vectors]
    merged = {}
    for name in vectors[0]:
        stack = torch.stack([vector[name] for vector in trimmed])
        sign = stack.sum(0).sign()
        agree = (stack.sign() == sign) & (stack != 0)
        merged[name] = (stack * agree).sum(0) / agree.sum(0).clamp(min=1)
    return merged


def dare(vector: State, drop: float, seed: int) -> State:
    """Entries dropped at random with probability `drop`, the rest scaled by 1 / (1 - drop) (DARE; Yu et al. 2024)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor * (torch.rand(tensor.shape, generator=generator) >= drop) / (1 - drop)
        for name, tensor in vector.items()
    }


def _trim(vector: State, density: float) -> State:
    sizes = torch.cat([tensor.abs().flatten() for tensor in vector.values()])
    kept = max(1, round(density * len(sizes)))
    threshold = sizes.kthvalue(len(sizes) - kept + 1).values
    return {name: tensor * (tensor.abs() >= threshold) for name, tensor in vector.items()}
