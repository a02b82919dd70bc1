"""Contamination: planted items are found wherever they stand, near misses pass, and the report says what was found."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import run_script
from common.files import read_json, write_jsonl
from data import check_contamination
from data.ngrams import words_of
from data.shards import BIN_MAGIC, BIN_VERSION, write_shard
from tests.helpers import SHARED_DATA
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.inject_mul import MulExpressionInjector
from tokenizer.mul_facts import EOT_ID

QUESTION = (
    "Young Zoë has 6 boxes – each holds 9 pens. She says 6*9=54, then buys 7 x 8 more pens at the fair and counts "
    "them all twice. How many pens does she have before she gives some of them away?"
)
GSM8K = [
    {"question": QUESTION, "answer": "She has 6*9 = <<6*9=54>>54 and 7*8 = <<7*8=56>>56 pens.\n#### 110"},
    {"question": "A man walks " + "far and wide " * 9 + "every day. How far?", "answer": "Nobody knows.\n#### 7"},
    {"question": "A short question?", "answer": " ".join(f"word{i}" for i in range(20)) + "\n#### 3"},
]
HELLASWAG = [
    {
        "ind": 24,
        "ctx": "[header] How to bake bread [title] Mix flour with water and a pinch of salt. [step] Then",
        "label": 1,
        "endings": [
            "run",
            "let it rest under a damp cloth for two hours.",
            "fly",
            "sing it to sleep for a week or two.",
        ],
    }
]
OTHER = "Nothing of a benchmark stands here, but it is a document like any other, and it has more than 13 words."


def near_miss(text: str) -> str:
    """The words of the text with every 13th one changed: no 13-gram is left."""
    words = words_of(text)
    words[12::13] = ["zebra"] * len(words[12::13])
    return " ".join(words)


def write_shards(folder: Path, documents: list[str], condition: str, shard_size: int = 1 << 20) -> Path:
    """Train shards of documents as data/tokenize_to_bin.py lays them out."""
    tokenizer, injector = GPT2TokenizerWithMulFacts(condition), MulExpressionInjector("weak")
    ids: list[int] = []
    for text in documents:
        injected = injector.inject(text) if condition == "mul_tokens" else text
        ids += [EOT_ID, *tokenizer.encode(injected, allow_special=False)]
    folder.mkdir(parents=True)
    for i, start in enumerate(range(0, len(ids), shard_size)):
        write_shard(folder / f"train_{i:05d}.npy", np.array(ids[start : start + shard_size], dtype=np.uint16))
    return folder


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run the script on `sources`; return the report's benchmarks."""
    write_jsonl(tmp_path / "gsm8k.jsonl", GSM8K)
    write_jsonl(tmp_path / "hellaswag.jsonl", HELLASWAG)

    def run(*sources: Path, **flags) -> dict:
        flags = {"gsm8k": tmp_path / "gsm8k.jsonl", "hellaswag": tmp_path / "hellaswag.jsonl"} | flags
        options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        output = tmp_path / "report.json"
        argv = ["check", "--sources", *map(str, sources), *options, f"--output={output}"]
        monkeypatch.setattr(sys, "argv", argv)
        check_contamination.main()
        return read_json(output)["benchmarks"]

    return run


def ids_of(benchmarks: dict) -> dict[str, list[str]]:
    return {name: sorted(part["flagged"]) for name, part in benchmarks.items()}


NONE = {"gsm8k": [], "hellaswag": [], "probes": []}


@pytest.mark.parametrize("condition", ["baseline", "mul_tokens"])
@pytest.mark.parametrize("shard_size", [7, 1 << 20])
def test_planted_items_are_found_in_shards_and_near_misses_pass(tmp_path, check, condition, shard_size):
    """Shards of 7 tokens: every 13-gram crosses a border."""
    misses = [near_miss(QUESTION), near_miss(GSM8K[0]["answer"]), near_miss(GSM8K[1]["question"]), OTHER, ""]
    folder = write_shards(tmp_path / "miss", misses, condition, shard_size)
    assert ids_of(check(folder)) == NONE
    found = check(write_shards(tmp_path / "hit", [OTHER, "", f"{OTHER} {QUESTION} {OTHER}"], condition, shard_size))
    assert ids_of(found) == NONE | {"gsm8k": ["0"]}
    item = found["gsm8k"]["flagged"]["0"]
    words = len(words_of(QUESTION))
    assert (found["gsm8k"]["items"], item["ngrams"]) == (3, words - 12)
    assert item["examples"][0] == "young zoë has 6 boxes each holds 9 pens she says 6 9"
    [place] = item["sources"]
    shard, token = place.removeprefix(f"{tmp_path / 'hit'}/").split(": token ")
    number = int(shard.removeprefix("train_").removesuffix(".npy"))
    ids = np.concatenate([np.load(path) for path in sorted((tmp_path / "hit").iterdir())])
    position = number * shard_size + int(token)
    assert ids[position - 1] == EOT_ID and (ids[:position] == EOT_ID).sum() == 3


