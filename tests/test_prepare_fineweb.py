"""A corpus to shards: both conditions read one sequence, of exactly the tokens asked for."""

import random
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from common.files import read_json
from data import encoding, prepare_fineweb
from data.loader import TokenLoader
from data.prepare_fineweb import prepare
from data.shards import open_stream
from data.sources import DocumentSequence, Source, arithmetic_source, file_source
from scripts.compute_match import _documents_row
from tests.helpers import SHARED_DATA, documents_in, one_line_error, run
from tests.prepare_runs import NUM_DOCUMENTS, config_of, contents, text_of, write_corpus
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import EOT_ID, FIRST_MUL_ID


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus")


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "BATCH_CHARACTERS", 3000)
        yield


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> dict[str, Path]:
    """Output folders of both conditions."""
    folders = {c: tmp_path_factory.mktemp("finished") / c for c in ("baseline", "mul_tokens")}
    for condition, folder in folders.items():
        prepare(config_of(corpus, folder, condition=condition))
    return folders


def test_shards_hold_the_sequence(corpus, finished):
    inject = {"baseline": str, "mul_tokens": MulExpressionInjector("weak").inject}
    held_out = {}
    for condition, folder in finished.items():
        meta = read_json(folder / "meta.json")
        place = meta["splits"]
        val, train = (documents_in(folder, split, condition) for split in ("val", "train"))
        assert (len(val), len(train)) == (place["val"]["documents"], place["train"]["documents"])
        texts = {"val": [], "train": []}
        sequence = DocumentSequence(sources_of(corpus), 20_000)
        for document, _ in zip(sequence, range(len(val) + len(train)), strict=False):
            is_val = document.common and encoding.is_validation(document.number, 4 * 0.05)
            texts["val" if is_val else "train"].append(inject[condition](document.text))
        assert val == texts["val"] and train[:-1] == texts["train"][:-1]
        assert texts["train"][-1].startswith(train[-1][:-1])  # cut where the tokens asked for were reached
        held_out[condition] = [text.split(":")[0] for text in val if text.startswith("Document")]
    assert held_out["baseline"] == held_out["mul_tokens"] and len(held_out["baseline"]) > 15


def sources_of(corpus: Path) -> list[Source]:
    return [file_source(str(corpus), 0.9, "text", 0), arithmetic_source(0.1, 0)]


def test_training_has_exactly_the_tokens_asked_for(finished):
    metas = {condition: read_json(folder / "meta.json") for condition, folder in finished.items()}
    for meta in metas.values():
        sizes = [shard["tokens"] for shard in meta["shards"] if shard["split"] == "train"]
        assert sizes == [3000] * 6 + [2000] and meta["splits"]["train"]["tokens"] == 20_000
        assert meta["source"]["ran_dry"] is None
    # Injection shortens text: the same budget reaches further.
    read = {c: sum(s["documents"] for s in meta["source"]["read"].values()) for c, meta in metas.items()}
    assert read["mul_tokens"] > read["baseline"]


def test_meta_counts_what_is_in_the_shards(finished):
    for condition, folder in finished.items():
        meta = read_json(folder / "meta.json")
        for split, counts in meta["splits"].items():
            stream = open_stream(folder, split)
            ids = stream.read(0, len(stream))
            assert counts["documents"] == (ids == EOT_ID).sum() and counts["tokens"] == len(ids)
            assert counts["mul_tokens"] == (ids >= FIRST_MUL_ID).sum() and counts["fingerprint"] == stream.fingerprint
            assert (counts["mul_tokens"] > 0) == (condition == "mul_tokens")
        for key in ("documents", "tokens", "mul_tokens", "text_bytes", "text_characters"):
            by_split = sum(counts[key] for counts in meta["splits"].values())
            assert by_split == sum(counts[key] for counts in meta["source"]["read"].values())
        read = meta["source"]["read"]
        share = read["arithmetic"]["text_bytes"] / sum(counts["text_bytes"] for counts in read.values())
        assert share == pytest.approx(0.1, abs=0.01)
        assert set(contents(folder)) == {shard["name"] for shard in meta["shards"]} | {"meta.json"}


def test_the_audit_sees_the_same_documents(finished):
    described = [TokenLoader(folder, "train", 2, 16).describe() for folder in finished.values()]
    assert _documents_row("pretrain", *described).status == "ok"
    assert described[0]["fingerprint"] != described[1]["fingerprint"]


def test_the_audit_sees_another_seed_or_corpus(corpus, finished, tmp_path):
    expected = read_json(finished["baseline"] / "meta.json")["documents_sha256"]
    for name, changes in (("seed", {"seed": 1}), ("math", {"math_fraction": 0.2}), ("tokens", {"target_tokens": 9000})):
        assert prepare(config_of(corpus, tmp_path / name, **changes))["documents_sha256"] != expected


def test_workers_change_nothing(corpus, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "BYTES_WORTH_A_WORKER", 1000)
    prepare(config_of(corpus, tmp_path / "out", workers=2))
    assert contents(tmp_path / "out") == contents(finished["mul_tokens"])


