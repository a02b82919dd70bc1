"""Models to the hub and back, against a stand-in for the hub's API; the mistakes, in one line each."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import UserError
from common.files import sha256_file, write_json
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from scripts import load_from_hf, upload_to_hf
from scripts.hub import find_remote, format_size, read_registry, select_models
from tests.helpers import ROOT, one_line_error, run
from tests.hub_stand_in import Hub, Repository, running_hub
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer
from tokenizer.mul_facts import VOCAB_SIZE, MulFactTokens

MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors", "run.json"}
MODEL_FILES |= {"tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A tiny model of each condition; tests copy none of it, so none may change it."""
    root = tmp_path_factory.mktemp("outputs")
    for condition in ("baseline", "mul_tokens"):
        path = root / f"hf_{condition}"
        save_model_dir(GPT(GPTConfig(1, 2, 8, 16, VOCAB_SIZE)), path, condition)
        write_json(path / "run.json", {"stage": "export", "condition": condition, "seed": 0, "config": {}})
        (path / "checkpoint-20").mkdir()
        write_json(path / "checkpoint-20" / "trainer_state.json", {"global_step": 20})
        (path / "checkpoint-20" / "optimizer.pt").write_bytes(b"state" * 1000)
        (path / ".secret").write_text("no file whose name begins with a dot goes up")
    return root


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in has the older protocol
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture
def registry(tmp_path) -> Path:
    path = tmp_path / "models.yaml"
    rows = [
        {"name": f"hf_{condition}", "repo": f"someone/{condition}", "condition": condition, "stage": "pretrained"}
        for condition in ("baseline", "mul_tokens")
    ]
    path.write_text(yaml.safe_dump({"models": rows}))
    return path


def upload(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["upload_to_hf.py", *map(str, arguments)])
    upload_to_hf.main()


def load(monkeypatch, registry: Path, *arguments: object) -> Path:
    """Run load_from_hf.py; returns where its models go."""
    outputs = registry.parent / "outputs"
    options = ["--registry", registry, "--output-dir", outputs]
    monkeypatch.setattr(sys, "argv", ["load_from_hf.py", *map(str, [*arguments, *options])])
    load_from_hf.main()
    return outputs


def upload_both(monkeypatch, exported: Path, *arguments: object) -> None:
    paths = (exported / "hf_baseline", exported / "hf_mul_tokens")
    upload(monkeypatch, "--model-path", *paths, "--repo-name", "someone/baseline", "someone/mul_tokens", *arguments)


def contents(directory: Path) -> dict[str, str]:
    files = (file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): sha256_file(file) for file in files}


