"""GRPO's loss and gradients against TRL's, which is right once it is given the positions of left-padded prompts."""

import warnings

import pytest
import torch
from transformers.utils import logging

from pretrain.hf_weights import from_hf_state, save_model_dir
from pretrain.model import GPT, GPTConfig
from rl.objective import ObjectiveSettings
from rl.rollouts import Row
from scripts.grpo_contenders import give_positions
from tests.grpo_runs import gradients_of, make_update, random_rows

EOT = 50256
BONUS = 0.01
# Ours, and the same in TRL's words.
CASES = {
    "dapo": (ObjectiveSettings(), {"loss_type": "dapo"}),
    "dapo, kl": (ObjectiveSettings(kl_coefficient=0.1), {"loss_type": "dapo", "beta": 0.1}),
    "dapo, entropy": (ObjectiveSettings(entropy_start=BONUS), {"loss_type": "dapo", "entropy_coef": BONUS}),
    "grpo": (ObjectiveSettings(normalisation="sequence", clip_high=0.2), {"loss_type": "grpo", "epsilon_high": 0.2}),
    "dr_grpo": (ObjectiveSettings(normalisation="dr_grpo"), {"loss_type": "dr_grpo"}),
    "dr_grpo, kl, entropy": (
        ObjectiveSettings(normalisation="dr_grpo", kl_coefficient=0.04, entropy_start=BONUS),
        {"loss_type": "dr_grpo", "beta": 0.04, "entropy_coef": BONUS},
    ),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A tiny model directory. (TRL reads the reference of a KL from the disk.)"""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("grpo") / "model"
    save_model_dir(model, path, "baseline")
    return path


@pytest.fixture(scope="module")
def rows():
    """Old log-probabilities near the policy's, so that some ratios are clipped on either side and others are not."""
    return [Row(r.prompt, r.ids, [p - 6.3 for p in r.old_logprobs], r.advantage, False) for r in random_rows()]


def trainer_of(directory, options, output_dir):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 7,
        "num_generations": 7,
        "max_completion_length": 12,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "use_bias_correction_kl": False,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "report_to": [],
    }
    return GRPOTrainer(
        model=str(directory),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(**arguments | options),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8),
    )


def padded(sequences, side):
    longest = max(map(len, sequences))
    pad = [[EOT] * (longest - len(s)) for s in sequences]
    keep = [[0] * (longest - len(s)) for s in sequences]
    ids = [p + s if side == "left" else s + p for p, s in zip(pad, sequences, strict=True)]
    mask = [k + [1] * len(s) if side == "left" else [1] * len(s) + k for k, s in zip(keep, sequences, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def trl_inputs(trainer, rows, reference_logprobs):
    prompt_ids, prompt_mask = padded([row.prompt for row in rows], "left")
    completion_ids, completion_mask = padded([row.ids for row in rows], "right")
    old = torch.zeros(completion_ids.shape)
    for i, row in enumerate(rows):
        old[i, : len(row.ids)] = torch.tensor(row.old_logprobs)
    inputs = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor([row.advantage for row in rows]),
        "old_per_token_logps": old,
        "num_items_in_batch": completion_mask.sum(),
    }
    if reference_logprobs:
        with torch.no_grad():
            ids, mask = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1)
            per_token = trainer._get_per_token_logps_and_entropies(
                trainer.ref_model, ids, mask, completion_ids.size(1)
            )[0]
        inputs["ref_per_token_logps"] = per_token
    return inputs


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_trls(case, directory, rows, tmp_path):
    objective, options = CASES[case]
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trainer_of(directory, options, tmp_path)
    torch.manual_seed(5)
    with torch.no_grad():  # the policy has moved away from the reference
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            give_positions(model)
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    trainer.model.train()
    expected = trainer._compute_loss(trainer.model, trl_inputs(trainer, rows, objective.kl_coefficient > 0))
    expected.backward()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}

    ours, reference = (GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=64)) for _ in range(2))
    ours.load_state_dict(from_hf_state(trainer.model.state_dict()))
    if objective.kl_coefficient:
        reference.load_state_dict(from_hf_state(trainer.ref_model.state_dict()))
    update = make_update(ours, objective, reference if objective.kl_coefficient else None, suppressed=())
    statistics, _ = gradients_of(update, rows, objective.entropy_start)
    assert statistics["loss"] == pytest.approx(expected.item(), abs=1e-6)
    assert statistics["clip_low"] > 0 and statistics["clip_high"] > 0, "or clipping is not compared"
    theirs = from_hf_state(gradients)
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, theirs[name], atol=1e-6), name
