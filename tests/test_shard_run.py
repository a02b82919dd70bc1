"""Runs that are stopped and go on: the same bytes in the end, whatever stopped them.

Twenty kills in a row: pytest tests/test_shard_run.py -k killed
"""

import errno
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from common.files import read_json
from data import encoding, shard_run, shards
from data.prepare_fineweb import prepare
from data.shards import open_stream, write_shard
from tests.helpers import start_process
from tests.prepare_runs import config_of, contents, write_corpus

BATCH_CHARACTERS = 3000


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "BATCH_CHARACTERS", BATCH_CHARACTERS)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus")


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> Path:
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    prepare(config_of(corpus, folder))
    return folder


def prepare_in_small_batches(config) -> None:
    """In a process of its own, where the fixture above has changed nothing."""
    encoding.BATCH_CHARACTERS = BATCH_CHARACTERS
    prepare(config)


@pytest.mark.parametrize("number", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(corpus, finished, tmp_path, number):
    """kill -9, again and again in one folder; a fresh one whenever a run got to its end."""
    rng = random.Random(0)
    out_dir, kills, on_the_way = tmp_path / "out", 0, 0
    while kills < number or not (out_dir / "meta.json").exists():
        before = files_of(out_dir)
        process = start_process(prepare_in_small_batches, config_of(corpus, out_dir))
        if kills < number:
            # Wait until it has written something, however slow the machine, then strike anywhere behind that.
            while process.is_alive() and files_of(out_dir) == before:
                time.sleep(0.002)
            process.join(rng.uniform(0, 0.3))
        else:
            process.join(120)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
            on_the_way += bool(list(out_dir.glob("unfinished_*.npy")))
        else:
            assert process.exitcode == 0
        if kills < number and (out_dir / "meta.json").exists():
            prepare(config_of(corpus, out_dir))  # it may have been killed while it tidied up
            assert contents(out_dir) == contents(finished)
            shutil.rmtree(out_dir)
    assert contents(out_dir) == contents(finished)
    assert on_the_way >= number // 5, f"only {on_the_way} of {kills} kills came behind a whole shard"


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


@pytest.mark.parametrize("when", [1, 2, 3, 11, 16, 21])
def test_stopped_at_any_write_it_ends_with_the_same_bytes(corpus, finished, tmp_path, monkeypatch, when):
    """Each file, a shard as well as the state, may be the last one to be written."""
    out_dir, written = tmp_path / "out", []

    class Killed(BaseException):
        pass

    def counted(function):
        def write(path, *arguments):
            if len(written) == when:
                raise Killed
            function(path, *arguments)
            written.append(path)

        return write

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", counted(shards.write_shard))
        patch.setattr(shard_run, "write_shard", counted(shard_run.write_shard))
        patch.setattr(shard_run, "write_json", counted(shard_run.write_json))
        with pytest.raises(Killed):
            prepare(config_of(corpus, out_dir))
        with pytest.raises(UserError, match=r"is unfinished; run data/prepare_fineweb\.py with the same arguments"):
            open_stream(out_dir, "train")
    prepare(config_of(corpus, out_dir))
    assert contents(out_dir) == contents(finished)


def test_going_on_does_not_encode_again(corpus, tmp_path, monkeypatch):
    encoded = []

    def encode_until(limit):
        def encode(condition, mode, batch, families):
            encoded.extend(batch.texts)
            if len(encoded) > limit:
                raise KeyboardInterrupt
            return encoding.encode_batch(condition, mode, batch, families)

        return encode

    monkeypatch.setattr("data.prepare_fineweb.encode_batch", encode_until(300))
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(corpus, tmp_path / "out"))
    first = list(encoded)
    monkeypatch.setattr("data.prepare_fineweb.encode_batch", encode_until(10**9))
    encoded.clear()
    prepare(config_of(corpus, tmp_path / "out"))
    again = len(set(first) & set(encoded))
    assert again < len(first) / 2 and len(encoded) > 100


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"condition": "baseline"}, "--condition mul_tokens, not baseline"),
        ({"target_tokens": 30_000}, "--target-tokens 20000, not 30000"),
        ({"shard_size": 4000}, "--shard-size"),
        ({"math_fraction": 0.2}, "--source"),
        ({"val_fraction": 0.1}, "--val-fraction"),
        ({"seed": 1}, "--seed 0, not 1"),
        ({"injection_mode": "strict"}, "--injection-mode weak, not strict"),
        ({"text_column": "body"}, "--text-column text, not body"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_other_arguments_are_refused(corpus, finished, tmp_path, state, changes, flag):
    out_dir = finished
    if state == "unfinished":
        out_dir = unfinished(corpus, tmp_path / "out")
    before = contents(out_dir)
    with pytest.raises(UserError, match=flag):
        prepare(config_of(corpus, out_dir, **changes))
    assert contents(out_dir) == before


def unfinished(corpus: Path, out_dir: Path) -> Path:
    """A folder whose run was stopped behind the second shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "write_shard", failing(shards.write_shard, 3, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare(config_of(corpus, out_dir))
    return out_dir


def failing(function, number, error):
    """`function`, raising `error` when it is called for the `number`-th time, and ever after."""
    calls = []

    def wrapped(*arguments):
        calls.append(arguments)
        if len(calls) >= number:
            raise error
        return function(*arguments)

    return wrapped


def test_a_changed_source_is_refused(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    out_dir = unfinished(corpus, tmp_path / "out")
    pq.write_table(pa.table({"text": ["other"] * 400}), corpus / "part_1.parquet")
    with pytest.raises(UserError, match=r"is not what it was when .* was started; restore its files"):
        prepare(config_of(corpus, out_dir))


def test_a_finished_folder_says_so(corpus, finished, capsys):
    before = contents(finished)
    meta = prepare(config_of(corpus, finished))
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert contents(finished) == before and meta == read_json(finished / "meta.json")


def test_two_processes_do_not_write_to_one_folder(corpus, tmp_path):
    with (
        shard_run.open_shard_run(tmp_path / "out", {}, 10),
        pytest.raises(UserError, match="another process is writing to"),
    ):
        prepare(config_of(corpus, tmp_path / "out"))


def test_other_files_are_left_alone(corpus, finished, tmp_path):
    for name, message in (("thesis.tex", "holds thesis.tex"), ("train_00000.npy", "holds train_00000.npy")):
        folder = tmp_path / name.split(".")[0]
        write_shard(folder / name, np.arange(5, dtype=np.uint16))
        with pytest.raises(UserError, match=message):
            prepare(config_of(corpus, folder))
        assert list(contents(folder)) == [name]
    (tmp_path / "meta.json").write_text('{"condition": "baseline", "shards": [], "splits": {}}')
    with pytest.raises(UserError, match=r"meta\.json is not from data/prepare_fineweb\.py"):
        prepare(config_of(corpus, tmp_path))


def test_a_full_disk(corpus, finished, tmp_path, monkeypatch):
    """At every file in turn; numpy's own error for a full disk has no number."""
    for number in range(1, 12, 5):
        for error in (OSError("26 requested and 0 written"), OSError(28, "No space left on device")):
            out_dir = tmp_path / f"out_{number}_{error.errno}"
            with monkeypatch.context() as patch:
                patch.setattr(np, "save", failing_save(number, error))
                with pytest.raises(UserError, match=r"cannot be written .* make room and run again") as caught:
                    prepare(config_of(corpus, out_dir))
                assert "\n" not in str(caught.value)
            assert not list(out_dir.glob(".*"))
            prepare(config_of(corpus, out_dir))
            assert contents(out_dir) == contents(finished)


def failing_save(number, error):
    save = np.save
    fails = failing(lambda *_: None, number, error)

    def write_half(file, array, **options):
        try:
            fails()
        except OSError:
            file.write(b"half")
            raise
        save(file, array, **options)

    return write_half


def test_a_damaged_file_loses_nothing(corpus, finished, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(corpus, copy)
    path = copy / f"part_{random.Random('0/parts').sample(range(3), 3)[1]}.parquet"
    whole = path.read_bytes()
    offset = pq.ParquetFile(path).metadata.row_group(3).column(0).data_page_offset
    path.write_bytes(whole[:offset] + b"\xff" * 500 + whole[offset + 500 :])
    config = config_of(copy, tmp_path / "out", target_tokens=60_000)
    with pytest.raises(UserError, match=r"part_\d\.parquet cannot be read as parquet"):
        prepare(config)
    assert len(list((tmp_path / "out").glob("train_*.npy"))) >= 5
    path.write_bytes(whole)
    prepare(config)
    prepare(config_of(copy, tmp_path / "expected", target_tokens=60_000))
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_source_that_fails_while_it_is_read_is_not_swallowed(corpus, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError("a file of the source")

    monkeypatch.setattr("data.prepare_fineweb.encode_batch", fail)
    with pytest.raises(PermissionError):
        prepare(config_of(corpus, tmp_path / "out"))


def test_a_file_system_without_locks_will_do(corpus, finished, tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    prepare(config_of(corpus, tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(finished)
