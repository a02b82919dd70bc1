"""Synthetic rows in TinyGSM's schema {"question", "code"}.

The questions are the generated world's word problems (data/world/problems.py) and the functions are made from the same
numbers. Nothing of TinyGSM is in them, and results on them are results on synthetic data.
"""

import random

from data.world.problems import distinct_problems

_BODIES = {
    "product": "num_groups = {0}\nnum_in_each = {1}\ntotal = num_groups * num_in_each\nresult = total",
    "sum": "first_part = {0}\nsecond_part = {1}\nresult = first_part + second_part",
    "difference": "total = {0}\ntaken_away = {1}\nremaining = total - taken_away\nresult = remaining",
    "product_plus": "num_groups = {0}\nnum_in_each = {1}\nmore = {2}\nresult = num_groups * num_in_each + more",
    "product_minus": "num_groups = {0}\nnum_in_each = {1}\nless = {2}\nresult = num_groups * num_in_each - less",
}


def synthetic_rows(count: int, seed: int) -> list[dict[str, str]]:
    """`count` rows with different questions."""
    rows = []
    for problem in distinct_problems(count, random.Random(f"{seed}/tinygsm")):
        scheme, _, numbers, *_ = problem.key
        body = f'"""{problem.question}"""\n{_BODIES[scheme].format(*numbers)}\nreturn result'.replace("\n", "\n    ")
        rows.append({"question": problem.question, "code": f"def simple_math_problem() -> int:\n    {body}\n"})
    return rows
