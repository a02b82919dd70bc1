"""Responses side by side behind one prompt: the model predicts as if each stood alone."""

from dataclasses import replace

import pytest
import torch

from rl.micro_batches import micro_batches, shared_prompts
from rl.objective import ObjectiveSettings
from rl.rollouts import Row
from tests.grpo_runs import gradients_of, make_update, random_rows, tiny_policy

CPU = torch.device("cpu")


def group_rows():
    """Three responses to each of three prompts, of different lengths, one of a single token."""
    prompts = [[5, 6, 7], [9] * 6, [1]]
    rows = [replace(row, prompt=prompts[i % 3]) for i, row in enumerate(random_rows(9))]
    return [*rows, Row(prompts[0], [11], [-4.0], 0.5, False)]


def batches_of(rows, most_tokens=8192, width=48):
    return micro_batches(rows, [1.0 / (i + 1) for i in range(len(rows))], most_tokens, width, CPU)


@pytest.mark.parametrize("width", [1, 12, 48])
@pytest.mark.parametrize("most_tokens", [1, 30, 8192])
def test_predictions_are_those_of_every_response_alone(width, most_tokens):
    model, rows = tiny_policy(), group_rows()
    got = {}
    for batch in batches_of(rows, most_tokens, width):
        hidden = batch.predictions(model)
        flat = zip(batch.targets.tolist(), batch.weights.tolist(), batch.old_logprobs.tolist(), hidden, strict=True)
        for target, weight, old, state in flat:
            got.setdefault(round(1 / weight) - 1, []).append((target, old, state))
        assert batch.idx.numel() <= most_tokens or len(batch.idx) == 1
    assert sorted(got) == list(range(len(rows)))
    for i, row in enumerate(rows):
        alone = model.hidden(torch.tensor([row.prompt + row.ids[:-1]]))[0, len(row.prompt) - 1 :]
        targets, old, states = zip(*got[i], strict=True)
        assert list(targets) == row.ids and list(old) == pytest.approx(row.old_logprobs)
        assert torch.allclose(torch.stack(states), alone, atol=2e-6)


def test_a_prompt_is_computed_once_for_several_responses():
    rows = [Row([3] * 20, [4] * 5, [-4.0] * 5, 1.0, False) for _ in range(6)]
    assert [len(members) for members in shared_prompts(rows, 20 + 3 * 4)] == [3, 3]
    assert [len(members) for members in shared_prompts(rows, 8)] == [1] * 6
    (batch,) = batches_of(rows, width=32)
    assert batch.idx.shape == (2, 32) and batch.mask() is not None
    (alone,) = batches_of(rows, width=1)
    assert alone.idx.shape == (6, 24) and alone.mask() is None, "plain causal attention is faster"
    assert max(batch.places.flatten().tolist()) == 23, "positions are those of a response alone"


def test_gradients_do_not_depend_on_what_shares_a_sequence():
    rows = group_rows()
    objective = ObjectiveSettings(kl_coefficient=0.1)
    results = []
    for tokens in (8192, 1):  # a limit of one token puts every response into a sequence of its own
        update = make_update(tiny_policy(), objective, tiny_policy(3), micro_batch_tokens=tokens)
        results.append(gradients_of(update, rows, bonus=0.01))
    (together, got), (alone, expected) = results
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
    assert all(torch.allclose(a, b, atol=2e-6) for a, b in zip(got, expected, strict=True))
