"""One GRPO update: the loss of a batch of responses in micro-batches of tokens, and the step.

Only the responses' positions reach the head. Every text stands at the positions that it had in sampling
(rl/micro_batches.py): that is where left-padded trainers go wrong with learned positions.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from common.distributed import World
from pretrain.model import GPT
from rl.micro_batches import MicroBatch, micro_batches
from rl.objective import ObjectiveSettings, kl_estimate, surrogate, token_weights
from rl.rollouts import Row
from rl.token_loss import Head, token_logprobs, token_loss

SUMS = ("tokens", "loss", "entropy", "kl", "clip_low", "clip_high", "ratio", "log_ratio_squared")


@dataclass
class Update:
    """What an update needs besides rows: the models, the objective, and how to compute."""

    model: GPT
    reference: GPT | None  # frozen; only needed with a KL
    objective: ObjectiveSettings
    temperature: float
    suppressed: Tensor
    max_new_tokens: int
    micro_batch_tokens: int
    autocast: contextlib.AbstractContextManager
    world: World

    def gradients(self, rows: Sequence[Row], entropy_coefficient: float) -> dict[str, float] | None:
        """Leave the gradient of the loss of all `rows` in the model, on every process the same; return its statistics.

        Every process is given all rows and computes its share. None, and no gradient, when nothing counts.
        """
        objective = self.objective
        counted = torch.tensor(
            [not (row.truncated and objective.overlong == "filter") for row in rows], dtype=torch.bool
        )
        if not counted.any():
            return None
        lengths = torch.tensor([len(row.ids) for row in rows], dtype=torch.float64)
        weights = token_weights(lengths, counted, objective, self.max_new_tokens).tolist()
        chosen = [i for i in range(len(rows)) if counted[i]]
        # Neighbours stay together: they are responses to one prompt.
        first, last = (len(chosen) * rank // self.world.size for rank in (self.world.rank, self.world.rank + 1))
        mine = chosen[first:last]
        device = self.suppressed.device
        sums = torch.zeros(len(SUMS), dtype=_exact(device), device=device)
        ratio_max = torch.zeros((), device=device)
        self.model.zero_grad(set_to_none=True)
        batches = micro_batches(
            [rows[i] for i in mine],
            [weights[i] for i in mine],
            self.micro_batch_tokens,
            device,
        )
        # The bonus is the mean entropy of a token, however the objective weighs its tokens.
        bonus = entropy_coefficient / float(lengths[counted].sum())
        for batch in batches:
            part, largest = self._backward(batch, bonus)
            sums += part
            ratio_max = ratio_max.maximum(largest)
        if self.world.size > 1:
            self._sum_over_processes(sums, ratio_max)
        return self._statistics(sums, ratio_max)

    def _backward(self, batch: MicroBatch, bonus: float) -> tuple[Tensor, Tensor]:
        objective = self.objective
        reference = None
        with self.autocast:
            if self.reference is not None:
                with torch.no_grad():
                    hidden = batch.predictions(self.reference)
                reference = token_logprobs(hidden, self._head(self.reference), batch.targets)

            def loss(logprobs: Tensor, entropies: Tensor, part: slice) -> Tensor:
                gain = surrogate(
                    logprobs, batch.old_logprobs[part], batch.advantages[part], objective.clip_low, objective.clip_high
                )
                if reference is not None:
                    penalty = kl_estimate(logprobs, reference[part], objective.kl_estimator)
                    gain = gain - objective.kl_coefficient * penalty
                return -batch.weights[part] * gain - (bonus * entropies if bonus else 0)

            total, logprobs, entropies = token_loss(
                batch.predictions(self.model), self._head(self.model), batch.targets, loss
            )
        total.backward()
        return self._sums(batch, total.detach(), logprobs, entropies, reference)

    def _sums(self, batch: MicroBatch, total: Tensor, logprobs: Tensor, entropies: Tensor, reference: Tensor | None):
        log_ratio = logprobs - batch.old_logprobs
        ratio = log_ratio.exp()
        clipped_low = (ratio < 1 - self.objective.clip_low) & (batch.advantages < 0)
        clipped_high = (ratio > 1 + self.objective.clip_high) & (batch.advantages > 0)
        kl = torch.zeros(()) if reference is None else kl_estimate(logprobs, reference, "k3").sum()
        values = (
            torch.tensor(len(ratio)), total, entropies.sum(), kl, clipped_low.sum(), clipped_high.sum(), ratio.sum(),
            (log_ratio**2).sum(),
        )  # fmt: skip
        return torch.stack([value.to(ratio.device, _exact(ratio.device)) for value in values]), ratio.max()

    def _sum_over_processes(self, sums: Tensor, ratio_max: Tensor) -> None:
        dist.all_reduce(sums)
        dist.all_reduce(ratio_max, op=dist.ReduceOp.MAX)
        for parameter in self.model.parameters():
            if parameter.grad is None:  # a process may have had no row at all
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def _statistics(self, sums: Tensor, ratio_max: Tensor) -> dict[str, float]:
        values = dict(zip(SUMS, sums.tolist(), strict=True))
        tokens = values["tokens"]
        return {
            "loss": values["loss"],
            "tokens": int(tokens),
            "entropy": values["entropy"] / tokens,
            "kl": None if self.reference is None else values["kl"] / tokens,  # not measured without a reference
            "clip_low": values["clip_low"] / tokens,
            "clip_high": values["clip_high"] / tokens,
            "ratio_mean": values["ratio"] / tokens,
            "ratio_max": ratio_max.item(),
            "log_ratio_rms": (values["log_ratio_squared"] / tokens) ** 0.5,
        }

    def _head(self, model: GPT) -> Head:
        return Head(model.wte.weight, self.temperature, self.suppressed)


def _exact(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
