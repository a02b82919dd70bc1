"""Tokenizing a corpus: what the shards and meta.json hold, that both conditions split alike, and what is refused."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.files import read_json, write_json
from data import encoding, prepare_text
from data.documents import read_documents
from data.encoding import is_validation
from data.loader import TokenLoader
from data.shards import open_stream
from data.tokenize_to_bin import TokenizeConfig, tokenize
from tests.helpers import documents_in
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import EOT_ID, FIRST_MUL_ID

ROOT = Path(__file__).parents[1]
WEB_TEXT = ROOT.parent / "shared/data/web_text"


def make_documents(count: int = 200) -> list[str]:
    rng = random.Random(0)
    documents = []
    for i in range(count):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        documents.append(
            f"Document {i}: {a}*{b}={a * b}, or {b} × {a}.\nIt goes on <|endoftext|> é " + "and on " * (i % 7)
        )
    return documents


def write_text(path: Path, documents: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text + "\n<|endoftext|>\n" for text in documents))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("corpus") / "documents.txt", make_documents())


@pytest.fixture(scope="module")
def processed(corpus) -> dict[str, Path]:
    """Output folders of both conditions, in shards of 500 tokens."""
    folders = {condition: corpus.parent / condition for condition in ("baseline", "mul_tokens")}
    for condition, folder in folders.items():
        tokenize(TokenizeConfig(condition, input=corpus, out_dir=folder, shard_size=500, val_fraction=0.1))
    return folders


def test_shards_hold_the_documents(processed):
    injector = MulExpressionInjector("weak")
    for condition, inject in (("baseline", str), ("mul_tokens", injector.inject)):
        for split in ("train", "val"):
            numbers = [i for i in range(200) if is_validation(i, 0.1) == (split == "val")]
            expected = [inject(make_documents()[i]) for i in numbers]
            assert documents_in(processed[condition], split, condition) == expected


def test_both_conditions_hold_out_the_same_documents(processed):
    for split in ("train", "val"):
        heads = [
            [text.split(":")[0] for text in documents_in(processed[c], split, c)] for c in ("baseline", "mul_tokens")
        ]
        assert heads[0] == heads[1]


def test_meta_counts(processed):
    for condition, folder in processed.items():
        meta = read_json(folder / "meta.json")
        assert meta["condition"] == condition
        assert meta["tokenizer_fingerprint"] == GPT2TokenizerWithMulFacts(condition).fingerprint
        assert sum(meta["splits"][s]["documents"] for s in ("train", "val")) == 200
        assert sum(meta["splits"][s]["text_bytes"] for s in ("train", "val")) == sum(
            len(text.encode()) for text in make_documents()
        )
        for split, counts in meta["splits"].items():
            stream = open_stream(folder, split)
            ids = stream.read(0, len(stream))
            assert counts["tokens"] == len(ids) and counts["documents"] == (ids == EOT_ID).sum()
            assert counts["mul_tokens"] == (ids >= FIRST_MUL_ID).sum()
            assert (counts["mul_tokens"] > 0) == (condition == "mul_tokens")
            assert counts["fingerprint"] == stream.fingerprint
        injection = meta["injection"]
        if condition == "baseline":
            assert injection == {"mode": "none"}
        else:
            total = sum(meta["splits"][s]["mul_tokens"] for s in ("train", "val"))
            assert injection["mode"] == "weak" and injection["with_result"] + injection["bare"] == total == 400


def test_shard_list(processed):
    meta = read_json(processed["baseline"] / "meta.json")
    names = {entry["name"] for entry in meta["shards"]} | {"meta.json"}
    assert names == {path.name for path in processed["baseline"].iterdir()}
    train = [entry for entry in meta["shards"] if entry["split"] == "train"]
    assert [entry["tokens"] for entry in train[:-1]] == [500] * (len(train) - 1) and 0 < train[-1]["tokens"] <= 500
    for entry in meta["shards"]:
        content = (processed["baseline"] / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def test_source(corpus, processed):
    metas = [read_json(folder / "meta.json") for folder in processed.values()]
    assert metas[0]["source"] == metas[1]["source"]
    assert metas[0]["source"]["files"] == [
        {"name": "documents.txt", "sha256": hashlib.sha256(corpus.read_bytes()).hexdigest()}
    ]
    expected = hashlib.sha256()
    for text in make_documents():
        expected.update(text.encode() + b"\0")
    assert [meta["documents_sha256"] for meta in metas] == [expected.hexdigest()] * 2


def test_the_loader_reads_what_was_written(processed):
    loader = TokenLoader(processed["mul_tokens"], "train", 4, 32)
    x, y = loader.next_batch()
    assert x[0, 0] == EOT_ID and x[0, 1:].tolist() == y[0, :-1].tolist()
    assert loader.describe()["condition"] == "mul_tokens"


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_shard_size_is_exact(corpus, processed, tmp_path, extra):
    total = read_json(processed["baseline"] / "meta.json")["splits"]["train"]["tokens"]
    config = TokenizeConfig("baseline", corpus, tmp_path / "out", shard_size=total + extra, val_fraction=0.1)
    meta = tokenize(config)
    sizes = [entry["tokens"] for entry in meta["shards"] if entry["split"] == "train"]
    assert sizes == ([total - 1, 1] if extra == -1 else [total])


@pytest.mark.parametrize("suffix", [".jsonl", "folder"])
def test_formats_give_the_same_shards(corpus, processed, tmp_path, suffix):
    documents = make_documents()
    if suffix == ".jsonl":
        source = tmp_path / "a.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    else:
        source = tmp_path / "in"
        write_text(source / "a.txt", documents[:70])
        write_text(source / "b.txt", documents[70:])
    meta = tokenize(TokenizeConfig("baseline", source, tmp_path / "out", shard_size=500, val_fraction=0.1))
    original = read_json(processed["baseline"] / "meta.json")
    assert meta["shards"] == original["shards"] and meta["documents_sha256"] == original["documents_sha256"]


def test_several_workers_and_small_batches_change_nothing(corpus, processed, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 2000)
    monkeypatch.setattr(encoding, "BYTES_WORTH_A_WORKER", 10_000)
    config = TokenizeConfig("mul_tokens", corpus, tmp_path / "out", shard_size=500, val_fraction=0.1, workers=2)
    assert tokenize(config)["shards"] == read_json(processed["mul_tokens"] / "meta.json")["shards"]


def test_input_that_is_injected_already(processed, tmp_path):
    """prepare_text.py's files: the same shards, and the hash of the documents from the statistics beside them."""
    injector = MulExpressionInjector("weak")
    source = write_text(tmp_path / "raw/train_mul_tokens.txt", [injector.inject(t) for t in make_documents()])
    config = TokenizeConfig("mul_tokens", source, tmp_path / "out", shard_size=500, val_fraction=0.1)
    meta = tokenize(config)
    assert meta["shards"] == read_json(processed["mul_tokens"] / "meta.json")["shards"]
    assert meta["source"]["documents_injected_before"] == 200
    assert meta["documents_sha256"] is None  # the text before injection was never seen
    assert meta["splits"]["val"]["text_bytes"] is None
    noted = {"documents_sha256": "abc", "injection": {"mode": "weak"}}
    write_json(tmp_path / "raw/mul_tokens_stats.json", noted)
    assert tokenize(config)["documents_sha256"] == "abc"
    with pytest.raises(UserError, match="holds mul tokens; baseline takes the text before injection"):
        tokenize(TokenizeConfig("baseline", source, tmp_path / "baseline"))
    assert not (tmp_path / "baseline").exists()


