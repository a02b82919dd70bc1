"""Partial passes beside whole ones with hooks, whatever stands together in a batch."""

import pytest
import torch

from edit import passes
from edit.passes import Stream, Suffix
from edit.prompts import EditPrompt
from tests.edit_models import CONFIG, recorded, small_model, streams_after

LENGTHS = [(9, 4), (3, 2), (17, 11), (5, 0), (12, 11), (7, 4), (17, 2)]  # tokens, position


@pytest.fixture(params=[2, 64])
def prompts(request, monkeypatch):
    """Of all lengths, two in a group or all in one."""
    monkeypatch.setattr(passes, "ROW_BATCH", request.param)
    torch.manual_seed(0)
    return [EditPrompt(torch.randint(0, 50_257, (length,)).tolist(), position) for length, position in LENGTHS]


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

    keep = torch.tensor([row % 2 == 1 for row in range(len(prompts))])
    kept = [i for i, row in enumerate(where) if keep[row]]
    renumbered = torch.tensor([where[i] // 2 for i in kept])
    some = suffix.select(keep).read(delta[keep], renumbered, torch.tensor(slots)[kept])
    assert torch.allclose(some, expected[kept], atol=1e-5)
