"""Suffix-only optimisation beside the full forward, and a batch beside single runs."""

import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from edit.editing import make_requests
from edit.prompts import context_weights
from edit.settings import ValueSettings
from edit.values import ValueLoss, find_values
from tests.edit_models import CONFIG, RECORDS, TOKENIZER, small_model, small_requests

SETTINGS = ValueSettings(steps=8, learning_rate=0.3, stop_loss=0.05, clamp=1.5, kl_weight=0.1, weight_decay=0.5)


def full_loss(model, request, layer, delta, settings):
    """The loss of one edit by whole forward passes of one row each, delta put in by a hook."""

    def logits(prompt, ids, change):
        def put(module, inputs, output):
            row = torch.zeros_like(output)
            row[0, prompt.position] = 1.0
            return output + row * change

        hook = model.h[layer].register_forward_hook(put)
        try:
            return model.logits(model.hidden(torch.tensor([ids])))[0]
        finally:
            hook.remove()

    def residual():
        kept = []
        hook = model.h[layer].register_forward_hook(lambda _m, _i, output: kept.append(output[0]))
        model.hidden(torch.tensor([request.prompts[0].ids]))
        hook.remove()
        return kept[0][request.prompts[0].position].detach()

    nll = 0.0
    for weight, prompt in zip(context_weights(len(request.prompts) - 1), request.prompts, strict=True):
        out = logits(prompt, prompt.ids + request.target[:-1], delta)[len(prompt.ids) - 1 :]
        nll = nll + weight * F.cross_entropy(out, torch.tensor(request.target))
    # " is a" behind the subject, as MEMIT has it: it must not matter.
    alone = request.subject_alone
    ids = [*alone.ids, 318, 257]
    new = logits(alone, ids, delta)[alone.position].log_softmax(-1)
    old = logits(alone, ids, torch.zeros_like(delta))[alone.position].log_softmax(-1).detach()
    kl = (new.exp() * (new - old)).sum()
    return nll + settings.kl_weight * kl + settings.weight_decay * delta.norm() / residual().norm() ** 2


def assert_equal_to_the_full_forward(model, requests, layer, settings):
    """The losses and their gradients at random deltas, edit by edit."""
    torch.manual_seed(1)
    delta = torch.randn(len(requests), CONFIG.n_embd, requires_grad=True)
    losses = ValueLoss(model, requests, layer, settings)(delta)
    [grad] = torch.autograd.grad(losses.sum(), delta)
    for i, request in enumerate(requests):
        one = delta[i].detach().requires_grad_()
        expected = full_loss(model, request, layer, one, settings)
        [expected_grad] = torch.autograd.grad(expected, one)
        assert torch.allclose(losses[i], expected, atol=1e-5), RECORDS[i]
        assert torch.allclose(grad[i], expected_grad, atol=1e-5), RECORDS[i]


@pytest.mark.parametrize("layer", [0, 1])
def test_the_suffix_has_the_loss_and_gradient_of_the_full_forward(layer):
    model = small_model()
    requests = small_requests(model)
    assert_equal_to_the_full_forward(model, requests, layer, SETTINGS)


def test_without_a_kl_weight_there_is_no_anchor():
    model = small_model()
    requests = small_requests(model)
    settings = ValueSettings(**vars(SETTINGS) | {"kl_weight": 0.0})
    loss = ValueLoss(model, requests, 1, settings)
    assert len(loss.owners) == sum(len(request.prompts) for request in requests)
    torch.manual_seed(1)
    delta = torch.randn(len(requests), CONFIG.n_embd)
    losses, some = loss(delta), torch.tensor([1, 3])
    for i, request in enumerate(requests):
        assert torch.allclose(losses[i], full_loss(model, request, 1, delta[i], settings), atol=1e-5)
    assert torch.allclose(loss.select(some)(delta[some]), losses[some], atol=1e-5)


@pytest.mark.parametrize("token", ["subject", "prompt"])
def test_contexts_of_different_lengths(token):
    """The last block too can be edited at the prompt's end; one context is empty, and so the bare prompt once more."""
    model, layer = small_model(), {"subject": 1, "prompt": 2}[token]
    requests = make_requests(TOKENIZER, RECORDS, [[464, 11, 13], [40, 50, 60, 70, 80, 13], []], token)
    settings = ValueSettings(**vars(SETTINGS) | {"kl_weight": 0.0})
    assert_equal_to_the_full_forward(model, requests, layer, settings)


def test_a_batch_equals_single_edits():
    model = small_model()
    requests = small_requests(model)
    together = find_values(model, requests, 1, SETTINGS)
    for i, request in enumerate(requests):
        alone = find_values(model, [request], 1, SETTINGS)
        assert torch.allclose(together.delta[i], alone.delta[0], atol=1e-4)
        assert torch.allclose(together.loss[i], alone.loss[0], atol=1e-5)
        assert together.steps[i] == alone.steps[0]
    split = find_values(model, requests, 1, ValueSettings(**vars(SETTINGS) | {"batch_edits": 3}))
    assert torch.allclose(split.delta, together.delta, atol=1e-4)


def test_each_edit_stops_at_its_own_loss():
    model = small_model()
    requests = small_requests(model)
    free = find_values(model, requests, 1, SETTINGS)
    stop = float(free.loss.sort().values[:2].mean())  # between the easiest two
    stopped = find_values(model, requests, 1, ValueSettings(**vars(SETTINGS) | {"stop_loss": stop}))
    easiest = int(free.loss.argmin())
    assert stopped.loss[easiest] < stop and stopped.steps[easiest] < SETTINGS.steps
    others = torch.arange(len(requests)) != easiest
    assert torch.allclose(stopped.delta[others], free.delta[others], atol=1e-4)
    assert (stopped.steps[others] == SETTINGS.steps).all()


def test_the_loss_falls_and_the_vector_stays_within_its_clamp():
    model = small_model()
    requests = small_requests(model)
    found = find_values(model, requests, 1, SETTINGS)
    assert (found.loss <= found.first_loss).all() and (found.loss < found.first_loss).sum() >= 3
    norms = ValueLoss(model, requests, 1, SETTINGS).norms
    tight = find_values(model, requests, 1, ValueSettings(**vars(SETTINGS) | {"clamp": 0.01}))
    assert (tight.delta.norm(dim=-1) <= 0.01 * norms * 1.0001).all() and (tight.delta.norm(dim=-1) > 0).any()


def test_parameters_get_no_gradient_and_keep_their_flags():
    model = small_model()
    model.wpe.weight.requires_grad_(False)
    find_values(model, small_requests(model), 0, SETTINGS)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.wpe.weight.requires_grad and model.wte.weight.requires_grad


def test_a_prompt_longer_than_the_context_is_an_error():
    model = small_model()
    [request] = small_requests(model, contexts=0, records=RECORDS[:1])
    request.prompts[0].ids.extend([1] * CONFIG.block_size)
    with pytest.raises(UserError, match=r"'edit 0: The capital of France is' has .* the model takes 48"):
        ValueLoss(model, [request], 0, SETTINGS)
