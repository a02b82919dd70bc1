"""The parts of GRPO's objective, by hand."""

import math

import pytest
import torch

from rl.objective import (
    STD_EPS,
    ObjectiveSettings,
    entropy_coefficient,
    group_advantages,
    kl_estimate,
    overlong_penalty,
    surrogate,
    token_weights,
)


def test_advantages_are_distances_from_the_mean_in_units_of_the_unbiased_deviation():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 3.0, 1.0]])
    deviations = [math.sqrt(1 / 3), math.sqrt(2)]
    expected = [
        [a / (deviation + STD_EPS) for a in row]
        for row, deviation in zip([[0.5, -0.5, -0.5, 0.5], [-1.0, -1.0, 2.0, 0.0]], deviations, strict=True)
    ]
    assert torch.allclose(group_advantages(rewards, True), torch.tensor(expected))
    assert group_advantages(rewards, False)[0].tolist() == [0.5, -0.5, -0.5, 0.5]


def test_advantages_do_not_see_a_shift_and_with_the_deviation_hardly_a_scale():
    rewards = torch.rand(5, 8, dtype=torch.float64)
    assert torch.allclose(group_advantages(rewards + 7, True), group_advantages(rewards, True))
    assert torch.allclose(group_advantages(3 * rewards, True), group_advantages(rewards, True), rtol=2e-3)
    assert group_advantages(torch.full((1, 4), 0.3), True).abs().max() == 0


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "slope"),
    [(1.0, 1.5, 1.28, 0.0), (1.0, 0.5, 0.5, 0.5), (-1.0, 0.5, -0.8, 0.0), (-1.0, 1.5, -1.5, -1.5)],
)
def test_the_four_cases_of_clipping(advantage, ratio, value, slope):
    logprobs = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    gain = surrogate(logprobs, torch.zeros(1, dtype=torch.float64), torch.tensor([advantage]), low=0.2, high=0.28)
    assert gain.item() == pytest.approx(value)
    assert torch.autograd.grad(gain, logprobs)[0].item() == pytest.approx(slope)  # d ratio / d logprob = ratio


def test_kl_estimators_estimate_the_kl():
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    for estimator in ("k1", "k3"):  # unbiased: their mean under p is the KL itself
        assert (p * kl_estimate(p.log(), q.log(), estimator)).sum() == pytest.approx(exact.item())
    k3 = kl_estimate(p.log(), q.log(), "k3")
    assert (k3 >= 0).all() and k3[2] == 0
    assert kl_estimate(torch.tensor([-1.0]), torch.tensor([-1.5]), "k2").item() == pytest.approx(0.125)


def test_what_a_token_weighs():
    lengths, counted = torch.tensor([2.0, 6.0, 4.0]), torch.tensor([True, True, False])
    by = {name: ObjectiveSettings(normalisation=name) for name in ("token", "sequence", "dr_grpo")}
    assert token_weights(lengths, counted, by["token"], 10).tolist() == pytest.approx([1 / 8, 1 / 8, 0])
    assert token_weights(lengths, counted, by["sequence"], 10).tolist() == pytest.approx([1 / 4, 1 / 12, 0])
    assert token_weights(lengths, counted, by["dr_grpo"], 10).tolist() == pytest.approx([1 / 20, 1 / 20, 0])


@pytest.mark.parametrize(("length", "penalty"), [(10, 0), (80, 0), (90, -0.5), (100, -1)])
def test_the_overlong_penalty_grows_over_its_buffer(length, penalty):
    assert overlong_penalty(length, max_new_tokens=100, buffer=20) == penalty


def test_the_entropy_bonus_falls_from_start_to_end():
    settings = ObjectiveSettings(entropy_start=0.01, entropy_end=0.001)
    values = [entropy_coefficient(settings, iteration, 10) for iteration in (0, 4, 9)]
    assert values == pytest.approx([0.01, 0.006, 0.001])
    assert entropy_coefficient(settings, 0, 1) == 0.01
