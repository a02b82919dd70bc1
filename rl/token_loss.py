"""Log-probability and entropy of chosen tokens, and any loss of the two, without holding the logits of a batch.

A loss of log-probabilities needs the softmax twice: once for the log-probability itself, and, when the loss has said
what it weighs, once for the gradient. Here a chunk of tokens keeps its exponentials between the two, so the whole costs
three products of 2 V C FLOPs per token, as a cross-entropy does, and autograd's logits, log-softmax and their gradients
are never written. Layout (V, c) and vocabulary blocks for the reason that pretrain/loss.py gives.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenizer.mul_facts import VOCAB_SIZE

CPU_LOGITS = 128 * VOCAB_SIZE  # at a time: 128 tokens, or more where the vocabulary is smaller
CPU_BLOCK = 2048  # vocabulary rows at a time
ACCELERATOR_CHUNK = 1024  # a GPU wants one large product per chunk
IMPOSSIBLE = -1e30  # the logit of an id that is never chosen: finite, so that 0 times it is 0

# (log-probabilities (c,), entropies (c,), which tokens these are) -> losses (c,), differentiable in the first two
TokenLoss = Callable[[Tensor, Tensor, slice], Tensor]


@dataclass(frozen=True)
class Head:
    """The distribution of the next token: softmax(weight @ hidden / temperature) without `suppressed` ids."""

    weight: Tensor  # (V, C), the tied embedding
    temperature: float
    suppressed: Tensor  # ids that the sampler never chooses


def token_logprobs(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Log-probabilities (N,) float32 of `targets` (N,) after `hidden` (N, C). No gradients."""
    with torch.no_grad():
        chunks = [_Chunk(x, head, y) for x, y in _chunks(hidden, targets, len(head.weight))]
        return torch.cat([chunk.logprobs for chunk in chunks]) if chunks else hidden.new_zeros(0)


