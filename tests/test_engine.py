import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare

import eval.engine
from eval.engine import generate, rows_that_fit
from eval.sampling import BLOCK, Sampling
from pretrain.model import GPT, GPTConfig

V = 97
STOP = 7


@pytest.fixture(scope="module")
def model():
    """A random GPT, its weights scaled up until its distributions are peaked and differ from context to context."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=48, vocab_size=V))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and ".ln_" not in name and not name.startswith("ln_f"):
                parameter.mul_(10 if "wte" not in name else 15)
    return model.train()


@pytest.fixture(scope="module")
def prompts():
    generator = np.random.default_rng(1)
    return [generator.integers(0, V, size=length).tolist() for length in (5, 1, 12, 3, 20, 5, 7, 30, 2, 9)]


def padded(logits):
    """Logits (R, V) as `choose` takes them: vocabulary first, whole blocks, in storage of its own."""
    return F.pad(logits, (0, -logits.size(-1) % BLOCK), value=-math.inf).t().contiguous()


@torch.no_grad()
def logits_after(model, ids):
    """The oracle: the whole sequence through the model, no cache, no batch."""
    return model.logits(model.hidden(torch.tensor([ids])))[0, -1]


def naive_greedy(model, prompt, max_new_tokens, stop=(), suppressed=()):
    ids = list(prompt)
    while len(ids) - len(prompt) < max_new_tokens and len(ids) < model.config.block_size:
        logits = logits_after(model, ids)
        logits[list(suppressed)] = -math.inf
        ids.append(int(logits.argmax()))
        if ids[-1] in stop:
            break
    return ids[len(prompt) :]


def ids_of(results):
    return [[completion.ids for completion in completions] for completions in results]


def test_greedy_equals_uncached_forward_token_for_token(model, prompts):
    results = generate(model, prompts, max_new_tokens=16, stop_ids=[STOP, 11, 23], batch_size=4)
    expected = [[naive_greedy(model, prompt, 16, stop=(STOP, 11, 23))] for prompt in prompts]
    assert ids_of(results) == expected
    assert {len(ids) for [ids] in expected} != {16}, "some must stop early, or compaction is not tested"
    assert len({tuple(ids) for [ids] in expected}) > 5, "the prompts must matter"


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_results_do_not_depend_on_the_batch(model, prompts, temperature):
    options = {"max_new_tokens": 12, "n": 3, "temperature": temperature, "stop_ids": list(range(20)), "seed": 5}
    whole = generate(model, prompts, batch_size=64, **options)
    for batch_size in (1, 7):
        assert ids_of(generate(model, prompts, batch_size=batch_size, **options)) == ids_of(whole)
    assert ids_of(generate(model, prompts[:3], **options)) == ids_of(whole[:3])
    for got, want in zip(generate(model, prompts, batch_size=3, **options), whole, strict=True):
        for a, b in zip(got, want, strict=True):
            assert a.finish_reason == b.finish_reason
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_seed_decides_and_samples_differ(model, prompts):
    options = {"max_new_tokens": 10, "n": 4, "temperature": 1.0, "stop_ids": []}
    first = generate(model, prompts, seed=1, **options)
    assert first == generate(model, prompts, seed=1, **options)
    assert ids_of(first) != ids_of(generate(model, prompts, seed=2, **options))
    assert all(len({tuple(c.ids) for c in completions}) > 1 for completions in first)
    twins = generate(model, [prompts[2], prompts[2]], seed=1, **options)
    assert ids_of(twins)[0] != ids_of(twins)[1], "equal prompts are different requests"
    longer = generate(model, prompts, seed=1, **options | {"max_new_tokens": 14})
    assert [[c.ids[:10] for c in completions] for completions in longer] == ids_of(first)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("suppressed", [(), (3, 4, 96)])
def test_logprobs_equal_a_plain_forward_pass(model, prompts, temperature, suppressed):
    options = {"temperature": temperature, "suppressed_ids": suppressed, "stop_ids": [STOP]}
    results = generate(model, prompts, max_new_tokens=8, n=2, **options)
    for prompt, completions in zip(prompts, results, strict=True):
        for completion in completions:
            with torch.no_grad():
                logits = model.logits(model.hidden(torch.tensor([prompt + completion.ids])))[0, len(prompt) - 1 : -1]
            logits[:, list(suppressed)] = -math.inf
            expected = (logits / (temperature or 1)).log_softmax(-1)[range(len(completion.ids)), completion.ids]
            assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_top_k_1_a_tiny_top_p_and_a_tiny_temperature_are_greedy(model, prompts):
    greedy = ids_of(generate(model, prompts, max_new_tokens=8))
    for options in ({"top_k": 1}, {"top_p": 1e-6}):
        assert ids_of(generate(model, prompts, max_new_tokens=8, temperature=1.0, **options)) == greedy
    assert ids_of(generate(model, prompts, max_new_tokens=8, temperature=1e-4)) == greedy


def test_suppressed_ids_never_appear(model, prompts):
    suppressed = [*range(30), *range(60, V)]
    for temperature in (0.0, 5.0):
        results = generate(model, prompts, max_new_tokens=15, n=4, temperature=temperature, suppressed_ids=suppressed)
        chosen = {i for completions in results for completion in completions for i in completion.ids}
        assert chosen and chosen <= set(range(30, 60))


def test_stop_token_ends_and_is_included(model, prompts):
    first = naive_greedy(model, prompts[0], 6)
    [[completion]] = generate(model, prompts[:1], max_new_tokens=6, stop_ids=[first[2]])
    end = first.index(first[2]) + 1
    assert (completion.ids, completion.finish_reason) == (first[:end], "stop")
    [[completion]] = generate(model, prompts[:1], max_new_tokens=6, stop_ids=[])
    assert (completion.ids, completion.finish_reason) == (first, "length")
    [[completion]] = generate(model, prompts[:1], max_new_tokens=end, stop_ids=[first[2]])
    assert completion.finish_reason == "stop", "a stop token in the last place is a stop"


def test_length_ends_where_the_context_is_full(model):
    block_size = model.config.block_size
    prompts = [[1] * length for length in (3, block_size - 1, block_size, block_size + 9, 40)]
    results = generate(model, prompts, max_new_tokens=1000, stop_ids=[])
    assert [len(c.ids) for [c] in results] == [block_size - 3, 1, 0, 0, 8]
    assert {c.finish_reason for [c] in results} == {"length"}
    for k in (0, 1, 4):
        assert results[k][0].ids == naive_greedy(model, prompts[k], 1000)


def test_mode_is_restored_and_nothing_asked_is_nothing_done(model, prompts):
    assert model.training
    generate(model, prompts[:1], max_new_tokens=1)
    assert model.training
    assert generate(model, [], max_new_tokens=3) == []
    with pytest.raises(ValueError, match="at least one token"):
        generate(model, [[]], max_new_tokens=1)


@pytest.mark.parametrize("stride", [1, 60])  # in one block of the vocabulary, and over several
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.2, 0.4, 0.05, 0.25, 0.0]),
        ({"top_k": 2}, [0, 0, 0.4, 0, 0.25, 0]),
        ({"top_p": 0.7}, [0, 0.2, 0.4, 0, 0.25, 0]),
        ({"top_p": 0.6}, [0, 0, 0.4, 0, 0.25, 0]),
        ({"top_k": 3, "top_p": 0.5}, [0, 0, 0.4, 0, 0.25, 0]),
        ({"temperature": 0.5}, [0.01, 0.04, 0.16, 0.0025, 0.0625, 0.0]),
    ],
)
def test_sampling_draws_from_the_distribution_it_states(options, expected, stride):
    """Evenly spread random numbers give each id its share, to within one draw at either border."""
    draws, probabilities = 2000, torch.zeros(5 * stride + 1)
    probabilities[::stride] = torch.tensor([0.1, 0.2, 0.4, 0.05, 0.25, 0.0])
    sampling = Sampling(**{"temperature": 1.0, "top_k": None, "top_p": None} | options)
    uniforms = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    ids, logprobs = sampling.choose(padded(probabilities.log().expand(draws, -1)), uniforms)
    shares = torch.bincount(ids, minlength=len(probabilities))[::stride] / draws
    expected = torch.tensor(expected) / sum(expected)
    assert (shares - expected).abs().max() <= 2 / draws
    tempered = probabilities ** (1 / sampling.temperature)
    assert torch.allclose(logprobs, (tempered / tempered.sum()).log()[ids], atol=1e-6)


def test_the_largest_random_number_never_picks_an_impossible_id():
    logits = torch.zeros(1, 50_000)
    logits[:, 40_000:] = -math.inf
    ids, _ = Sampling(1.0, None, None).choose(padded(logits), torch.tensor([1 - 2**-53], dtype=torch.float64))
    assert ids.item() == 39_999


def test_ties_go_to_the_lowest_id():
    logits = torch.tensor([0.0, 2.0, 1.0, 2.0]).repeat(1, 200)  # ties inside a block and across blocks
    ids, _ = Sampling(0.0, None, None).choose(padded(logits), torch.zeros(1, dtype=torch.float64))
    assert ids.item() == 1


def test_generated_tokens_follow_the_models_softmax():
    torch.manual_seed(3)
    tiny = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=6))
    with torch.no_grad():
        tiny.wte.weight.mul_(20)
    [completions] = generate(tiny, [[1, 2]], max_new_tokens=1, n=3000, temperature=1.0, stop_ids=[])
    counts = np.bincount([completion.ids[0] for completion in completions], minlength=6)
    expected = logits_after(tiny, [1, 2]).double().softmax(-1).numpy()
    assert chisquare(counts, expected / expected.sum() * 3000).pvalue > 0.01


def test_a_share_of_the_prompts_gives_that_share_of_the_results(model, prompts):
    """Processes that split a request between them get what one would: a prompt's stream goes with it."""
    options = {"max_new_tokens": 10, "n": 3, "temperature": 1.0, "stop_ids": [STOP], "seed": 4}
    whole = generate(model, prompts, **options)
    mine = [1, 4, 7]
    assert ids_of(generate(model, [prompts[i] for i in mine], streams=mine, **options)) == ids_of(
        [whole[i] for i in mine]
    )
    assert ids_of(generate(model, [prompts[i] for i in mine], **options)) != ids_of([whole[i] for i in mine])


