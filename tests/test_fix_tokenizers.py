"""Model directories with broken tokenizer files: what is said about them, what is written, and what is refused."""

import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.errors import UserError
from common.files import read_json, sha256_file, write_json
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from scripts import fix_tokenizers
from scripts.tokenizer_files import find_changes, special_facts
from tests.helpers import one_line_error, run
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts, bpe_vocabulary, read_merges
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer
from tokenizer.mul_facts import END_OF_TEXT, EOT_ID, VOCAB_SIZE, MulFactTokens

FACTS = MulFactTokens().tokens
TEXT = "He drives <MUL_2_3_6> hours<|endoftext|>"


@pytest.fixture
def sound(tmp_path) -> Path:
    """A mul_tokens model as export_hf.py writes it."""
    path = tmp_path / "hf_mul_tokens"
    save_model_dir(GPT(GPTConfig(1, 2, 8, 16, VOCAB_SIZE)), path, "mul_tokens")
    write_json(path / "run.json", {"stage": "export", "condition": "mul_tokens"})
    return path


@pytest.fixture
def broken(sound) -> Path:
    """The same as the earlier exporter left it: the facts are special tokens."""
    tokenizer = build_hf_tokenizer("mul_tokens")
    assert tokenizer.add_special_tokens({"additional_special_tokens": FACTS}) == len(FACTS)
    tokenizer.save_pretrained(sound)
    return sound


def fix(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["fix_tokenizers.py", *map(str, arguments)])
    fix_tokenizers.main()


def decoded(path: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(path)
    return tokenizer.decode(tokenizer(TEXT)["input_ids"], skip_special_tokens=True)


def contents(path: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in path.iterdir()}


def stock_tokenizer(path: Path, vocabulary: dict[str, int] | None = None) -> None:
    """GPT-2's own tokenizer, which has no facts, in `path`."""
    tokenizer = Tokenizer(
        models.BPE(vocab=bpe_vocabulary() | {END_OF_TEXT: EOT_ID} | (vocabulary or {}), merges=read_merges())
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT).save_pretrained(path)


def test_special_facts_are_dropped_before_and_kept_after(monkeypatch, broken):
    weights = sha256_file(broken / "model.safetensors")
    assert decoded(broken) == "He drives  hours"
    assert special_facts(AutoTokenizer.from_pretrained(broken)) == FACTS
    fix(monkeypatch, "--model-path", broken, "--apply")
    assert decoded(broken) == "He drives <MUL_2_3_6> hours"
    assert special_facts(AutoTokenizer.from_pretrained(broken)) == []
    assert sha256_file(broken / "model.safetensors") == weights
    assert not [file.name for file in broken.parent.iterdir() if file != broken]  # nothing is left beside


def test_a_repaired_directory_equals_an_export_and_has_nothing_to_repair(monkeypatch, capsys, sound, broken):
    fix(monkeypatch, "--model-path", broken, "--apply")
    build_hf_tokenizer("mul_tokens").save_pretrained(sound.parent / "fresh")
    fresh = contents(sound.parent / "fresh")
    assert {name: sha256_file(broken / name) for name in fresh} == fresh
    before = contents(broken)
    fix(monkeypatch, "--model-path", broken, "--apply")
    assert "nothing to repair" in capsys.readouterr().out and contents(broken) == before


def test_without_apply_it_is_said_and_not_done(monkeypatch, capsys, broken):
    before = contents(broken)
    fix(monkeypatch, "--model-path", broken)
    output = capsys.readouterr().out
    assert "45 tokens special, becomes regular: <MUL_1_1_1> ... <MUL_9_9_81>" in output
    assert "decodes to 'So it is .'" in output and "nothing was written" in output
    assert contents(broken) == before


def test_missing_facts_are_added(monkeypatch, capsys, sound):
    stock_tokenizer(sound)
    assert len(AutoTokenizer.from_pretrained(sound)("<MUL_2_3_6>")["input_ids"]) > 1
    fix(monkeypatch, "--model-path", sound, "--apply")
    assert "49 tokens missing, is added: <think> ... <MUL_9_9_81>" in capsys.readouterr().out
    expected = GPT2TokenizerWithMulFacts("mul_tokens").encode(TEXT)
    assert AutoTokenizer.from_pretrained(sound)(TEXT)["input_ids"] == expected


def test_files_of_older_versions_are_removed(monkeypatch, capsys, broken):
    write_json(broken / "special_tokens_map.json", {"additional_special_tokens": FACTS})
    write_json(broken / "added_tokens.json", {"<MUL_1_1_1>": 50304})
    fix(monkeypatch, "--model-path", broken, "--apply")
    assert "special_tokens_map.json goes" in capsys.readouterr().out
    assert not (broken / "special_tokens_map.json").exists() and not (broken / "added_tokens.json").exists()
    assert decoded(broken) == "He drives <MUL_2_3_6> hours"


def test_a_directory_without_a_tokenizer_gets_one(monkeypatch, sound):
    (sound / "tokenizer.json").write_text("{ not json")
    fix(monkeypatch, "--model-path", sound, "--apply")
    assert decoded(sound) == "He drives <MUL_2_3_6> hours"


def test_baseline_loses_tokens_that_are_not_its_own(broken):
    names = [line for line in find_changes(broken, "baseline") if "becomes text" in line]
    assert names == ["45 tokens no token of baseline, becomes text: <MUL_1_1_1> ... <MUL_9_9_81>"]


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [
        ({"<MUL_1_1_1>": 50257}, "<MUL_1_1_1> has id 50257, here 50304"),
        ({"<fact>": 50258}, "id 50258 is <fact>, here </think>"),
    ],
)
def test_other_ids_are_refused_and_nothing_is_written(monkeypatch, broken, sound, vocabulary, expected):
    other = sound.parent / "other"
    save_model_dir(GPT(GPTConfig(1, 2, 8, 16, VOCAB_SIZE)), other, "mul_tokens")
    stock_tokenizer(other, vocabulary)
    before = contents(broken)
    with pytest.raises(UserError, match=f"{expected}; the model was trained with other"):
        fix(monkeypatch, "--model-path", broken, other, "--condition", "mul_tokens", "--apply")
    assert contents(broken) == before  # not even the one that could be mended


def test_the_condition_is_asked_for_when_nothing_proves_it(monkeypatch, sound):
    (sound / "run.json").unlink()
    fix(monkeypatch, "--model-path", sound)  # its tokenizer has the facts
    stock_tokenizer(sound)
    with pytest.raises(UserError, match="does not say its condition; give --condition"):
        fix(monkeypatch, "--model-path", sound)
    assert any("49 tokens missing" in line for line in find_changes(sound, "mul_tokens"))


def test_mistakes_are_one_line(monkeypatch, sound, tmp_path):
    with pytest.raises(UserError, match=r"--condition baseline, but .* is a model of mul_tokens"):
        fix(monkeypatch, "--model-path", sound, "--condition", "baseline")
    write_json(sound / "config.json", read_json(sound / "config.json") | {"vocab_size": 50257})
    with pytest.raises(UserError, match="has 50,257 embedding rows, not 50,349"):
        fix(monkeypatch, "--model-path", sound)
    result = run("scripts/fix_tokenizers.py", "--model-path", tmp_path / "none", "--condition", "baseline", check=False)
    assert "is not a model directory: it has no config.json" in one_line_error(result)
