"""The chunked loss against autograd's, in every shape of chunk."""

import pytest
import torch
import torch.nn.functional as F

from pretrain import loss as loss_module
from pretrain.loss import chunked_cross_entropy
from pretrain.model import GPT, GPTConfig


def problem(N: int, C: int, V: int, scale: float = 1.0):
    generator = torch.Generator().manual_seed(N + C + V)
    hidden = torch.randn(N, C, generator=generator, requires_grad=True)
    weight = (scale * torch.randn(V, C, generator=generator)).requires_grad_()
    return hidden, weight, torch.randint(0, V, (N,), generator=generator)


def gradients(function, hidden, weight, targets):
    loss = function(hidden, weight, targets)
    return loss, *torch.autograd.grad(3.0 * loss, (hidden, weight))


def plain(hidden, weight, targets):
    return F.cross_entropy(hidden @ weight.T, targets)


@pytest.mark.parametrize("N", [1, 5, 16, 17, 40])
def test_loss_and_gradients_equal_autograd_whatever_the_chunk(N, monkeypatch):
    monkeypatch.setattr(loss_module, "CPU_CHUNK", 16)
    monkeypatch.setattr(loss_module, "CPU_BLOCK", 32)
    ours = gradients(chunked_cross_entropy, *problem(N, 8, 101))
    oracle = gradients(plain, *problem(N, 8, 101))
    for a, b in zip(ours, oracle, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_gradients_at_full_vocabulary_equal_float64():
    hidden, weight, targets = problem(300, 16, 50349, scale=0.1)
    ours = gradients(chunked_cross_entropy, hidden, weight, targets)
    double = gradients(
        plain, hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_(), targets
    )
    for a, b in zip(ours, double, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-7)


def test_a_token_with_a_loss_of_hundreds_of_nats_does_not_overflow():
    ours = gradients(chunked_cross_entropy, *problem(12, 8, 50, scale=100.0))
    oracle = gradients(plain, *problem(12, 8, 50, scale=100.0))
    assert oracle[0] > 200
    for a, b in zip(ours, oracle, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_non_finite_input_gives_a_non_finite_loss():
    hidden, weight, targets = problem(4, 8, 50)
    with torch.no_grad():
        hidden[2, 3] = float("nan")
    assert not chunked_cross_entropy(hidden, weight, targets).isfinite()


@pytest.mark.parametrize("way", ["_on_cpu", "_on_accelerator"])
def test_autocast_multiplies_in_bfloat16_and_sums_in_float32(way, monkeypatch):
    monkeypatch.setattr(loss_module, "_on_cpu", getattr(loss_module, way))
    hidden, weight, targets = problem(40, 32, 1000, scale=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(chunked_cross_entropy, hidden, weight, targets)
    oracle = gradients(plain, hidden, weight, targets)
    assert ours[0].dtype == torch.float32 and ours[2].dtype == torch.float32
    assert abs(ours[0] - oracle[0]) < 0.02
    for a, b in zip(ours[1:], oracle[1:], strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("N", [5, 16, 40])
def test_the_way_of_a_gpu_equals_autograd_and_never_waits_for_the_host(N, compiled, monkeypatch):
    """On the CPU's arithmetic. Whatever waits for the device breaks the graph, which fullgraph=True forbids."""
    monkeypatch.setattr(loss_module, "ACCELERATOR_CHUNK", 16)
    monkeypatch.setattr(loss_module, "_on_cpu", loss_module._on_accelerator)

    def loss(hidden, weight, targets):
        return loss_module._ChunkedCrossEntropy.apply(hidden, weight, targets, torch.float32, True)

    loss = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
    ours = gradients(loss, *problem(N, 8, 101))
    oracle = gradients(plain, *problem(N, 8, 101))
    for a, b in zip(ours, oracle, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_compiled_model_under_autocast_takes_the_way_of_a_gpu_in_one_graph(monkeypatch):
    """What a GPU runs: the whole model, the public entry, bfloat16 products."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=101))
    idx, targets = torch.randint(0, 101, (2, 2, 8))
    with torch.autocast("cpu", torch.bfloat16):
        oracle = model.loss(idx, targets)
    expected = torch.autograd.grad(oracle, model.parameters())
    monkeypatch.setattr(loss_module, "_on_cpu", loss_module._on_accelerator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.compile(model, backend="aot_eager")(idx, targets)
    torch.testing.assert_close(loss, oracle, rtol=2e-3, atol=0)
    for ours, theirs in zip(torch.autograd.grad(loss, model.parameters()), expected, strict=True):
        assert (ours - theirs).norm() < 0.03 * theirs.norm() + 1e-6


def test_without_gradients_only_the_loss_is_computed():
    hidden, weight, targets = problem(20, 8, 101)
    with torch.no_grad():
        loss = chunked_cross_entropy(hidden, weight, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, plain(hidden, weight, targets).detach(), rtol=1e-6, atol=1e-6)


def test_an_ignored_target_is_not_taken_for_an_id():
    hidden, weight, targets = problem(4, 8, 50)
    targets[1] = -100
    with pytest.raises(AssertionError, match="every target counts"):
        chunked_cross_entropy(hidden, weight, targets)


def test_a_second_backward_is_refused_rather_than_scaled_twice():
    hidden, weight, targets = problem(4, 8, 50)
    loss = chunked_cross_entropy(hidden, weight, targets)
    (3.0 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()
