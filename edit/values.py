"""The values that make a model say new targets: one vector per edit, added to the residual stream at one token.

For edit i, delta_i minimises (Meng et al. 2023, eq. 16; 2022, eq. 4)

    mean over contexts and target tokens of -log p(token)  +  kl_weight * KL(p' || p)  +  weight_decay |delta| / |h|^2

p' and p are the next-token distributions with and without delta at the subject's last token of "{subject} is a": what
follows that token cannot reach it, so the text ends there. An edit at the prompt's end has no such anchor, and none is
computed for kl_weight 0. All edits are optimised at once in one tensor; each has its
own Adam state, stops at its own loss and keeps the best vector that it met, so that it comes out as if it were alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from edit.passes import Suffix
from edit.prompts import EditPrompt, check_length, context_weights
from edit.settings import ValueSettings
from edit.token_losses import token_losses
from pretrain.model import GPT

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's defaults


@dataclass(frozen=True)
class ValueRequest:
    """One edit: its prompt under each context, the bare one first, what is to follow, and the subject alone."""

    name: str  # of the edit, for errors
    prompts: list[EditPrompt]
    target: list[int]
    subject_alone: EditPrompt  # ends with the subject's last token


@dataclass(frozen=True)
class FoundValues:
    """delta (N, C), and the loss of each edit (N,) at its delta and at the start."""

    delta: Tensor
    loss: Tensor
    first_loss: Tensor
    steps: Tensor  # updates that each edit took until it stopped


class ValueLoss:
    """The losses of edits as a function of their deltas, on a suffix that is computed once."""

    def __init__(self, model: GPT, requests: Sequence[ValueRequest], layer: int, settings: ValueSettings):
        self.model, self.requests, self.settings = model, requests, settings
        rows: list[EditPrompt] = []
        owners, where, slots, targets, weights, anchors = [], [], [], [], [], []
        for i, request in enumerate(requests):
            shares = context_weights(len(request.prompts) - 1).tolist()
            for prompt, share in zip(request.prompts, shares, strict=True):
                ids = prompt.ids + request.target[:-1]
                check_length(ids, model.config.block_size, request.name)
                first = len(prompt.ids) - 1 - prompt.position  # slot whose output predicts the target's first token
                for k, token in enumerate(request.target):
                    where.append(len(rows))
                    slots.append(first + k)
                    targets.append(token)
                    weights.append(share / len(request.target))
                rows.append(replace(prompt, ids=ids))
                owners.append(i)
            if settings.kl_weight:
                anchors.append(len(rows))
                rows.append(request.subject_alone)
                owners.append(i)
        device = model.wte.weight.device
        self.suffix = Suffix.of(model, rows, layer)
        self.owners, self.where, self.slots, self.targets, self.anchors = (
            torch.tensor(values, dtype=torch.long, device=device) for values in (owners, where, slots, targets, anchors)
        )
        self.weights = torch.tensor(weights, device=device)
        bare = [owners.index(i) for i in range(len(requests))]
        self.norms = self.suffix.starts()[bare].norm(dim=-1)  # (N,), |h| of the bare prompts
        self.clean = self._clean_logits(len(rows))

    @torch.no_grad()
    def _clean_logits(self, B: int) -> Tensor:
        """(A, V) at the anchors, those of the B rows that end with the subject; A is 0 without a KL weight."""
        anchored = torch.isin(torch.arange(B, device=self.anchors.device), self.anchors)
        each = torch.arange(len(self.anchors), device=self.anchors.device)
        nothing = torch.zeros(len(each), self.model.config.n_embd, device=each.device)
        x = self.suffix.select(anchored).read(nothing, each, torch.zeros_like(each))
        return self.model.logits(self.model.ln_f(x))

    def __call__(self, delta: Tensor) -> Tensor:
        """Losses (N,) in nats of delta (N, C)."""
        where, slots = torch.cat([self.where, self.anchors]), torch.cat([self.slots, torch.zeros_like(self.anchors)])
        weights = torch.cat([self.weights, self.weights.new_full((len(self.anchors),), self.settings.kl_weight)])
        x = self.model.ln_f(self.suffix.read(delta[self.owners], where, slots))
        losses = weights * token_losses(x, self.model.wte.weight, self.targets, self.clean)
        loss = torch.zeros(len(delta), device=delta.device).index_add(0, self.owners[where], losses)
        return loss + self.settings.weight_decay * delta.norm(dim=-1) / self.norms**2

    def select(self, edits: Tensor) -> "ValueLoss":
        """The losses of some of the edits (long, ascending)."""
        chosen = object.__new__(ValueLoss)
        chosen.model, chosen.settings = self.model, self.settings
        chosen.requests = [self.requests[i] for i in edits.tolist()]
        rows = torch.isin(self.owners, edits)
        scored = rows[self.where]
        new_row, new_edit = rows.cumsum(0) - 1, torch.zeros(len(self.norms), dtype=torch.long, device=edits.device)
        new_edit[edits] = torch.arange(len(edits), device=edits.device)
        chosen.suffix = self.suffix.select(rows)
        chosen.owners, chosen.where = new_edit[self.owners[rows]], new_row[self.where[scored]]
        chosen.slots, chosen.targets, chosen.weights = (t[scored] for t in (self.slots, self.targets, self.weights))
        chosen.norms, chosen.anchors, chosen.clean = self.norms[edits], self.anchors, self.clean
        if self.settings.kl_weight:
            chosen.anchors, chosen.clean = new_row[self.anchors[edits]], self.clean[edits]
        return chosen


def find_values(
    model: GPT, requests: Sequence[ValueRequest], layer: int, settings: ValueSettings, progress: bool = False
) -> FoundValues:
    """Optimise the deltas at `layer`, `settings.batch_edits` edits at a time. Parameters get no gradient."""
    required = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    parts = []
    try:
        with tqdm(total=len(requests), desc="values", unit="edit", disable=not progress) as bar:
            for start in range(0, len(requests), settings.batch_edits):
                batch = requests[start : start + settings.batch_edits]
                parts.append(_find_batch(ValueLoss(model, batch, layer, settings), settings, bar))
    finally:
        for parameter, needed in zip(model.parameters(), required, strict=True):
            parameter.requires_grad_(needed)
    return FoundValues(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _find_batch(loss: ValueLoss, settings: ValueSettings, bar: tqdm) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Best delta (N, C), its loss, the first loss and the number of updates, each (N,)."""
    N, C = len(loss.requests), loss.model.config.n_embd
    device = loss.norms.device
    longest = settings.clamp * loss.norms
    delta, best = torch.zeros(N, C, device=device), torch.zeros(N, C, device=device)
    best_loss, first = torch.full((N,), torch.inf, device=device), torch.zeros(N, device=device)
    steps = torch.zeros(N, dtype=torch.long, device=device)
    m, v = torch.zeros_like(delta), torch.zeros_like(delta)
    active = torch.arange(N, device=device)
    for step in range(settings.steps + 1):
        current = delta[active].requires_grad_()
        losses = loss(current)
        found = losses.detach()
        if step == 0:
            first = found.clone()
        better = found < best_loss[active]
        best[active[better]], best_loss[active[better]] = current.detach()[better], found[better]
        going = found >= settings.stop_loss
        if step == settings.steps or not going.any():
            break
        # Each loss depends on its own row alone, so the gradient of their sum holds every edit's.
        [grad] = torch.autograd.grad(losses.sum(), current)
        if not going.all():
            bar.update(int((~going).sum()))
            loss, grad, active = loss.select(going.nonzero()[:, 0]), grad[going], active[going]
        m[active] = BETAS[0] * m[active] + (1 - BETAS[0]) * grad
        v[active] = BETAS[1] * v[active] + (1 - BETAS[1]) * grad**2
        m_hat, v_hat = m[active] / (1 - BETAS[0] ** (step + 1)), v[active] / (1 - BETAS[1] ** (step + 1))
        moved = delta[active] - settings.learning_rate * m_hat / (v_hat.sqrt() + EPSILON)
        delta[active] = moved * (longest[active] / moved.norm(dim=-1).clamp(min=1e-12)).clamp(max=1)[:, None]
        steps[active] += 1
    bar.update(len(active))
    return best, best_loss, first, steps
