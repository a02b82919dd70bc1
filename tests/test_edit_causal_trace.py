"""Causal traces: what must not change, and the pictures at toy size."""

from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from common.files import read_json, write_json
from edit import run_causal_trace
from edit.causal_trace import CorruptedRun, by_role, effect_at, layers_to_edit, trace, trace_prompt, window_around
from edit.records import to_row
from pretrain.hf_weights import save_model_dir
from tests.edit_models import CONFIG, RECORDS, TOKENIZER, small_model
from tests.helpers import random_gpt

KINDS = ("block", "mlp", "attention")


def example(record=RECORDS[0]):
    return trace_prompt(TOKENIZER, record.prompt, record.subject, record.target_old, CONFIG.block_size)


def clean_probability(model, prompt):
    ids = torch.tensor([prompt.ids + prompt.target])
    with torch.no_grad():
        logprobs = model.logits(model.hidden(ids))[0].log_softmax(-1)
    at = range(len(prompt.ids) - 1, len(prompt.ids) - 1 + len(prompt.target))
    return float(torch.stack([logprobs[t, i] for t, i in zip(at, prompt.target, strict=True)]).mean().exp())


def test_the_subject_s_tokens():
    prompt = trace_prompt(TOKENIZER, "We know Srinivasa Ramanujan for", "Srinivasa Ramanujan", "pi", 48)
    assert TOKENIZER.decode([prompt.ids[t] for t in prompt.subject]) == " Srinivasa Ramanujan"
    assert example(RECORDS[1]).subject.start == 0


@pytest.mark.parametrize("record", RECORDS[:2])
def test_restoring_everything_gives_the_clean_probability(record):
    model, prompt = small_model(), example(record)
    run = CorruptedRun(model, prompt, sigma=1.0, samples=4, seed=0)
    assert run.clean == pytest.approx(clean_probability(model, prompt), rel=1e-4)
    assert abs(run.corrupted - run.clean) > 1e-3 * run.clean, "the noise must do something"
    everything = [list(range(run.ids.size(1)))]
    for kind, layers in (("block", [0]), ("block", range(CONFIG.n_layer))):
        assert float(run.restored(kind, layers, everything)[0]) == pytest.approx(run.clean, rel=1e-4)
    # The last block at the last token alone is all that the first target token is read from.
    if len(prompt.target) == 1:
        last = [[len(prompt.ids) - 1]]
        assert float(run.restored("block", [CONFIG.n_layer - 1], last)[0]) == pytest.approx(run.clean, rel=1e-4)


def test_zero_noise_has_zero_effect():
    model, prompt = small_model(), example()
    found = trace(model, prompt, sigma=0.0, samples=2, window=2)
    assert found.corrupted == pytest.approx(found.clean, rel=1e-5)
    for kind in KINDS:
        assert torch.allclose(found.restored[kind], torch.tensor(found.clean), rtol=1e-4)


def test_batched_equals_one_by_one(monkeypatch):
    model, prompt = small_model(), example()
    together = trace(model, prompt, sigma=1.0, samples=3, window=2)
    monkeypatch.setattr("edit.causal_trace.BATCH_ROWS", 1)
    looped = trace(model, prompt, sigma=1.0, samples=3, window=2)
    for kind in KINDS:
        assert together.restored[kind].shape == (CONFIG.n_layer, len(prompt.ids))
        assert torch.allclose(together.restored[kind], looped.restored[kind], rtol=1e-4)
    assert (together.restored["block"] - together.corrupted).abs().max() > 1e-9


def test_hooks_are_gone_afterwards():
    model, prompt = small_model(), example()
    before = clean_probability(model, prompt)
    trace(model, prompt, sigma=1.0, samples=2, window=1)
    assert clean_probability(model, prompt) == before
    assert not any(module._forward_hooks for module in model.modules())


def test_windows_roles_and_layers():
    assert [list(window_around(layer, 3, 4)) for layer in range(4)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]
    assert list(window_around(2, 1, 4)) == [2]
    prompt = example()
    roles = by_role(trace(small_model(), prompt, 1.0, 2, 1), prompt)["mlp"]
    assert roles.shape == (CONFIG.n_layer, 6) and roles[:, 2].isfinite().all() and roles[:, 0].isnan().all()
    effects = torch.tensor([0.1, 0.5, 0.9, 0.6, 0.2, 5.0])
    assert layers_to_edit(effects, "subject") == [1, 2, 3] and layers_to_edit(effects, "prompt") == [5]
    assert layers_to_edit(torch.tensor([0.3, 9.0]), "subject") == [0]
    assert layers_to_edit(torch.tensor([0.19, 0.10]), "prompt") == [0, 1]


def test_the_effect_is_read_at_the_edited_token():
    average = torch.arange(12.0).view(2, 6)
    assert effect_at(average, "subject").tolist() == [2, 8] and effect_at(average, "prompt").tolist() == [5, 11]
    average[:, 5] = torch.nan  # every prompt ends with its subject
    assert effect_at(average, "prompt").tolist() == [2, 8]


def test_the_script_at_toy_size(tmp_path, monkeypatch, capsys):
    model = small_model()
    save_model_dir(model, tmp_path / "model", "baseline")
    # What the model says is what it "knows": the prompts get its own greedy answers as their targets.
    rows = []
    for record in RECORDS[:2]:
        ids = TOKENIZER.encode(record.prompt)
        said = TOKENIZER.decode([int(model.logits(model.hidden(torch.tensor([ids])))[0, -1].argmax())])
        rows.append(to_row(record) | {"target_old": said.strip()})
        if TOKENIZER.encode(" " + said.strip()) != TOKENIZER.encode(said):
            pytest.skip("the random model's answer is no word")
    write_json(tmp_path / "edits.json", rows)
    argv = ["run_causal_trace.py", f"--model-path={tmp_path / 'model'}", f"--edits={tmp_path / 'edits.json'}"]
    argv += [f"--output-dir={tmp_path / 'out'}", "--samples=2", "--condition=baseline", "--pictures=1", "--device=cpu"]
    monkeypatch.setattr("sys.argv", argv)
    run_causal_trace.main()
    results = read_json(tmp_path / "out" / "causal_trace.json")
    assert results["prompts"] == 2 and len(results["average_indirect_effect"]["mlp"]) == CONFIG.n_layer
    for name in ("causal_trace.png", "trace_00.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert f"layers to edit: {results['layers']}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*argv, "--token=prompt"])
    run_causal_trace.main()
    again = read_json(tmp_path / "out" / "causal_trace.json")
    assert again["token"] == "prompt" and again["average_indirect_effect"] == results["average_indirect_effect"]
    at_the_end = torch.tensor([row[-1] for row in again["average_indirect_effect"]["mlp"]])
    assert again["layers"] == layers_to_edit(at_the_end, "prompt")


def test_a_model_of_one_block_has_no_layer_for_an_edit_at_the_subject(tmp_path, monkeypatch):
    save_model_dir(random_gpt(replace(CONFIG, n_layer=1)), tmp_path / "model", "baseline")
    argv = ["run_causal_trace.py", f"--model-path={tmp_path / 'model'}", "--condition=baseline", "--device=cpu"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(UserError, match="the model has one block"):
        run_causal_trace.main()
