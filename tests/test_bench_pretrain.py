"""The benchmark of the training step, at toy size."""

from pathlib import Path

import pytest
import torch

from common.config import config_from_yaml
from common.files import read_json, write_text
from pretrain.model import GPT, GPTConfig
from pretrain.settings import TrainConfig, check_settings
from tests.helpers import run

TOY = "model: {n_layer: 1, n_head: 2, n_embd: 8, block_size: 16}\ntraining: {batch_size: 2}\n"
CONFIGS = sorted((Path(__file__).parents[1] / "pretrain/configs").glob("*.yaml"))


@pytest.mark.slow  # a process for each of them, with its own imports
def test_three_contenders_are_timed_on_one_batch(tmp_path):
    write_text(tmp_path / "toy.yaml", TOY)
    result = run(
        "scripts/bench_pretrain.py", "--recipe", tmp_path / "toy.yaml", "--steps=2", "--output", tmp_path / "o"
    )
    figures = read_json(tmp_path / "o")
    assert list(figures["contenders"]) == ["ours", "hf", "nanogpt"] and figures["loss_difference"] < 1e-4
    assert figures["contenders"]["ours"]["step_time_of_ours"] == 1.0
    for name, contender in figures["contenders"].items():
        assert contender["tokens_per_second"] > 0 and contender["mfu"] is None and name in result.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_can_be_run(path):
    check_settings(config_from_yaml(TrainConfig, path))


@pytest.mark.parametrize(
    ("name", "parameters"), [("gpt2_124m", 124_510_464), ("gpt2_124m_fast", 124_510_464), ("gpt2_355m", 354_917_376)]
)
def test_the_named_sizes_are_gpt2s(name, parameters):
    model = config_from_yaml(TrainConfig, CONFIGS[0].with_name(f"{name}.yaml")).model
    with torch.device("meta"):
        assert GPT(GPTConfig(**vars(model))).num_parameters() == parameters


def test_the_fast_recipe_trains_the_same_model_on_the_same_batch():
    """So that it exports alike, and that steps can be compared with steps."""
    plain, fast = (config_from_yaml(TrainConfig, CONFIGS[0].with_name(f"gpt2_124m{s}.yaml")) for s in ("", "_fast"))
    assert plain.model == fast.model and plain.training.total_batch_size == fast.training.total_batch_size
    assert fast.training.optimizer == "muon" and fast.training.max_steps < plain.training.max_steps