def test_another_mode_than_the_text_was_injected_in(tmp_path):
    source = write_text(tmp_path / "train_mul_tokens.txt", make_documents())
    write_json(tmp_path / "mul_tokens_stats.json", {"injection": {"mode": "strict"}})
    with pytest.raises(UserError, match="was injected in strict mode; give --injection-mode strict"):
        tokenize(TokenizeConfig("mul_tokens", source, tmp_path / "out"))


def test_prepared_text_of_both_conditions(tmp_path, monkeypatch):
    """From prepare_text.py to shards by the default paths: the same documents in the same splits."""
    monkeypatch.chdir(tmp_path)
    metas = []
    for condition in ("baseline", "mul_tokens"):
        monkeypatch.setattr(sys, "argv", ["x", "--condition", condition, "--num-documents", "400"])
        prepare_text.main()
        metas.append(tokenize(TokenizeConfig(condition)))
    assert metas[0]["documents_sha256"] == metas[1]["documents_sha256"]
    assert len({metas[0]["documents_sha256"], read_json("data/raw/baseline_stats.json")["documents_sha256"]}) == 1
    for split in ("train", "val"):
        for key in ("documents", "text_bytes"):  # bytes before injection, or bits per byte could not be compared
            assert metas[0]["splits"][split][key] == metas[1]["splits"][split][key]
        assert metas[0]["splits"][split]["tokens"] > metas[1]["splits"][split]["tokens"]
    assert metas[1]["source"]["documents_injected_before"] > 0


