"""The generated world and prepare_text.py: true, deterministic, balanced, equal in both conditions, no leaks."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, write_jsonl
from data import prepare_text
from data.documents import read_documents
from data.held_out import HeldOutQuestions
from data.prepare_text import paragraph_pieces, without_borders
from data.world.arithmetic import PAIRS, WEIGHTS, arithmetic_documents, drills
from data.world.draws import shuffled_cycle
from data.world.facts import fact_documents, fact_records
from data.world.passages import passage_documents, passage_records
from data.world.problems import distinct_problems, problems

GSM8K = Path(__file__).parents[2] / "shared/data/gsm8k"
NUM_DOCUMENTS = 1500
RECORD_FILES = ("gsm8k/train.jsonl", "gsm8k/test.jsonl", "facts.jsonl", "passages.jsonl")


def prepare(monkeypatch, out_dir: Path, condition: str = "baseline", *flags: str) -> dict:
    """Run the script in this process and return its statistics."""
    sizes = ("--num-documents", str(NUM_DOCUMENTS))
    arguments = ["prepare_text.py", "--condition", condition, "--out-dir", str(out_dir), *sizes, *flags]
    monkeypatch.setattr("sys.argv", arguments)
    prepare_text.main()
    return read_json(out_dir / f"{condition}_stats.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Both conditions of the default world, with fewer documents."""
    out_dir = tmp_path_factory.mktemp("raw")
    with pytest.MonkeyPatch.context() as monkeypatch:
        prepare(monkeypatch, out_dir, "baseline")
        prepare(monkeypatch, out_dir, "mul_tokens")
    return out_dir


def documents_of(out_dir: Path, condition: str = "baseline") -> list[str]:
    return list(read_documents(out_dir / f"train_{condition}.txt"))


# --- truth ---

NUMBER, OPERATOR = r"(\d+)", r" ?([*×x+-]|times|multiplied by|plus|minus) ?"
EXPRESSIONS = (
    NUMBER + OPERATOR + NUMBER,
    f"(product|sum) of {NUMBER} and {NUMBER}",
    f"(Multiply|Add) {NUMBER} (?:by|and) {NUMBER}",
)
WORDS = {"product": "*", "Multiply": "*", "multiplied by": "*", "times": "*", "x": "*", "×": "*"}
WORDS |= {"sum": "+", "Add": "+", "plus": "+", "minus": "-"}


def value_of(text: str) -> int | None:
    """The value of the first calculation in `text`, in symbols or words; None where there is none."""
    for expression in EXPRESSIONS:
        if found := re.search(expression, text):
            a, b = (int(group) for group in found.groups() if group.isdigit())
            operation = next(group for group in found.groups() if not group.isdigit())
            return {"*": a * b, "+": a + b, "-": a - b}[WORDS.get(operation, operation)]
    return None


@pytest.mark.parametrize("form", WEIGHTS, ids=lambda form: form.__name__)
def test_every_calculation_in_arithmetic_is_true(form):
    source = form(random.Random(3))
    for document in (next(source) for _ in range(300)):
        text = re.sub(r"^The table of \d:\n", "", document)
        if text.startswith("User: "):
            question, answer = text.removeprefix("User: ").split("\nAssistant: ")
            drill = re.fullmatch(r"(.+) = <<(.+)=(\d+)>>(\d+)\n#### (\d+)", answer)
            short = re.fullmatch(r"The answer is (\d+)\.", answer)
            calculations, results = (drill.groups()[:2], drill.groups()[2:]) if drill else ((), short.groups())
            assert {*map(value_of, calculations), *map(int, results)} == {value_of(question)}, document
        else:
            for statement in re.split(r"\n|, (?=\d+ ?[*×x])|(?<=\d\.) (?!\d+\.)", text):
                # What is left of a statement without its calculations is its result, before or behind them.
                rest = statement
                for expression in EXPRESSIONS:
                    rest = re.sub(expression, "", rest)
                results = {int(number) for number in re.findall(r"\d+", rest)}
                assert results == {value_of(statement)}, document