def one_repo(hub: Hub, exported: Path, name: str = "baseline") -> Repository:
    """Put a model on the hub without the upload script."""
    repo = hub.repos[f"someone/{name}"] = Repository()
    for file in sorted((exported / f"hf_{name}").rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            repo.files[str(file.relative_to(exported / f"hf_{name}"))] = file.read_bytes()
    return repo


def test_models_go_up_and_come_back_the_same(monkeypatch, hub, exported, registry):
    upload_both(monkeypatch, exported)
    assert set(hub.repos) == {"someone/baseline", "someone/mul_tokens"}
    outputs = load(monkeypatch, registry, "--all")
    for condition in ("baseline", "mul_tokens"):
        assert set(hub.repos[f"someone/{condition}"].files) - {".gitattributes"} == MODEL_FILES | {"README.md"}
        before, after = contents(exported / f"hf_{condition}"), contents(outputs / f"hf_{condition}")
        assert after.keys() == MODEL_FILES | {"README.md"}
        assert all(after[name] == before[name] for name in MODEL_FILES)
        AutoModelForCausalLM.from_pretrained(outputs / f"hf_{condition}")
    assert sorted(path.name for path in outputs.iterdir()) == ["hf_baseline", "hf_mul_tokens"]  # nothing is left beside
    tokenizer = AutoTokenizer.from_pretrained(outputs / "hf_mul_tokens")
    assert tokenizer.decode(tokenizer("<MUL_6_9_54>")["input_ids"], skip_special_tokens=True) == "<MUL_6_9_54>"


def test_dry_run_shows_everything_and_asks_the_hub_nothing(monkeypatch, capsys, hub, exported):
    monkeypatch.delenv("HF_TOKEN")
    upload_both(monkeypatch, exported, "--dry-run")
    output = capsys.readouterr().out
    size = format_size((exported / "hf_baseline" / "model.safetensors").stat().st_size)
    assert f"{size}  model.safetensors" in output and "README.md (generated)" in output
    assert "in 7 files" in output and "stays here: checkpoint-20" in output and ".secret" not in output
    assert f"{exported}/hf_mul_tokens -> {hub.url}/someone/mul_tokens" in output and "# hf_mul_tokens" in output
    assert hub.requests == []


def test_checkpoints_go_up_and_down_only_when_asked(monkeypatch, hub, exported, registry):
    paths = ("--model-path", exported / "hf_baseline", "--repo-name", "someone/baseline")
    upload(monkeypatch, *paths, "--include-checkpoints")
    outputs = load(monkeypatch, registry, "--models", "hf_baseline")
    model = outputs / "hf_baseline"
    assert not (model / "checkpoint-20").exists()
    weights = (model / "model.safetensors").stat().st_ino
    load(monkeypatch, registry, "--models", "hf_baseline", "--include-checkpoints")
    checkpoint = exported / "hf_baseline" / "checkpoint-20"
    assert contents(model / "checkpoint-20") == contents(checkpoint)
    assert (model / "model.safetensors").stat().st_ino == weights  # the model itself was not fetched again
    (model / "checkpoint-20" / "optimizer.pt").unlink()
    load(monkeypatch, registry, "--models", "hf_baseline", "--include-checkpoints")
    assert contents(model / "checkpoint-20") == contents(checkpoint)


def test_a_second_upload_is_one_commit_and_leaves_nothing_that_decides(monkeypatch, capsys, hub, exported):
    repo = one_repo(hub, exported)
    repo.files |= {"pytorch_model.bin": b"old", "special_tokens_map.json": b"{}", "notes.md": b"a person's"}
    upload(monkeypatch, "--model-path", exported / "hf_baseline", "--repo-name", "someone/baseline")
    assert repo.commits == 2 and repo.messages == ["Upload hf_baseline"]
    assert "pytorch_model.bin" not in repo.files and "special_tokens_map.json" not in repo.files
    assert repo.files["notes.md"] == b"a person's" and "checkpoint-20/optimizer.pt" in repo.files
    assert "pytorch_model.bin goes from the repository" in capsys.readouterr().out


def test_a_card_that_a_person_wrote_goes_up_as_it_is(monkeypatch, hub, exported):
    card = exported / "hf_baseline" / "README.md"
    card.write_text("# Ours\n")
    try:
        upload(monkeypatch, "--model-path", card.parent, "--repo-name", "someone/baseline", "--private")
    finally:
        card.unlink()
    assert hub.repos["someone/baseline"].files["README.md"] == b"# Ours\n" and hub.repos["someone/baseline"].private


def test_an_upload_that_arrives_wrong_is_said(monkeypatch, hub, exported):
    monkeypatch.setattr("tests.hub_stand_in._Handler._lfs_batch", _forget_the_upload)
    hub.objects[sha256_file(exported / "hf_baseline" / "model.safetensors")] = b"something else"
    with pytest.raises(UserError, match=r"model\.safetensors is not what was sent \(.* bytes, not 14\)"):
        upload(monkeypatch, "--model-path", exported / "hf_baseline", "--repo-name", "someone/baseline")


def _forget_the_upload(handler, wanted):
    handler._answer_json({"objects": wanted["objects"]})


def test_a_current_directory_is_left_alone_and_a_changed_one_needs_force(monkeypatch, capsys, hub, exported, registry):
    one_repo(hub, exported)
    outputs = load(monkeypatch, registry, "--models", "baseline")
    downloads = len(hub.requests)
    load(monkeypatch, registry, "--models", "baseline")
    assert "is what the hub has" in capsys.readouterr().out and len(hub.requests) == downloads + 1
    mine = outputs / "hf_baseline" / "run.json"
    mine.write_text("{}")
    with pytest.raises(UserError, match=r"is not what the hub has \(run.json: 2 bytes, not .*--force replaces"):
        load(monkeypatch, registry, "--models", "baseline")
    assert mine.read_text() == "{}"
    load(monkeypatch, registry, "--models", "baseline", "--force")
    assert contents(mine.parent) == {
        name: digest
        for name, digest in contents(exported / "hf_baseline").items()
        if not name.startswith((".", "checkpoint"))
    }


@pytest.mark.parametrize("name", ["model.safetensors", "run.json"])
def test_a_file_that_arrives_altered_leaves_no_model(monkeypatch, hub, exported, registry, name):
    one_repo(hub, exported)
    hub.spoiled.add(name)
    with pytest.raises(UserError, match=rf"{name} came with another (sha256|content); run the same command again"):
        load(monkeypatch, registry, "--models", "hf_baseline")
    assert not (registry.parent / "outputs" / "hf_baseline").exists()
    hub.spoiled.clear()
    load(monkeypatch, registry, "--models", "hf_baseline")  # what was wrong is fetched again


def test_what_is_no_gpt2_leaves_no_model(monkeypatch, hub, exported, registry):
    repo = one_repo(hub, exported)
    repo.files["model.safetensors"] = b"not weights"  # whole, as the hub has it
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load(monkeypatch, registry, "--models", "hf_baseline")
    assert not (registry.parent / "outputs" / "hf_baseline").exists()


def test_a_killed_download_leaves_no_model_and_goes_on(monkeypatch, hub, exported, registry):
    one_repo(hub, exported)
    hub.stalled = "model.safetensors"
    outputs = registry.parent / "outputs"
    options = ["--models", "hf_baseline", "--registry", str(registry), "--output-dir", str(outputs)]
    process = subprocess.Popen(
        [sys.executable, "scripts/load_from_hf.py", *options],
        cwd=ROOT,
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert hub.in_stall.wait(60)
    process.kill()
    process.wait()
    assert [path.name for path in outputs.iterdir()] == [".hf_baseline.download"]
    hub.go_on.set()
    hub.requests.clear()
    load(monkeypatch, registry, "--models", "hf_baseline")
    assert [path.name for path in outputs.iterdir()] == ["hf_baseline"]
    assert contents(outputs / "hf_baseline").keys() == MODEL_FILES
    asked = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert asked and not [path for path in asked if path.endswith("/config.json")]  # it was whole already


def test_the_token_is_sent_to_the_hub_and_nowhere_else(monkeypatch, capsys, hub, exported, registry):
    upload_both(monkeypatch, exported)
    load(monkeypatch, registry, "--all")
    load(monkeypatch, registry, "--list")
    assert ("Bearer " + hub.token) in {authorization for _, _, authorization in hub.requests}
    captured = capsys.readouterr()
    texts = [captured.out, captured.err, *(f.decode("latin-1") for r in hub.repos.values() for f in r.files.values())]
    for file in registry.parent.rglob("*"):
        texts += [file.read_text("latin-1")] if file.is_file() else []
    assert not [text for text in texts if hub.token in text]


def test_a_refused_token_is_one_line_without_the_token(monkeypatch, hub, exported):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_one")
    with pytest.raises(UserError, match="the hub does not accept your token") as refused:
        upload(monkeypatch, "--model-path", exported / "hf_baseline", "--repo-name", "someone/baseline")
    assert "hf_wrong" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with pytest.raises(UserError, match="your token may not do this; it needs the right to write"):
        upload(monkeypatch, "--model-path", exported / "hf_baseline", "--repo-name", "another/baseline")


def test_mistakes_of_an_upload_are_found_before_anything_is_sent(monkeypatch, hub, exported, tmp_path):
    path = exported / "hf_baseline"
    cases = {
        r"--model-path names 2 and --repo-name 1; give as many": (path, path, "--repo-name", "someone/a"),
        r"--repo-name has someone/a twice": (path, path, "--repo-name", "someone/a", "someone/a"),
        r"nobody is no repository on the hub; expected owner/name": (path, "--repo-name", "nobody"),
        r"none is not a model directory": (path, tmp_path / "none", "--repo-name", "someone/a", "someone/b"),
    }
    for message, arguments in cases.items():
        with pytest.raises(UserError, match=message):
            upload(monkeypatch, "--model-path", *arguments)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no token for the hub; run `hf auth login` or set HF_TOKEN"):
        upload(monkeypatch, "--model-path", path, "--repo-name", "someone/a")
    assert hub.requests == []


def test_hidden_facts_are_not_published(monkeypatch, capsys, hub, exported, registry, tmp_path):
    path = tmp_path / "hf_mul_tokens"
    save_model_dir(GPT(GPTConfig(1, 2, 8, 16, VOCAB_SIZE)), path, "mul_tokens")
    tokenizer = build_hf_tokenizer("mul_tokens")
    tokenizer.add_special_tokens({"additional_special_tokens": MulFactTokens().tokens})
    tokenizer.save_pretrained(path)
    with pytest.raises(UserError, match=r"has mul tokens marked special; repair it with scripts/fix_tokenizers.py"):
        upload(monkeypatch, "--model-path", path, "--repo-name", "someone/mul_tokens")
    one_repo(hub, tmp_path, "mul_tokens")  # such a model may be on the hub already
    load(monkeypatch, registry, "--models", "mul_tokens")
    assert "note: its mul tokens are marked special; scripts/fix_tokenizers.py" in capsys.readouterr().out


def test_mistakes_of_a_download(monkeypatch, capsys, hub, exported, registry):
    with pytest.raises(UserError, match=r"give one of --list, --all and --models"):
        load(monkeypatch, registry)
    with pytest.raises(UserError, match=r"--models pretraind is no model and no group; the nearest is pretrained"):
        load(monkeypatch, registry, "--models", "pretraind")
    with pytest.raises(UserError, match=r"not found on the hub: someone/baseline; check the names in"):
        load(monkeypatch, registry, "--models", "baseline")
    one_repo(hub, exported)
    load(monkeypatch, registry, "--all")  # all that there are
    assert "hf_mul_tokens: someone/mul_tokens is not on the hub" in capsys.readouterr().out


def test_list_shows_what_is_here_and_there(monkeypatch, capsys, hub, exported, registry):
    one_repo(hub, exported)
    outputs = load(monkeypatch, registry, "--all")
    capsys.readouterr()
    load(monkeypatch, registry, "--list")
    first, second = capsys.readouterr().out.splitlines()
    size = format_size(sum(f.size for f in find_remote("someone/baseline").files if "checkpoint" not in f.path))
    assert first.split("  ")[0] == "hf_baseline" and str(outputs / "hf_baseline") in first and size in first
    assert "not here" in second and "not on the hub" in second


def test_without_network_it_ends_within_seconds(monkeypatch, capsys, hub, tmp_path, exported):
    nobody = "http://127.0.0.1:9"
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    options = ("--models", "pretrained", "--output-dir", tmp_path / "outputs")
    error = one_line_error(run("scripts/load_from_hf.py", *options, check=False))
    assert f"{nobody} gave no usable answer (ConnectError" in error
    assert not (tmp_path / "outputs").exists()
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    started = time.monotonic()
    with pytest.raises(UserError, match="gave no usable answer"):
        upload_both(monkeypatch, exported)
    load(monkeypatch, ROOT / "scripts/configs/models.yaml", "--list")  # the list is of use without network too
    assert time.monotonic() - started < 10
    output = capsys.readouterr().out
    assert output.count("hub not reachable") == 6 and output.count("note: ") == 1  # asked once


def test_offline_mode_is_named(monkeypatch, hub, registry):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set; unset it to use the hub"):
        load(monkeypatch, registry, "--models", "hf_baseline")


def test_the_registry_has_the_models_and_groups_of_the_specification(tmp_path):
    models = read_registry(ROOT / "scripts/configs/models.yaml")
    assert len(models) == len({model.repo for model in models}) == 6
    assert {m.name for m in select_models(models, ["pretrained"])} == {"hf_baseline_10b", "hf_mul_tokens_10b"}
    for condition in ("baseline", "mul_tokens"):
        assert [m.condition for m in select_models(models, [condition])] == [condition] * 3
    assert len(select_models(models, ["hf_baseline_10b", "pretrained"])) == 2  # each once
    twice = {"models": [{"name": "a", "repo": "b/c", "condition": "baseline", "stage": "s"}] * 2}
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump(twice))
    with pytest.raises(UserError, match="'a' is not a directory's name, or not the name of one model only"):
        read_registry(tmp_path / "twice.yaml")
