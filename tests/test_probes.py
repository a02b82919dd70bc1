"""The arithmetic probes, and that the generated world shows none of them beyond the table; the two simpler sets."""

import json
import random
import re
from collections import Counter

import pytest

from data.probes import CATEGORIES, NAMES, OBJECTS, arithmetic_probes, sanity_probes, word_problem_probes
from data.world.arithmetic import arithmetic_documents, drills
from data.world.problems import problems
from tests.helpers import SHARED_DATA


def test_probes_are_81_100_100_and_right():
    probes = arithmetic_probes()
    assert [sum(p.category == c for p in probes) for c in CATEGORIES] == [81, 100, 100]
    assert {(p.a, p.b) for p in probes[:81]} == {(a, b) for a in range(1, 10) for b in range(1, 10)}
    assert all(10 <= p.a <= 99 and 2 <= p.b <= 9 for p in probes[81:181])
    assert all(1 <= p.a <= 100 and 1 <= p.b <= 100 for p in probes[181:])
    assert len({p.question for p in probes}) == 281
    for p in probes:
        word, value = ("plus", p.a + p.b) if p.category == "addition" else ("times", p.a * p.b)
        assert (p.question, p.answer) == (f"What is {p.a} {word} {p.b}?", value)


def test_probes_follow_their_seed():
    assert arithmetic_probes() == arithmetic_probes()
    assert arithmetic_probes(1)[81:] != arithmetic_probes(2)[81:]


def test_the_generated_world_shows_no_probe_beyond_the_table():
    rng = random.Random(0)
    items = [*drills(400, rng), *(problem.row() for problem in problems(5000, rng))]
    texts = [*arithmetic_documents(12_000, rng), *(f"{item['question']} {item['answer']}" for item in items)]
    patterns = {
        "*": r"(\d+)(?: ?[*×x] ?| times | multiplied by | by )(\d+)|product of (\d+) and (\d+)",
        "+": r"(\d+)(?: ?\+ ?| plus )(\d+)|(?:sum of|Add) (\d+) and (\d+)",
    }
    shown = set()
    for operation, pattern in patterns.items():
        for numbers in re.findall(pattern, "\n".join(texts)):
            a, b = (int(number) for number in numbers if number)
            shown |= {(operation, a, b), (operation, b, a)}
    assert all(("*", p.a, p.b) in shown for p in arithmetic_probes()[:81])
    assert sum(operation == "*" and max(a, b) > 9 for operation, a, b in shown) > 100
    for p in arithmetic_probes()[81:]:
        assert ("+" if p.category == "addition" else "*", p.a, p.b) not in shown, p


def test_the_sanity_set_is_50_different_questions_with_right_answers():
    probes = sanity_probes()
    assert len({p.question for p in probes}) == 50
    assert set(Counter(p.category for p in probes).values()) == {10} and len({p.category for p in probes}) == 5
    for p in probes:
        if p.category == "story":
            a, b = map(int, re.findall(r"[0-9]+", p.question))
            assert p.answer == a + b
        else:
            assert p.answer == eval(re.fullmatch(r"What is ([0-9 */+-]+)\?", p.question)[1])
    assert sanity_probes(1) == sanity_probes(1) != sanity_probes(2)


def test_word_problems_ask_every_pair_twice_for_the_product_and_twice_for_the_sum():
    probes = word_problem_probes()
    assert len({p.question for p in probes}) == 256
    for category, calculate in (("one_product", lambda a, b: a * b), ("one_sum", lambda a, b: a + b)):
        asked = [p for p in probes if p.category == category]
        pairs = Counter((p.a, p.b) for p in asked)
        assert set(pairs) == {(a, b) for a in range(2, 10) for b in range(2, 10)} and set(pairs.values()) == {2}
        for p in asked:
            numbers = sorted(map(int, re.findall(r"[0-9]+", p.question)))
            assert numbers == sorted((p.a, p.b)) and p.answer == calculate(p.a, p.b) and "{" not in p.question
    assert word_problem_probes(1) == word_problem_probes(1) != word_problem_probes(2)


def test_names_and_objects_of_the_word_problems_are_in_no_generated_text():
    rng = random.Random(0)
    text = " ".join(f"{p.question} {p.answer}" for p in problems(5000, rng)) + " ".join(arithmetic_documents(3000, rng))
    assert not _words(text) & {word.lower() for word in (*NAMES, *OBJECTS)}


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k").is_dir(), reason="real GSM8K is not on this machine")
def test_nor_in_gsm8ks_training_set():
    lines = (SHARED_DATA / "gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()
    text = " ".join(f"{row['question']} {row['answer']}" for row in map(json.loads, lines))
    assert not _words(text) & {word.lower() for word in (*NAMES, *OBJECTS)}


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))
