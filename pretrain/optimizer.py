"""AdamW with GPT-2's decay groups, and the learning-rate schedule."""

import math

import torch
from torch import nn


def build_adamw(model: nn.Module, max_lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """Decay for matrices and embeddings, none for biases and LayerNorms; every parameter in exactly one group."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # The fused kernel reads and writes each tensor once, on CPUs as on GPUs; the others make ten passes.
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=max_lr, betas=betas, eps=1e-8, fused=fused)


def learning_rate(step: int, max_steps: int, warmup_steps: int, max_lr: float, min_lr: float) -> float:
    """Rate of update `step` (from 0): linear warm-up to max_lr, then a cosine down to min_lr at max_steps."""
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (max_lr - min_lr)
