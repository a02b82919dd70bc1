"""eval/hellaswag.py: both protocols, and the scorer against a plain forward pass of transformers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from common.distributed import World
from common.errors import UserError
from data.encoding import tokenizer_of
from data.hellaswag import HellaSwagItem
from eval.continuations import continuation_logprobs
from eval.hellaswag import (
    METRICS,
    ItemScore,
    encode_texts,
    hellaswag_accuracy,
    preprocess,
    score_items,
    summarise,
)
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from tests.hellaswag_rows import ORIGINAL, PLAIN, items_of
from tests.helpers import random_gpt
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

CPU = torch.device("cpu")
TOKENIZER = GPT2TokenizerWithMulFacts("baseline")


@pytest.fixture(scope="module")
def model():
    return random_gpt(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=64)).eval()


@pytest.fixture
def items(tmp_path):
    return items_of(ORIGINAL + PLAIN, tmp_path)


def score(model, items, **options):
    return score_items(model, items, tokenizer_of("baseline"), CPU, torch.float32, **options)


def assert_close(scores, others, tolerance=1e-5):
    for a, b in zip(scores, others, strict=True):
        assert (a.index, a.id, a.token_counts, a.char_counts) == (b.index, b.id, b.token_counts, b.char_counts)
        np.testing.assert_allclose(a.raw_logprobs, b.raw_logprobs, rtol=tolerance)
        np.testing.assert_allclose(a.preprocessed_logprobs, b.preprocessed_logprobs, rtol=tolerance)


# --- texts and ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Cut it. [title] Peel it. ", "Cut it.. Peel it."),
        ("[header] How to  sweep [step] Go. [substeps]", " How to sweep Go. "),
        ("four    blanks", "four  blanks"),
    ],
)
def test_preprocessing_is_the_harness(text, expected):
    """Worked out by hand from its four steps: strip, " [title]" to ". ", brackets out, two blanks to one, once."""
    assert preprocess(text) == expected


@given(
    context=st.text(st.sampled_from("ab.,'7 \n\té×"), min_size=1).filter(str.strip),
    ending=st.text(st.sampled_from("ab.,'7 \n\té×")),
)
def test_encoding_apart_gives_the_ids_of_encoding_whole(context, ending):
    """The harness's way: blanks at the context's end move to the ending, then the whole string's ids are cut."""
    stripped = context.rstrip()
    ending = f"{context[len(stripped) :]} {ending}"
    [[(context_ids, ending_ids)]] = encode_texts([(stripped, [ending])], TOKENIZER)
    whole = TOKENIZER.encode(stripped + ending)
    assert [*context_ids, *ending_ids] == whole
    assert list(context_ids) == TOKENIZER.encode(stripped)


def test_both_conditions_see_the_same_ids(model, items):
    assert_close(score(model, items), score_items(model, items, tokenizer_of("mul_tokens"), CPU, torch.float32))


# --- log-probabilities


def test_scores_equal_a_plain_forward_pass_of_transformers(model, items, tmp_path):
    """Context and ending as one sequence, every logit, no cache, no batch; float64 sums."""
    save_model_dir(model, tmp_path / "hf", "baseline")
    hf = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()

    def logprob(context, ending):
        context_ids, ending_ids = TOKENIZER.encode(context), TOKENIZER.encode(ending)
        with torch.inference_mode():
            logprobs = hf(torch.tensor([context_ids + ending_ids])).logits[0].double().log_softmax(-1)
        return sum(logprobs[len(context_ids) + i - 1, token].item() for i, token in enumerate(ending_ids)), ending_ids

    for item, found in zip(items, score(model, items), strict=True):
        raw = [logprob(item.context, f" {ending}") for ending in item.endings]
        np.testing.assert_allclose(found.raw_logprobs, [value for value, _ in raw], rtol=1e-5)
        assert found.token_counts == [len(ids) for _, ids in raw]
        context = preprocess(item.labelled_context)
        blanks = context[len(context.rstrip()) :]
        endings = [preprocess(ending) for ending in item.endings]
        expected = [logprob(context.rstrip(), f"{blanks} {ending}")[0] for ending in endings]
        np.testing.assert_allclose(found.preprocessed_logprobs, expected, rtol=1e-5)
        assert found.char_counts == [len(ending) for ending in endings]