@pytest.mark.parametrize(("mode", "mul_tokens"), [("weak", 400), ("strict", 200), ("none", 0)])
def test_injection_modes(corpus, tmp_path, mode, mul_tokens):
    meta = tokenize(TokenizeConfig("mul_tokens", corpus, tmp_path / "out", val_fraction=0.1, injection_mode=mode))
    assert sum(counts["mul_tokens"] for counts in meta["splits"].values()) == mul_tokens


def test_half_a_surrogate_pair(tmp_path):
    rows = ['{"text": "broken \\ud800 emoji"}' for _ in range(100)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    tokenize(TokenizeConfig("baseline", tmp_path / "a.jsonl", tmp_path / "out", val_fraction=0.3))
    assert documents_in(tmp_path / "out", "train", "baseline")[0] == "broken \ufffd emoji"


def test_validation_share_is_near_the_fraction():
    share = np.mean([is_validation(i, 0.02) for i in range(100_000)])
    assert abs(share - 0.02) < 4 * (0.02 * 0.98 / 100_000) ** 0.5
    assert all(is_validation(i, 0.3) for i in range(1000) if is_validation(i, 0.1))  # a larger fraction adds to it


def test_rerun_replaces_stale_shards_and_failure_keeps_them(corpus, tmp_path):
    out_dir = tmp_path / "out"
    tokenize(TokenizeConfig("baseline", corpus, out_dir, shard_size=200, val_fraction=0.1))
    many = {path.name for path in out_dir.iterdir()}
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\nbroken')
    with pytest.raises(UserError, match="line 2 is not valid JSON"):
        tokenize(TokenizeConfig("baseline", tmp_path / "bad.jsonl", out_dir))
    assert {path.name for path in out_dir.iterdir()} == many
    tokenize(TokenizeConfig("baseline", corpus, out_dir, val_fraction=0.1))
    assert {path.name for path in out_dir.iterdir()} == {"train_00000.npy", "val_00000.npy", "meta.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "bad.jsonl"}


def test_the_other_conditions_shards_are_not_replaced(corpus, tmp_path):
    tokenize(TokenizeConfig(condition="baseline", input=corpus, out_dir=tmp_path / "out", workers=1))
    with pytest.raises(UserError, match="holds the shards of baseline"):
        tokenize(TokenizeConfig(condition="mul_tokens", input=corpus, out_dir=tmp_path / "out", workers=1))


def test_other_files_in_the_output_folder_are_not_deleted(corpus, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        tokenize(TokenizeConfig("baseline", corpus, tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(("count", "split"), [(0, "train"), (1, "val")])
def test_too_few_documents(tmp_path, count, split):
    source = write_text(tmp_path / "a.txt", make_documents(count))
    with pytest.raises(UserError, match=f"{count} documents leave none for the {split} split"):
        tokenize(TokenizeConfig("baseline", source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def run_script(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    script = ROOT / "data/tokenize_to_bin.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_script_with_its_default_paths(tmp_path):
    write_text(tmp_path / "data/raw/train_mul_tokens.txt", make_documents(300))
    done = run_script("--condition", "mul_tokens", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "data/processed/mul_tokens").iterdir())
    assert names == ["meta.json", "train_00000.npy", "val_00000.npy"]
    assert "characters per token" in done.stdout and "wrote 2 shards" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--condition", "baseline"], "train_baseline.txt does not exist"),
        (["--condition", "neither"], "neither"),
        (["--condition", "baseline", "--val-fraction", "1.5"], "--val-fraction between 0 and 1"),
    ],
)
def test_script_errors(tmp_path, arguments, message):
    done = run_script(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and not done.stdout


@pytest.mark.skipif(not WEB_TEXT.exists(), reason="no shared/data")
def test_real_documents_come_back(tmp_path):
    first = sorted(WEB_TEXT.glob("*.parquet"))[0]
    tokenize(TokenizeConfig("baseline", first, tmp_path / "out", workers=1))
    documents = list(read_documents(first))
    expected = [text for i, text in enumerate(documents) if is_validation(i, 0.02)]
    assert documents_in(tmp_path / "out", "val", "baseline") == expected
