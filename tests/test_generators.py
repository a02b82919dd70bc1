"""Decompositions, drills, reasoning rows: every step true, all different, deterministic; no leak of what is asked."""

import random
import re
from pathlib import Path

import pytest

from common.errors import UserError, run_script
from common.files import read_json, read_jsonl, write_jsonl
from data import prepare_reasoning
from data.chat_rows import BadRow
from data.drills.tiers import PRODUCT_TIERS, TIERS, calculations, drills
from data.drills.word_problems import STEPS, word_problems
from data.gsm_sbs.decompositions import COUNT, decompositions, shows_probe, steps
from data.held_out import HeldOutQuestions
from data.reasoning import gsm8k_as_reasoning, question_reasoning_answer, without_notes
from data.world.arithmetic import PROBED
from tests.helpers import SHARED_DATA
from tokenizer.inject_mul import MulExpressionInjector

SBS = decompositions(COUNT, random.Random("0/test"))
DRILLS = {tier: drills(600, (tier,), random.Random("0/test"))[tier] for tier in TIERS}


def value(expression: str) -> int:
    """Brute force: the value of an expression in digits, ×, +, - and parentheses."""
    assert re.fullmatch(r"[\d ×+()-]+", expression), expression
    return eval(expression.replace("×", "*"))


def answer_of(item: dict[str, str]) -> int:
    return int(item["answer"].split("\n#### ")[1])


# ---- decompositions


def test_there_are_640_different_products():
    products = [item["answer"].split(" = ")[0] for item in SBS]
    assert len(set(products)) == len(set(item["question"] for item in SBS)) == COUNT == 640


def test_every_step_of_a_decomposition_has_the_same_value():
    for item in SBS:
        expressions = item["answer"].split("\n")[0].split(" = ")
        a, b = map(int, re.findall(r"\d+", item["question"]))
        assert {value(expression) for expression in expressions} == {a * b, answer_of(item)}
        assert expressions[0] == f"{a} × {b}" and len(set(expressions)) == len(expressions)


@pytest.mark.parametrize("a, b", [(12, 12), (999, 9), (11, 99), (105, 6), (30, 40), (100, 7), (8, 9), (3, 1000)])
def test_a_decomposition_goes_down_to_single_digits(a, b):
    expressions = steps(a, b)
    assert {value(expression) for expression in expressions} == {a * b}
    digits = [(x, y) for x in str(a) for y in str(b) if "0" not in (x, y)]
    # The step before the products are worked out multiplies every digit of one factor with every digit of the other.
    assert any(re.findall(r"\b(\d) × (\d)\b", expression) == digits for expression in expressions)


def test_the_form_of_a_decomposition():
    assert " = ".join(steps(12, 12)) == (
        "12 × 12 = (10 + 2) × 12 = 10 × 12 + 2 × 12 = 10 × (10 + 2) + 2 × (10 + 2) "
        "= (10 × 10 + 10 × 2) + (2 × 10 + 2 × 2) = ((1 × 1) × 100 + (1 × 2) × 10) + ((2 × 1) × 10 + 2 × 2) "
        "= (1 × 100 + 2 × 10) + (2 × 10 + 4) = (100 + 20) + (20 + 4) = 120 + 24 = 144"
    )


def test_injection_rewrites_the_products_of_digits_and_keeps_the_values():
    inject = MulExpressionInjector().inject
    for item in SBS:
        injected = inject(item["answer"])
        assert not re.search(r"(?<!\d)[1-9] × [1-9](?!\d)", injected)
        line = re.sub(r"<MUL_(\d)_(\d)_\d+>", r"\1 × \2", injected.split("\n")[0])
        assert {value(expression) for expression in line.split(" = ")} == {answer_of(item)}
        assert "<MUL_" in injected


def test_more_decompositions_than_there_are_is_an_error():
    with pytest.raises(UserError, match="1000000 decompositions are asked for, but there are only"):
        decompositions(1_000_000, random.Random(0))


# ---- drills


def test_every_drill_is_true():
    for tier, items in DRILLS.items():
        assert len({item["question"] for item in items}) == len(items) == 600
        for item in items:
            line, final = item["answer"].split(". The answer is ")
            expressions = line.split(" = ")
            assert {value(expression) for expression in expressions} == {answer_of(item)}, item
            assert final == f"{answer_of(item)}.\n#### {answer_of(item)}"
            numbers = [re.findall(r"\d+", text) for text in (item["question"], expressions[0])]
            assert numbers[0] == numbers[1], item
            assert len(expressions) > (2 if tier >= 3 else 1)