@pytest.mark.parametrize("condition", ["baseline", "mul_tokens"])
def test_injection_hides_nothing_and_makes_nothing(tmp_path, check, condition):
    """The answer's words are mostly products, which mul_tokens writes as single tokens; 7*9 is another one."""
    documents = [GSM8K[0]["answer"].replace("6*9=54", "9 × 6 = 54")]
    assert ids_of(check(write_shards(tmp_path / "hit", documents, condition)))["gsm8k"] == ["0"]
    documents = [GSM8K[0]["answer"].replace("6*9=54", "7*9=63").replace("7*8=56", "7*9=63")]
    assert ids_of(check(write_shards(tmp_path / "miss", documents, condition)))["gsm8k"] == []


def test_an_ngram_does_not_cross_documents(tmp_path, check):
    words = words_of(GSM8K[1]["question"])
    documents = [" ".join(words[i : i + 12]) for i in range(0, len(words), 12)]
    assert ids_of(check(write_shards(tmp_path / "a", documents, "baseline"))) == NONE
    assert ids_of(check(write_shards(tmp_path / "b", [" ".join(words[3:16])], "baseline"))) == NONE | {"gsm8k": ["1"]}


def test_short_items_must_occur_in_full(tmp_path, check):
    """A probe has five words; a short question counts as a whole, a short answer not at all."""
    texts = [
        "User: what is  7 times\n8?",
        "What is 6 times 80?",
        "What is 6 × 8?",
        "Nobody knows. 7",
        "A short question",
    ]
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    assert ids_of(check(tmp_path / "a.jsonl")) == {"gsm8k": ["2"], "hellaswag": [], "probes": ["What is 7 times 8?"]}


@pytest.mark.parametrize(
    "row",
    [
        GSM8K[0],
        {"text": f"User: {QUESTION}\nAssistant: no"},
        {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "no"}]},
    ],
)
def test_sft_files_of_every_form(tmp_path, check, row):
    rows = [{"text": ""}, {"messages": [], "text": "é"}, {"question": near_miss(QUESTION), "answer": "x"}, row, row]
    write_jsonl(tmp_path / "sft.jsonl", rows)
    found = check(tmp_path / "sft.jsonl")
    assert ids_of(found) == NONE | {"gsm8k": ["0"]}
    assert found["gsm8k"]["flagged"]["0"]["sources"] == [f"{tmp_path / 'sft.jsonl'}: document 3"]
    assert (found["gsm8k"]["flagged"]["0"]["share"] == 1) == ("answer" in row)


def test_documents_and_hellaswag_without_its_brackets(tmp_path, check):
    text = "How to bake bread. Mix flour with water and a pinch of salt.\nThen let it rest under a damp cloth."
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text(f"{OTHER}\n<|endoftext|>\n\n<|endoftext|>\n{text}\n")
    (tmp_path / "texts/b.jsonl").write_text(json.dumps({"text": near_miss(text)}) + "\n\n")
    found = check(tmp_path / "texts")
    assert ids_of(found) == NONE | {"hellaswag": ["24"]}
    assert found["hellaswag"]["flagged"]["24"]["sources"] == [f"{tmp_path / 'texts/a.txt'}: document 2"]
    wrong_ending = text.replace("let it rest under a damp cloth", "sing it to sleep for a week or two").split(". ", 1)[
        1
    ]
    (tmp_path / "c.txt").write_text(wrong_ending.removeprefix("Mix flour "))
    assert ids_of(check(tmp_path / "c.txt")) == NONE


