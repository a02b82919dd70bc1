"""Log-probabilities, entropies and gradients of the chunked head, against autograd on whole logits."""

import pytest
import torch

import rl.token_loss
from rl.token_loss import Head, token_logprobs, token_loss

N, C, V = 23, 8, 101
SUPPRESSED = [40, 95, 96, 100]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks and blocks, the last of each not full."""
    monkeypatch.setattr(rl.token_loss, "CPU_LOGITS", 5 * V)
    monkeypatch.setattr(rl.token_loss, "CPU_BLOCK", 37)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    hidden = torch.randn(N, C, requires_grad=True)
    weight = torch.randn(V, C, requires_grad=True)
    targets = torch.randint(0, 40, (N,))
    return hidden, weight, targets


def plain(hidden, weight, targets, temperature):
    """The oracle: log-probabilities and entropies (N,) from whole logits, in float64."""
    logits = (hidden.double() @ weight.double().T / temperature).index_fill(1, torch.tensor(SUPPRESSED), -torch.inf)
    logprobs = logits.log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs.where(logprobs.isfinite(), 0)).sum(-1)
    return logprobs.gather(-1, targets[:, None])[:, 0], entropies


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy", [0.0, 0.3])
def test_equals_autograd_on_whole_logits(batch, temperature, entropy):
    hidden, weight, targets = batch
    advantages, old = torch.randn(N), torch.randn(N) * 0.1 - 4

    def loss(logprobs, entropies, part):
        value = -(logprobs - old[part]).exp().clamp(max=2.0) * advantages[part] + 0.1 * logprobs**2
        return value - entropy * entropies if entropy else value

    head = Head(weight, temperature, torch.tensor(SUPPRESSED))
    total, logprobs, entropies = token_loss(hidden, head, targets, loss)
    (2 * total).backward()
    got = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    expected_logprobs, expected_entropies = plain(hidden, weight, targets, temperature)
    expected = loss(expected_logprobs, expected_entropies, slice(0, N)).sum()
    (2 * expected).backward()
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(logprobs.double(), expected_logprobs, atol=1e-5)
    assert torch.allclose(entropies.double(), expected_entropies, atol=1e-5)
    for a, b in zip(got, (hidden.grad, weight.grad), strict=True):
        assert torch.allclose(a, b, atol=2e-5 * b.abs().max().item())
    assert weight.grad[SUPPRESSED].abs().max() == 0
    assert torch.allclose(token_logprobs(hidden, head, targets).double(), expected_logprobs, atol=1e-5)


def test_a_token_at_impossible_odds_has_a_finite_loss_and_gradient(batch):
    hidden, weight, targets = batch
    with torch.no_grad():
        weight.mul_(60)  # logits in the hundreds: their exponentials, shifted by the target's, overflow
    head = Head(weight, 1.0, torch.tensor(SUPPRESSED))
    total, logprobs, entropies = token_loss(hidden, head, targets, lambda logprobs, *_: -logprobs)
    total.backward()
    expected, expected_entropies = plain(hidden, weight, targets, 1.0)
    assert expected.min() < -100
    assert torch.allclose(logprobs.double(), expected, rtol=1e-5, atol=1e-3)
    assert torch.allclose(entropies.double(), expected_entropies, atol=1e-3)
    assert weight.grad.isfinite().all() and hidden.grad.isfinite().all()


def test_no_tokens_is_no_loss(batch):
    _, weight, _ = batch
    assert token_logprobs(
        torch.zeros(0, C), Head(weight, 1.0, torch.tensor(SUPPRESSED)), torch.zeros(0).long()
    ).shape == (0,)
