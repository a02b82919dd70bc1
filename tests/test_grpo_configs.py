"""The configs that come with GRPO, and the mistakes that a config may hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from common.config import config_from_yaml
from common.errors import UserError
from rl.settings import GRPOConfig, check_config

CONFIGS = sorted((Path(__file__).parents[1] / "rl/configs").glob("*.yaml"))


def load(name):
    return config_from_yaml(GRPOConfig, Path(__file__).parents[1] / f"rl/configs/{name}.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_says_what_it_is(path):
    check_config(config_from_yaml(GRPOConfig, path))
    assert path.read_text().startswith("# ")
    assert yaml.safe_load(path.read_text())["training"]["iterations"]


def test_the_configs_have_the_documented_values():
    names = {path.stem for path in CONFIGS}
    assert names >= {"grpo_pilot", "grpo_optimized", "grpo_shaped", "grpo_20x", "grpo_dapo", "quick", "demo"}
    optimized, shaped, twenty, dapo = (load(f"grpo_{name}") for name in ("optimized", "shaped", "20x", "dapo"))
    assert (optimized.reward.kind, optimized.max_prompts, optimized.rollout.group_size) == ("binary", 1000, 8)
    assert optimized.objective.kl_coefficient == 0.1 and shaped.objective.kl_coefficient == 0.5
    weights = shaped.reward
    assert (weights.kind, weights.correct, weights.near, weights.shows_work) == ("shaped", 1.0, 0.3, 0.1)
    assert (weights.mul_tokens, weights.short, weights.repetition) == (0.2, 0.1, -0.3)
    assert twenty.training.iterations * twenty.rollout.prompts == twenty.max_prompts == 2000
    assert twenty.max_prompts * twenty.rollout.group_size == 80_000 and twenty.reward == shaped.reward
    assert (dapo.format, dapo.reward.kind, dapo.training.iterations) == ("reasoning", "composite", 500)
    assert (dapo.rollout.group_size, dapo.training.learning_rate) == (8, 5e-6)
    objective = dapo.objective
    assert (objective.clip_low, objective.clip_high) == (0.2, 0.28)
    assert (objective.entropy_start, objective.entropy_end) == (0.01, 0.001)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("rollout", {"prompts": 0}, "rollout.prompts is 0; it must be above 0"),
        ("rollout", {"group_size": 1}, "an advantage needs at least 2 responses"),
        ("rollout", {"temperature": 0.0}, "rollout.temperature is 0.0"),
        ("rollout", {"refills": -1}, "rollout.refills is -1; it must be at least 0"),
        ("rollout", {"group_size": 3, "contrast": 0.5}, "make it even"),
        ("training", {"learning_rate": 0.0}, "training.learning_rate is 0.0"),
        ("training", {"epochs": 0}, "training.epochs is 0"),
        ("objective", {"clip_low": 1.0}, "distances from 1"),
        ("objective", {"kl_coefficient": -0.1}, "objective.kl_coefficient is -0.1"),
        ("eval", {"prompts": 0}, "eval.keep_best needs eval.prompts above 0"),
        ("eval", {"prompts": -1, "keep_best": False}, "eval.prompts is -1; it must be at least 0"),
        ("reward", {"correct": 0.0}, "reward.correct"),
    ],
)
def test_a_value_that_cannot_be_is_named(section, values, message):
    config = GRPOConfig()
    with pytest.raises(UserError, match=message):
        check_config(replace(config, **{section: replace(getattr(config, section), **values)}))