def test_batches_change_nothing(tmp_path, check, monkeypatch):
    """Every batch size and two processes give the same report; a document without end is cut."""
    documents = [OTHER, f"{OTHER} {QUESTION}", *(item["answer"] for item in GSM8K), OTHER] * 3
    folder = write_shards(tmp_path / "shards", documents, "mul_tokens", shard_size=50)
    write_jsonl(tmp_path / "sft.jsonl", GSM8K + HELLASWAG)
    expected = check(folder, tmp_path / "sft.jsonl", workers=1)
    assert ids_of(expected) == {"gsm8k": ["0", "1", "2"], "hellaswag": ["24"], "probes": []}
    monkeypatch.setattr(check_contamination, "BATCH_CHARACTERS", 10)
    for size in (1, 30, 100):
        monkeypatch.setattr(check_contamination, "BATCH_TOKENS", size)
        assert check(folder, tmp_path / "sft.jsonl", workers=1) == expected
    monkeypatch.setattr(check_contamination, "BYTES_WORTH_A_WORKER", 1)
    assert check(folder, tmp_path / "sft.jsonl", workers=2) == expected
    monkeypatch.setattr(check_contamination, "LONGEST_DOCUMENT_TOKENS", 8)
    assert ids_of(check(folder, workers=1)) == NONE


def test_llm_c_shards_with_the_border_behind_a_document(tmp_path, check):
    tokenizer = GPT2TokenizerWithMulFacts("baseline")
    ids = np.array([*tokenizer.encode(QUESTION), EOT_ID, *tokenizer.encode(OTHER), EOT_ID], dtype="<u2")
    header = np.zeros(256, dtype="<i4")
    header[:3] = BIN_MAGIC, BIN_VERSION, len(ids)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/fineweb_train_000001.bin").write_bytes(header.tobytes() + ids.tobytes())
    found = check(tmp_path / "bin")
    assert found["gsm8k"]["flagged"]["0"]["sources"] == [f"{tmp_path / 'bin/fineweb_train_000001.bin'}: token 0"]


def test_n_is_the_length_of_what_is_looked_for(tmp_path, check):
    (tmp_path / "a.txt").write_text("She HAS: 6 boxes; each holds 9 pens")
    assert ids_of(check(tmp_path / "a.txt", n=8)) == NONE
    assert ids_of(check(tmp_path / "a.txt", n=7)) == NONE | {"gsm8k": ["0"]}


def run_with(arguments: list[str], monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", ["check", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_script(check_contamination.main)
    stderr = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in stderr
    [error] = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--sources"),
        (["--sources", "nowhere"], "nowhere does not exist"),
        (["--sources", "{tmp}"], "holds no"),
        (["--sources", "{tmp}/ok.jsonl", "--no-probes"], "nothing to look for"),
        (["--sources", "{tmp}/ok.jsonl", "--n", "0"], "--n and --workers must be at least 1"),
        (["--sources", "{tmp}/ok.jsonl", "--gsm8k", "{tmp}/no.jsonl"], "no.jsonl does not exist"),
        (["--sources", "{tmp}/bad.jsonl"], r"bad.jsonl, row 1 (from 0) is not valid JSON"),
        (["--sources", "{tmp}/latin.jsonl"], r"latin.jsonl, row 0 (from 0) is not valid JSON"),
        (["--sources", "{tmp}/numbers.jsonl"], r"numbers.jsonl, row 0 (from 0) has no text"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_report(tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "files").mkdir()
    files = {
        "ok": b'{"text": "x"}',
        "bad": b'{"text": "x"}\n{',
        "latin": b'{"text": "\xe9"}',
        "numbers": b'{"text": 1}',
    }
    for name, content in files.items():
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    where = tmp_path / "files" if message == "holds no" else tmp_path
    arguments = [argument.replace("{tmp}", str(where)) for argument in arguments]
    assert message in run_with([*arguments, f"--output={tmp_path / 'report.json'}"], monkeypatch, capsys)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="needs real data")
def test_gsm8k_train_holds_a_few_test_ngrams_and_itself(tmp_path, check):
    found = check(SHARED_DATA / "gsm8k/train.jsonl", gsm8k=SHARED_DATA / "gsm8k")
    flagged = found["gsm8k"]["flagged"]
    assert len(flagged) == 9 and "stamps at the post office" in flagged["632"]["examples"][1]
    whole = check(SHARED_DATA / "gsm8k/test.jsonl", gsm8k=SHARED_DATA / "gsm8k")["gsm8k"]["flagged"]
    assert len(whole) == 1319 and {item["share"] for item in whole.values()} == {1}