def token_loss(hidden: Tensor, head: Head, targets: Tensor, loss: TokenLoss) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of `loss` over tokens, a scalar with gradients for `hidden` (N, C) and `head.weight`.

    Also the log-probabilities (N,) and entropies (N,) of the distributions, without gradients.
    """
    return _TokenLoss.apply(hidden, head.weight, head, targets, loss)


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, head: Head, targets: Tensor, loss: TokenLoss):
        hidden = hidden.detach()
        head = Head(weight.detach(), head.temperature, head.suppressed)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        total, logprobs, entropies = hidden.new_zeros((), dtype=torch.float32), [], []
        start = 0
        for x, y in _chunks(hidden, targets, len(weight)):
            chunk = _Chunk(x, head, y, keep=True)
            stop = start + len(x)
            logprob, entropy = (t.clone().requires_grad_() for t in (chunk.logprobs, chunk.entropies))
            with torch.enable_grad():
                value = loss(logprob, entropy, slice(start, stop)).sum()
                slopes = torch.autograd.grad(value, (logprob, entropy), allow_unused=True)
            total += value.detach()
            grad_hidden[start:stop] = chunk.gradients(slopes[0], slopes[1], grad_weight)
            logprobs.append(chunk.logprobs)
            entropies.append(chunk.entropies)
            start = stop
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        outputs = total, torch.cat(logprobs), torch.cat(entropies)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx, grad_total: Tensor, *_):
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grad_total), grad_weight.mul_(grad_total), None, None, None


class _Chunk:
    """The tokens of one visit. With L the scaled logits (V, c), t their shift, and all sums over the vocabulary:

        E = exp(L - t)      s = sum E      P = E (L - t)      entropy H = log s - sum P / s

    A loss with slopes a for the log-probability and h for the entropy has, at the logits,
    onehot(y) a - E (a + h (H - log s)) / s - P h / s.
    """

    def __init__(self, x: Tensor, head: Head, y: Tensor, keep: bool = False):
        self.x, self.y, self.head = x, y, head
        dtype = _product_dtype(x)
        self.blocks = head.weight.split(CPU_BLOCK if x.device.type == "cpu" else len(head.weight))
        self.E: list[Tensor] = []
        self.P: list[Tensor] = []
        rows = head.weight[y].float()
        target_logits = (x.float() * rows).sum(-1) / head.temperature
        shift = target_logits
        if x.device.type != "cpu":  # one block, so its maximum is at hand; checking would wait for the device
            shift = None
        s, total_p = self._sweep(x.to(dtype), shift, keep)
        if shift is not None and not (s.isfinite() & total_p.isfinite()).all():
            # A token at odds of more than 80 nats or so: shift by the largest logit instead.
            shift = torch.stack([logits.amax(0) for logits in self._logits(x.to(dtype))]).amax(0)
            s, total_p = self._sweep(x.to(dtype), shift, keep)
        self.s = s
        if dtype != torch.float32:  # numerator and denominator from the same rounded logits, or p may exceed 1
            target_logits = self.rounded
        self.logprobs = target_logits - self.shift - s.log()
        self.entropies = s.log() - total_p / s

    def _sweep(self, x: Tensor, shift: Tensor | None, keep: bool) -> tuple[Tensor, Tensor]:
        """s and sum P (c,), by way of exponentials shifted by `shift` (c,), or by the maximum of the only block."""
        self.E, self.P = [], []
        self.rounded, first = torch.zeros(len(x), device=x.device), 0
        s = torch.zeros(len(x), device=x.device)
        total_p = torch.zeros(len(x), device=x.device)
        for logits in self._logits(x):
            if x.dtype != torch.float32:
                place = (self.y - first).clamp(0, len(logits) - 1)
                inside = (self.y >= first) & (self.y < first + len(logits))
                self.rounded = logits.gather(0, place[None])[0].where(inside, self.rounded)
                first += len(logits)
            self.shift = logits.amax(0) if shift is None else shift
            exponentials = logits.sub_(self.shift).exp()
            s += exponentials.sum(0)
            total_p += logits.mul_(exponentials).sum(0)
            if keep:
                self.E.append(exponentials)
                self.P.append(logits)
        return s, total_p

    def _logits(self, x: Tensor) -> Iterator[Tensor]:
        """The scaled logits of x (c, C), block after block of the vocabulary."""
        first = 0
        for block in self.blocks:
            logits = (block.to(x.dtype) @ x.T).float().mul_(1 / self.head.temperature)
            here = self.head.suppressed
            if x.device.type == "cpu":  # elsewhere there is one block, and looking would wait for the device
                here = here[(here >= first) & (here < first + len(block))] - first
            if len(here):
                logits[here] = IMPOSSIBLE
            yield logits
            first += len(block)

    def gradients(self, by_logprob: Tensor, by_entropy: Tensor | None, grad_weight: Tensor) -> Tensor:
        """The gradient at the hidden states (c, C), given the slopes (c,) of the loss; adds to `grad_weight`."""
        dtype = _product_dtype(self.x)
        scale = 1 / self.head.temperature
        x = self.x.to(dtype)
        for_e = -by_logprob / self.s * scale
        if by_entropy is not None:
            for_e -= by_entropy * (self.entropies - self.s.log()) / self.s * scale
            for_p = -by_entropy / self.s * scale
        grad_hidden = torch.zeros(self.x.T.shape, device=x.device)
        for block, grad_block, E, P in zip(
            self.blocks, grad_weight.split(len(self.blocks[0])), self.E, self.P, strict=True
        ):
            G = E.mul_(for_e)
            if by_entropy is not None:
                G.add_(P.mul_(for_p))
            G = G.to(dtype)
            grad_hidden += block.to(dtype).T @ G
            if dtype == torch.float32:
                grad_block.addmm_(G, x)
            else:
                grad_block += G @ x
        weighted = (by_logprob * scale)[:, None]
        grad_weight.index_add_(0, self.y, self.x.float() * weighted)
        return grad_hidden.T + self.head.weight[self.y].float() * weighted


def _chunks(hidden: Tensor, targets: Tensor, vocab_size: int):
    size = max(1, CPU_LOGITS // vocab_size) if hidden.device.type == "cpu" else ACCELERATOR_CHUNK
    return zip(hidden.split(size), targets.split(size), strict=True) if len(targets) else iter(())


def _product_dtype(x: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
