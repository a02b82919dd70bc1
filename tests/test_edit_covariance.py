"""Second moments beside numpy, whatever the batches; the cache and its key."""

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import write_jsonl
from edit.covariance import cache_key, load_covariances, read_windows, second_moments
from edit.settings import CovarianceSettings
from tests.edit_models import CONFIG, TOKENIZER, small_model
from tokenizer.mul_facts import EOT_ID

LAYERS = [0, 2]


def random_windows(number=9, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 50257, rng.integers(1, CONFIG.block_size)).tolist() for _ in range(number)]


def keys_one_by_one(model, windows, layer):
    """The inputs of mlp.c_proj for each window alone, without padding."""
    rows = []
    hook = model.h[layer].mlp.c_proj.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][0]))
    with torch.no_grad():
        for window in windows:
            model.hidden(torch.tensor([window]))
    hook.remove()
    return torch.cat(rows).double().numpy()


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_equals_numpy_on_unmasked_tokens_whatever_the_batches(batch_tokens):
    model, windows = small_model(), random_windows()
    found = second_moments(model, windows, LAYERS, batch_tokens)
    for layer in LAYERS:
        X = keys_one_by_one(model, windows, layer)
        expected = X.T @ X / len(X)
        assert len(X) == sum(map(len, windows)) and found[layer].dtype == torch.float64
        assert np.abs(found[layer].numpy() - expected).max() < 1e-6 * np.abs(expected).max()


def test_the_order_of_the_windows_does_not_matter():
    model, windows = small_model(), random_windows()
    a, b = (second_moments(model, those, [1], 200)[1] for those in (windows, windows[::-1]))
    assert (a - b).abs().max() < 1e-6 * a.abs().max()


def test_windows_hold_as_many_tokens_as_asked_each_document_behind_end_of_text(tmp_path):
    texts = ["The capital of France is Paris. " * 10, "One.", "Two words."]
    write_jsonl(tmp_path / "text.jsonl", [{"text": text} for text in texts])
    settings = CovarianceSettings(corpus=str(tmp_path / "text.jsonl"), tokens=78)
    windows = read_windows(TOKENIZER, settings, CONFIG.block_size)
    assert sum(map(len, windows)) == 78 and max(map(len, windows)) <= CONFIG.block_size
    assert [window[0] == EOT_ID for window in windows] == [True, False, True, True]
    with pytest.raises(UserError, match=r"text\.jsonl has 79 tokens; 1,000 were asked for"):
        read_windows(TOKENIZER, CovarianceSettings(corpus=settings.corpus, tokens=1000), CONFIG.block_size)
    with pytest.raises(UserError, match=r"--covariance\.tokens 0: expected at least 1"):
        read_windows(TOKENIZER, CovarianceSettings(corpus=settings.corpus, tokens=0), CONFIG.block_size)
    with pytest.raises(UserError, match=r"give --covariance\.corpus"):
        read_windows(TOKENIZER, CovarianceSettings(), CONFIG.block_size)


def test_the_cache_is_used_for_the_same_weights_and_text_alone(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "text.jsonl", [{"text": f"Document {i} about nothing."} for i in range(100)])
    settings = CovarianceSettings(corpus=str(tmp_path / "text.jsonl"), tokens=300, cache=str(tmp_path / "cache"))
    model = small_model()
    first = load_covariances(model, TOKENIZER, LAYERS, settings)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    with torch.no_grad():
        model.h[2].mlp.c_fc.weight.add_(1.0)  # keys of layer 2 depend on it, those of layer 0 do not
    monkeypatch.setattr(
        "edit.covariance.second_moments", lambda model, windows, layers, *_, **__: dict.fromkeys(layers, torch.zeros(1))
    )
    again = load_covariances(model, TOKENIZER, LAYERS, settings)
    assert torch.equal(again[0], first[0])
    assert again[2].numel() == 1, "layer 2 has other weights and must be computed anew"


def test_the_key_names_weights_tokens_and_layer():
    model, windows = small_model(), random_windows(3)
    keys = {cache_key(model, windows, 1), cache_key(model, windows, 0), cache_key(model, windows[:2], 1)}
    with torch.no_grad():
        model.h[0].attn.c_attn.bias[0] += 1e-3
    keys |= {cache_key(model, windows, 1)}
    assert len(keys) == 4


def test_the_key_names_only_what_the_layer_s_keys_depend_on():
    model, windows = small_model(), random_windows(3)
    before = cache_key(model, windows, 1)
    for parameter in (
        model.h[1].mlp.c_proj.weight,
        model.h[1].mlp.c_proj.bias,
        model.h[2].ln_1.weight,
        model.ln_f.weight,
    ):
        with torch.no_grad():
            parameter += 1e-3
        assert cache_key(model, windows, 1) == before
    names = ("h.0.mlp.c_proj.weight", "h.1.mlp.c_fc.weight", "h.1.ln_2.bias", "wpe.weight")
    for parameter in map(model.get_parameter, names):
        with torch.no_grad():
            parameter += 1e-3
        before, changed = cache_key(model, windows, 1), before
        assert before != changed
