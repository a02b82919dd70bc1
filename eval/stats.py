"""How sure a result is: intervals for one accuracy, tests and intervals for two, Holm's correction for many.

Two models that answer the same questions are compared on the pairs: only the items on which exactly one of them is
right carry information about which is better. Where only counts are known, as from a paper, the two are taken as
independent. eval/resampling.py has means that are no counts, and several seeds; eval/power.py what could be found.

The module is not called statistics: the folder of a script that is run is searched before the standard library, whose
`statistics` torch.compile imports.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy  # loads scipy.stats, which takes a second, when it is first used


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
    interval = scipy.stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p-value that `b` and `c` discordant pairs come from equally good models (McNemar 1947).

    Under that hypothesis b is binomial(b + c, 1/2). No discordant pair: 1.
    """
    return float(scipy.stats.binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


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


@dataclass(frozen=True)
class UnpairedDifference:
    """Accuracy of b minus accuracy of a on independent items, with its interval and p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def unpaired_difference(
    a_correct: int, a_total: int, b_correct: int, b_total: int, confidence: float = 0.95
) -> UnpairedDifference:
    """Two accuracies of which only the counts are known.

    Newcombe's interval for independent proportions (Statistics in Medicine 17, 1998, 873-890, method 10) and Fisher's
    exact test, which is conservative. Of two models on the same items the pairs would say more.
    """
    low_a, high_a = wilson_interval(a_correct, a_total, confidence)
    low_b, high_b = wilson_interval(b_correct, b_total, confidence)
    accuracy_a, accuracy_b = a_correct / a_total, b_correct / b_total
    difference = accuracy_b - accuracy_a
    below = _joined(accuracy_b - low_b, high_a - accuracy_a, phi=0.0)
    above = _joined(high_b - accuracy_b, accuracy_a - low_a, phi=0.0)
    table = [[a_correct, a_total - a_correct], [b_correct, b_total - b_correct]]
    return UnpairedDifference(
        difference, difference - below, difference + above, float(scipy.stats.fisher_exact(table).pvalue)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the same order (Holm 1979).

    Calling those below alpha significant makes any false call with probability alpha at most, however they depend on
    each other.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


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
