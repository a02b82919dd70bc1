"""Losses without logits beside autograd's through whole logits."""

import pytest
import torch
import torch.nn.functional as F

from edit import token_losses as module
from edit.token_losses import token_losses


def by_autograd(x, weight, targets, clean):
    logits = F.linear(x, weight)
    nll = F.cross_entropy(logits[: len(targets)], targets, reduction="none")
    now = logits[len(targets) :].log_softmax(-1)
    return torch.cat([nll, F.kl_div(clean.log_softmax(-1), now, reduction="none", log_target=True).sum(-1)])


@pytest.mark.parametrize("scale", [1.0, 40.0])  # logits to some hundreds: nothing may overflow, whatever comes first
@pytest.mark.parametrize(("T", "A"), [(5, 3), (4, 0)])
def test_losses_and_gradients_are_those_of_whole_logits(monkeypatch, T, A, scale):
    monkeypatch.setattr(module, "BLOCK", 32)  # 100 ids are three blocks and a rest
    torch.manual_seed(0)
    x = (scale * torch.randn(T + A, 8)).requires_grad_()
    weight, targets = torch.randn(100, 8), torch.tensor([0, 99, 40, 64, 3])[:T]
    clean = (x[T:] + 0.3 * torch.randn(A, 8)).detach() @ weight.T
    share = torch.rand(T + A)
    losses, expected = token_losses(x, weight, targets, clean), by_autograd(x, weight, targets, clean)
    assert torch.allclose(losses, expected, rtol=1e-4, atol=1e-4)
    [grad] = torch.autograd.grad((losses * share).sum(), x)
    [expected_grad] = torch.autograd.grad((expected * share).sum(), x)
    assert torch.allclose(grad, expected_grad, rtol=1e-3, atol=1e-4)


def test_nothing_has_changed_yet():
    torch.manual_seed(0)
    x, weight = torch.randn(3, 8, requires_grad=True), torch.randn(50, 8)
    kl = token_losses(x, weight, torch.zeros(0, dtype=torch.long), x.detach() @ weight.T)
    [grad] = torch.autograd.grad(kl.sum(), x)
    assert kl.abs().max() < 1e-6 and grad.abs().max() < 1e-6
