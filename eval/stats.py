"""How sure a result is: intervals for one accuracy, tests and intervals for two accuracies on the same items.

Two models that answer the same questions are compared on the pairs: only the items on which exactly one of them is
right carry information about which is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest, norm


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of b minus accuracy of a on the same n items, with its interval and exact McNemar p-value."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    only_a: int  # items that a answers and b does not
    only_b: int


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927). No items: (0, 1), nothing is known."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p-value that `b` and `c` discordant pairs come from equally good models (McNemar 1947).

    Under that hypothesis b is binomial(b + c, 1/2). No discordant pair: 1.
    """
    return float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


def paired_difference(
    a_correct: Sequence[bool], b_correct: Sequence[bool], confidence: float = 0.95
) -> PairedDifference:
    """Accuracy of b minus accuracy of a, item i of one being item i of the other.

    The interval is Newcombe's square-and-add interval for paired proportions (Statistics in Medicine 17, 1998,
    method 10): Wilson intervals of the two accuracies, joined with their correlation. It stays honest at 0 % and
    100 %, where a bootstrap returns a single point. It is a score interval and the p-value is exact, so for few items
    one of them may exclude "no difference" where the other does not.
    """
    if len(a_correct) != len(b_correct):
        raise ValueError(f"paired items needed: {len(a_correct)} of a, {len(b_correct)} of b")
    n = len(a_correct)
    if n == 0:
        return PairedDifference(0.0, -1.0, 1.0, 1.0, 0, 0, 0)
    both = sum(bool(x and y) for x, y in zip(a_correct, b_correct, strict=True))
    right_a, right_b = sum(map(bool, a_correct)), sum(map(bool, b_correct))
    only_a, only_b = right_a - both, right_b - both
    accuracy_a, accuracy_b = right_a / n, right_b / n
    low_a, high_a = wilson_interval(right_a, n, confidence)
    low_b, high_b = wilson_interval(right_b, n, confidence)
    phi = _correlation(both, only_a, only_b, n - both - only_a - only_b)
    difference = accuracy_b - accuracy_a
    below = _joined(accuracy_b - low_b, high_a - accuracy_a, phi)
    above = _joined(high_b - accuracy_b, accuracy_a - low_a, phi)
    p_value = mcnemar_exact(only_a, only_b)
    return PairedDifference(difference, difference - below, difference + above, p_value, n, only_a, only_b)


def minimum_detectable_difference(
    n: int, discordant_share: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The smallest true difference in accuracy that McNemar's test on `n` items finds with this power.

    `discordant_share` is the share of items on which the two models disagree: the more they differ item by item, the
    larger a difference must be to stand out. Solves Connor's sample-size formula (Biometrics 43, 1987) for the
    difference. None when even the largest difference possible, the discordant share itself, would go unnoticed.
    """
    z_alpha, z_power = norm.ppf(1 - alpha / 2), norm.ppf(power)
    root = n - z_alpha**2 + z_power**2
    if root < 0:
        return None
    found = math.sqrt(discordant_share) * (z_alpha * math.sqrt(n) + z_power * math.sqrt(root)) / (n + z_power**2)
    return float(found) if found <= discordant_share else None


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Phi of the 2 x 2 table, with Newcombe's continuity correction when it is positive."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    product = both * neither - only_a * only_b
    if product > 0:
        product = max(product - (both + only_a + only_b + neither) / 2, 0)
    return product / math.sqrt(margins)


def _joined(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(x**2 - 2 * phi * x * y + y**2, 0.0))
