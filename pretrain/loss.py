"""Cross-entropy over 50,349 ids without ever holding the logits of a batch.

A small model spends most of its time and memory in the head: at width 128 the logits of a token cost more
multiplications than four transformer layers. Autograd's way writes the (N, V) logits, their log-softmax and their
gradient to memory and reads each again. Here a chunk of tokens goes from hidden states to gradients in one visit, in
the forward pass; the backward pass only scales. The floor is the three products, 6 V C FLOPs per token;
scripts/bench_pretrain.py measures the distance to it.
"""

import torch
from torch import Tensor

CPU_CHUNK, CPU_BLOCK = 128, 2048  # tokens and vocabulary rows at a time: 1 MB of logits in float32
ACCELERATOR_CHUNK = 4096  # a GPU wants one large product per chunk
HEAD_MULTIPLE = 128  # and tensor cores a vocabulary padded to this


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of `softmax(hidden @ weight.T)` against `targets`, in nats.

    hidden (N, C); weight (V, C), the tied embedding; targets (N,) ids, all of them counted. Returns a float32 scalar
    with gradients for `hidden` and `weight`, both computed in the forward pass. Under autocast the three products
    are made in its dtype, as a linear layer's would be; the softmax and the sums are float32.
    """
    if targets.device.type == "cpu":  # on a GPU the check would wait for it; there the index itself asserts
        assert targets.min() >= 0, "every target counts: select the labelled rows before calling"
    dtype = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, dtype, torch.is_grad_enabled())


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, with_grad: bool) -> Tensor:
        way = _on_cpu if hidden.device.type == "cpu" else _on_accelerator
        loss, grad_hidden, grad_weight = way(hidden.detach(), weight.detach(), targets, dtype, with_grad)
        if with_grad:
            ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx, grad_loss: Tensor):
        # In place, which saves a pass over (V, C); autograd then refuses to go backward twice instead of scaling twice.
        return *(grad.mul_(grad_loss) for grad in ctx.saved_tensors), None, None, None


def _on_accelerator(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, with_grad: bool):
    """Mean loss, d loss / d hidden (N, C), d loss / d weight (V, C); large products, and nothing the host waits for.

    Under torch.compile the float32 conversions live in registers: a chunk's logits exist once, in `dtype`.
    """
    N, V = len(hidden), len(weight)
    W = torch.nn.functional.pad(weight.to(dtype), (0, 0, 0, -V % HEAD_MULTIPLE))
    is_padding = torch.arange(len(W), device=W.device) >= V
    loss = torch.zeros((), dtype=torch.float32, device=W.device)
    grad_hidden, grad_weight = [], torch.zeros(W.shape if with_grad else (0,), dtype=torch.float32, device=W.device)
    for x, y in zip(hidden.to(dtype).split(ACCELERATOR_CHUNK), targets.split(ACCELERATOR_CHUNK), strict=True):
        logits = (x @ W.T).masked_fill_(is_padding, -torch.inf)  # (c, V')
        total = logits.float().logsumexp(-1, keepdim=True)
        loss = loss + (total - logits.gather(1, y[:, None]).float()).sum()
        if with_grad:
            hit = torch.arange(len(W), device=W.device) == y[:, None]
            grad_logits = ((logits.float() - total).exp() - hit.float()).to(dtype)
            grad_hidden.append(grad_logits @ W)
            grad_weight += grad_logits.T @ x
    if not with_grad:
        return loss / N, None, None
    return loss / N, (torch.cat(grad_hidden).float() / N).to(hidden.dtype), grad_weight[:V] / N


def _on_cpu(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, with_grad: bool):
    """Mean loss, d loss / d hidden (N, C), d loss / d weight (V, C), by way of exponentials that are never normalised:

        E = exp(W x^T - t)            (V, c)   t the logit of each token's target, so that
        s = sum_v E                   (c,)     loss = log s
        d loss / d x = E^T W / s - W[y]
        d loss / d W = E (x / s) - onehot(y) x

    The division by s happens on the (c, C) side, which is V / C times smaller. The layout is (V, c), and the vocabulary
    is swept in blocks that stay in cache, because the tall, skinny products run up to twice as fast that way as x W^T
    does. Subtracting the target's logit saves the sweep that finds the maximum; it overflows where a token's loss
    exceeds 88 nats, and only then is the chunk done again with the maximum.
    """
    N, V = len(hidden), len(weight)
    W = weight.to(dtype)
    blocks = W.split(CPU_BLOCK)
    buffer = torch.empty(V, min(N, CPU_CHUNK), dtype=dtype)
    loss = torch.zeros((), dtype=torch.float32)
    grad_hidden = torch.empty_like(hidden) if with_grad else None
    grad_weight = torch.empty_like(weight, dtype=torch.float32) if with_grad else None
    for i in range(0, N, CPU_CHUNK):
        x, y = hidden[i : i + CPU_CHUNK].to(dtype), targets[i : i + CPU_CHUNK]
        E = buffer if len(x) == buffer.size(1) else buffer.new_empty(V, len(x))  # the last chunk may be narrower
        target_rows = W[y].float()
        shift = (x.float() * target_rows).sum(-1)
        s, weighted = _sweep(E, blocks, x, shift, with_grad)
        if not s.isfinite().all():
            top = torch.stack([torch.mm(block, x.T).amax(0) for block in blocks]).amax(0).float()
            s, weighted = _sweep(E, blocks, x, top, with_grad)
            loss += (top - shift).sum()
        loss += s.log().sum()
        if with_grad:
            scale = 1 / (s * N)[:, None]
            grad_hidden[i : i + CPU_CHUNK] = weighted.T * scale - target_rows / N
            scaled_x = (x * scale).to(dtype)
            for e, grad_block in zip(E.split(CPU_BLOCK), grad_weight.split(CPU_BLOCK), strict=True):
                _product(grad_block, e, scaled_x, accumulate=i > 0)
            grad_weight.index_add_(0, y, x.float(), alpha=-1 / N)
    return loss / N, grad_hidden, grad_weight


def _sweep(E: Tensor, blocks: tuple[Tensor, ...], x: Tensor, shift: Tensor, with_grad: bool):
    """Fill E (V, c) with exp(W x^T - shift); return its sum over V (c,) and W^T E (C, c), both float32."""
    s = torch.zeros(len(x), dtype=torch.float32)
    weighted = torch.zeros(x.shape[::-1], dtype=torch.float32)
    for e, block in zip(E.split(CPU_BLOCK), blocks, strict=True):
        torch.mm(block, x.T, out=e)
        exponentials = e if e.dtype == torch.float32 else e.float()
        exponentials.sub_(shift).exp_()
        s += exponentials.sum(0)
        if with_grad:
            if exponentials is not e:
                e.copy_(exponentials)
            _product(weighted, block.T, e, accumulate=True)
    return s, weighted


def _product(out: Tensor, left: Tensor, right: Tensor, accumulate: bool) -> None:
    """out = left @ right, or out += it, with a float32 `out` whatever the factors' dtype."""
    if left.dtype == torch.float32:
        out.addmm_(left, right, beta=1 if accumulate else 0)
    elif accumulate:
        out += torch.mm(left, right)
    else:
        out.copy_(torch.mm(left, right))
