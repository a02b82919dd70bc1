"""A choice of token families through the whole chain: text, shards, pretraining, export, SFT, evaluation."""

import shutil
import sys

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from common.errors import UserError
from common.files import read_json, read_jsonl
from data import prepare_text, tokenize_to_bin
from data.encoding import tokenizer_of
from data.shards import open_stream
from eval import run_gsm8k
from eval.benchmark import load_for_evaluation
from pretrain import export_hf, train
from pretrain.hf_weights import families_of
from sft import sft_gsm8k
from sft.training import quiet_libraries
from tests.helpers import TINY_TRAINING
from tokenizer.families import read_families
from tokenizer.mul_facts import CONDITIONS, EOT_ID
from tokenizer.vocabulary import Vocabulary

CHOICE, SIZE = "mul+add+digits", 50_394


def call(patch, module, *arguments):
    patch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    try:
        module.main()
    except SystemExit as end:
        assert not end.code


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Text and shards of both conditions; model, SFT and evaluation of mul_tokens."""
    root = tmp_path_factory.mktemp("families")
    quiet_libraries()
    with pytest.MonkeyPatch.context() as patch:
        for condition in CONDITIONS:
            both = ("--condition", condition, "--families", "add+digits+mul")
            call(patch, prepare_text, *both, "--num-documents", 200, "--out-dir", root / "raw")
            text, shards = root / "raw" / f"train_{condition}.txt", root / f"shards_{condition}"
            call(patch, tokenize_to_bin, *both, "--input", text, "--out-dir", shards, "--workers", 1)
        own = ("--condition", "mul_tokens", "--device", "cpu")
        data, short = (
            ("--data-path", root / "raw" / "gsm8k"),
            ("--model.block-size=128", "--training.max-steps=4", "--training.total-batch-size=256"),
        )
        to = {name: root / name for name in ("pretrain", "hf", "sft", "eval")}
        shards = ("--data-dir", root / "shards_mul_tokens", "--output-dir", to["pretrain"])
        call(patch, train, *own, *shards, *TINY_TRAINING, *short)
        call(patch, export_hf, *own[:2], "--checkpoint", to["pretrain"], "--output-dir", to["hf"])
        few = ("--training.max-steps=2", "--training.max-examples=20", "--training.max-length=128", "--eval.fraction=0")
        call(
            patch,
            sft_gsm8k,
            *own,
            "--inject-mul-tokens",
            "--model-path",
            to["hf"],
            "--output-dir",
            to["sft"],
            *data,
            *few,
        )
        asked = ("--max-samples", 3, "--max-new-tokens", 4, "--device", "cpu")
        call(patch, run_gsm8k, "--model-path", to["sft"], "--output-dir", to["eval"], *data, *asked)
    return root


def test_shards_name_the_choice_and_hold_its_tokens(root):
    counted = {}
    for condition in CONDITIONS:
        stream = open_stream(root / f"shards_{condition}", "train")
        ids = np.asarray(stream.read(0, len(stream)))
        assert stream.meta["families"] == CHOICE
        counted[condition] = {
            name: int(np.isin(ids, [fact.id for fact in read_families()[name].facts]).sum())
            for name in ("mul", "add", "digits", "square")
        }
        assert stream.meta["splits"]["train"]["mul_tokens"] == sum(counted[condition].values())
    assert not any(counted["baseline"].values())
    assert min(counted["mul_tokens"][name] for name in ("mul", "add", "digits")) > 20
    assert counted["mul_tokens"]["square"] == 0


def test_both_conditions_read_the_same_documents(root):
    metas = [read_json(root / f"shards_{condition}" / "meta.json") for condition in CONDITIONS]
    assert metas[0]["documents_sha256"] == metas[1]["documents_sha256"]
    sizes = [meta["splits"]["train"]["text_bytes"] for meta in metas]
    assert sizes[0] == sizes[1] > 0


def test_every_directory_names_the_choice_and_has_its_size(root):
    for name in ("hf", "sft"):
        config = read_json(root / name / "config.json")
        assert families_of(root / name) == config["token_families"] == CHOICE and config["vocab_size"] == SIZE
        assert AutoModelForCausalLM.from_pretrained(root / name).get_input_embeddings().weight.shape[0] == SIZE
        tokenizer = AutoTokenizer.from_pretrained(root / name)
        assert len(tokenizer) == SIZE and tokenizer("<ADD_6_9_15>").input_ids == [50_387]
        never = Vocabulary("mul_tokens", CHOICE).suppressed_ids
        assert GenerationConfig.from_pretrained(root / name).suppress_tokens == never == [50_301, 50_302, 50_303]
    assert read_json(root / "pretrain" / "run.json")["data"]["families"] == CHOICE


def test_supervised_rows_were_spelled_and_injected(root):
    assert read_json(root / "sft" / "sft_results.json")["mul_tokens_seen"] > 50  # digits above all


def test_the_evaluation_asks_and_decodes_with_the_choice(root):
    rows = read_jsonl(root / "eval" / "gsm8k_responses.jsonl")
    assert len(rows) == 3 and all(row["finish_reason"] != "skipped" for row in rows)
    assert [key for key in rows[0] if "grounded" in key] == ["mul_tokens_grounded", "add_tokens_grounded"]
    tokenizer = load_for_evaluation(root / "sft", None, "cpu").tokenizer
    assert tokenizer.vocabulary == Vocabulary("mul_tokens", CHOICE)
    ids = tokenizer.encode(rows[0]["question"], allow_special=False)
    assert tokenizer.count_mul_tokens(ids) > 0 and tokenizer.decode(ids) == rows[0]["question"]
    assert EOT_ID not in ids


def test_shards_of_a_choice_need_its_flag(root, monkeypatch):
    text = root / "raw" / "train_baseline.txt"
    with pytest.raises(UserError, match=r"prepared with the token families mul\+add\+digits; give --families mul\+add"):
        call(monkeypatch, tokenize_to_bin, "--condition", "baseline", "--input", text, "--out-dir", root / "again")


def test_ids_beyond_the_choice_are_refused(root, tmp_path):
    shutil.copytree(root / "shards_mul_tokens", tmp_path / "shards")
    path = tmp_path / "shards" / "train_00000.npy"
    ids = np.load(path)
    ids[5] = SIZE
    np.save(path, ids)
    with pytest.raises(UserError, match="holds the id 50394, but the vocabulary ends at 50393"):
        open_stream(tmp_path / "shards", "train")


def test_the_default_world_holds_nothing_of_other_families(root):
    kinds = read_json(root / "raw" / "baseline_stats.json")["kinds"]
    assert kinds["add"]["documents"] == 20 and "square" not in kinds
    assert tokenizer_of("baseline").vocabulary.size == 50_349