def test_tiers_rise_in_the_number_of_operations():
    operations = [
        sum(len(re.findall(r"[×+-]", item["answer"])) for item in items) / len(items) for items in DRILLS.values()
    ]
    assert operations == sorted(operations)


def test_a_question_in_words_asks_for_the_same_as_the_answer_works_out():
    signs = {"plus": "+", "minus": "-", "times": "×"}
    for item in DRILLS[3] + DRILLS[4]:
        asked = re.sub(r"plus|minus|times", lambda word: signs[word[0]], item["question"])
        assert item["answer"].split(" = ")[0] in asked


def test_the_table_is_asked_evenly_and_answered_with_the_tokens():
    inject = MulExpressionInjector().inject
    first_round = drills(81, (2,), random.Random(5))[2]
    products = {re.match(r"(\d) × (\d)", item["answer"]).groups() for item in first_round}
    assert len(products) == 81
    for item in first_round:
        assert re.fullmatch(r"<MUL_\d_\d_(\d+)>\. The answer is \1\.\n#### \1", inject(item["answer"]))


def test_tiers_share_what_is_asked_for_and_a_short_one_leaves_the_rest_to_the_others():
    assert {tier: len(items) for tier, items in drills(10, TIERS, random.Random(0)).items()} == dict.fromkeys(TIERS, 2)
    counts = {tier: len(items) for tier, items in drills(4000, PRODUCT_TIERS, random.Random(0)).items()}
    assert counts[2] == 81 * 9 and sum(counts.values()) == 4000 and max(counts.values()) - counts[5] <= 1
    with pytest.raises(UserError, match=r"tiers \(2,\) have only 729"):
        drills(730, (2,), random.Random(0))


# ---- what is asked elsewhere


def test_no_probe_is_asked_or_worked_out():
    items = SBS + [item for tier in TIERS for item in DRILLS[tier]]
    for item in items:
        line = item["answer"].split("\n")[0]
        for a, sign, b in re.findall(r"(?=(?<![\d])(\d+) ([×+]) (\d+))", line):
            if sign == "×" or not re.search(rf"× {a} \+|\+ {b} ×", line):
                assert ({"×": "*"}.get(sign, sign), int(a), int(b)) not in PROBED, item
    sign, a, b = next(probe for probe in sorted(PROBED) if probe[0] == "*" and probe[1] > 9)
    assert shows_probe(f"1 + {a} × {b}") and not shows_probe(f"{a}0 × {b}")
    assert f"{a} × {b}" not in {expressions[0] for expressions, _ in calculations(5)}


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k").exists(), reason="needs GSM8K")
def test_no_item_is_a_test_item_of_gsm8k():
    test = HeldOutQuestions(row["question"] for row in read_jsonl(SHARED_DATA / "gsm8k/test.jsonl"))
    generated = SBS + [item for items in DRILLS.values() for item in items]
    generated += [item for steps_each in STEPS for item in word_problems(500, steps_each, random.Random(0))]
    assert not any(test.occur_in(item["question"]) for item in generated)


# ---- determinism


@pytest.mark.parametrize(
    "generate",
    [
        lambda rng: decompositions(50, rng),
        lambda rng: drills(200, TIERS, rng),
        lambda rng: word_problems(50, 2, rng),
    ],
)
def test_a_generator_depends_on_its_seed_alone(generate):
    assert generate(random.Random("7/x")) == generate(random.Random("7/x")) != generate(random.Random("8/x"))


@pytest.mark.parametrize("number_of_steps", STEPS)
def test_word_problems_have_the_steps_asked_for(number_of_steps):
    items = word_problems(200, number_of_steps, random.Random(0))
    assert len({item["question"] for item in items}) == len(items) == 200
    assert {item["answer"].count("<<") for item in items} == {number_of_steps}
    for item in items:
        notes = re.findall(r"<<(.+?)=(\d+)>>", item["answer"])
        assert [eval(note) for note, _ in notes] == [int(result) for _, result in notes]
        assert int(notes[-1][1]) == answer_of(item)


# ---- reasoning rows

ITEM = {"question": " How many? ", "answer": "He pays $5*4=$<<5*4=20>>20.\nThat is 20-2=<<20-2=18>>18.\n#### 1,018"}


