"""Shards: round trips, the two formats, and what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.files import write_json
from data.shards import (
    BLOCK_TOKENS,
    CHUNK_TOKENS,
    ShardWriter,
    check_shard,
    fingerprint,
    list_shards,
    open_stream,
    read_shard,
    write_shard,
)
from tests.helpers import cpu_seconds
from tokenizer.mul_facts import VOCAB_SIZE


def random_tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, count, dtype=np.uint16)


def write_bin(path: Path, tokens: np.ndarray, magic: int = 20240520, version: int = 1, count: int | None = None):
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


def write_own_folder(folder: Path, tokens: np.ndarray, shard_size: int) -> list[dict]:
    """Our own folder: shards and meta.json."""
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, "train", shard_size)
    writer.add(tokens)
    entries = writer.close()
    write_json(folder / "meta.json", {"shards": entries, "splits": {}})
    return entries


def test_npy_round_trip_is_memory_mapped(tmp_path):
    tokens = random_tokens(1000)
    write_shard(tmp_path / "train_00000.npy", tokens)
    shard = read_shard(tmp_path / "train_00000.npy")
    assert isinstance(shard, np.memmap) and shard.dtype == np.uint16
    np.testing.assert_array_equal(shard, tokens)
    np.testing.assert_array_equal(np.load(tmp_path / "train_00000.npy"), tokens)
    assert [p.name for p in tmp_path.iterdir()] == ["train_00000.npy"]


def test_bin_and_npy_hold_the_same(tmp_path):
    tokens = random_tokens(1000)
    write_bin(tmp_path / "x_train_000001.bin", tokens)
    np.testing.assert_array_equal(read_shard(tmp_path / "x_train_000001.bin"), tokens)


@pytest.mark.parametrize("suffix", [".npy", ".bin"])
@pytest.mark.parametrize(("change", "message"), [(-2, "truncated"), (-1, "truncated"), (2, "longer than it says")])
def test_length_must_be_the_declared_one(tmp_path, suffix, change, message):
    path = tmp_path / f"train_0{suffix}"
    (write_shard if suffix == ".npy" else write_bin)(path, random_tokens(500))
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"\0" * change)
    with pytest.raises(UserError, match=f"train_0.*{message}.*500 tokens"):
        read_shard(path)


@pytest.mark.parametrize("size", [0, 5, 60])
@pytest.mark.parametrize("suffix", [".npy", ".bin"])
def test_cut_header(tmp_path, suffix, size):
    path = tmp_path / f"train_0{suffix}"
    (write_shard if suffix == ".npy" else write_bin)(path, random_tokens(500))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"train_0.*(cut short|truncated)"):
        read_shard(path)


@pytest.mark.parametrize(
    "array", [np.zeros(4, np.int64), np.zeros((2, 2), np.uint16), np.zeros(4, ">u2"), np.array([{}], object)]
)
def test_npy_of_another_kind(tmp_path, array):
    np.save(tmp_path / "train_0.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match="expected a 1-d array of uint16"):
        read_shard(tmp_path / "train_0.npy")


@pytest.mark.parametrize("header", [{"magic": 20240801}, {"version": 2}])
def test_bin_of_another_kind(tmp_path, header):
    # 20240801, version 7: llm.c's shards for Llama 3, whose ids are uint32.
    write_bin(tmp_path / "train_0.bin", random_tokens(10), **header)
    with pytest.raises(UserError, match=r"not a \.bin shard of GPT-2 tokens"):
        read_shard(tmp_path / "train_0.bin")


def test_bin_with_negative_count(tmp_path):
    write_bin(tmp_path / "train_0.bin", random_tokens(10), count=-5)
    with pytest.raises(UserError, match="longer than it says"):
        read_shard(tmp_path / "train_0.bin")


def test_empty_shard(tmp_path):
    write_shard(tmp_path / "train_0.npy", random_tokens(0))
    with pytest.raises(UserError, match="holds no tokens"):
        read_shard(tmp_path / "train_0.npy")


@pytest.mark.parametrize("position", [0, BLOCK_TOKENS, CHUNK_TOKENS - 1, CHUNK_TOKENS, CHUNK_TOKENS + 4])
def test_id_outside_the_vocabulary_anywhere(tmp_path, position):
    tokens = random_tokens(CHUNK_TOKENS + 5)
    tokens[position] = VOCAB_SIZE - 1
    write_shard(tmp_path / "train_00000.npy", tokens)
    open_stream(tmp_path, "train")
    tokens[position] = VOCAB_SIZE
    write_shard(tmp_path / "train_00000.npy", tokens)
    with pytest.raises(UserError, match="holds the id 50349, but the vocabulary ends at 50348"):
        open_stream(tmp_path, "train")


def test_digest_sees_every_change():
    tokens = random_tokens(3 * BLOCK_TOKENS + 7)
    digests = {check_shard("x", tokens), check_shard("x", tokens[:-1]), check_shard("x", tokens[::-1].copy())}
    for position in (0, 1, BLOCK_TOKENS, len(tokens) - 1):
        changed = tokens.copy()
        changed[position] ^= 1
        digests.add(check_shard("x", changed))
    for step in (1, 4, 400, BLOCK_TOKENS):  # the same ids in another order
        digests.add(check_shard("x", np.roll(tokens, step)))
    assert len(digests) == 3 + 4 + 4


def test_digest_equals_a_plain_computation():
    tokens = random_tokens(BLOCK_TOKENS + 5)
    padded = [*tokens.tolist(), *[0] * (BLOCK_TOKENS - 5)]
    sums = []
    for block in (padded[:BLOCK_TOKENS], padded[BLOCK_TOKENS:]):
        words = [sum(block[i + j] << 16 * j for j in range(4)) for i in range(0, BLOCK_TOKENS, 4)]
        sums.append(sum(w * pow(0x9E3779B97F4A7C15, i + 1, 2**64) for i, w in enumerate(words)) % 2**64)
    expected = hashlib.sha256(b"".join(s.to_bytes(8, "little") for s in sums)).hexdigest()
    assert check_shard("x", tokens) == expected


def test_checking_is_fast():
    tokens = random_tokens(20_000_000)
    best = cpu_seconds(check_shard, "x", tokens)
    assert best < 0.2, f"checking 20M tokens took {best:.3f} s, measured 0.01 s on an idle machine"


@pytest.mark.parametrize("names", [
    ["train_00000.npy", "train_00001.npy", "train_00002.npy"],
    ["train_99999.npy", "train_100000.npy", "train_100001.npy"],
    ["fineweb_train_000001.bin", "fineweb_train_000002.bin", "fineweb_train_000010.bin"],
    ["edufineweb_train_000001.npy"],
    ["tiny_shakespeare_train.bin"],
])  # fmt: skip
def test_list_shards_in_order(tmp_path, names):
    for name in [
        *reversed(names),
        "val_00000.npy",
        ".train_00007.npy.12.partial",
        "training_0.npy",
        "meta.json",
    ]:
        (tmp_path / name).touch()
    assert [path.name for path in list_shards(tmp_path, "train")] == names


def test_list_shards_refuses(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        list_shards(tmp_path / "missing", "train")
    with pytest.raises(UserError, match="holds no train shard"):
        list_shards(tmp_path, "train")
    (tmp_path / "train_00000.npy").touch()
    with pytest.raises(UserError, match="holds no val shard"):
        list_shards(tmp_path, "val")
    (tmp_path / "fineweb_train_000001.bin").touch()
    with pytest.raises(UserError, match="several data sets"):
        list_shards(tmp_path, "train")


@pytest.mark.parametrize("count", [1, 99, 100, 101, 200, 250])
def test_writer_cuts_exactly(tmp_path, count):
    tokens = random_tokens(count)
    writer = ShardWriter(tmp_path, "train", 100)
    for start in range(0, count, 7):
        writer.add(tokens[start : start + 7])
    entries = writer.close()
    assert [e["tokens"] for e in entries] == [100] * (count // 100) + [count % 100] * (count % 100 > 0)
    assert [e["name"] for e in entries] == [f"train_{i:05d}.npy" for i in range(len(entries))]
    np.testing.assert_array_equal(np.concatenate([read_shard(tmp_path / e["name"]) for e in entries]), tokens)


def test_stream_reads_across_borders(tmp_path):
    tokens = random_tokens(250)
    for i, (start, stop) in enumerate([(0, 100), (100, 103), (103, 250)]):
        write_shard(tmp_path / f"train_{i:05d}.npy", tokens[start:stop])
    stream = open_stream(tmp_path, "train")
    assert len(stream) == 250
    for start in range(0, 249, 3):
        for stop in range(start + 1, 251, 7):
            np.testing.assert_array_equal(stream.read(start, stop), tokens[start:stop])


def test_fingerprint_of_names_lengths_and_contents(tmp_path):
    entries = [("train_00000.npy", 10, "aa"), ("train_00001.npy", 5, "bb")]
    others = [
        entries[::-1],
        entries[:1],
        [("train_00000.npy", 10, "ab"), entries[1]],
        [("x", 10, "aa"), entries[1]],
    ]
    assert len({fingerprint(e) for e in [entries, *others]}) == 5


def test_fingerprint_moves_with_the_folder(tmp_path):
    for name in ("a", "b"):
        write_own_folder(tmp_path / name, random_tokens(300), 100)
    assert open_stream(tmp_path / "a", "train").fingerprint == open_stream(tmp_path / "b", "train").fingerprint


def test_foreign_data_changes_its_fingerprint(tmp_path):
    tokens = random_tokens(300)
    write_bin(tmp_path / "x_train_000001.bin", tokens)
    before = open_stream(tmp_path, "train").fingerprint
    tokens[150] ^= 1
    write_bin(tmp_path / "x_train_000001.bin", tokens)
    assert open_stream(tmp_path, "train").fingerprint != before


@pytest.mark.parametrize("damage", ["not what", "missing", "not listed"])
def test_own_data_is_held_against_meta(tmp_path, damage):
    entries = write_own_folder(tmp_path, random_tokens(300), 100)
    assert open_stream(tmp_path, "train").fingerprint == fingerprint(
        (e["name"], e["tokens"], e["digest"]) for e in entries
    )
    if damage == "missing":
        (tmp_path / "train_00002.npy").unlink()
    else:
        write_shard(tmp_path / f"train_0000{1 if damage == 'not what' else 3}.npy", random_tokens(100, seed=1))
    with pytest.raises(UserError, match=rf"train_0000\d.npy is {damage}.*tokenize again"):
        open_stream(tmp_path, "train")


@pytest.mark.parametrize("content", ["{}", "[]", "not json"])
def test_foreign_meta(tmp_path, content):
    write_shard(tmp_path / "train_00000.npy", random_tokens(10))
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(UserError, match=r"meta\.json is not"):
        open_stream(tmp_path, "train")
