"""Means over samples, pairs and seeds: coverage by enumeration and by simulation, and the arithmetic by hand."""

import math

import numpy as np
import pytest
from scipy.stats import binom, t

from eval import resampling
from eval.resampling import aggregate_seeds, bootstrap_mean, cluster_means, paired_bootstrap


@pytest.fixture
def fewer_draws(monkeypatch):
    monkeypatch.setattr(resampling, "DRAWS", 1000)


@pytest.mark.parametrize("n", [50, 100])
def test_the_interval_covers_the_truth_of_right_and_wrong_answers(n):
    """Exact coverage: every possible number of right answers, weighted by its probability."""
    intervals = [bootstrap_mean([1.0] * right + [0.0] * (n - right)) for right in range(n + 1)]
    assert all(found.low <= found.mean <= found.high for found in intervals)
    for truth in (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 0.97):
        covered = sum(
            binom.pmf(right, n, truth) for right, found in enumerate(intervals) if found.low <= truth <= found.high
        )
        assert 0.90 < covered < 0.995, (n, truth)


def test_problems_not_samples_are_what_is_drawn(fewer_draws):
    """40 problems of 8 samples that are nearly all alike: taking samples for problems covers far too seldom."""
    rng = np.random.default_rng(0)
    clusters = [problem for problem in range(40) for _ in range(8)]
    covered = {"clustered": 0, "as if independent": 0}
    for _ in range(150):
        values = (rng.random((40, 8)) < rng.beta(0.15, 0.35, size=(40, 1))).astype(float).ravel().tolist()
        for name, owner in (("clustered", clusters), ("as if independent", None)):
            found = bootstrap_mean(values, owner)
            covered[name] += found.low <= 0.3 <= found.high
    assert covered["clustered"] / 150 > 0.9 and covered["as if independent"] / 150 < 0.75


def test_an_interval_has_a_width_at_0_and_100_percent():
    assert bootstrap_mean([0.0] * 100).high > 0.02 and bootstrap_mean([0.0] * 100).low == 0
    assert bootstrap_mean([1.0] * 100).low < 0.98 and bootstrap_mean([1.0] * 100).high == 1
    assert bootstrap_mean([0.5]).high - bootstrap_mean([0.5]).low > 0.5
    nothing = bootstrap_mean([])
    assert (nothing.low, nothing.high, nothing.n) == (0.0, 1.0, 0) and math.isnan(nothing.mean)


def test_a_mean_without_bounds_is_near_the_t_interval(fewer_draws):
    values = np.random.default_rng(1).normal(50, 10, size=200)
    found = bootstrap_mean(values, bounds=None)
    reach = t.ppf(0.975, 199) * values.std(ddof=1) / math.sqrt(200)
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.2)


def test_a_mean_weighs_problems_alike_whatever_the_number_of_their_samples():
    assert cluster_means([1, 0, 0, 0, 1], ["a", "b", "b", "b", "c"]).tolist() == [1, 0, 1]
    assert bootstrap_mean([1, 0, 0, 0, 1], ["a", "b", "b", "b", "c"]).mean == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="one cluster per value"):
        cluster_means([1, 0], ["a"])


