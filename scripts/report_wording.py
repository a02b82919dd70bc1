"""How the reports name things and write numbers."""

import json
from typing import Any

from scripts.stage_runs import benchmark_kind, model_stage

TITLES = {
    "gsm8k": "GSM8K-format accuracy",
    "probes": "Arithmetic-probe accuracy",
    "word_problems": "One-step word-problem accuracy, new names and objects",
    "sanity": "Simple-arithmetic accuracy",
    "hellaswag": "HellaSwag accuracy (acc_norm_token)",
    "domains": "Non-math prompts answered without a calculation",
}
LABELS = {"gsm8k": "GSM8K-\nformat", "probes": "Arithmetic-\nprobe", "word_problems": "One-step\nproblems"}
LABELS |= {"sanity": "Simple\narithmetic", "hellaswag": "HellaSwag", "domains": "Non-math\nprompts"}
CATEGORIES = {
    "mul_table": "times table",
    "mul_multidigit": "two digits × one",
    "addition": "addition",
    "one_product": "one product",
    "one_sum": "one sum",
}


def title_of(name: str) -> str:
    """The heading of a benchmark; "gsm8k of grpo" says whose model it is about."""
    stage = model_stage(name)
    return TITLES[benchmark_kind(name)] + (f" after {stage}" if stage else "")


def label_of(name: str) -> str:
    """The same, short enough to stand below a bar."""
    stage = model_stage(name)
    return LABELS[benchmark_kind(name)] + (f"\n{stage}" if stage else "")


def short_title(name: str, result: dict[str, Any]) -> str:
    """A benchmark of a study's numbers for a table's row: "Arithmetic-probe (sft_gsm8k)"."""
    label = LABELS[benchmark_kind(name)].replace("-\n", "-").replace("\n", " ")
    return f"{label} ({result['model']})" if result["model"] else label


def category_of(category: str) -> str:
    """A benchmark's category in words."""
    return CATEGORIES.get(category, category)


def accuracy_text(side: dict[str, Any] | None) -> str:
    """An accuracy in percent with its interval; n/a where there is none."""
    return f"{percent_text(side['accuracy'])} [{interval_text(side)}]" if side else "n/a"


def interval_text(side: dict[str, Any]) -> str:
    """The two limits in percent."""
    # No-break spaces: on a phone a cell may break between a number and its interval, not within one.
    return f"{100 * side['low']:.1f}\u00a0to\u00a0{100 * side['high']:.1f}"


def percent_text(share: float) -> str:
    """0.5 as 50.0%."""
    return f"{100 * share:.1f}%"


def change_text(before: float | None, after: float | None) -> str:
    """Two shares in percent, before and after."""
    return " → ".join("unknown" if value is None else percent_text(value) for value in (before, after))


def points_text(share: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * share:+.1f}".replace("-", "−")


def range_text(low: float, high: float) -> str:
    """The two limits of a difference, in points."""
    return f"{points_text(low)} to {points_text(high)}"


def p_text(p: float) -> str:
    """A p-value with three decimals."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def p_cell(p: float) -> str:
    """The same for a table's cell, without the p."""
    return p_text(p).removeprefix("p ").removeprefix("= ")


def seconds_text(seconds: float | None) -> str:
    """Seconds up to two minutes, then minutes."""
    if seconds is None:
        return "n/a"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def is_number(value: Any) -> bool:
    """True for a number that is no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_text(value: Any) -> str:
    """A measured value with as many digits as mean something."""
    if not is_number(value):
        return "n/a"
    if isinstance(value, int):
        return f"{value:,}"
    # Learning rates need their leading digits, speeds do not need decimals.
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def cell_text(value: Any) -> str:
    """A config's value in a table's cell."""
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    # A hash is recognised by its first digits.
    return f"{text[:16]}…" if len(text) == 64 and " " not in text else text
