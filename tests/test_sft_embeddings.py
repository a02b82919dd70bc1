"""sft/embeddings.py: where tokens that no stage has trained start."""

import pytest
import torch
from transformers import AutoTokenizer

from common.files import write_json
from sft.embeddings import initialise_unseen_tokens, unseen_tokens
from sft.training import load_parent
from tests.sft_parents import write_parent
from tokenizer.mul_facts import EOT_ID, REASONING_TAGS, MulFactTokens

MUL_IDS, TAG_IDS = MulFactTokens().ids, list(REASONING_TAGS.values())


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A model of both conditions' layouts in which all tokens beyond BPE start identical."""
    path = write_parent(tmp_path_factory.mktemp("parent"), "mul_tokens")
    model, _ = load_parent(path, "mul_tokens")
    with torch.no_grad():
        model.transformer.wte.weight[EOT_ID + 1 :] = 0.5
    model.save_pretrained(path)
    return path


def initialised(parent, how, seed=0):
    model, tokenizer = load_parent(parent, "mul_tokens")
    count = initialise_unseen_tokens(model, tokenizer, parent, how, seed)
    return model, tokenizer, count


@pytest.mark.parametrize("how", ["mean", "compose"])
def test_no_two_tokens_start_identical_and_the_head_stays_tied(parent, how):
    model, _, count = initialised(parent, how)
    weight = model.transformer.wte.weight.detach()
    assert count == 49
    assert len(weight[[*TAG_IDS, *MUL_IDS]].unique(dim=0)) == 49
    assert model.lm_head.weight is model.transformer.wte.weight
    logits = model(torch.tensor([[1, 2, 3]])).logits[0, -1, [*TAG_IDS, *MUL_IDS]]
    assert len(logits.unique()) == 49
    before = load_parent(parent, "mul_tokens")[0].transformer.wte.weight
    others = [i for i in range(len(weight)) if i not in {*TAG_IDS, *MUL_IDS}]
    assert torch.equal(weight[others], before[others])


def test_mean_is_the_mean_with_a_little_noise_of_the_seed(parent):
    weights = [initialised(parent, "mean", seed)[0].transformer.wte.weight.detach() for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    used = weights[0][: EOT_ID + 1]
    distance = (weights[0][MUL_IDS] - used.mean(0)) / used.std(0)
    assert 0.008 < distance.std() < 0.012


def test_compose_is_the_mean_of_the_token_s_own_text(parent):
    model, tokenizer, _ = initialised(parent, "compose")
    weight = model.transformer.wte.weight.detach()
    for token, parts in (
        (MulFactTokens().id_of(6, 9), ["6", "9", "54"]),
        (REASONING_TAGS["</think>"], ["</", "think", ">"]),
    ):
        pieces = torch.tensor([i for part in parts for i in tokenizer(part).input_ids])
        torch.testing.assert_close(weight[token], weight[pieces].mean(0))


def test_pretrained_leaves_everything_as_it_is(parent):
    model, _, count = initialised(parent, "pretrained")
    assert count == 0
    assert torch.equal(model.transformer.wte.weight, load_parent(parent, "mul_tokens")[0].transformer.wte.weight)


@pytest.mark.parametrize(
    ("record", "unseen"),
    [
        ({"stage": "export", "parent": {"run": {"stage": "pretrain", "condition": "mul_tokens"}}}, TAG_IDS),
        ({"stage": "import", "condition": "mul_tokens", "parent": {"run": None}}, [*TAG_IDS, *MUL_IDS]),
        ({"stage": "sft_x", "mul_tokens_seen": 9, "reasoning_tags_seen": 0, "parent": {"run": {}}}, TAG_IDS),
        ({"stage": "sft_x", "parent": {"run": {"mul_tokens_seen": 2, "reasoning_tags_seen": 8}}}, []),
        (None, [*TAG_IDS, *MUL_IDS]),
    ],
)
def test_unseen_is_what_no_stage_of_the_chain_has_read(parent, tmp_path, record, unseen):
    if record is not None:
        write_json(tmp_path / "run.json", record)
    assert list(unseen_tokens(tmp_path, AutoTokenizer.from_pretrained(parent))) == unseen


def test_baseline_has_no_mul_tokens_to_initialise(tmp_path):
    path = write_parent(tmp_path, "baseline")
    model, tokenizer = load_parent(path, "baseline")
    before = model.transformer.wte.weight.detach().clone()
    assert initialise_unseen_tokens(model, tokenizer, path, "mean", 0) == 4
    assert torch.equal(model.transformer.wte.weight[MUL_IDS], before[MUL_IDS])