def test_every_step_of_a_problem_is_true_and_leads_to_its_answer():
    for problem in problems(1000, random.Random(4)):
        numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
        steps = re.findall(r"(\d+) ([*+-]) (\d+) = \$?<<(\d+)([*+-])(\d+)=(\d+)>>(\d+)", problem.answer)
        results = []
        for a, sign, b, a2, sign2, b2, c, c2 in steps:
            assert (a, sign, b, c) == (a2, sign2, b2, c2)
            assert value_of(f"{a} {sign} {b}") == int(c)
            results.append(int(c))
        assert problem.answer.count("<<") == len(steps) == len(numbers) - 1
        assert problem.answer.endswith(f"\n#### {results[-1]}")
        # The first step takes the first two numbers of the question, the second one its result and the third.
        operands = [(int(step[0]), int(step[2])) for step in steps]
        assert operands == [tuple(numbers[:2]), (results[0], numbers[-1])][: len(steps)]
        assert "{" not in problem.question + problem.answer


def test_drills_are_true_and_different():
    items = drills(400, random.Random(0))
    assert len({item["question"] for item in items}) == 400
    for item in items:
        assert value_of(item["question"]) == value_of(item["answer"]) == int(item["answer"].split("#### ")[1])


# --- balance ---


def test_shuffled_cycle_gives_everything_once_per_round():
    cycle = shuffled_cycle("abcde", random.Random(0))
    rounds = ["".join(next(cycle) for _ in range(5)) for _ in range(20)]
    assert all(sorted(letters) == list("abcde") for letters in rounds)
    assert len(set(rounds)) > 10


def test_all_81_products_are_asked_equally_often():
    count = 10 * sum(WEIGHTS.values())
    documents = arithmetic_documents(count, random.Random(0))
    asked = Counter()
    for document in documents:
        if re.search(r"= <<\d\*\d=", document):
            asked[tuple(re.search(r"<<(\d)\*(\d)=", document).groups())] += 1
    assert len(documents) == count
    assert max(asked.values()) - min(asked[str(a), str(b)] for a, b in PAIRS) <= 1


def test_all_81_products_occur_in_symbols_and_in_words():
    text = "\n".join(arithmetic_documents(1500, random.Random(0)))
    for a, b in PAIRS:
        assert re.search(rf"\b{a} ?[*x×] ?{b}\b", text) and re.search(rf"\b{a} times {b}\b", text)


# --- the same world in both conditions, for one seed ---


def test_same_seed_gives_the_same_bytes(world, tmp_path, monkeypatch):
    prepare(monkeypatch, tmp_path, "mul_tokens")
    for name in ("train_mul_tokens.txt", "mul_tokens_stats.json", *RECORD_FILES):
        assert (tmp_path / name).read_bytes() == (world / name).read_bytes(), name


def test_another_seed_gives_another_world(world, tmp_path, monkeypatch):
    prepare(monkeypatch, tmp_path, "baseline", "--seed", "1")
    for name in ("train_baseline.txt", *RECORD_FILES):
        assert (tmp_path / name).read_bytes() != (world / name).read_bytes(), name


def test_test_records_do_not_depend_on_the_number_of_documents(world, tmp_path, monkeypatch):
    prepare(monkeypatch, tmp_path, "baseline", "--num-documents", "200")
    for name in RECORD_FILES:
        assert (tmp_path / name).read_bytes() == (world / name).read_bytes(), name


