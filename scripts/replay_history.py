"""What the published numbers of the two earlier systems did and did not show: their counts through our statistics.

    uv run python scripts/replay_history.py
    uv run python scripts/replay_history.py --output outputs/history.json

Only counts were published, not which items each model got right. So the test is the unpaired one (Newcombe's interval,
Fisher's exact p), which takes the two for models asked different items. The last columns bound what the pairs could
have said: exact McNemar if every item that the worse model got right, the better one did too (the smallest p there can
be), and if the two were right independently of each other.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.config import parse_config
from common.errors import run_script
from common.files import write_json
from eval.power import detectable_accuracy_difference
from eval.stats import holm, mcnemar_exact, unpaired_difference, wilson_interval


@dataclass
class HistoryConfig:
    """Put the published counts of the earlier systems through the statistics of this one."""

    output: Path | None = None  # where to write the numbers as JSON


@dataclass(frozen=True)
class Published:
    """Two counts out of as many items. `a` is baseline or before, `b` mul_tokens or after."""

    name: str
    a: int
    b: int
    n: int


# As counts where they were published; else rounded from the published share.
PUBLISHED = (
    Published("GSM8K after SFT, baseline and mul_tokens", 33, 27, 1319),
    Published("GSM8K after the curriculum", 12, 19, 500),
    Published("GSM8K after GRPO, binary reward", 11, 6, 500),
    Published("GSM8K after GRPO, shaped reward", 7, 11, 300),
    Published("GSM8K after GRPO with 20 times the compute", 11, 20, 500),
    Published("HellaSwag after 10B tokens", 3047, 3090, 10042),
    Published("probes after SFT: multiplication table", 55, 30, 81),
    Published("probes after SFT: two digits times one", 5, 12, 100),
    Published("probes after SFT: all", 62, 44, 281),
    Published("other system: GSM8K pass@1, SFT and GRPO", 3, 4, 200),
    Published("other system: GSM8K majority of 16, SFT and GRPO", 3, 6, 200),
)

HEADER = ("published", "a", "b", "b − a in points (95%)", "Fisher p", "Holm p", "80% power from")
HEADER += ("least paired p", "paired p if independent")


def main() -> None:
    config = parse_config(HistoryConfig)
    rows = [replayed(published) for published in PUBLISHED]
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    print("| " + " | ".join(HEADER) + " |")
    print("|---" * len(HEADER) + "|")
    for row in rows:
        print(table_row(row))
    if config.output is not None:
        write_json(config.output, rows)
        print(f"wrote {config.output}")


def replayed(published: Published) -> dict[str, Any]:
    """Everything that the two counts say."""
    a, b, n = published.a, published.b, published.n
    pair = unpaired_difference(a, n, b, n)
    independent = (round(a * (n - b) / n), round(b * (n - a) / n))  # right by one only, as expected
    return asdict(published) | {
        "intervals": [wilson_interval(a, n), wilson_interval(b, n)],
        "difference": pair.difference,
        "low": pair.low,
        "high": pair.high,
        "p": pair.p_value,
        "detectable_difference": detectable_accuracy_difference((a + b) / (2 * n), n, n),
        "least_paired_p": mcnemar_exact(max(a - b, 0), max(b - a, 0)),
        "independent_paired_p": mcnemar_exact(*independent),
    }


def table_row(row: dict[str, Any]) -> str:
    """A line of the Markdown table."""
    points = [f"{100 * row[key]:+.2f}" for key in ("difference", "low", "high")]
    p_values = [f"{row[key]:.2g}" for key in ("p", "p_holm")]
    bounds = [f"{row[key]:.2g}" for key in ("least_paired_p", "independent_paired_p")]
    cells = [row["name"], f"{row['a']} of {row['n']}", f"{row['b']} of {row['n']}"]
    cells += [f"{points[0]} [{points[1]}, {points[2]}]", *p_values, f"{100 * row['detectable_difference']:.1f} points"]
    return "| " + " | ".join([*cells, *bounds]).replace("-", "−") + " |"


if __name__ == "__main__":
    run_script(main)
