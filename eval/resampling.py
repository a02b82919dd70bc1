"""How sure a mean is that is no count: over samples of the same problems, over pairs, over training seeds.

Samples of one problem resemble each other, so problems, not samples, are drawn anew. The intervals are BCa's (Efron,
JASA 82, 1987). A plain bootstrap returns a single point where all problems agree, as at 0% and 100%; one imagined item
at each bound of what a value can be is therefore drawn with the data, in the spirit of Agresti and Coull (American
Statistician 52, 1998). For right and wrong answers the 95% interval then covers the truth in 90 to 99% of the cases
from 50 items on, by enumeration (tests/test_resampling.py); with 20 items and rare answers in 88%.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads scipy.stats, which takes a second, when it is first used

from eval.stats import wilson_interval

DRAWS = 10_000
BATCH_VALUES = 4_000_000  # drawn at a time: 32 MB


@dataclass(frozen=True)
class Mean:
    """A mean with its interval. `n` counts what was drawn anew: problems, not their samples."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class MeanDifference:
    """Mean of b minus mean of a over the same n items, with its interval and p-value."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int


@dataclass(frozen=True)
class SeedDifference:
    """Mean of b minus mean of a over pairs of runs that share a seed.

    standard_error, low, high, p_value: over seeds, by the t distribution with `degrees_of_freedom`; None with a single
    pair, and where neither seeds nor items vary: nothing then says how sure the difference is.
    items_low, items_high: over the test items, for the seeds at hand.
    """

    difference: float
    per_seed: list[float]
    standard_error: float | None
    low: float | None
    high: float | None
    p_value: float | None
    degrees_of_freedom: int
    items_low: float
    items_high: float


def bootstrap_mean(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    confidence: float = 0.95,
    seed: int = 0,
) -> Mean:
    """The mean over clusters of the mean within a cluster, and its interval from drawing clusters anew.

    clusters: which problem each value belongs to (default: each to its own). bounds: the least and the largest value
    there can be, or None for values without bounds, whose interval is a single point where they all agree. No value:
    the bounds themselves, nothing is known.
    """
    means = cluster_means(values, clusters)
    if len(means) == 0:
        low, high = bounds or (-np.inf, np.inf)
        return Mean(float("nan"), low, high, 0)
    low, high = _interval(means, bounds, confidence, seed)
    return Mean(float(means.mean()), low, high, len(means))


def share_interval(right: Sequence[bool], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """95% interval of a share: Wilson's where every value is a cluster of its own, else the bootstrap's over clusters.

    No value: (0, 1), nothing is known.
    """
    if len(set(clusters)) == len(right):
        return wilson_interval(sum(right), len(right))
    found = bootstrap_mean(right, clusters)
    return found.low, found.high


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    bounds: tuple[float, float] | None = (0.0, 1.0),
    confidence: float = 0.95,
    seed: int = 0,
) -> MeanDifference:
    """Mean of b minus mean of a, item i of one being item i of the other (a problem's pass rate, a response's length).

    The interval draws items anew. The p-value is that of the permutation test which exchanges a and b within items
    (Fisher 1935), by 10,000 random exchanges or, with few items, all there are. For right and wrong answers, once each,
    eval/stats.py has exact methods.
    """
    if len(a) != len(b):
        raise ValueError(f"paired items needed: {len(a)} of a, {len(b)} of b")
    differences = np.round(np.asarray(b, dtype=float) - np.asarray(a, dtype=float), 12)
    n = len(differences)
    reach = None if bounds is None else bounds[1] - bounds[0]
    low, high = _interval(differences, None if reach is None else (-reach, reach), confidence, seed)
    p_value = 1.0
    if np.count_nonzero(differences) > 1:  # one alone is as far from 0 either way round
        changed = differences[differences != 0]  # the others are 0 whichever way they are exchanged
        found = scipy.stats.permutation_test(
            (changed,),
            # Rounded: sums that are equal on paper must not differ by the order of their additions.
            lambda x, axis: np.round(np.abs(x.sum(axis=axis)), 9),
            alternative="greater",
            permutation_type="samples",
            vectorized=True,
            n_resamples=DRAWS,
            batch=max(1, BATCH_VALUES // len(changed)),
            rng=np.random.default_rng(seed),
        )
        p_value = float(found.pvalue)
    return MeanDifference(float(differences.mean()), low, high, p_value, n)


def aggregate_seeds(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    bounds: tuple[float, float] | None = (0.0, 1.0),
    confidence: float = 0.95,
    seed: int = 0,
) -> SeedDifference:
    """The difference between two conditions trained with several seeds and asked the same items.

    a, b: (S, N), the value of item i in the run with seed s; row s of both is the same seed. What a claim about a way
    of training rests on is the number of trainings, so the test is Student's paired t over the S differences, with
    S - 1 degrees of freedom: few seeds give a wide interval, as they should. A bootstrap over three seeds would be too
    narrow: it draws from values whose spread is too small by a factor of sqrt((S - 1) / S), and it has no t's tails.
    The spread between seeds includes the noise of each run's own errors; that the items are a sample too, the same one
    for every seed, is what the second interval says: items drawn anew, their differences averaged over the seeds.

    Two or three differences, each a count out of N, may be equal by chance; their spread, 0, would prove any
    difference. So the standard error is no smaller than that of the seeds' mean over items drawn anew (standard
    deviation over the N items of an item's mean difference, over sqrt(N)). The variance of the mean is the sum of what
    training seeds and what the sample of items contribute, so it is at least the latter; and where all noise is a run's
    own, both estimate the same error, one from S values, the other from N. The degrees of freedom stay S - 1, which
    errs on the wide side.
    """
    a_values, b_values = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a_values.shape != b_values.shape or a_values.ndim != 2:
        raise ValueError(f"paired runs over the same items needed: {a_values.shape} of a, {b_values.shape} of b")
    differences = b_values - a_values
    per_seed = differences.mean(axis=1)
    difference, freedom = float(per_seed.mean()), len(per_seed) - 1
    of_items = differences.mean(axis=0)
    error = low = high = p_value = None
    if freedom and (larger := max(map(_standard_error, (per_seed, of_items)))) > 0:
        error = larger
        reach = float(scipy.stats.t.ppf((1 + confidence) / 2, freedom)) * error
        low, high = difference - reach, difference + reach
        p_value = float(2 * scipy.stats.t.sf(abs(difference) / error, freedom))
    span = None if bounds is None else bounds[1] - bounds[0]
    reach_of_items = None if span is None else (-span, span)
    items_low, items_high = _interval(of_items, reach_of_items, confidence, seed)
    return SeedDifference(difference, per_seed.tolist(), error, low, high, p_value, freedom, items_low, items_high)


def cluster_means(values: Sequence[float], clusters: Sequence[Hashable] | None) -> np.ndarray:
    """The mean of each cluster's values, in the order in which the clusters first occur."""
    array = np.asarray(values, dtype=float)
    if clusters is None:
        return array
    if len(clusters) != len(array):
        raise ValueError(f"one cluster per value needed: {len(clusters)} clusters, {len(array)} values")
    number = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    owners = np.array([number[cluster] for cluster in clusters], dtype=int)
    return np.bincount(owners, weights=array) / np.bincount(owners)


def _standard_error(values: np.ndarray) -> float:
    """Of the mean; 0 where all values agree but for rounding, or there is one."""
    return 0.0 if np.ptp(values) < 1e-12 else float(values.std(ddof=1) / np.sqrt(len(values)))


def _interval(
    items: np.ndarray, bounds: tuple[float, float] | None, confidence: float, seed: int
) -> tuple[float, float]:
    """BCa interval of the mean of `items`, drawn anew together with one at each bound."""
    if bounds is not None:
        items = np.concatenate([items, bounds])
    if len(items) < 2 or np.ptp(items) == 0:
        value = float(items.mean()) if len(items) else float("nan")
        return value, value
    interval = scipy.stats.bootstrap(
        (items,),
        np.mean,
        n_resamples=DRAWS,
        batch=max(1, BATCH_VALUES // len(items)),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