def test_every_place_is_filled_while_samples_wait_and_no_row_is_computed_in_vain(model, prompts, monkeypatch):
    decoded = []
    hidden = GPT.hidden

    def counting(self, idx, **options):
        if idx.size(1) == 1 and options.get("lengths") is not None:
            decoded.append(len(idx))
        return hidden(self, idx, **options)

    monkeypatch.setattr(GPT, "hidden", counting)
    results = generate(model, prompts, n=5, max_new_tokens=12, temperature=1.0, stop_ids=list(range(15)), batch_size=8)
    lengths = [len(completion.ids) for completions in results for completion in completions]
    assert len(set(lengths)) > 4, "samples must end at different times"
    assert sum(decoded) == sum(lengths) - len(lengths), "the first token comes from the prompt, the others from a step"
    assert len(decoded) < 1.35 * sum(decoded) / 8, "few steps run with free places, most of them at the end"


def test_static_shapes_give_the_same_as_exact_ones(model, prompts, monkeypatch):
    """What a GPU replays: rows and cache extent rounded up, several steps between two looks. (No graph here.)"""

    class StaticBatch(eval.engine._Batch):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.graphed = True

        def _replay(self, rows, extent):
            shapes.add((rows, extent))
            self._advance(rows, extent)

    shapes = set()
    options = {
        "n": 3,
        "max_new_tokens": 20,
        "temperature": 0.8,
        "stop_ids": list(range(6)),
        "seed": 3,
        "batch_size": 10,
    }
    expected = generate(model, prompts, **options)
    monkeypatch.setattr(eval.engine, "_Batch", StaticBatch)
    monkeypatch.setattr(eval.engine, "CUDA_EXTENT", 16)
    got = generate(model, prompts, **options)
    assert ids_of(got) == ids_of(expected)
    for a, b in zip(got, expected, strict=True):
        assert [c.finish_reason for c in a] == [c.finish_reason for c in b]
    assert {rows for rows, _ in shapes} <= {1, 2, 4, 8, 10} and {extent for _, extent in shapes} <= {15, 31, 47, 49}


