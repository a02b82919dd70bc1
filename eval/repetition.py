"""Does a response go round in circles?

Responses are compared in units that do not depend on the tokenizer, so that both conditions are measured alike: words,
numbers, signs, and a mul token as the product `6*9` that it was made from. A unit is repeated when it completes a run
of RUN units that stood in the response before, exactly. Ordinary arithmetic repeats less: "3+3=6, 6+3=9" shares no run
of that length, and GSM8K's own answers, in which every calculation stands twice ("6*9 = <<6*9=54>>54"), hardly any.
"""

import re

RUN = 10
REPETITIVE_SHARE = 0.2  # a response of which at least so much is repeated is called repetitive

_UNIT = re.compile(r"<MUL_([1-9])_([1-9])_[0-9]+>|[0-9]+(?:[.,][0-9]+)*|[^\W\d_]+|[^\w\s]")


def repeated_share(text: str) -> float:
    """Share of the units that are repeated; 0 for a text of fewer than RUN + 1. Takes time linear in the length."""
    units: list[str] = []
    for match in _UNIT.finditer(text):
        units += (match[1], "*", match[2]) if match[1] else (match[0],)
    seen: set[tuple[str, ...]] = set()
    repeated = 0
    for end in range(RUN, len(units) + 1):
        run = tuple(units[end - RUN : end])
        repeated += run in seen
        seen.add(run)
    return repeated / len(units) if units else 0.0
