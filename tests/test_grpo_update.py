"""GRPO's update: the ratio is 1 at the first step, and micro-batches and processes change nothing."""

import pytest
import torch

from common.distributed import joined_world
from eval.engine import generate
from rl.objective import ObjectiveSettings
from rl.rollouts import Row
from tests.grpo_runs import SUPPRESSED, gradients_of, make_update, random_rows, run_ranks, tiny_policy


def close(got, want, tolerance=2e-6):
    return all(
        torch.allclose(a, b, atol=tolerance * max(1.0, b.abs().max().item())) for a, b in zip(got, want, strict=True)
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_at_the_first_step_the_trainer_agrees_with_the_sampler(temperature):
    model = tiny_policy()
    prompts = [[5] * 3, [7, 8, 9] * 5, [1], [4, 3] * 10]
    groups = generate(
        model, prompts, n=3, max_new_tokens=9, temperature=temperature, stop_ids=[11], suppressed_ids=SUPPRESSED
    )
    rows = [Row(p, c.ids, c.logprobs, 1.0, False) for p, group in zip(prompts, groups, strict=True) for c in group]
    statistics, _ = gradients_of(make_update(model, temperature=temperature), rows)
    assert statistics["log_ratio_rms"] < 1e-5
    assert statistics["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert len({len(row.ids) for row in rows}) > 1, "responses must differ in length"
    other = 1.0 if temperature != 1.0 else 0.7
    wrong, _ = gradients_of(make_update(model, temperature=other), rows)
    assert wrong["log_ratio_rms"] > 1e-2, "another temperature must show"


@pytest.mark.parametrize("normalisation", ["token", "sequence", "dr_grpo"])
def test_gradients_do_not_depend_on_micro_batches(normalisation):
    objective = ObjectiveSettings(normalisation=normalisation, kl_coefficient=0.1)
    rows = random_rows()
    whole, expected = gradients_of(make_update(tiny_policy(), objective, tiny_policy(3)), rows, bonus=0.01)
    for tokens in (1, 60):
        update = make_update(tiny_policy(), objective, tiny_policy(3), micro_batch_tokens=tokens)
        statistics, got = gradients_of(update, rows, bonus=0.01)
        assert close(got, expected)
        assert statistics == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_truncated_rows_are_left_out_by_the_filter_and_only_by_it():
    rows = random_rows(truncated=(2, 5))
    kept = [row for row in rows if not row.truncated]
    filtered = ObjectiveSettings(overlong="filter")
    statistics, got = gradients_of(make_update(tiny_policy(), filtered), rows)
    without, expected = gradients_of(make_update(tiny_policy(), filtered), kept)
    assert close(got, expected)
    assert statistics["tokens"] == without["tokens"] == sum(len(row.ids) for row in kept)
    assert gradients_of(make_update(tiny_policy()), rows)[0]["tokens"] == sum(len(row.ids) for row in rows)
    assert make_update(tiny_policy(), filtered).gradients([rows[2], rows[5]], 0.0) is None


def test_rows_that_are_equal_on_both_sides_of_the_mean_cancel():
    model, rows = tiny_policy(), random_rows(1)
    pair = [Row(rows[0].prompt, rows[0].ids, [], advantage, False) for advantage in (1.0, -1.0)]
    for row in pair:  # on policy, so that nothing is clipped
        hidden = model.logits(model.hidden(torch.tensor([row.prompt + row.ids])))[0, len(row.prompt) - 1 : -1]
        hidden[:, list(SUPPRESSED)] = -torch.inf
        row.old_logprobs.extend(hidden.log_softmax(-1)[range(len(row.ids)), row.ids].tolist())
    assert max(g.abs().max() for g in gradients_of(make_update(model), pair)[1]) < 1e-6
    assert max(g.abs().max() for g in gradients_of(make_update(model), pair[:1])[1]) > 1e-3


def gradients_of_rank(path):
    with joined_world("cpu") as world:
        objective = ObjectiveSettings(kl_coefficient=0.1)
        update = make_update(tiny_policy(), objective, tiny_policy(3), world=world)
        torch.save([gradients_of(update, random_rows(count), 0.01) for count in (7, 1)], f"{path}/{world.rank}.pt")
    assert not torch.distributed.is_initialized(), "the group has been left"


def test_two_processes_have_the_gradients_of_one(tmp_path):
    """Also of a single row, of which the second process has nothing."""
    run_ranks(2, gradients_of_rank, str(tmp_path))
    objective = ObjectiveSettings(kl_coefficient=0.1)
    for rank in (0, 1):
        for count, (statistics, got) in zip((7, 1), torch.load(tmp_path / f"{rank}.pt"), strict=True):
            update = make_update(tiny_policy(), objective, tiny_policy(3))
            expected_statistics, expected = gradients_of(update, random_rows(count), 0.01)
            assert close(got, expected)
            assert statistics == pytest.approx(expected_statistics, rel=1e-4, abs=1e-6)
