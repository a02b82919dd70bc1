"""The losses of an edit's tokens straight from hidden states, without ever holding their logits.

As in pretrain/loss.py a block of the vocabulary goes from logits to gradients in one visit, while it is in the
processor's cache: most of what the values of an edit cost is the head, and a third of that was memory.
"""

import torch
from torch import Tensor

BLOCK = 4096  # rows of the vocabulary at a time


def token_losses(x: Tensor, weight: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
    """(T + A,) in nats, of hidden states x (T + A, C) below the head `weight` (V, C), which gets no gradient.

    The first T are -log p(target) of targets (T,); the others KL(p || q), q by its logits `clean` (A, V).
    """
    return _TokenLosses.apply(x, weight, targets, clean)


class _TokenLosses(torch.autograd.Function):
    """With logits l = x W^T and e = exp(l - top), top the largest so far, sums over the vocabulary give

        log Z = top + log sum e                       -log p = log Z - l[target]
        mean of f under p = sum e f / sum e           KL     = mean of d - log Z + log Z of clean,  d = l - clean

    and the gradients by the means of W and d W. When the top rises, the sums so far shrink.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        T, R, A = len(targets), len(x), len(clean)
        top = x.new_full((R, 1), -torch.inf)
        # The sums of e and e W for R rows, then those of e d and e d W for the A last of them.
        total, total_W = x.new_zeros(R + A, 1), x.new_zeros(R + A, x.size(1))
        for W, q in zip(weight.split(BLOCK), clean.split(BLOCK, 1), strict=True):
            logits = x @ W.T
            last_top, top = top, torch.maximum(top, logits.amax(1, keepdim=True))
            shrink, e = (last_top - top).exp(), (logits - top).exp_()
            shrink, e = torch.cat([shrink, shrink[T:]]), torch.cat([e, e[T:] * (logits[T:] - q)])
            total = total * shrink + e.sum(1, keepdim=True)
            total_W.mul_(shrink).addmm_(e, W)
        Z = total[:R]
        mean_W, mean_d, mean_dW = total_W[:R] / Z, total[R:] / Z[T:], total_W[R:] / Z[T:]
        log_Z, of_targets = top + Z.log(), weight[targets]
        nll = log_Z[:T] - (x[:T] * of_targets).sum(1, keepdim=True)
        kl = mean_d - log_Z[T:] + clean.logsumexp(1, keepdim=True)
        ctx.save_for_backward(torch.cat([mean_W[:T] - of_targets, mean_dW - mean_d * mean_W[T:]]))
        return torch.cat([nll, kl])[:, 0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        [grad_x] = ctx.saved_tensors
        return grad[:, None] * grad_x, None, None, None
