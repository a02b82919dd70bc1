"""GRPO from sampling to step on a small vocabulary: it learns, and only from groups whose rewards vary."""

import copy
import math

import pytest
import torch
from torch.optim import AdamW

from pretrain.model import GPT, GPTConfig
from rl.grpo_train import UPDATE_KEYS, learn
from rl.objective import ObjectiveSettings
from rl.problems import ProblemStream
from rl.rollouts import RolloutBatch
from rl.settings import GRPOConfig, RolloutSettings, TrainingSettings
from tests.grpo_runs import gradients_of, make_update, tiny_policy, toy_problems, toy_sampler

SEVEN = 7


def share_of_sevens(response):
    return sum(i == SEVEN for i in response.ids) / len(response.ids)


def digit_parity(response):
    """Varies with what is sampled, for every problem."""
    return float(sum(response.ids) % 2)


def first_half_is_dead(response):
    """Of 40 problems the first 20 always earn 0, whatever is said; the others by what is said."""
    return 0.0 if response.gold < 20 else digit_parity(response)


def settings(**training):
    return GRPOConfig(training=TrainingSettings(schedule="constant", warmup=0, **training))


def same_weights(model, weights):
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


# -- learning ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_weights_learn_to_emit_a_seven_within_40_iterations(seed):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=45))
    config = settings(learning_rate=1e-2, iterations=40)
    config.rollout = RolloutSettings(prompts=8, group_size=8, max_new_tokens=8)
    sampler = toy_sampler(share_of_sevens, config.rollout, seed=seed)
    stream = ProblemStream(toy_problems(40), seed)
    update = make_update(model, suppressed=())
    optimizer = AdamW(model.parameters(), lr=config.training.learning_rate, weight_decay=0.0)
    shares = []
    for iteration in range(40):
        batch = sampler.collect(model, stream)
        shares.append(sum(sum(group.scores) for group in batch.sampled) / (8 * len(batch.sampled)))
        if shares[-1] >= 0.99:
            break
        columns = learn(batch, update, optimizer, config, iteration)
        assert columns["updates"] == (1 if batch.kept else 0)
        assert all(value is None or math.isfinite(value) for value in columns.values())
    assert shares[0] < 0.1 and shares[-1] >= 0.99, shares


# -- groups that do not vary ------------------------------------------------------------------------------------------
def test_a_group_that_does_not_vary_contributes_exactly_nothing():
    """Neither to the surrogate nor, in the normaliser, the KL and the entropy bonus: the gradient is bit-equal."""
    model = tiny_policy()
    rollout = RolloutSettings(prompts=40, group_size=4, max_new_tokens=6, refills=0)
    batch = toy_sampler(first_half_is_dead, rollout).collect(model, ProblemStream(toy_problems(40), 0))
    dead = [group for group in batch.sampled if group.problem.gold < 20]
    assert len(dead) == 20 and 0 < len(batch.kept) <= 20
    alive = [group for group in batch.sampled if group.varies]
    without = RolloutBatch(kept=alive, sampled=alive, tries=1)

    objective = ObjectiveSettings(kl_coefficient=0.1, entropy_start=0.01)
    results = []
    for rows in (batch.rows(True), without.rows(True)):
        results.append(gradients_of(make_update(model, objective, tiny_policy(3), suppressed=()), rows, 0.01))
    (statistics, with_dead), (expected, gradients) = results
    assert statistics == expected and statistics["kl"] > 0
    assert all(torch.equal(a, b) for a, b in zip(with_dead, gradients, strict=True))

    # Had they been kept, they would have pulled at the weights by KL and entropy.
    kept = RolloutBatch(kept=batch.sampled, sampled=batch.sampled, tries=1)
    update = make_update(model, objective, tiny_policy(3), suppressed=())
    _, pulled = gradients_of(update, kept.rows(True), 0.01)
    assert any(not torch.allclose(a, b, atol=1e-6) for a, b in zip(pulled, gradients, strict=True))


def test_refilling_yields_the_asked_for_groups_without_a_problem_twice():
    rollout = RolloutSettings(prompts=8, group_size=6, max_new_tokens=6, refills=8)
    sampler = toy_sampler(first_half_is_dead, rollout)
    stream = ProblemStream(toy_problems(40), 0)
    for _ in range(4):  # also over the end of a pass
        before = stream.position
        batch = sampler.collect(tiny_policy(), stream)
        assert len(batch.kept) == 8 and all(group.varies for group in batch.kept)
        questions = [group.problem.question for group in batch.sampled]
        assert len(set(questions)) == len(questions)
        assert 1 < batch.tries <= 9 and stream.position - before <= 8 * batch.tries
        assert all(not group.varies for group in batch.sampled if group.problem.gold < 20)
    assert stream.position > 40


def test_tries_are_bounded_and_what_varies_is_kept():
    rollout = RolloutSettings(prompts=30, group_size=4, max_new_tokens=4, refills=1)
    batch = toy_sampler(first_half_is_dead, rollout).collect(tiny_policy(), ProblemStream(toy_problems(40), 0))
    assert batch.tries == 2 and len(batch.sampled) <= 40
    assert 0 < len(batch.kept) <= 20 and batch.kept == [group for group in batch.sampled if group.varies]


def test_without_refills_groups_are_only_left_out():
    rollout = RolloutSettings(prompts=16, group_size=4, max_new_tokens=4, refills=0)
    stream = ProblemStream(toy_problems(40), 0)
    batch = toy_sampler(first_half_is_dead, rollout).collect(tiny_policy(), stream)
    assert batch.tries == 1 and len(batch.sampled) == 16 == stream.position
    assert 0 < len(batch.kept) < 16 and batch.kept == [group for group in batch.sampled if group.varies]
    assert len(batch.rows(True)) == 4 * len(batch.kept)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_rewards_that_are_all_equal_make_no_step(reward):
    rollout = RolloutSettings(prompts=4, group_size=4, max_new_tokens=4, refills=2)
    model = tiny_policy()
    before = copy.deepcopy(model.state_dict())
    batch = toy_sampler(lambda _: reward, rollout).collect(model, ProblemStream(toy_problems(40), 0))
    assert batch.tries == 3 and len(batch.sampled) == 12 and not batch.kept
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    columns = learn(batch, make_update(model, suppressed=()), optimizer, settings(epochs=2), 0)
    assert same_weights(model, before) and not optimizer.state
    assert columns["updates"] == 0 and all(columns[key] is None for key in (*UPDATE_KEYS, "grad_norm"))


def test_a_batch_whose_responses_are_all_cut_makes_no_step_when_cut_ones_do_not_count():
    rollout = RolloutSettings(prompts=4, group_size=4, max_new_tokens=4)
    model, objective = tiny_policy(), ObjectiveSettings(overlong="filter", entropy_start=0.01)
    before = copy.deepcopy(model.state_dict())
    batch = toy_sampler(digit_parity, rollout).collect(model, ProblemStream(toy_problems(40), 0))
    assert len(batch.kept) == 4 and all(row.truncated for row in batch.rows(True))
    config = settings()
    config.objective = objective
    optimizer = AdamW(model.parameters(), lr=1e-2)
    columns = learn(batch, make_update(model, objective, suppressed=()), optimizer, config, 0)
    assert same_weights(model, before) and columns["updates"] == 0 and columns["loss"] is None