def test_a_source_that_runs_dry(corpus, tmp_path):
    conditions = ("baseline", "mul_tokens")
    metas = [prepare(config_of(corpus, tmp_path / c, condition=c, target_tokens=10**6)) for c in conditions]
    for meta in metas:
        assert meta["source"]["ran_dry"] == str(corpus)
        assert meta["source"]["read"][str(corpus)]["documents"] == 3 * (NUM_DOCUMENTS - 1)
        assert meta["source"]["read"][str(corpus)]["empty"] == 3
        assert meta["splits"]["train"]["tokens"] < 10**6
    assert metas[0]["documents_sha256"] == metas[1]["documents_sha256"]
    for key in ("documents", "text_bytes"):
        assert metas[0]["splits"]["val"][key] == metas[1]["splits"]["val"][key]


def test_a_truncated_file_is_found_before_the_work(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    path = corpus / "part_2.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"part_2\.parquet cannot be read as parquet"):
        prepare(config_of(corpus, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".txt"])
def test_invalid_utf8_is_placed(tmp_path, suffix):
    texts = [b"fine"] * 60 + [b"caf\xe9"]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        offsets = np.cumsum([0, *(len(text) for text in texts)]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
        pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), len(texts), buffers)}), path)
    elif suffix == ".jsonl":
        path.write_bytes(b"".join(b'{"text": "' + text + b'"}\n' for text in texts))
    else:
        path.write_bytes(b"\n".join(texts))
    with pytest.raises(UserError, match=r"(row 60 \(from 0\)|line 61) is not UTF-8") as caught:
        prepare(config_of(path, tmp_path / "out"))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("unit", ["a", " ", "word "])
def test_a_huge_document(tmp_path, unit):
    """tiktoken refuses a megabyte of spaces; test_encoding.py has the rest."""
    texts = [text_of(i, random.Random(i)) for i in range(200)]
    texts[50] = unit * (1_000_000 // len(unit))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    meta = prepare(config_of(tmp_path / "a.parquet", tmp_path / "out", target_tokens=10**7, shard_size=10**6))
    assert meta["source"]["read"][str(tmp_path / "a.parquet")]["documents"] == 200
    assert any(texts[50] in documents_in(tmp_path / "out", split, "mul_tokens") for split in ("train", "val"))


def test_only_empty_documents(tmp_path):
    pq.write_table(pa.table({"text": ["", None, ""]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="the 0 documents give only one of the splits"):
        prepare(config_of(tmp_path / "a.parquet", tmp_path / "out", math_fraction=0.0))


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    peaks = []
    for name, num_files in (("small", 1), ("large", 6)):
        corpus = write_corpus(tmp_path / name, num_files, num_documents=150)
        tracemalloc.start()
        prepare(config_of(corpus, tmp_path / f"{name}_out", target_tokens=10**6, shard_size=2000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 100_000


def test_script(corpus, tmp_path):
    arguments = ["--condition", "mul_tokens", "--out-dir", tmp_path / "out", "--target-tokens", "5_000"]
    arguments += ["--source", f"{corpus}=3", "--source", f"{corpus / 'part_0.parquet'}=1", "--math-fraction", "0.2"]
    done = run("data/prepare_fineweb.py", *arguments, "--workers", "1")
    assert "train: " in done.stdout and "arithmetic: " in done.stdout and "meta.json are in" in done.stdout
    assert "%" in done.stderr  # the progress bar
    again = run("data/prepare_fineweb.py", *arguments)
    assert "is finished; nothing to do" in again.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--source", "./nowhere"], "nowhere does not exist"),
        (["--source", "x.csv"], "x.csv"),
        (["--target-tokens", "0"], "--target-tokens, --shard-size and --workers must be at least 1"),
        (["--val-fraction", "0.5"], "--val-fraction must be above 0 and at most 0.25"),
        (["--math-fraction", "1"], "--math-fraction must be at least 0 and below 1"),
        (["--injection-mode", "wild"], "wild"),
        (["--source", "CORPUS", "--source", "CORPUS"], "is given twice"),
        (["--source", "CORPUS", "--text-column", "body"], "has no column `body`; its columns are text"),
    ],
)
def test_wrong_arguments(corpus, tmp_path, monkeypatch, changes, message):
    arguments = ["--condition", "baseline", "--out-dir", str(tmp_path / "out"), "--target-tokens", "500"]
    arguments += [str(corpus) if change == "CORPUS" else change for change in changes]
    monkeypatch.setattr(sys, "argv", ["prepare_fineweb.py", *arguments])
    with pytest.raises(UserError, match=message) as caught:
        prepare_fineweb.main()
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_an_unreachable_hub_is_one_line_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    start = time.monotonic()
    arguments = ["--condition", "baseline", "--out-dir", tmp_path / "out", "--target-tokens", "500"]
    error = one_line_error(run("data/prepare_fineweb.py", *arguments, check=False))
    assert "HuggingFaceFW/fineweb-edu cannot be read from the hub" in error and time.monotonic() - start < 20


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="no shared/data")
def test_real_text(tmp_path):
    """FineWeb's schema: the documents come back whole."""
    first = sorted((SHARED_DATA / "web_text").glob("*.parquet"))[0]
    prepare(config_of(first, tmp_path / "out", condition="baseline", target_tokens=50_000, math_fraction=0.0))
    source = file_source(str(first), 1, "text", 0)
    found = documents_in(tmp_path / "out", "train", "baseline")[:-1]
    expected = {source.next_document() for _ in range(len(found) + 30)}
    assert len(found) > 20 and set(found) <= expected
