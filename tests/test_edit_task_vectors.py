"""Task vectors on hand-computed vectors and between model directories."""

import pytest
import torch

from common.errors import UserError
from common.files import read_json
from edit import run_task_vectors
from edit.task_vectors import apply, dare, extract, load_vector, save_vector, ties
from pretrain.hf_weights import load_model_dir, save_model_dir
from tests.edit_models import small_model


def state(*values):
    return {"w": torch.tensor(values, dtype=torch.float64)}


def test_extract_and_apply_give_the_tuned_model_back():
    base, tuned = (small_model(seed).state_dict() for seed in (0, 1))
    vector = extract(base, tuned)
    again = apply(base, vector)
    assert all(torch.equal(again[name], tuned[name]) for name in tuned)
    there_and_back = apply(apply(base, vector, 0.7), vector, -0.7)
    assert all(torch.allclose(there_and_back[name], base[name], atol=1e-6) for name in base)
    with pytest.raises(UserError, match="one architecture"):
        extract(state(1.0), state(1.0, 2.0))


def test_ties_by_hand():
    """Of three entries, two are kept in each; they disagree on the first, where 3 outweighs -2."""
    a, b = state(3.0, 0.1, -1.0), state(-2.0, 4.0, 0.5)
    merged = ties([a, b], density=2 / 3)["w"]
    assert merged.tolist() == [3.0, 4.0, -1.0]
    both = ties([state(2.0, 1.0), state(4.0, -1.0)], density=1.0)["w"]
    assert both.tolist() == [3.0, 0.0]


def test_dare_keeps_the_mean_and_its_share():
    vector = {"w": torch.ones(100_000, dtype=torch.float64)}
    thinned = dare(vector, drop=0.9, seed=0)["w"]
    assert set(thinned.unique().tolist()) == {0.0, 1 / (1 - 0.9)}
    assert abs(float(thinned.mean()) - 1) < 0.03
    assert torch.equal(thinned, dare(vector, 0.9, seed=0)["w"]) and not torch.equal(thinned, dare(vector, 0.9, 1)["w"])
    assert torch.equal(dare(vector, 0.0, 0)["w"], vector["w"])


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["run_task_vectors.py", *map(str, arguments)])
    run_task_vectors.main()


def test_the_script_writes_model_directories(tmp_path, monkeypatch, capsys):
    for seed in (0, 1, 2):
        save_model_dir(small_model(seed), tmp_path / str(seed), "baseline")
    common = ["--base", tmp_path / "0", "--condition=baseline"]
    run(monkeypatch, "--operation=apply", *common, "--tuned", tmp_path / "1", "--output-dir", tmp_path / "sum")
    tuned = load_model_dir(tmp_path / "1").state_dict()
    found = load_model_dir(tmp_path / "sum").state_dict()
    assert all(torch.equal(found[name], tuned[name]) for name in tuned)
    run(monkeypatch, "--operation=negate", *common, "--tuned", tmp_path / "1", "--output-dir", tmp_path / "minus")
    base, minus = load_model_dir(tmp_path / "0").state_dict(), load_model_dir(tmp_path / "minus").state_dict()
    assert all(torch.allclose(base[n] - minus[n], tuned[n] - base[n], atol=1e-6) for n in tuned)
    for operation in ("ties", "dare"):
        two = ["--tuned", tmp_path / "1", tmp_path / "2", "--output-dir", tmp_path / operation]
        run(monkeypatch, f"--operation={operation}", *common, *two)
        assert load_model_dir(tmp_path / operation).config == load_model_dir(tmp_path / "0").config
    run(monkeypatch, "--operation=extract", *common, "--tuned", tmp_path / "1", "--output-dir", tmp_path / "vector")
    record = read_json(tmp_path / "vector" / "run.json")
    assert (record["stage"], record["condition"]) == ("edit_task_vector", "baseline")
    assert record["results"]["vector_norm"] > 0 and record["tuned"][0]["sha256"] is not None
    for name in ("vector", "vector/task_vector.safetensors"):
        arguments = ["--tuned", tmp_path / name, "--output-dir", tmp_path / "again"]
        run(monkeypatch, "--operation=apply", *common, *arguments)
        again = load_model_dir(tmp_path / "again").state_dict()
        assert all(torch.allclose(again[n], tuned[n], atol=1e-6) for n in tuned)
    assert read_json(tmp_path / "again" / "run.json")["tuned"][0]["run"]["stage"] == "edit_task_vector"
    with pytest.raises(UserError, match="is a task vector already"):
        run(monkeypatch, "--operation=extract", *common, "--tuned", tmp_path / "vector", "--output-dir", tmp_path / "x")


def test_models_of_two_conditions_have_no_vector(tmp_path, monkeypatch, capsys):
    for seed, condition in enumerate(("baseline", "mul_tokens")):
        save_model_dir(small_model(seed), tmp_path / condition, condition)
    arguments = ["--base", tmp_path / "baseline", "--tuned", tmp_path / "mul_tokens", "--output-dir", tmp_path / "out"]
    with pytest.raises(UserError, match=r"mul_tokens is a model of mul_tokens, .*baseline of baseline"):
        run(monkeypatch, "--operation=apply", *arguments)
    save_vector(tmp_path / "v.safetensors", small_model().state_dict(), "mul_tokens")
    arguments[3] = tmp_path / "v.safetensors"
    with pytest.raises(UserError, match="is a task vector of mul_tokens, the base a model of baseline"):
        run(monkeypatch, "--operation=apply", *arguments)


def test_what_is_no_vector_of_this_model_is_named(tmp_path):
    path = tmp_path / "v.safetensors"
    save_vector(path, state(1.0, 2.0), "baseline")
    assert torch.equal(load_vector(path, state(0.0, 0.0), "baseline")["w"], state(1.0, 2.0)["w"])
    with pytest.raises(UserError, match="one architecture"):
        load_vector(path, state(1.0), "baseline")
    path.write_bytes(b"no vector")
    with pytest.raises(UserError, match="holds no task vector"):
        load_vector(path, state(1.0), "baseline")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operation=apply", "--tuned", "a", "b"], "takes one --tuned, found 2"),
        (["--operation=ties", "--tuned", "a", "--density=0"], "--density must be above 0"),
    ],
)
def test_mistakes(monkeypatch, arguments, message):
    with pytest.raises(UserError, match=message):
        run(monkeypatch, *arguments, "--base=x", "--output-dir=y")
