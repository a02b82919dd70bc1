"""Products of larger numbers, taken apart by places down to products of two digits, and put together again.

    12 × 34 = (10 + 2) × 34 = 10 × 34 + 2 × 34 = 10 × (30 + 4) + 2 × (30 + 4)
            = (10 × 30 + 10 × 4) + (2 × 30 + 2 × 4)
            = ((1 × 3) × 100 + (1 × 4) × 10) + ((2 × 3) × 10 + 2 × 4)
            = (3 × 100 + 4 × 10) + (6 × 10 + 8) = (300 + 40) + (60 + 8) = 340 + 68 = 408

All on one line. Every expression equals the one before it, and every product of two digits, the part of the work
that a mul token can do, stands where injection rewrites it. What the arithmetic probes ask (data/probes.py) is in
no decomposition, neither as its question nor as one of its steps.
"""

import random
import re
from collections.abc import Callable, Sequence
from itertools import chain, islice, product, zip_longest

from common.errors import UserError
from data.world.arithmetic import PROBED, QUESTIONS
from data.world.draws import shuffled_cycle

COUNT = 640
# Factors of two digits and one, of two and two, of three and one: a third of the decompositions each.
SHAPES = ((range(11, 100), range(2, 10)), (range(11, 100), range(11, 100)), (range(101, 1000), range(2, 10)))

# The terms of a sum are numbers as they stand: in "10 × 4 + 2 × 30" nothing adds 4 and 2.
_PRODUCT, _SUM = re.compile(r"(\d+) × (?=(\d+))"), re.compile(r"(?<!× )\b(\d+) \+ (?=(\d+)\b(?! ×))")


def decompositions(count: int, rng: random.Random) -> list[dict[str, str]]:
    """`count` GSM8K items {"question", "answer"} that take different products apart, in random order.

    Raises UserError when there are not that many.
    """
    factors = (rng.sample(list(product(*shape)), len(shape[0]) * len(shape[1])) for shape in SHAPES)
    pairs = filter(None, chain.from_iterable(zip_longest(*factors)))
    allowed = list(islice((pair for pair in pairs if not shows_probe(" = ".join(steps(*pair)))), count))
    if len(allowed) < count:
        raise UserError(f"{count} decompositions are asked for, but there are only {len(allowed)}; ask for fewer")
    asked = shuffled_cycle(QUESTIONS["*"], rng)
    return [decomposition(a, b, next(asked)) for a, b in allowed]


def decomposition(a: int, b: int, question: str) -> dict[str, str]:
    """The decomposition of a × b as a GSM8K item; `question` is one of QUESTIONS["*"]."""
    return {"question": question.format(a=a, b=b), "answer": f"{' = '.join(steps(a, b))}\n#### {a * b}"}


def steps(a: int, b: int) -> list[str]:
    """Equal expressions from "a × b" to its value, as at the top of this module. Neither factor is zero."""
    rows, columns = places(a), places(b)
    expressions = [
        f"{a} × {b}",
        f"{_grouped(rows)} × {b}",
        " + ".join(f"{x} × {b}" for x in rows),
        " + ".join(f"{x} × {_grouped(columns)}" for x in rows),
        *(_sum_of_rows(rows, columns, term) for term in (_product, _by_digits, _by_product_of_digits, _value)),
        " + ".join(str(x * b) for x in rows),
        str(a * b),
    ]
    return list(dict.fromkeys(expressions))  # a factor with one place makes some of them equal


def places(number: int) -> list[int]:
    """What the digits of a number stand for, zeros left out: 305 is 300 + 5."""
    digits = str(number)
    return [
        int(digit) * 10**power for power, digit in zip(range(len(digits))[::-1], digits, strict=True) if digit != "0"
    ]


def shows_probe(text: str) -> bool:
    """Whether a step of `text` is a calculation that the arithmetic probes ask for, beyond the table."""
    found = [("*", *match.groups()) for match in _PRODUCT.finditer(text)]
    found += [("+", *match.groups()) for match in _SUM.finditer(text)]
    return any((sign, int(a), int(b)) in PROBED for sign, a, b in found)


def _grouped(terms: Sequence[int | str]) -> str:
    """The sum of `terms` as one factor: in parentheses, unless it is a single number."""
    return f"({' + '.join(map(str, terms))})" if len(terms) > 1 else str(terms[0])


def _sum_of_rows(rows: list[int], columns: list[int], term: Callable[[int, int], str]) -> str:
    """term(x, y) summed over columns, then over rows; a row is a group of its own where there are several."""
    sums = [[term(x, y) for y in columns] for x in rows]
    return " + ".join(map(_grouped, sums)) if len(rows) > 1 else " + ".join(sums[0])


def _product(x: int, y: int) -> str:
    return f"{x} × {y}"


def _by_digits(x: int, y: int) -> str:
    first, second = int(str(x)[0]), int(str(y)[0])
    scale = x * y // (first * second)
    return f"{first} × {second}" if scale == 1 else f"({first} × {second}) × {scale}"


def _by_product_of_digits(x: int, y: int) -> str:
    digits = int(str(x)[0]) * int(str(y)[0])
    return str(digits) if x * y == digits else f"{digits} × {x * y // digits}"


def _value(x: int, y: int) -> str:
    return str(x * y)
