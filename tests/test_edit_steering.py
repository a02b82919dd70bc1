"""Steering vectors: what they are, and that they are gone when they should be."""

import pytest
import torch

from common.errors import UserError
from edit import run_steering
from edit.steering import load_steering_vector, save_steering_vector, steered, steering_vector
from pretrain.hf_weights import save_model_dir
from tests.edit_models import TOKENIZER, small_model

POSITIVE, NEGATIVE = ["The capital of France", "Spain"], ["Six times nine is fifty-four", "One"]
IDS = torch.tensor([TOKENIZER.encode("Tom has a book")])


def state_after(model, text, layer):
    kept = []
    hook = model.h[layer].register_forward_hook(lambda _m, _i, output: kept.append(output[0]))
    with torch.no_grad():
        model.hidden(torch.tensor([TOKENIZER.encode(text)]))
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("reduce", ["last", "mean"])
def test_the_difference_of_means(reduce):
    model = small_model()

    def mean(texts):
        states = [state_after(model, text, 1) for text in texts]
        return torch.stack([s[-1] if reduce == "last" else s.mean(0) for s in states]).mean(0)

    found = steering_vector(model, TOKENIZER, POSITIVE, NEGATIVE, 1, reduce)
    assert torch.allclose(found.vector, mean(POSITIVE) - mean(NEGATIVE), atol=1e-5)


@torch.no_grad()
def test_added_after_its_block_and_gone_after_an_exception():
    model = small_model()
    steering = steering_vector(model, TOKENIZER, POSITIVE, NEGATIVE, 1)
    plain = model.hidden(IDS)
    with steered(model, steering, 0.0):
        assert torch.equal(model.hidden(IDS), plain)
    before = state_after(model, "Tom has a book", 1)
    with pytest.raises(RuntimeError), steered(model, steering, 2.0):
        assert torch.allclose(state_after(model, "Tom has a book", 1), before + 2.0 * steering.vector, atol=1e-5)
        assert not torch.allclose(model.hidden(IDS), plain)
        raise RuntimeError
    assert torch.equal(model.hidden(IDS), plain)


def test_saved_and_loaded(tmp_path):
    steering = steering_vector(small_model(), TOKENIZER, POSITIVE, NEGATIVE, 2)
    save_steering_vector(tmp_path / "v.safetensors", steering)
    again = load_steering_vector(tmp_path / "v.safetensors")
    assert again.layer == 2 and torch.equal(again.vector, steering.vector)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="holds no steering vector"):
        load_steering_vector(tmp_path / "bad.safetensors")


def test_mistakes():
    with pytest.raises(UserError, match="at least one positive and one negative"):
        steering_vector(small_model(), TOKENIZER, POSITIVE, [], 1)
    with pytest.raises(UserError, match="layers 0 to 2"):
        steering_vector(small_model(), TOKENIZER, POSITIVE, NEGATIVE, 3)
    with pytest.raises(UserError, match="1 to 48 tokens"):
        steering_vector(small_model(), TOKENIZER, POSITIVE, [""], 1)


@pytest.mark.parametrize("prompts", [[""], ["The", ""], []])
def test_nothing_to_continue_is_an_error(monkeypatch, prompts):
    monkeypatch.setattr("sys.argv", ["run_steering.py", "--model-path=x", "--prompts", *prompts])
    with pytest.raises(UserError, match="--prompts: expected texts to continue"):
        run_steering.main()


def test_the_script(tmp_path, monkeypatch, capsys):
    save_model_dir(small_model(), tmp_path / "model", "baseline")
    path = tmp_path / "v.safetensors"
    common = [f"--model-path={tmp_path / 'model'}", "--condition=baseline", "--new-tokens=4", "--device=cpu"]
    texts = ["--positive", *POSITIVE, "--negative", *NEGATIVE]
    monkeypatch.setattr("sys.argv", ["run_steering.py", *common, *texts, f"--output={path}", "--layer=1"])
    run_steering.main()
    first = capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["run_steering.py", *common, f"--vector={path}"])
    run_steering.main()
    assert capsys.readouterr().out.splitlines() == first.splitlines()[1:], "the same vector says the same"
    assert "alpha 0: The|" in first and "alpha 4: The|" in first
