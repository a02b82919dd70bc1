"""Prompts and responses in one list of tokens: the model predicts as if each response stood alone."""

from dataclasses import replace

import pytest
import torch

from rl.micro_batches import KEYS, micro_batches
from rl.objective import ObjectiveSettings
from rl.rollouts import Row
from tests.grpo_runs import gradients_of, make_update, random_rows, tiny_policy

CPU = torch.device("cpu")


def group_rows():
    """Three responses to each of three prompts, of different lengths, one of a single token."""
    prompts = [[5, 6, 7], [9] * 6, [1]]
    rows = [replace(row, prompt=prompts[i % 3]) for i, row in enumerate(random_rows(9))]
    return [*rows, Row(prompts[0], [11], [-4.0], 0.5, False)]


def batches_of(rows, most_tokens=8192):
    return micro_batches(rows, [1.0 / (i + 1) for i in range(len(rows))], most_tokens, CPU)


@pytest.mark.parametrize("most_tokens", [1, 12, 30, 8192])
def test_predictions_are_those_of_every_response_alone(most_tokens):
    model, rows = tiny_policy(), group_rows()
    got = {}
    for batch in batches_of(rows, most_tokens):
        hidden = batch.predictions(model)
        flat = zip(batch.targets.tolist(), batch.weights.tolist(), batch.old_logprobs.tolist(), hidden, strict=True)
        for target, weight, old, state in flat:
            got.setdefault(round(1 / weight) - 1, []).append((target, old, state))
        assert len(batch.ids) <= most_tokens or len(batch.of) == 1
    assert sorted(got) == list(range(len(rows)))
    for i, row in enumerate(rows):
        alone = model.hidden(torch.tensor([row.prompt + row.ids[:-1]]))[0, len(row.prompt) - 1 :]
        targets, old, states = zip(*got[i], strict=True)
        assert list(targets) == row.ids and list(old) == pytest.approx(row.old_logprobs)
        assert torch.allclose(torch.stack(states), alone, atol=2e-6)


def test_a_prompt_is_computed_once_and_nothing_is_padded():
    rows = [Row([3] * 20, [4] * length, [-4.0] * length, 1.0, False) for length in (6, 5, 2, 1)]
    (batch,) = batches_of(rows)
    assert len(batch.ids) == 20 + 5 + 4 + 1 + 0
    assert batch.positions.tolist() == [*range(20), *range(20, 25), *range(20, 24), 20]
    assert [len(part.ids) for part in batches_of(rows, most_tokens=27)] == [25, 25], "the prompt again in the second"


def test_many_responses_to_a_long_prompt_take_several():
    """Each response has keys and values of its own copy of the prompt: memory that the list does not show."""
    rows = [Row([3] * 30, [4] * 2, [-4.0] * 2, 1.0, False) for _ in range(40)]
    parts = batches_of(rows, most_tokens=100)
    assert [len(part.of) for part in parts] == [12, 12, 12, 4]
    assert all(part.seen.size(0) * part.seen.size(3) <= KEYS * 100 for part in parts)


def test_gradients_do_not_depend_on_what_shares_a_micro_batch():
    rows = group_rows()
    objective = ObjectiveSettings(kl_coefficient=0.1)
    results = []
    for tokens in (8192, 1):  # a limit of one token puts every response into a batch of its own
        update = make_update(tiny_policy(), objective, tiny_policy(3), micro_batch_tokens=tokens)
        results.append(gradients_of(update, rows, bonus=0.01))
    (together, got), (alone, expected) = results
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
    assert all(torch.allclose(a, b, atol=2e-6) for a, b in zip(got, expected, strict=True))
