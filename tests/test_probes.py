"""The arithmetic probes, and that the generated world shows none of them beyond the table."""

import random
import re

from data.probes import CATEGORIES, arithmetic_probes
from data.world.arithmetic import arithmetic_documents, drills
from data.world.problems import problems


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