def test_a_score_does_not_depend_on_its_batch(model, items):
    together = score(model, items)
    alone = [replace(score(model, [item])[0], index=i) for i, item in enumerate(items)]
    assert_close(together, alone)
    assert_close(together, score(model, items, batch_tokens=32))
    backwards = [replace(s, index=len(items) - 1 - s.index) for s in score(model, items[::-1])]
    assert_close(together, backwards[::-1])
    assert [s.choices for s in together] == [s.choices for s in alone]


def test_what_does_not_fit_is_cut_from_the_left():
    """Seeded random pairs around the limit of a 24-token context, among them contexts that fill it alone."""
    rng = np.random.default_rng(0)
    model = random_gpt(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=24, vocab_size=50)).eval()
    pairs = []
    for ending_length in (1, 2, 3, 7, 20, 24):
        for context_length in {1, 2, 12, 25 - ending_length}:
            ids = rng.integers(0, 50, min(context_length, 25 - ending_length) + ending_length).tolist()
            pairs.append((tuple(ids[:-ending_length]), tuple(ids[-ending_length:])))
    found = continuation_logprobs(model, pairs, CPU, torch.float32, batch_tokens=64)
    for (context, ending), value in zip(pairs, found, strict=True):
        with torch.inference_mode():
            logits = model.logits(model.hidden(torch.tensor([[*context, *ending]])[:, :-1]))[0, -len(ending) :]
        expected = logits.double().log_softmax(-1)[range(len(ending)), list(ending)].sum().item()
        assert value == pytest.approx(expected, rel=1e-5)


def test_a_long_context_keeps_its_end(items):
    model = random_gpt(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=20)).eval()
    long = replace(items[3], context="Something else entirely. " * 9 + items[3].context)
    [found] = score(model, [long], metrics=("acc_norm_token",))
    assert found.truncated
    for ending, value in zip(long.endings, found.raw_logprobs, strict=True):
        ids, ending_ids = TOKENIZER.encode(long.context + " " + ending), TOKENIZER.encode(" " + ending)
        with torch.inference_mode():
            logits = model.logits(model.hidden(torch.tensor([ids[-21:-1]])))[0, -len(ending_ids) :]
        expected = logits.double().log_softmax(-1)[range(len(ending_ids)), ending_ids].sum().item()
        assert value == pytest.approx(expected, rel=1e-5)


def test_an_ending_longer_than_the_context_is_refused(items):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8))
    with pytest.raises(UserError, match="item 24: an ending has 11 tokens, the context 8"):
        score(model, items)


def test_one_protocol_alone_gives_its_own_numbers(model, items):
    both = score(model, items)
    token = [s.raw_logprobs for s in score(model, items, metrics=("acc_norm_token",))]
    char = score(model, items, metrics=("acc_norm_char",))
    np.testing.assert_allclose(token, [s.raw_logprobs for s in both], rtol=1e-5)
    assert char[0].raw_logprobs == [] and set(char[0].choices) == {"acc_norm_char", "acc"}
    assert [s.choices["acc"] for s in char] == [s.choices["acc"] for s in both]


def test_equal_texts_of_both_protocols_are_computed_once(model, items, monkeypatch):
    counted = []

    def count(model, pairs, *arguments):
        counted.append(len(pairs))
        return continuation_logprobs(model, pairs, *arguments)

    monkeypatch.setattr("eval.hellaswag.continuation_logprobs", count)
    score(model, items[3:])
    score(model, items[:1])
    assert counted == [4 * len(items[3:]), 8]


def test_the_model_and_the_random_state_are_left_as_they_were(model, items):
    model.train()
    before = torch.get_rng_state()
    score(model, items[:2])
    assert model.training and torch.equal(torch.get_rng_state(), before)
    model.eval()
    score(model, items[:2])
    assert not model.training


