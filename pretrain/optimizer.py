"""AdamW with GPT-2's decay groups, Muon for the matrices where asked for, and the learning-rate schedules."""

import math

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from pretrain.settings import TrainingConfig


def build_optimizers(model: nn.Module, settings: TrainingConfig) -> list[Optimizer]:
    """The optimizers that together update every parameter of `model` once.

    adamw: one AdamW. muon: Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for the blocks' weight
    matrices, whose update it makes orthogonal, and AdamW for embeddings, biases and LayerNorms. Each group's
    `initial_lr` is its peak rate, which `rate_factor` scales.
    """
    if settings.optimizer == "adamw":
        return [build_adamw(list(model.parameters()), settings)]
    # The embeddings are tables of rows, not maps between spaces: an orthogonal update means nothing for them.
    in_blocks = {name: name.startswith("h.") and p.dim() == 2 for name, p in model.named_parameters()}
    matrices, rest = ([p for name, p in model.named_parameters() if in_blocks[name] == side] for side in (True, False))
    # Weight decay acts as lr x decay, and Muon's rate is the larger by far: the same shrinkage per step for both.
    decay = settings.weight_decay * settings.max_lr / settings.muon_lr
    muon = Muon(matrices, lr=settings.muon_lr, weight_decay=decay, momentum=settings.muon_momentum)
    return [build_adamw(rest, settings), with_initial_lr(muon)]


def build_adamw(parameters: list[nn.Parameter], settings: TrainingConfig) -> AdamW:
    """Decay for matrices and embeddings, none for biases and LayerNorms; every parameter in exactly one group."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # The fused kernel reads and writes each tensor once, on CPUs as on GPUs; the others make ten passes.
    fused = parameters[0].device.type in ("cpu", "cuda")
    betas = (settings.beta1, settings.beta2)
    return with_initial_lr(AdamW(groups, lr=settings.max_lr, betas=betas, eps=1e-8, fused=fused))


def with_initial_lr(optimizer: Optimizer) -> Optimizer:
    """Note each group's peak rate beside the rate that the schedule overwrites."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def rate_factor(step: int, settings: TrainingConfig) -> float:
    """What update `step` (from 0) multiplies the peak rates with.

    Linear warm-up to 1, then to min_lr / max_lr at max_steps: along a cosine, or constant at 1 until the last
    `warmdown` of the updates and in a straight line from there.
    """
    last, warmup = settings.max_steps, settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "cosine":
        progress = min(1.0, (step - warmup) / max(1, last - warmup))
        height = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        height = min(1.0, max(0.0, (last - step) / (settings.warmdown * last)))
    floor = settings.min_lr / settings.max_lr
    return floor + height * (1 - floor)


def set_rates(optimizers: list[Optimizer], factor: float) -> None:
    """Set every group's rate to `factor` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