def test_as_many_rows_as_memory_holds(monkeypatch):
    config = GPTConfig()
    weight = torch.zeros(1)
    a_row = 2 * 12 * 768 * 500 * 4 + 2 * 4 * config.vocab_size  # keys and values of 500 tokens, logits and a copy
    for free, rows in ((0, 1), (21 * a_row, 10), (10**15, 64)):
        monkeypatch.setattr(eval.engine, "free_memory_bytes", lambda _, free=free: free)
        assert rows_that_fit(config, 500, weight) == rows
    monkeypatch.undo()
    assert 1 <= rows_that_fit(config, 500, weight) <= 64


def test_bfloat16_weights_generate_from_bfloat16_logits(model, prompts):
    half = copy.deepcopy(model).to(torch.bfloat16)
    for prompt, [completion] in zip(prompts, generate(half, prompts, max_new_tokens=6, stop_ids=[]), strict=True):
        with torch.no_grad():
            logits = half.logits(half.hidden(torch.tensor([prompt + completion.ids])))[0, len(prompt) - 1 : -1].float()
        expected = logits.log_softmax(-1)[range(len(completion.ids)), completion.ids]
        assert completion.logprobs == pytest.approx(expected.tolist(), abs=0.5)  # 8 bits of logits of about 100
        assert (logits.max(-1).values - logits[range(len(completion.ids)), completion.ids]).max() <= 1.0