# --- metrics


class Constructed(torch.nn.Module):
    """A model that predicts the next token from nothing but `logprobs` (V,): the head's weights give the logits."""

    def __init__(self, logprobs: torch.Tensor):
        super().__init__()
        self.config = GPTConfig(n_layer=1, n_head=1, n_embd=1, block_size=64, vocab_size=len(logprobs))
        self.wte = torch.nn.Embedding.from_pretrained(logprobs[:, None])

    def hidden(self, idx, cache=None, lengths=None):
        return torch.ones(*idx.shape, 1)


def test_the_three_metrics_choose_as_worked_out_by_hand():
    """nats: " table" -8, " b" -4, "!" -1, "..." -1.5, whatever is before them."""
    nats = torch.full((50349,), math.nan)
    for text, value in ((" table", -8.0), (" b", -4.0), ("!", -1.0), ("...", -1.5)):
        [token] = TOKENIZER.encode(text)
        nats[token] = value
    rest = nats.isnan()
    nats[rest] = math.log((1 - nats[~rest].exp().sum().item()) / int(rest.sum()))  # so that logits are nats
    endings = ("table", "b", "b!", "table...")
    item = HellaSwagItem("x", "A", "A", endings, label=1)
    [found] = score(Constructed(nats), [item])
    np.testing.assert_allclose(found.raw_logprobs, [-8, -4, -5, -9.5], rtol=1e-5)
    assert (found.token_counts, found.char_counts) == ([1, 1, 2, 2], [5, 1, 2, 8])
    # per token -8, -4, -2.5, -4.75; per character -1.6, -4, -2.5, -1.19; sums as above
    assert found.choices == {"acc_norm_token": 2, "acc_norm_char": 3, "acc": 1}
    assert found.correct == {"acc_norm_token": False, "acc_norm_char": False, "acc": True}


@pytest.mark.parametrize(
    ("raw", "tokens", "preprocessed", "characters", "expected"),
    [
        ([-6, -8, -9, -20], [2, 4, 3, 4], [-6, -8, -9, -20], [6, 9, 18, 10], (1, 2, 0)),  # all three differ
        ([-4, -4, -4, -4], [2, 2, 2, 2], [-4, -4, -4, -4], [4, 4, 4, 4], (0, 0, 0)),  # the first of equal ones
        ([-9, -2, -4, -2], [1, 1, 2, 1], [-9, -2, -4, -2], [1, 2, 4, 2], (1, 1, 1)),
        ([-1, -1, -1, -2], [1, 1, 1, 1], [-1, -9, -9, -9], [0, 9, 9, 9], (0, 1, 0)),  # an ending left empty
    ],
)
def test_choices_from_hand_made_log_probabilities(raw, tokens, preprocessed, characters, expected):
    found = ItemScore(0, "x", 1, raw, tokens, preprocessed, characters)
    assert tuple(found.choices[metric] for metric in METRICS) == expected
    assert tuple(found.correct[metric] for metric in METRICS) == tuple(choice == 1 for choice in expected)


def test_summary():
    """3 of 4 right: stderr of the mean sqrt(.75 * .25 / 3) = .25."""
    scores = [ItemScore(i, str(i), label, [-1, -2, -3, -4], [1] * 4, [], []) for i, label in enumerate((0, 0, 0, 1))]
    summary = summarise(scores)
    assert list(summary) == ["acc_norm_token"]
    assert summary["acc_norm_token"] | {"wilson_95": None} == {
        "value": 0.75,
        "stderr": 0.25,
        "n": 4,
        "num_correct": 3,
        "wilson_95": None,
    }
    low, high = summary["acc_norm_token"]["wilson_95"]
    assert (low, high) == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_the_training_log_gets_the_accuracy_with_its_error(model, items):
    row = hellaswag_accuracy(model, items, tokenizer_of("baseline"), World(0, 1, CPU), torch.float32)
    expected = summarise(score(model, items))["acc_norm_token"]
    assert list(row.values()) == [expected["value"], expected["stderr"], expected["n"]]