def test_a_gsm8k_item_becomes_thoughts_and_a_number():
    row = gsm8k_as_reasoning(ITEM)
    assert row["reasoning"] == "He pays $5*4=$<<5*4=20>>20.\nThat is 20-2=<<20-2=18>>18."
    assert without_notes(row) == {
        "question": "How many?",
        "reasoning": "He pays $5*4=$20.\nThat is 20-2=18.",
        "answer": "1,018",
    }


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"question": "Q"}, "missing_keys"),
        ("text", "missing_keys"),
        ({"question": "Q", "answer": "It is 3."}, "no_final_answer"),
        ({"question": "Q", "answer": "#### 3"}, "empty_reasoning"),
        ({"question": "", "answer": "1\n#### 3"}, "empty_question"),
        ({"question": "Q", "answer": "Say </think> first.\n#### 3"}, "holds_a_tag"),
    ],
)
def test_an_item_that_is_no_reasoning_row_says_why(item, reason):
    with pytest.raises(BadRow, match=f"^{reason}$"):
        gsm8k_as_reasoning(item)


def test_a_row_keeps_its_three_texts_alone():
    row = {"question": "Q", "reasoning": "R", "answer": "3"}
    assert question_reasoning_answer(row | {"source": "x"}) == row
    for broken in ({"question": "Q", "reasoning": "R"}, row | {"answer": 3}, row | {"reasoning": " "}):
        with pytest.raises(BadRow):
            question_reasoning_answer(broken)


def prepare(monkeypatch, *arguments) -> dict:
    monkeypatch.setattr("sys.argv", ["prepare_reasoning.py", *map(str, arguments)])
    prepare_reasoning.main()
    return read_json(Path(arguments[arguments.index("--out-dir") + 1]) / "stats.json")


@pytest.fixture
def gsm8k(tmp_path) -> Path:
    folder = tmp_path / "gsm8k"
    train = [
        {"question": f"How many are {a} and {a}?", "answer": f"{a}+{a}=<<{a}+{a}={2 * a}>>{2 * a}\n#### {2 * a}"}
        for a in range(200)
    ]
    write_jsonl(folder / "train.jsonl", [*train, train[0], {"question": "Q", "answer": "none"}])
    write_jsonl(folder / "test.jsonl", [{"question": "How many are\n7 and 7?", "answer": "#### 14"}])
    return folder


def test_prepare_reasoning_writes_every_usable_item_once(gsm8k, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    statistics = prepare(monkeypatch, "--data-path", gsm8k, "--out-dir", out, "--num-problems", 50)
    train, val = (read_jsonl(out / f"{name}.jsonl") for name in ("train", "val"))
    assert statistics["rows"] == {"train": len(train), "val": len(val)} == {"train": 237, "val": 12}
    assert statistics["from"] == {"gsm8k": 199, "problems": 50}
    assert statistics["dropped"] == {"no_final_answer": 1, "test_question": 1, "repeated_question": 1}
    assert "train.jsonl, line 202: no_final_answer" in capsys.readouterr().out
    questions = [row["question"] for row in train + val]
    assert len(set(questions)) == 249 and "How many are 7 and 7?" not in questions
    assert {"question": "How many are 8 and 8?", "reasoning": "8+8=16", "answer": "16"} in train + val
    assert not any("<<" in row["reasoning"] for row in train + val)


def test_prepare_reasoning_is_deterministic_and_keeps_notes_when_asked(gsm8k, tmp_path, monkeypatch):
    for name, extra in (("a", []), ("b", []), ("c", ["--seed", "1"]), ("d", ["--keep-notes"])):
        prepare(monkeypatch, "--data-path", gsm8k, *extra, "--out-dir", tmp_path / name)
    a, b, c, d = ((tmp_path / name / "train.jsonl").read_text() for name in "abcd")
    assert a == b != c
    assert (
        "<<" in d
        and prepare_reasoning.without_notes(read_jsonl(tmp_path / "d/train.jsonl")[0])
        == read_jsonl(tmp_path / "a/train.jsonl")[0]
    )


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--val-fraction", "1"], "--val-fraction 1.0"),
        (["--num-problems", "-1"], "--num-problems -1"),
        (["--data-path", "no/such/folder"], "no/such/folder does not exist"),
    ],
)
def test_a_mistake_is_one_line(gsm8k, tmp_path, monkeypatch, capsys, extra, message):
    arguments = ["--data-path", str(gsm8k), "--out-dir", str(tmp_path / "out"), *extra]
    monkeypatch.setattr("sys.argv", ["prepare_reasoning.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_script(prepare_reasoning.main)
    [line] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("error: ") and message in line


def test_a_file_of_another_kind_stops_the_run(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "train.jsonl", [ITEM] * 50 + [{"question": "Q", "answer": "none"}])
    with pytest.raises(UserError, match="1 of 51 rows cannot be used"):
        prepare(monkeypatch, "--data-path", tmp_path, "--out-dir", tmp_path / "out")
    statistics = prepare(monkeypatch, "--data-path", tmp_path, "--allow-bad-rows", "--out-dir", tmp_path / "out")
    assert statistics["dropped"] == {"no_final_answer": 1, "repeated_question": 49}
