"""Our GPT against transformers' GPT2LMHeadModel, and the invariants of a causal model with a cache."""

import math

import pytest
import torch
from transformers import GPT2LMHeadModel

from pretrain.hf_weights import from_hf_state, hf_config, to_hf_state
from pretrain.model import FEW_ROWS, GPT, WIDE, GPTConfig, KVCache, Linear
from tests.helpers import random_gpt

TINY = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=32, vocab_size=211)


def hf_twin(model: GPT) -> GPT2LMHeadModel:
    twin = GPT2LMHeadModel(hf_config(model.config))
    missing, unexpected = twin.load_state_dict(to_hf_state(model.state_dict()), strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    return twin


def batch(config: GPTConfig = TINY, B: int = 3, T: int = 20, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, config.vocab_size, (B, T + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def test_logits_loss_and_every_gradient_equal_transformers():
    model = random_gpt(TINY)
    twin = hf_twin(model)
    idx, targets = batch()
    logits = twin(idx).logits
    torch.testing.assert_close(model.logits(model.hidden(idx)), logits, rtol=1e-5, atol=1e-5)
    loss = model.loss(idx, targets)
    oracle = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, oracle, rtol=1e-5, atol=1e-5)
    loss.backward()
    oracle.backward()
    grads = from_hf_state({name: p.grad for name, p in twin.named_parameters()})
    assert grads.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_weights_survive_the_way_there_and_back_bit_for_bit():
    model = random_gpt(TINY)
    back = from_hf_state(hf_twin(model).state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor), name


def test_parameter_count_of_gpt2_124m():
    with torch.device("meta"):
        model = GPT(GPTConfig())
    # GPT-2's 124,439,808 with 50,257 rows, and 92 rows more.
    assert model.num_parameters() == 124_439_808 + 92 * 768 == 124_510_464


def test_loss_at_initialisation_is_that_of_a_uniform_guess():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=64))
    idx, targets = batch(model.config, B=4, T=64)
    assert abs(model.loss(idx, targets).item() - math.log(50349)) < 0.1


def test_initialisation_follows_gpt2():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=8, n_head=2, n_embd=128, block_size=64, vocab_size=500))
    state = model.state_dict()
    assert state["wte.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["h.3.attn.c_attn.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    for name in ("h.3.attn.c_proj.weight", "h.5.mlp.c_proj.weight"):
        assert state[name].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert all((t == 0).all() for name, t in state.items() if name.endswith("bias"))
    assert all((t == 1).all() for name, t in state.items() if "ln_" in name and name.endswith("weight"))


def test_no_position_sees_a_later_one():
    model = random_gpt(TINY)
    idx, _ = batch()
    changed = idx.clone()
    changed[:, 12] = (changed[:, 12] + 1) % TINY.vocab_size
    before, after = model.hidden(idx), model.hidden(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert (before[:, 12:] != after[:, 12:]).any()


@torch.no_grad()
def test_cached_hidden_states_equal_uncached_for_rows_of_different_length():
    model = random_gpt(TINY)
    idx, _ = batch(B=3, T=24)
    lengths = torch.tensor([5, 9, 2])
    full = model.hidden(idx)
    cache = KVCache(TINY, 3, 19, torch.device("cpu"))  # room for the longest row at the end, and no more
    prompt = idx[:, :9].clone()
    for row, length in enumerate(lengths):
        prompt[row, length:] = 7  # padding: whatever it is, nobody may see it
    prefill = model.hidden(prompt, cache, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(prefill[row, :length], full[row, :length], rtol=1e-5, atol=1e-5)
    for step in range(10):
        positions = lengths + step
        out = model.hidden(idx[torch.arange(3), positions][:, None], cache)
        torch.testing.assert_close(out[:, 0], full[torch.arange(3), positions], rtol=1e-5, atol=1e-5)
    assert cache.lengths.tolist() == [15, 19, 12]


@torch.no_grad()
def test_cache_rows_can_be_repeated_and_dropped():
    model = random_gpt(TINY)
    idx, _ = batch(B=3, T=12)
    cache = KVCache(TINY, 3, 32, torch.device("cpu"))
    model.hidden(idx[:, :8], cache)
    rows = torch.tensor([2, 0, 2])
    out = model.hidden(idx[rows, 8:], cache.select(rows, 20))  # four tokens at once on top of eight
    torch.testing.assert_close(out, model.hidden(idx)[rows, 8:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 5, FEW_ROWS])
def test_few_rows_through_a_wide_layer_equal_many_of_them(rows, monkeypatch):
    """The product that a CPU's threads make the other way round, beside nn.Linear's."""
    layer, ways = Linear(WIDE, 24), []
    x = torch.randn(rows, 1, WIDE, generator=torch.Generator().manual_seed(0))
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *arguments: ways.append(1) or addmm(*arguments))
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with torch.no_grad():
            out = layer(x)
        torch.testing.assert_close(out, torch.nn.functional.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
        assert len(ways) == threads - 1 and out.is_contiguous()
        with torch.no_grad():
            Linear(WIDE - 1, 24)(x[..., 1:])
        assert len(ways) == threads - 1, "narrow layers are faster the plain way"


def test_flops_per_token_by_hand():
    # 2 layers of 12 C^2 + 13 C, ln_f 2 C, V C embedding rows; attention 12 L C T.
    parameters = 2 * (12 * 16**2 + 13 * 16) + 2 * 16 + 211 * 16
    assert GPT(TINY).flops_per_token() == 6 * parameters + 12 * 2 * 16 * 32