def test_paired_bootstrap_equals_enumerated_exchanges():
    a, b = [0.1, 0.4, 0.2, 0.9, 0.5], [0.3, 0.4, 0.7, 0.8, 0.9]
    differences = np.subtract(b, a)
    signs = [[1 if code >> i & 1 else -1 for i in range(5)] for code in range(32)]
    sums = np.array(signs) @ differences
    expected = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-12)
    found = paired_bootstrap(a, b)
    assert found.p_value == pytest.approx(expected) and found.difference == pytest.approx(0.2)
    thirds = paired_bootstrap([1 / 3, 2 / 3, 1, 1 / 3], [2 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert thirds.p_value == 1 and thirds.difference == pytest.approx(0, abs=1e-15)
    other_way = paired_bootstrap(b, a)
    assert other_way.difference == pytest.approx(-0.2) and other_way.p_value == found.p_value


def test_paired_bootstrap_covers_the_truth(fewer_draws):
    rng = np.random.default_rng(2)
    covered = significant = 0
    for _ in range(200):
        # 60 problems; b is right where a is, but for 30% of them, where either of the two is right.
        kinds = rng.choice(4, size=60, p=[0.3, 0.4, 0.2, 0.1])
        a, b = np.isin(kinds, [0, 3]).astype(float), np.isin(kinds, [0, 2]).astype(float)
        found = paired_bootstrap(a, b)
        covered += found.low <= 0.1 <= found.high
        significant += found.p_value < 0.05
    assert 0.9 < covered / 200 < 0.99
    assert 0.1 < significant / 200 < 0.5


def test_paired_bootstrap_of_equal_models():
    found = paired_bootstrap([0.0] * 50, [0.0] * 50)
    assert found.p_value == 1 and found.low < -0.005 and found.high > 0.005
    with pytest.raises(ValueError, match="paired"):
        paired_bootstrap([1.0], [1.0, 0.0])


def test_seeds_are_the_unit_of_a_claim_about_training(fewer_draws):
    per_seed = [0.1, 0.6, 0.3]  # far more apart than the sampling of 100 items explains
    a = [[0.0] * 100 for _ in per_seed]
    b = [[1.0] * round(100 * d) + [0.0] * (100 - round(100 * d)) for d in per_seed]
    found = aggregate_seeds(a, b)
    assert found.per_seed == pytest.approx(per_seed) and found.degrees_of_freedom == 2
    mean, deviation = np.mean(per_seed), np.std(per_seed, ddof=1)
    reach = 4.302653 * deviation / math.sqrt(3)  # the 97.5% point of t with 2 degrees of freedom, from a table
    assert (found.difference, found.low, found.high) == pytest.approx((mean, mean - reach, mean + reach), abs=1e-6)
    statistic = mean / (deviation / math.sqrt(3))
    assert found.p_value == pytest.approx(2 * t.sf(statistic, 2))
    assert found.standard_error == pytest.approx(deviation / math.sqrt(3))
    assert found.items_low < mean < found.items_high


def test_equal_seeds_are_no_proof(fewer_draws):
    """Two seeds with one more of 50 items right each: the error of one item in 50 is what is known."""
    a, one_more = [[0.0] * 50] * 2, [[1.0] + [0.0] * 49] * 2
    found = aggregate_seeds(a, one_more)
    error = math.sqrt(0.02 * 0.98 / 49)
    assert found.per_seed == [0.02, 0.02] and found.standard_error == pytest.approx(error)
    assert found.p_value == pytest.approx(2 * t.sf(0.02 / error, 1)) and found.p_value > 0.4
    reach = 12.7062 * error  # the 97.5% point of t with 1 degree of freedom, from a table
    assert (found.low, found.high) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-5)
    # One item won and another lost in each seed: no difference, but not for sure.
    level = aggregate_seeds([[0.0, 1.0] + [0.0] * 48] * 3, [[1.0, 0.0] + [0.0] * 48] * 3)
    assert level.p_value == 1 and level.low < -0.05 and level.high > 0.05


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_where_nothing_varies_nothing_is_tested(fewer_draws, shift):
    found = aggregate_seeds([[0.0] * 50] * 3, [[shift] * 50] * 3)
    assert found.difference == shift and found.standard_error is None
    assert (found.low, found.high, found.p_value) == (None, None, None)
    assert found.items_high - found.items_low > 0.005
    thirds = aggregate_seeds([[0.1] * 3] * 3, [[0.3, 0.3, 0.3]] * 3)  # 0.2 on paper, each time
    assert thirds.p_value is None


def test_with_the_items_floor_a_false_claim_is_rare(fewer_draws):
    """No true difference, two seeds asked the same 40 items, drawn anew: equal seeds must not count as proof."""
    rng = np.random.default_rng(5)
    false = {"floor": 0, "spread of the seeds alone": 0}
    trials = 400
    for _ in range(trials):
        taste = rng.normal(0, 0.3, size=40)  # which of the two an item suits, whatever the seed
        better = rng.random((2, 40)) < np.clip(0.5 + taste, 0, 1)
        differences = np.where(better, 1.0, -1.0)
        found = aggregate_seeds(np.zeros((2, 40)), differences, bounds=None)
        false["floor"] += found.p_value is not None and found.p_value < 0.05
        spread = abs(differences.mean(axis=1)[0] - differences.mean(axis=1)[1]) / 2
        false["spread of the seeds alone"] += abs(differences.mean()) > 12.7062 * spread
    assert false["floor"] / trials < 0.05 < false["spread of the seeds alone"] / trials


def test_one_seed_says_nothing_about_other_seeds(fewer_draws):
    found = aggregate_seeds([[0, 1, 0, 1] * 10], [[1, 1, 0, 1] * 10])
    assert found.low is None and found.p_value is None and found.degrees_of_freedom == 0
    assert found.difference == 0.25 and found.items_low < 0.25 < found.items_high
    with pytest.raises(ValueError, match="paired runs"):
        aggregate_seeds([[0, 1]], [[0, 1], [1, 1]])


def test_the_t_interval_over_seeds_covers_where_a_bootstrap_over_them_would_not(fewer_draws):
    rng = np.random.default_rng(3)
    true, trials, covered = 0.02, 300, {"t": 0, "bootstrap": 0}
    for _ in range(trials):
        differences = rng.normal(true, 0.03, size=3)
        found = aggregate_seeds(np.zeros((3, 1)), differences[:, None], bounds=None)
        covered["t"] += found.low <= true <= found.high
        draws = rng.choice(differences, size=(500, 3)).mean(axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        covered["bootstrap"] += low <= true <= high
    assert 0.92 < covered["t"] / trials < 0.98 and covered["bootstrap"] / trials < 0.85


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(4).random(30).tolist()
    assert bootstrap_mean(values) == bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_one_item_that_differs_proves_nothing():
    found = paired_bootstrap([0.0] * 6, [0.0] * 5 + [1.0])
    assert found.difference == pytest.approx(1 / 6) and found.p_value == 1.0
