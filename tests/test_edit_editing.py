"""Edits of a model in memory: what they reach, what they leave, and that they can be undone bit for bit."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.errors import UserError
from edit.covariance import second_moments
from edit.editing import edit_model, load_originals, make_requests, precondition, revert, save_originals
from edit.prompts import sample_contexts
from edit.settings import ContextSettings, UpdateSettings, ValueSettings, check_layers
from pretrain.hf_weights import load_model_dir, save_model_dir
from tests.edit_models import CONFIG, RECORDS, TOKENIZER, small_model, small_requests, streams_after
from tests.test_edit_covariance import random_windows

VALUES = ValueSettings(steps=15, learning_rate=0.3, clamp=4.0)
LAYERS = [0, 1]


def covariances(model, layers=LAYERS):
    return second_moments(model, random_windows(40), layers, 2000)


def edited_model(method="memit", layers=LAYERS, contexts=0, **update):
    model = small_model()
    requests = small_requests(model, contexts)
    settings = UpdateSettings(layers=layers, **update)
    edited = edit_model(
        model, requests, precondition(covariances(model, layers), method, settings), method, settings, VALUES
    )
    return model, requests, edited


def wanted_and_reached(model, requests, edited):
    """What the values ask of the residual stream at the subjects, beside what the edited model does there."""
    bare = [request.prompts[0] for request in requests]
    top = max(int(name.split(".")[1]) for name in edited.originals)
    reached = streams_after(model, bare, top)
    before = streams_after(small_model(), bare, top)
    return before + edited.values.delta, reached


@pytest.mark.parametrize(("method", "layers"), [("emmet", [1]), ("emmet", [0, 1]), ("memit", [0, 1])])
def test_the_last_layer_delivers_all_that_is_left_when_lambda_is_nothing(method, layers):
    """Biases included: what is measured is the residual stream itself."""
    model, requests, edited = edited_model(method, layers, lambda_per_width=1e-9)
    wanted, reached = wanted_and_reached(model, requests, edited)
    assert torch.allclose(wanted, reached, atol=2e-3)
    assert edited.residual_left < 1e-3
    assert all(norm > 0 for norm in edited.update_norms.values())


def test_rome_sends_its_key_to_its_value_one_edit_after_the_other():
    model = small_model()
    requests = small_requests(model, contexts=0)[:1]
    settings = UpdateSettings()
    edited = edit_model(
        model, requests, precondition(covariances(model, [1]), "rome", settings), "rome", settings, VALUES
    )
    wanted, reached = wanted_and_reached(model, requests, edited)
    assert torch.allclose(wanted, reached, atol=1e-4)
    dW = model.h[1].mlp.c_proj.weight - edited.originals["h.1.mlp.c_proj.weight"]
    assert torch.linalg.matrix_rank(dW.detach(), rtol=1e-3) == 1


def test_what_rome_leaves_counts_what_later_edits_undid():
    _, requests, several = edited_model("rome", [1])
    model, wanted = small_model(), []
    settings = UpdateSettings()
    M = precondition(covariances(model, [1]), "rome", settings)
    bare = [request.prompts[0] for request in requests]
    for i, request in enumerate(requests):
        before = streams_after(model, bare[i : i + 1], 1)
        one = edit_model(model, [request], M, "rome", settings, VALUES)
        assert one.residual_left < 1e-3, "each is exact when it is made"
        wanted.append(before + one.values.delta)
    missing = (torch.cat(wanted) - streams_after(model, bare, 1)).norm(dim=-1).sum()
    assert several.values.delta.shape == (len(RECORDS), CONFIG.n_embd)
    assert several.residual_left == pytest.approx(float(missing / several.values.delta.norm(dim=-1).sum()), rel=1e-3)
    assert several.residual_left > 0.01


def test_a_larger_lambda_leaves_more_and_changes_less():
    results = [edited_model(layers=[1], lambda_per_width=lam)[2] for lam in (1e-3, 1.0, 1e3)]
    left = [edited.residual_left for edited in results]
    norms = [edited.update_norms[1] for edited in results]
    assert left[0] < left[1] < left[2] < 1.01 and norms[0] > norms[1] > norms[2]


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_targets_become_likelier(method):
    _, _, edited = edited_model(method, alphaedit_l2=0.1, null_space_threshold=0.5)
    assert (edited.values.loss < edited.values.first_loss).sum() >= 3
    assert edited.residual_left < 0.9


def test_keys_are_those_of_the_real_prompt_under_its_contexts():
    model = small_model()
    contexts = sample_contexts(model, TOKENIZER, ContextSettings(3, 5), seed=1)
    assert contexts == sample_contexts(model, TOKENIZER, ContextSettings(3, 5), seed=1)
    assert contexts != sample_contexts(model, TOKENIZER, ContextSettings(3, 5), seed=2)
    for request, record in zip(make_requests(TOKENIZER, RECORDS, contexts), RECORDS, strict=True):
        assert len(request.prompts) == 4
        for prompt, prefix in zip(request.prompts, ([], *contexts), strict=True):
            text = TOKENIZER.decode(prompt.ids)
            assert prompt.ids[: len(prefix)] == prefix and text.endswith(record.prompt)
            assert TOKENIZER.decode(prompt.ids[: prompt.position + 1]).endswith(record.subject)
        assert TOKENIZER.decode(request.target) == f" {record.target_new}"


def test_revert_is_bit_for_bit_and_nothing_else_changed(tmp_path):
    before = {name: tensor.clone() for name, tensor in small_model().state_dict().items()}
    model, _, edited = edited_model()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"h.{layer}.mlp.c_proj.weight" for layer in LAYERS} == set(edited.originals)
    save_originals(tmp_path / "originals.safetensors", edited.originals)
    revert(model, load_originals(tmp_path / "originals.safetensors"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_edit_survives_export_and_reload(tmp_path):
    model, _, _ = edited_model()
    save_model_dir(model, tmp_path / "edited", "mul_tokens")
    ids = torch.tensor([TOKENIZER.encode(RECORDS[0].prompt)])
    with torch.no_grad():
        ours = model.logits(model.hidden(ids))
        again = load_model_dir(tmp_path / "edited")
        assert torch.equal(again.logits(again.hidden(ids)), ours)
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    plain = small_model()
    assert not torch.allclose(ours, plain.logits(plain.hidden(ids)), atol=1e-3), "the edit must show"


def test_a_failure_leaves_the_model_as_it_was():
    model = small_model()
    requests = small_requests(model, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = UpdateSettings(layers=LAYERS)
    M = precondition(covariances(model), "emmet", settings)
    with pytest.raises(UserError, match="the same key and lambda is 0"):
        edit_model(model, [*requests, requests[0]], M, "emmet", settings, VALUES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("layers", [[], [2], [-1], [0, 0], [7]])
def test_layers_that_cannot_be_edited_are_named(layers):
    with pytest.raises(UserError, match="the model has 3 blocks"):
        check_layers(layers, n_layer=3, token="subject")


def test_layers_are_sorted():
    assert check_layers([1, 0], 3, "subject") == [0, 1]
    assert check_layers([2], 3, "prompt") == [2]


def test_an_edit_at_the_prompt_s_last_token_may_use_the_last_block():
    model = small_model()
    requests = make_requests(TOKENIZER, RECORDS, [], token="prompt")
    assert all(request.prompts[0].position == len(request.prompts[0].ids) - 1 for request in requests)
    settings = UpdateSettings(layers=[2], token="prompt", lambda_per_width=1e-9)
    M = precondition(covariances(model, [2]), "memit", settings)
    edited = edit_model(model, requests, M, "memit", settings, ValueSettings(**vars(VALUES) | {"kl_weight": 0.0}))
    wanted, reached = wanted_and_reached(model, requests, edited)
    assert torch.allclose(wanted, reached, atol=2e-3)
    assert (edited.values.loss < edited.values.first_loss).sum() >= 3
