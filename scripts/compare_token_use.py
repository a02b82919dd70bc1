"""Do the responses of one model use fact tokens where they belong more often than those of another?

    uv run python scripts/compare_token_use.py --a outputs/eval_without --b outputs/eval_with --format reasoning

Each folder is of eval/run_gsm8k.py on the same problems. Counts, per response, the facts that are used and the stray
mentions as GRPO's bonus counts them, of whatever family (rl/token_use.py), and right answers; differences are b minus
a, their intervals and permutation tests over problems, several samples of one taken together.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import read_jsonl
from eval.answer_formats import FORMATS, FormatName
from eval.answers import first_turn
from eval.resampling import cluster_means, paired_bootstrap
from rl.equations import facts_in, read_sentences
from rl.token_use import token_use

RESPONSES = "gsm8k_responses.jsonl"


@dataclass
class TokenUseConfig:
    """Compare how two models use fact tokens in their responses to the same problems."""

    a: Path  # folder with gsm8k_responses.jsonl
    b: Path  # the other one's
    format: FormatName = "chat"  # of the responses


def main() -> None:
    config = parse_config(TokenUseConfig)
    sides = [read_responses(folder) for folder in (config.a, config.b)]
    asked = [[(row["index"], row.get("sample", 0), row["question"]) for row in rows] for rows in sides]
    if asked[0] != asked[1]:
        raise UserError(f"{config.a} and {config.b} hold responses to other problems; evaluate both alike")
    problems = [row["index"] for row in sides[0]]
    counts = [[count(row, config.format) for row in rows] for rows in sides]
    print(f"{len(problems)} responses to {len(set(problems))} problems")
    for name in ("used", "stray", "right"):
        a, b = (cluster_means([row[name] for row in rows], problems) for rows in counts)
        found = paired_bootstrap(a, b, bounds=None)
        interval = f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p = {found.p_value:.2g}"
        print(f"{name:<6} {a.mean():.3f} -> {b.mean():.3f}   {interval}")


def read_responses(folder: Path) -> list[dict[str, Any]]:
    """The responses in order. Raises UserError for a folder that has none."""
    if not (folder / RESPONSES).is_file():
        raise UserError(f"{folder} has no {RESPONSES}; eval/run_gsm8k.py writes it")
    return sorted(read_jsonl(folder / RESPONSES), key=lambda row: (row["index"], row.get("sample", 0)))


def count(row: dict[str, Any], format: FormatName) -> dict[str, float]:
    """Of one response: used facts, stray mentions, and whether it is right."""
    solution = first_turn(row["response"])
    answer = FORMATS[format].strict(solution)
    generated = Counter(facts_in(row["response"]))
    use = token_use(row["question"], read_sentences(solution), generated, None if answer is None else float(answer))
    return {"used": len(use.used), "stray": use.stray, "right": row["correct"]}


if __name__ == "__main__":
    run_script(main)
