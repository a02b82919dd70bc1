"""data/tinygsm/prepare_tinygsm.py: shards of both conditions, whatever the workers and however often it was stopped."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, write_jsonl
from data.tinygsm import prepare_tinygsm
from data.tinygsm.conversion import convert
from data.tinygsm.converted import load_converted
from tests.helpers import one_line_error, run
from tests.tinygsm_rows import synthetic_rows
from tokenizer.inject_mul import MulExpressionInjector

ROWS = synthetic_rows(120, seed=1)
TEST_QUESTION = ROWS[5]["question"]
BAD_CODE = {7: "def f():\n    import os\n    return 3\n", 8: "def f():\n    while True:\n        pass\n", 9: "def f(:"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """120 rows, of which three have code that is not supported and one asks a test question in other words' case."""
    folder = tmp_path_factory.mktemp("source")
    rows = [row | {"code": BAD_CODE.get(i, row["code"])} for i, row in enumerate(ROWS)]
    rows[5] = rows[5] | {"question": f"Please: {TEST_QUESTION.upper()}"}
    write_jsonl(folder / "train.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    write_jsonl(folder / "test.jsonl", [{"question": TEST_QUESTION, "answer": "#### 1"}])
    return folder


def arguments(source, out_dir, *extra):
    paths = ("--data-path", source / "train.jsonl", "--gsm8k", source, "--out-dir", out_dir)
    return [str(part) for part in (*paths, "--shard-size", 50, *extra)]


def prepare(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["prepare_tinygsm.py", *argv])
    prepare_tinygsm.main()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        prepare(monkeypatch, *arguments(source, out_dir))
    return out_dir


def test_both_conditions_have_the_same_questions_and_one_is_injected(finished):
    baseline, mul_tokens = (read_jsonl(finished / f"combined_{c}.jsonl") for c in ("baseline", "mul_tokens"))
    left = [row for i, row in enumerate(ROWS) if i not in BAD_CODE and i != 5]
    assert baseline == [{"question": row["question"], "answer": convert(row["code"])} for row in left]
    inject = MulExpressionInjector().inject
    assert mul_tokens == [
        {"question": row["question"], "answer": inject(row["answer"]), "plain_answer": row["answer"]}
        for row in baseline
    ]
    for condition, rows in (("baseline", baseline), ("mul_tokens", mul_tokens)):
        shards = [read_jsonl(finished / f"shard_{number:05d}_{condition}.jsonl") for number in range(3)]
        assert [row for shard in shards for row in shard] == rows
        assert load_converted(finished / f"combined_{condition}.jsonl").rows == baseline


def test_the_counts_say_what_was_left_out(finished):
    counts = read_json(finished / "counts.json")
    assert counts["rows"] == 120 and counts["converted"] == 116 and counts["shards"] == 3
    assert counts["dropped"] == {"import": 1, "while": 1, "syntax_error": 1, "test_question": 1}
    tokens = sum(row["answer"].count("<MUL_") for row in read_jsonl(finished / "combined_mul_tokens.jsonl"))
    assert counts["mul_tokens"] == tokens > 50
    assert [read_json(finished / f"shard_{number:05d}_counts.json")["rows"] for number in range(3)] == [50, 50, 20]


def test_workers_and_the_kind_of_file_change_nothing(finished, source, tmp_path):
    run("data/tinygsm/prepare_tinygsm.py", *arguments(source, tmp_path / "out", "--workers", 2))
    assert contents(tmp_path / "out") == contents(finished)
    from_parquet = ("--data-path", source / "rows.parquet", "--gsm8k", source, "--shard-size", 50)
    run("data/tinygsm/prepare_tinygsm.py", *from_parquet, "--out-dir", tmp_path / "parquet")
    for name in ("combined_baseline.jsonl", "combined_mul_tokens.jsonl"):
        assert (tmp_path / "parquet" / name).read_bytes() == (finished / name).read_bytes()


def test_a_stopped_run_goes_on_at_its_last_whole_shard(finished, source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        write = prepare_tinygsm.write_shard

        def stop_at_the_second(out_dir, number, *rest):
            if number == 1:
                raise KeyboardInterrupt
            return write(out_dir, number, *rest)

        patch.setattr(prepare_tinygsm, "write_shard", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            prepare(patch, *arguments(source, tmp_path / "out"))
    assert not (tmp_path / "out" / "counts.json").exists()
    converted = []
    monkeypatch.setattr(prepare_tinygsm, "convert", lambda code: converted.append(code) or convert(code))
    prepare(monkeypatch, *arguments(source, tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(finished)
    assert len(converted) == 70  # the first shard's 50 rows were not read again


def test_a_draw_is_of_the_seed(source, tmp_path, monkeypatch):
    draws = {}
    for name, extra in {"a": ["--seed=1"], "b": ["--seed=1", "--num-shards=2"], "c": ["--seed=2"]}.items():
        size = ["--max-rows=20"] if "--num-shards=2" not in extra else ["--shard-size=10"]
        prepare(monkeypatch, *arguments(source, tmp_path / name, *extra, *size))
        draws[name] = read_jsonl(tmp_path / name / "combined_baseline.jsonl")
    assert draws["a"] == draws["b"] != draws["c"] and 15 < len(draws["c"]) <= 20


def test_another_run_in_the_folder_is_refused(finished, source):
    error = one_line_error(
        run("data/tinygsm/prepare_tinygsm.py", *arguments(source, finished, "--shard-size", 40), check=False)
    )
    assert "was made with shard_size 50, not 40; name another folder" in error


@pytest.mark.parametrize(
    ("rows", "extra", "message"),
    [
        ([{"question": "Why?"}], [], "1 of 1 rows cannot be used (1 missing_keys)"),
        ([{"question": "Why?", "code": "x"}], [], "none of 1 rows could be converted (1 name); expected TinyGSM's"),
        ([{"question": "Why?", "code": "x"}], ["--workers=0"], "--workers 0"),
        ([{"question": "Why?", "code": "x"}], ["--max-rows=0"], "--max-rows 0"),
        (None, [], "does not exist"),
    ],
)
def test_a_mistake_is_one_line(source, tmp_path, monkeypatch, capsys, rows, extra, message):
    if rows is not None:
        write_jsonl(tmp_path / "rows.jsonl", rows)
    paths = ("--data-path", tmp_path / "rows.jsonl", "--gsm8k", source, "--out-dir", tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["prepare_tinygsm.py", *map(str, paths), *extra])
    with pytest.raises(SystemExit) as stop:
        run_script(prepare_tinygsm.main)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stop.value.code == 2 and len(errors) == 1 and message in errors[0]


def test_nothing_is_converted_without_the_test_questions(source, tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)  # the loader sets it; put back after the test
    paths = ("--data-path", source / "train.jsonl", "--out-dir", tmp_path / "out")
    with pytest.raises(UserError, match=r"test questions must be left out: .* give --gsm8k a \.jsonl file"):
        prepare(monkeypatch, *map(str, paths), "--gsm8k-hub-id=nobody/no-such-data-set")
    assert not (tmp_path / "out").exists()


def test_an_injected_answer_without_its_plain_one_is_refused(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"question": "Why?", "answer": "<MUL_2_3_6>\n#### 6"}])
    with pytest.raises(UserError, match="answer_injected_before"):
        load_converted(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=r"does not exist; write it with data/tinygsm/prepare_tinygsm\.py"):
        load_converted(tmp_path / "none.jsonl")
