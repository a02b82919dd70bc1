"""Export and import: a directory that transformers loads as it is, and the same model back."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from common.errors import UserError
from common.files import read_json
from eval.engine import generate
from pretrain.checkpoint import save_checkpoint
from pretrain.export_hf import ExportConfig
from pretrain.export_hf import main as export_main
from pretrain.hf_weights import FIXED, SHAPE, load_model_dir, save_model_dir
from pretrain.import_hf import extend_vocabulary
from pretrain.import_hf import main as import_main
from pretrain.model import GPT, GPTConfig
from tests.helpers import one_line_error, random_gpt, run
from tokenizer.mul_facts import VOCAB_SIZE
from tokenizer.vocabulary import Vocabulary

SMALL = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=32)


def checkpoint(model: GPT, path: Path, condition: str = "mul_tokens") -> Path:
    state = {"model": model.state_dict(), "model_config": asdict(model.config), "step": 7}
    save_checkpoint(path, state | {"condition": condition, "seed": 0})
    return path


def call(main, monkeypatch, *arguments: object) -> None:
    """A script's main in this process, as from the command line."""
    monkeypatch.setattr("sys.argv", ["script", *map(str, arguments)])
    main()


def test_what_a_config_leaves_out_is_what_transformers_takes():
    defaults = GPT2Config()
    assert {key: getattr(defaults, key) for key in SHAPE | FIXED} == SHAPE | FIXED


def test_an_evaluation_starts_without_what_it_may_not_need():
    """Each takes a second or two of every script's start."""
    names = "{'transformers', 'scipy.stats'} & set(sys.modules)"
    assert run("-c", f"import sys, eval.run_gsm8k; print({names})").stdout.strip() == "set()"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "hf_mul_tokens"
    save_model_dir(random_gpt(SMALL), path, "mul_tokens")
    return path


def test_exported_directory_gives_transformers_the_same_logits(tmp_path, monkeypatch):
    model = random_gpt(SMALL)
    checkpoint(model, tmp_path / "pretrain" / "model_000007.pt")
    call(
        export_main,
        monkeypatch,
        "--condition=mul_tokens",
        "--checkpoint",
        tmp_path / "pretrain",
        "--output-dir",
        tmp_path / "hf",
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    idx = torch.randint(0, VOCAB_SIZE, (2, 20), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.logits(model.hidden(idx)), loaded(idx).logits, rtol=1e-5, atol=1e-5)
    record = read_json(tmp_path / "hf" / "run.json")
    assert record["stage"] == "export" and record["condition"] == "mul_tokens" and record["steps"] == 7
    assert ExportConfig().output_dir is None  # the defaults of the documentation are filled in by main


def test_greedy_text_is_the_same_from_both_engines(model_dir):
    prompt = AutoTokenizer.from_pretrained(model_dir)("What is 6 times 9?").input_ids
    loaded = AutoModelForCausalLM.from_pretrained(model_dir)
    theirs = loaded.generate(torch.tensor([prompt]), max_new_tokens=12)[0, len(prompt) :].tolist()
    never = Vocabulary("mul_tokens").suppressed_ids
    ours = generate(load_model_dir(model_dir), [prompt], max_new_tokens=12, suppressed_ids=never)
    assert ours[0][0].ids == theirs


def test_transformers_never_samples_an_id_that_no_text_can_produce(tmp_path):
    model = random_gpt(SMALL)
    with torch.no_grad():
        model.wte.weight[Vocabulary("baseline").suppressed_ids] *= 30  # now they are the likeliest of all
    save_model_dir(model, tmp_path / "hf", "baseline")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    logits = loaded(torch.tensor([[5, 6]])).logits[0, -1]
    assert logits.argmax().item() in Vocabulary("baseline").suppressed_ids
    ids = loaded.generate(torch.tensor([[5, 6]]), max_new_tokens=20)[0, 2:].tolist()
    assert not set(ids) & set(Vocabulary("baseline").suppressed_ids)


def test_loading_gives_the_weights_back_bit_for_bit(model_dir):
    ours, back = random_gpt(SMALL).state_dict(), load_model_dir(model_dir).state_dict()
    assert all(torch.equal(ours[name], back[name]) for name in ours | back)


def test_import_writes_the_same_file_again(model_dir, tmp_path, monkeypatch):
    call(import_main, monkeypatch, "--model", model_dir, "--condition=mul_tokens", "--output-dir", tmp_path / "again")
    again = tmp_path / "again" / "model.safetensors"
    assert again.read_bytes() == (model_dir / "model.safetensors").read_bytes()


def test_openai_shaped_models_are_extended_without_changing_what_they_say(tmp_path, monkeypatch):
    torch.manual_seed(0)
    original = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=32, vocab_size=50257))
    original.eval().save_pretrained(tmp_path / "gpt2")
    call(import_main, monkeypatch, "--model", tmp_path / "gpt2", "--output-dir", tmp_path / "ours")
    ours = load_model_dir(tmp_path / "ours")
    idx = torch.randint(0, 50257, (2, 10), generator=torch.Generator().manual_seed(1))
    logits = ours.logits(ours.hidden(idx))
    torch.testing.assert_close(logits[..., :50257], original(idx).logits, rtol=1e-5, atol=1e-5)
    new = ours.wte.weight[50257:]
    assert len(new) == 92 and len(new.unique(dim=0)) == 92
    old = ours.wte.weight[:50257]
    assert (new - old.mean(0)).abs().max() < 0.1 * old.std()


def test_models_of_another_vocabulary_are_refused():
    with pytest.raises(UserError, match="embedding rows"):
        extend_vocabulary(GPT(GPTConfig(1, 1, 8, 8, vocab_size=32000)))


def broken(model_dir: Path, tmp_path: Path, change) -> Path:
    copy = tmp_path / "broken"
    copy.mkdir()
    for file in model_dir.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    change(copy)
    return copy


def set_config(**values):
    def change(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: (d / "config.json").unlink(), "no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "not valid JSON"),
        (lambda d: (d / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda d: (d / "model.safetensors").write_bytes(b"garbage"), "cannot be read"),
        (set_config(model_type="llama"), "llama"),
        (set_config(activation_function="relu"), "activation_function"),
        (set_config(n_layer=3), "h.2."),
        (set_config(n_embd=32), "expected"),
    ],
)
def test_what_is_not_a_model_directory_is_one_line(model_dir, tmp_path, change, expected):
    with pytest.raises(UserError) as error:
        load_model_dir(broken(model_dir, tmp_path, change))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_of_the_other_condition_is_refused(tmp_path):
    path = checkpoint(random_gpt(SMALL), tmp_path / "model_000007.pt", "baseline")
    result = run("pretrain/export_hf.py", "--condition", "mul_tokens", "--checkpoint", path, check=False)
    assert "is of condition baseline" in one_line_error(result)


@pytest.mark.parametrize("name", ["no/such/dir", "/no/such", "justaname"])
def test_import_of_nothing_is_one_line(name, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="neither a model directory nor a hub id"):
        call(import_main, monkeypatch, "--model", name, "--output-dir", tmp_path / "o")


@pytest.mark.parametrize("name", ["thesis.tex", "run.json"])
def test_a_directory_of_something_else_is_not_replaced(name, model_dir, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / name).write_text('{"stage": "sft_gsm8k", "condition": "mul_tokens"}')
    with pytest.raises(UserError, match="choose another --output-dir"):
        save_model_dir(load_model_dir(model_dir), other, "mul_tokens")
    assert (other / name).exists()