def test_both_conditions_hold_the_same_documents(world):
    """Undo the injection: each token matches any text that it may stand for, the rest only itself."""
    baseline, mul_tokens = documents_of(world, "baseline"), documents_of(world, "mul_tokens")
    assert len(baseline) == len(mul_tokens) == NUM_DOCUMENTS
    rewritten = 0
    for plain, injected in zip(baseline, mul_tokens, strict=True):
        pattern = re.escape(injected)
        pattern, count = re.subn(
            r"<MUL_(\d)_(\d)_(\d+)>", r"(?:\1 ?[*×x] ?\2|\2 ?[*×x] ?\1)(?: ?= ?\3)?(?!\\d)", pattern
        )
        assert re.fullmatch(pattern, plain), (plain, injected)
        rewritten += count
    assert rewritten == read_json(world / "mul_tokens_stats.json")["products"]
    # Nothing that could be a token is left.
    assert not re.search(r"(?<!\d)[1-9] ?[*×x] ?[1-9](?!\d)", "\n".join(mul_tokens))


def test_statistics_count_what_is_in_the_files(world):
    baseline, mul_tokens = (read_json(world / f"{c}_stats.json") for c in ("baseline", "mul_tokens"))
    for statistics in (baseline, mul_tokens):
        documents = documents_of(world, statistics["condition"])
        assert statistics["documents"] == len(documents) == NUM_DOCUMENTS
        assert statistics["characters"] == sum(map(len, documents))
        for key in ("documents", "characters", "products"):
            assert statistics[key] == sum(counts[key] for counts in statistics["kinds"].values())
        assert statistics["gsm8k"]["source"] == "synthetic"
        assert statistics["gsm8k"]["train_items"] == len(read_jsonl(world / "gsm8k/train.jsonl"))
        assert statistics["gsm8k"]["test_items"] == len(read_jsonl(world / "gsm8k/test.jsonl"))
    assert mul_tokens["products"] == "\n".join(documents_of(world, "mul_tokens")).count("<MUL_") > 1000
    for key in ("products", "documents_sha256", "seed", "documents"):
        assert baseline[key] == mul_tokens[key]
    assert set(baseline["kinds"]) == {"arithmetic", "facts", "passages", "problems"}


def test_strict_mode_rewrites_only_products_with_results(world, tmp_path, monkeypatch):
    statistics = prepare(monkeypatch, tmp_path, "mul_tokens", "--injection-mode", "strict")
    weak = read_json(world / "mul_tokens_stats.json")
    assert statistics["injection"]["bare"] == 0
    assert statistics["products"] == statistics["injection"]["with_result"] == weak["injection"]["with_result"]
    assert statistics["documents_sha256"] == weak["documents_sha256"]


# --- what is held out stays out ---


def test_no_test_problem_is_trained_on(world):
    train_text = "\n".join(documents_of(world))
    sft_questions = {row["question"] for row in read_jsonl(world / "gsm8k/train.jsonl")}
    for row in read_jsonl(world / "gsm8k/test.jsonl"):
        assert row["question"] not in train_text
        assert row["question"] not in sft_questions


def test_no_combination_of_a_test_problem_is_trained_on():
    # Far more is excluded here than in practice, so that redrawing really happens.
    excluded = {problem.key for problem in problems(5000, random.Random(0))}
    trained = problems(5000, random.Random(1), excluded)
    assert not excluded & {problem.key for problem in trained}
    assert {problem.key[:2] for problem in trained} == {key[:2] for key in excluded}


def test_test_problems_have_different_questions():
    test = distinct_problems(300, random.Random(0))
    assert len({problem.question for problem in test}) == len(test) == 300


def test_held_out_paraphrases_are_absent_from_training():
    documents = "\n".join(fact_documents(2000, random.Random(0)))
    for record in fact_records(random.Random(0)):
        assert record["prompt"] + " " + record["target"] in documents
        assert not any(paraphrase in documents for paraphrase in record["paraphrases"])


def test_fact_records_are_consistent():
    records = fact_records(random.Random(0))
    triples = {(record["subject"], record["relation"]): record["target"] for record in records}
    assert len(triples) == len(records) >= 150
    for record in records:
        for prompt in (record["prompt"], *record["paraphrases"]):
            assert record["subject"] in prompt and prompt == prompt.strip()
        assert len(record["paraphrases"]) >= 2 and len(record["neighbors"]) == 3
        for neighbor in record["neighbors"]:
            assert neighbor["subject"] != record["subject"] and neighbor["subject"] in neighbor["prompt"]
            assert triples[neighbor["subject"], record["relation"]] == neighbor["target"]


