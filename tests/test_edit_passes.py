"""Partial passes beside whole ones with hooks, whatever stands together in a batch and whatever is shared."""

from dataclasses import replace

import pytest
import torch

from edit import passes
from edit.packs import Pack
from edit.passes import Stream, Suffix
from edit.prompts import EditPrompt
from tests.edit_models import CONFIG, recorded, small_model, streams_after

CONTEXTS = [0, 4, 7]  # tokens of each
# Tokens and position without the context, and the context. Subjects at the first token, inside, at the end.
SHAPES = [(9, 4, 0), (3, 2, 1), (17, 11, 2), (5, 0, 0), (5, 0, 1), (12, 11, 1), (7, 4, 2), (1, 0, 2), (17, 2, 0)]


def prompts_of(shapes):
    torch.manual_seed(0)
    contexts = [torch.randint(0, 50_257, (length,)).tolist() for length in CONTEXTS]
    ids = [torch.randint(0, 50_257, (length,)).tolist() for length, _, _ in shapes]
    return [
        EditPrompt([*contexts[which], *own], CONTEXTS[which] + position, CONTEXTS[which])
        for own, (_, position, which) in zip(ids, shapes, strict=True)
    ]


@pytest.fixture(params=[2, 512])
def prompts(request, monkeypatch):
    """Of all kinds, two in a pack of a stream or all in one."""
    monkeypatch.setattr(passes, "ROW_BATCH", request.param)
    return prompts_of(SHAPES)


def test_a_pack_holds_every_context_once():
    prompts = prompts_of(SHAPES)
    pack = Pack(prompts, torch.device("cpu"))
    assert len(pack.ids) == sum(CONTEXTS) + sum(length for length, _, _ in SHAPES)
    assert [pack.ids[place] for place in pack.at] == [prompt.ids[prompt.position] for prompt in prompts]
    assert [pack.positions[place] for place in pack.at] == [prompt.position for prompt in prompts]


def test_a_stream_climbs_to_the_keys_and_ends_of_whole_passes(prompts):
    model = small_model()
    stream = Stream.of(model, prompts)
    for layer in range(CONFIG.n_layer):
        stream = stream.up_to(layer)
        expected = torch.stack([recorded(model, prompt, layer)[0] for prompt in prompts])
        assert torch.allclose(stream.keys(), expected, atol=1e-5)
        assert torch.allclose(stream.up_to(layer + 1).ends(), streams_after(model, prompts, layer), atol=1e-5)


def test_a_stream_goes_through_the_weights_of_now(prompts):
    model = small_model()
    below = Stream.of(model, prompts).up_to(1)
    with torch.no_grad():
        model.h[1].mlp.c_proj.weight += 0.1
    assert torch.allclose(below.up_to(3).ends(), streams_after(model, prompts, 2), atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_suffix_reads_what_a_whole_pass_has_there(prompts, layer):
    model = small_model()
    where = [row for row, prompt in enumerate(prompts) for _ in prompt.ids[prompt.position :]][::-1]
    slots = [slot for prompt in prompts for slot in range(len(prompt.ids) - prompt.position)][::-1]
    delta = torch.randn(len(prompts), CONFIG.n_embd)

    def put(_module, _inputs, output):
        return output.index_add(1, torch.tensor([prompt.position]), delta[None, row : row + 1])

    expected = []
    for row, slot in zip(where, slots, strict=True):
        prompt = prompts[row]
        hook = model.h[layer].register_forward_hook(put)
        after = []
        last = model.h[-1].register_forward_hook(lambda _module, _inputs, output, after=after: after.append(output))
        model.hidden(torch.tensor([prompt.ids]))
        hook.remove()
        last.remove()
        expected.append(after[0][0, prompt.position + slot])
    suffix = Suffix.of(model, prompts, layer)
    expected = torch.stack(expected)
    assert torch.allclose(suffix.read(delta, torch.tensor(where), torch.tensor(slots)), expected, atol=1e-5)

    for step in (2, 4):  # every other row, and every other one of these
        suffix = suffix.select(torch.arange(len(suffix.at)) % 2 == 1)
        kept = [i for i, row in enumerate(where) if row % step == step - 1]
        renumbered = torch.tensor([where[i] // step for i in kept])
        some = suffix.read(delta[step - 1 :: step], renumbered, torch.tensor(slots)[kept])
        assert torch.allclose(some, expected[kept], atol=1e-5)


@pytest.mark.parametrize("shapes", [[(5, 0, 0), (1, 0, 0)], [(6, 3, 0), (6, 5, 0)], [(4, 0, 1)]])
def test_prompts_of_one_kind_alone(shapes):
    """Nothing before the positions at all; no contexts; one context that nothing else stands behind."""
    model, prompts = small_model(), prompts_of(shapes)
    expected = torch.stack([recorded(model, prompt, 1)[0] for prompt in prompts])
    assert torch.allclose(Stream.of(model, prompts).up_to(1).keys(), expected, atol=1e-5)
    rows = torch.arange(len(prompts))
    read = Suffix.of(model, prompts, 0).read(torch.zeros(len(prompts), CONFIG.n_embd), rows, torch.zeros_like(rows))
    assert torch.allclose(read, streams_after(model, prompts, CONFIG.n_layer - 1), atol=1e-5)


def test_a_shared_context_changes_nothing():
    model, prompts = small_model(), prompts_of(SHAPES)
    apart = [replace(prompt, context=0) for prompt in prompts]
    keys = [Stream.of(model, each).up_to(2).keys() for each in (prompts, apart)]
    assert torch.allclose(*keys, atol=1e-5)


def test_equal_beginnings_have_the_same_key_to_the_last_bit():
    model, prompts = small_model(), prompts_of(SHAPES)
    again = [replace(prompt, ids=[*prompt.ids[: prompt.position + 1], 7]) for prompt in prompts[:3]]
    stream = Stream.of(model, [*prompts, *again])
    assert sum(len(pack.at) for pack, _ in stream.parts) == len(prompts), "the same rows, not rows that come out alike"
    keys = stream.up_to(2).keys()
    assert torch.equal(keys[:3], keys[len(prompts) :])
