"""The optimizers: who updates what, at which rate, and what Muon's update is."""

import math

import pytest
import torch

from pretrain.model import GPT, GPTConfig
from pretrain.optimizer import build_optimizers, rate_factor, set_rates
from pretrain.settings import TrainingConfig

SMALL = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=100)


def settings(**values) -> TrainingConfig:
    return TrainingConfig(**values)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_batch_can_be_learnt_by_heart(optimizer):
    torch.manual_seed(0)
    model = GPT(SMALL)
    optimizers = build_optimizers(model, settings(optimizer=optimizer, max_lr=1e-2, weight_decay=0.0))
    x, y = torch.randint(0, 100, (2, 4, 16), generator=torch.Generator().manual_seed(0))
    for _ in range(150):
        loss = model.loss(x, y)
        loss.backward()
        for one in optimizers:
            one.step()
        model.zero_grad()
    assert loss < 0.05


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_and_biases_do_not_decay(optimizer):
    model = GPT(SMALL)
    groups = [g for one in build_optimizers(model, settings(optimizer=optimizer)) for g in one.param_groups]
    found = [id(p) for group in groups for p in group["params"]]
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(found) == sorted(names)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert (group["weight_decay"] > 0) == ("bias" not in name and "ln_" not in name), name


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    model = GPT(SMALL)
    _, muon = build_optimizers(model, settings(optimizer="muon"))
    matrices = {id(p) for name, p in model.h.named_parameters() if name.endswith("weight") and "ln_" not in name}
    assert {id(p) for group in muon.param_groups for p in group["params"]} == matrices


def test_muon_orthogonalizes_its_update():
    """All singular values of a step, whatever the gradient's are, lie in the band of five Newton-Schulz iterations."""
    model = GPT(SMALL)
    _, muon = build_optimizers(model, settings(optimizer="muon", muon_lr=0.1, weight_decay=0.0))
    before = {name: p.detach().clone() for name, p in model.h.named_parameters()}
    for p in model.h.parameters():
        if p.dim() == 2:
            u, values, v = torch.linalg.svd(torch.randn_like(p), full_matrices=False)
            p.grad = u * torch.logspace(0, -1, len(values)) @ v  # its own spread over a decade
    muon.step()
    for name, p in model.h.named_parameters():
        if p.dim() == 2:
            scale = 0.1 * math.sqrt(max(1, p.size(0) / p.size(1)))
            values = torch.linalg.svdvals((before[name] - p.detach()) / scale)
            assert values.min() > 0.5 and values.max() < 1.3, name


def test_both_optimizers_shrink_their_matrices_alike():
    """Without gradients, decay alone: weights of the blocks and of the embedding lose the same share per step."""
    model = GPT(SMALL)
    optimizers = build_optimizers(model, settings(optimizer="muon", max_lr=1e-2, muon_lr=0.05, weight_decay=0.5))
    tensors = {"block": model.h[0].mlp.c_fc.weight, "embedding": model.wte.weight}
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for one in optimizers:
        one.step()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor.detach(), before[name] * (1 - 1e-2 * 0.5), msg=name)


def test_the_cosine_at_its_corners():
    def rate(step):
        return rate_factor(step, settings(max_steps=110, warmup_steps=10, max_lr=2.0, min_lr=0.2))

    assert rate(0) == pytest.approx(0.1)
    assert rate(9) == rate(10) == pytest.approx(1.0)
    assert rate(60) == pytest.approx(0.55)
    assert rate(110) == rate(500) == pytest.approx(0.1)
    assert rate(35) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))


def test_the_linear_schedule_at_its_corners():
    linear = settings(schedule="linear", max_steps=100, warmup_steps=10, warmdown=0.4, max_lr=1.0, min_lr=0.0)
    rates = {step: rate_factor(step, linear) for step in (0, 9, 10, 60, 80, 99, 100, 150)}
    assert rates == pytest.approx({0: 0.1, 9: 1.0, 10: 1.0, 60: 1.0, 80: 0.5, 99: 0.025, 100: 0.0, 150: 0.0})


def test_rates_are_shares_of_each_groups_peak():
    optimizers = build_optimizers(GPT(SMALL), settings(optimizer="muon", max_lr=1e-3, muon_lr=0.02))
    set_rates(optimizers, 0.5)
    assert [group["lr"] for one in optimizers for group in one.param_groups] == [5e-4, 5e-4, 1e-2]