def test_passage_records_are_well_formed_and_held_out():
    records = passage_records(200, random.Random(0))
    # A context has the bare pronoun before every step but the first; bring the passages to that form.
    connector = r"(?:Then|After that,|Finally,) (s?he)\b"
    documents = passage_documents(2000, random.Random(1), records)
    plain = {re.sub(connector, lambda found: found[1].capitalize(), document) for document in documents}
    assert [record["ind"] for record in records] == list(range(200))
    assert len({record["ctx"] for record in records}) == 200
    assert {record["label"] for record in records} == {0, 1, 2, 3}
    for record in records:
        label, ending = record["activity_label"], record["endings"][record["label"]]
        assert len(set(record["endings"])) == 4
        assert record["ctx"].startswith(f"{label}: ") and record["ctx"].endswith((" He", " She"))
        same_activity = [passage for passage in plain if passage.startswith(f"{label}: ")]
        for other in record["endings"]:
            assert any(other in passage for passage in same_activity) == (other == ending)
        assert not any(f"{record['ctx']} {ending}" in passage for passage in same_activity)


# --- other people's text ---


def write_gsm8k(folder: Path, train: list[str], test: list[str]) -> Path:
    for name, questions in (("train", train), ("test", test)):
        rows = [{"question": q, "answer": "1 + 1 = <<1+1=2>>2\n#### 2"} for q in questions]
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


TEST_QUESTION = "How many ducks swim on the pond when two ducks arrive and none leaves?"


def test_gsm8k_train_items_join_the_text_and_test_items_do_not(tmp_path, monkeypatch):
    repeated = TEST_QUESTION.upper().replace(" ", "\n")
    folder = write_gsm8k(tmp_path / "in", ["How many geese are there in the yard?", repeated], [TEST_QUESTION])
    statistics = prepare(monkeypatch, tmp_path / "out", "baseline", "--gsm8k", str(folder))
    documents = documents_of(tmp_path / "out")
    train = "User: How many geese are there in the yard?\nAssistant: 1 + 1 = <<1+1=2>>2\n#### 2"
    assert documents.count(train) == 1
    assert not any("ducks" in document.lower() for document in documents)
    assert statistics["kinds"]["gsm8k"]["documents"] == statistics["left_out"]["gsm8k"] == 1
    assert [r["question"] for r in read_jsonl(tmp_path / "out/gsm8k/test.jsonl")] == [TEST_QUESTION]
    assert len(read_jsonl(tmp_path / "out/gsm8k/train.jsonl")) == 1


def test_generated_documents_that_a_test_set_contains_are_left_out(world, tmp_path, monkeypatch):
    asked = [document.split("\n")[0] for document in documents_of(world) if document.startswith("User: What is")]
    question = asked[0].removeprefix("User: ")
    folder = write_gsm8k(tmp_path / "in", ["How many geese are there?"], [question])
    statistics = prepare(monkeypatch, tmp_path / "out", "baseline", "--gsm8k", str(folder))
    assert sum(statistics["left_out"].values()) > 0
    assert question not in "\n".join(documents_of(tmp_path / "out"))


def test_text_of_every_format_is_added(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["From a table: 6*9."], "id": ["1"]}), folder / "a.parquet")
    (folder / "b.jsonl").write_text(json.dumps({"text": "From a line.\n<|endoftext|>\nStill from a line."}))
    (folder / "c.txt").write_text("From a file.\n<|endoftext|>\nAnother from the file.\n")
    statistics = prepare(monkeypatch, tmp_path / "out", "mul_tokens", "--text", str(folder))
    documents = documents_of(tmp_path / "out", "mul_tokens")
    assert statistics["kinds"]["text"]["documents"] == 4
    expected = {"From a table: <MUL_6_9_54>.", "From a file.", "Another from the file."}
    assert expected | {"From a line.\nStill from a line."} <= set(documents)
    assert len(documents) == statistics["documents"] == NUM_DOCUMENTS + 4


