"""The loader: every rank's rows, across shard and epoch borders, and resuming anywhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import write_json
from data.loader import TokenLoader
from data.shards import ShardWriter, write_shard

T = 8
TOKENS = np.random.default_rng(0).permutation(50_000)[:1003].astype(np.uint16)  # all different: N = 1003, R = 125
ROWS = (len(TOKENS) - 1) // T


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Five shards whose borders fall into rows, one of them shorter than a row."""
    folder = tmp_path_factory.mktemp("shards")
    for i, (start, stop) in enumerate([(0, 300), (300, 305), (305, 640), (640, 896), (896, 1003)]):
        write_shard(folder / f"train_{i:05d}.npy", TOKENS[start:stop])
    write_shard(folder / "val_00000.npy", TOKENS[:500])
    return folder


def expected_rows(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The definition, row by row."""
    starts = [(first + i) % ROWS * T for i in range(count)]
    return np.stack([TOKENS[s : s + T] for s in starts]), np.stack([TOKENS[s + 1 : s + T + 1] for s in starts])


def check(batch: tuple[torch.Tensor, torch.Tensor], first: int, count: int) -> None:
    x, y = batch
    assert x.shape == y.shape == (count, T) and x.dtype == y.dtype == torch.int64 and x.device.type == "cpu"
    expected_x, expected_y = expected_rows(first, count)
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(y, expected_y)


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_union_of_rank_batches_is_the_one_rank_batch(data_dir, world_size):
    ranks = [TokenLoader(data_dir, "train", 3, T, rank, world_size) for rank in range(world_size)]
    alone = TokenLoader(data_dir, "train", 3 * world_size, T)
    for _ in range(3 * ROWS // (3 * world_size) + 2):  # more than three epochs
        x, y = alone.next_batch()
        xs, ys = zip(*(rank.next_batch() for rank in ranks), strict=True)
        assert torch.equal(torch.cat(xs), x) and torch.equal(torch.cat(ys), y)
        assert all(rank.state_dict() == alone.state_dict() for rank in ranks)
    assert alone.epoch >= 3


def test_batches_are_the_defined_rows(data_dir):
    loader = TokenLoader(data_dir, "train", 4, T)
    for step in range(2 * ROWS // 4 + 2):
        check(loader.next_batch(), 4 * step, 4)
        assert loader.tokens_seen == 4 * T * (step + 1) and loader.epoch == 4 * (step + 1) // ROWS


def test_batch_larger_than_the_epoch(data_dir):
    loader = TokenLoader(data_dir, "train", 2 * ROWS + 5, T)
    check(loader.next_batch(), 0, 2 * ROWS + 5)
    check(loader.next_batch(), 2 * ROWS + 5, 2 * ROWS + 5)


def test_an_epoch_has_every_token_once_but_the_tail(data_dir):
    loader = TokenLoader(data_dir, "train", 5, T)  # 125 rows are 25 batches
    batches = [loader.next_batch() for _ in range(25)]
    inputs, targets = (torch.cat([b[i] for b in batches]).flatten().numpy() for i in range(2))
    np.testing.assert_array_equal(inputs, TOKENS[: ROWS * T])
    np.testing.assert_array_equal(targets, TOKENS[1 : ROWS * T + 1])  # shifted by one, across all borders
    assert len(TOKENS) - (ROWS * T + 1) < T
    assert loader.epoch == 1
    assert torch.equal(loader.next_batch()[0], batches[0][0])


@pytest.mark.parametrize(("tokens", "rows"), [(T + 1, 1), (2 * T, 1), (2 * T + 1, 2)])
def test_rows_per_epoch_at_the_border(tmp_path, tokens, rows):
    write_shard(tmp_path / "train_00000.npy", TOKENS[:tokens])
    loader = TokenLoader(tmp_path, "train", 2, T)
    assert loader.rows_per_epoch == rows
    x, y = loader.next_batch()
    assert x[0].tolist() == TOKENS[:T].tolist() and y[-1].tolist() == TOKENS[(rows - 1) * T + 1 : rows * T + 1].tolist()


def test_less_than_a_row(tmp_path):
    write_shard(tmp_path / "train_00000.npy", TOKENS[:T])
    with pytest.raises(UserError, match="train split has 8 tokens, one row needs 9"):
        TokenLoader(tmp_path, "train", 1, T)


def test_resumes_at_every_boundary(data_dir):
    loader = TokenLoader(data_dir, "train", 3, T)
    resumed = TokenLoader(data_dir, "train", 3, T)
    for step in range(ROWS // 3 + 5):  # past the epoch's end
        resumed.load_state_dict(loader.state_dict())
        for ahead in range(3):
            check(resumed.next_batch(), 3 * (step + ahead), 3)
        check(loader.next_batch(), 3 * step, 3)


@settings(max_examples=40)
@given(
    steps=st.integers(0, 60),
    batch=st.integers(1, 6),
    batch2=st.integers(1, 6),
    world=st.sampled_from([1, 2, 4, 8]),
)
def test_resumes_with_another_batch_size_and_world_size(data_dir, steps, batch, batch2, world):
    before = TokenLoader(data_dir, "train", batch, T, rank=1, world_size=2)
    for _ in range(steps):
        before.next_batch()
    for rank in (0, world - 1):
        after = TokenLoader(data_dir, "train", batch2, T, rank, world)
        after.load_state_dict(before.state_dict())
        assert after.tokens_seen == before.tokens_seen
        for step in range(3):
            check(after.next_batch(), steps * batch * 2 + (step * world + rank) * batch2, batch2)


def test_state_is_small_and_plain(data_dir):
    state = TokenLoader(data_dir, "train", 3, T).state_dict()
    assert {key: type(value) for key, value in state.items()} == {
        "cursor": int,
        "fingerprint": str,
        "block_size": int,
    }


def test_refuses_the_state_of_other_data(data_dir, tmp_path):
    write_shard(tmp_path / "train_00000.npy", TOKENS[:-1])
    state = TokenLoader(tmp_path, "train", 3, T).state_dict()
    loader = TokenLoader(data_dir, "train", 3, T)
    with pytest.raises(UserError) as caught:
        loader.load_state_dict(state)
    for part in (str(data_dir), loader.stream.fingerprint[:12], state["fingerprint"][:12], "--data-dir"):
        assert part in str(caught.value)


def test_refuses_the_state_of_another_block_size(data_dir):
    state = TokenLoader(data_dir, "train", 3, 16).state_dict()
    with pytest.raises(UserError, match="block size is 8, the run to resume read rows of 16"):
        TokenLoader(data_dir, "train", 3, T).load_state_dict(state)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_rows", [1, 7, 24, ROWS - 1, ROWS, 10 * ROWS])
def test_fixed_batches_cover_the_first_rows_once(data_dir, world_size, num_rows):
    seen = []
    for rank in range(world_size):
        loader = TokenLoader(data_dir, "train", 4, T, rank, world_size)
        loader.next_batch()
        cursor = loader.cursor
        own = list(loader.fixed_batches(num_rows))
        assert loader.cursor == cursor
        assert all(len(x) == 4 for x, _ in own[:-1])
        assert sum(len(x) for x, _ in own) - min(num_rows, ROWS) // world_size in (0, 1)
        seen += own
    assert torch.equal(
        torch.cat([x for x, _ in seen]), torch.from_numpy(expected_rows(0, min(num_rows, ROWS))[0]).long()
    )
    assert torch.equal(
        torch.cat([y for _, y in seen]), torch.from_numpy(expected_rows(0, min(num_rows, ROWS))[1]).long()
    )


def test_bin_and_npy_give_the_same_batches(data_dir, tmp_path):
    for i, (start, stop) in enumerate([(0, 999), (999, 1003)]):
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, stop - start
        (tmp_path / f"fineweb_train_{i + 1:06d}.bin").write_bytes(header.tobytes() + TOKENS[start:stop].tobytes())
    ours, foreign = (TokenLoader(folder, "train", 7, T) for folder in (data_dir, tmp_path))
    for _ in range(2 * ROWS // 7):
        for a, b in zip(ours.next_batch(), foreign.next_batch(), strict=True):
            assert torch.equal(a, b)


def test_describe(data_dir, tmp_path):
    foreign = TokenLoader(data_dir, "train", 5, T)
    for _ in range(25):
        foreign.next_batch()
    record = foreign.describe()
    assert record["tokens_seen"] == 1000 and record["fingerprint"] == foreign.stream.fingerprint
    assert "documents_seen" not in record  # nobody said how many there are

    writer = ShardWriter(tmp_path, "train", 200)
    writer.add(TOKENS[:401])
    counts = {"documents": 40, "mul_tokens": 0, "text_bytes": 2000, "tokens": 401}
    meta = {"condition": "baseline", "tokenizer_fingerprint": "t", "documents_sha256": None}
    write_json(tmp_path / "meta.json", {**meta, "shards": writer.close(), "splits": {"train": counts}})
    ours = TokenLoader(tmp_path, "train", 5, T)
    for _ in range(5):  # half an epoch of 50 rows
        ours.next_batch()
    record = ours.describe()
    assert record["condition"] == "baseline" and record["tokens_seen"] == 200
    assert (record["documents_seen"], record["text_bytes_seen"]) == (20, 998)  # 200/401 of the split