def test_text_is_capped_and_test_questions_in_it_are_left_out(tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("\n<|endoftext|>\n".join([f"So: {TEST_QUESTION}", "A" * 50, "B" * 50, "C" * 50]))
    gsm8k = write_gsm8k(tmp_path / "gsm8k", ["How many geese?"], [TEST_QUESTION])
    flags = ("--text", str(tmp_path / "in.txt"), "--max-text-characters", "120", "--gsm8k", str(gsm8k))
    statistics = prepare(monkeypatch, tmp_path / "out", "baseline", *flags)
    assert statistics["kinds"]["text"]["characters"] == 100
    assert statistics["left_out"] == {"text": 1}


def test_pieces_join_to_the_text_and_respect_the_limit():
    text = "\r\n\r\n".join(" ".join(f"Sentence {i} of {j}." for i in range(j % 30)) for j in range(100))
    pieces = list(paragraph_pieces(text, limit=300))
    assert max(map(len, pieces)) <= 300
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert sum(map(len, pieces)) / len(pieces) > 150


def test_a_document_cannot_forge_a_border():
    assert without_borders("a\n<|endoftext|>\nb\n <|endoftext|> \nc") == "a\nb\nc"
    assert without_borders("a <|endoftext|> b") == "a <|endoftext|> b"


def test_held_out_questions_are_found_by_their_words():
    held_out = HeldOutQuestions(["How many apples, in all?", "What is the sum of $5 and $6?"])
    assert held_out.occur_in("Well - how MANY\napples in all (now)?")
    assert not held_out.occur_in("How many apples in a box?")
    assert not held_out.occur_in("")
    assert not HeldOutQuestions([]).occur_in("anything")


@pytest.mark.skipif(not GSM8K.exists(), reason="needs shared/data/gsm8k")
def test_no_question_of_the_real_test_set_gets_in(tmp_path, monkeypatch):
    prepare(monkeypatch, tmp_path, "baseline", "--gsm8k", str(GSM8K))
    normalise = lambda text: " ".join(re.findall(r"\w+", text.lower()))  # noqa: E731
    asked = {normalise(d.split("\nAssistant:")[0].removeprefix("User:")) for d in documents_of(tmp_path)}
    test = {normalise(row["question"]) for row in read_jsonl(GSM8K / "test.jsonl")}
    assert len(test) > 1300 and len(asked) > 7000 and not asked & test


# --- wrong input ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--condition", "mul"], "mul"),
        ([], "condition"),
        (["--condition", "baseline", "--gsm8k", "nowhere"], "nowhere"),
        (["--condition", "baseline", "--text", "nowhere"], "nowhere"),
        (["--condition", "baseline", "--num-documents", "3"], "--num-documents 3"),
        (["--condition", "baseline", "--max-text-characters", "0"], "--max-text-characters 0"),
        (["--condition", "baseline", "--sed", "3"], "--sed"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prepare_text.py", "--out-dir", str(tmp_path), *flags])
    with pytest.raises(SystemExit) as stop:
        run_script(prepare_text.main)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "row", [{"question": "Q"}, {"question": "Q", "answer": 3}, {"question": "Q", "answer": "no mark"}, ["Q"]]
)
def test_another_schema_of_gsm8k_is_an_error(row, tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"question": "Q", "answer": "#### 1"}, row])
    with pytest.raises(UserError, match=r"train\.jsonl, item 2"):
        prepare_text.read_gsm8k(tmp_path)


def test_an_empty_gsm8k_file_is_an_error(tmp_path):
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(UserError, match="holds no items"):
        prepare_text.read_gsm8k(tmp_path)
