import math
from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind, ttest_rel

from eval.power import detectable_accuracy_difference, detectable_mean_difference, minimum_detectable_difference
from eval.stats import holm, mcnemar_exact, paired_difference, unpaired_difference, wilson_interval


def table(both, only_a, only_b, neither):
    """The two lists of a 2 x 2 table."""
    cells = [(1, 1)] * both + [(1, 0)] * only_a + [(0, 1)] * only_b + [(0, 0)] * neither
    return [bool(a) for a, _ in cells], [bool(b) for _, b in cells]


@pytest.mark.parametrize("n", [1, 7, 281, 1319])
def test_wilson_limits_solve_the_score_equation(n):
    z = norm.ppf(0.975)
    for successes in {0, 1, n // 2, n}:
        for limit in wilson_interval(successes, n):
            score = abs(successes / n - limit) - z * math.sqrt(limit * (1 - limit) / n)
            assert score == pytest.approx(0, abs=1e-7)


def test_wilson_is_no_point_at_0_and_100_percent():
    assert wilson_interval(0, 100) == pytest.approx((0, 0.0370), abs=1e-4)
    assert wilson_interval(100, 100) == pytest.approx((0.9630, 1), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("n", range(13))
def test_mcnemar_equals_enumeration(n):
    probability = [math.comb(n, k) / 2**n for k in range(n + 1)]
    for b in range(n + 1):
        expected = sum(p for p in probability if p <= probability[b] * (1 + 1e-9))
        assert mcnemar_exact(b, n - b) == pytest.approx(expected, abs=1e-12)


def test_paired_interval_of_a_published_table():
    """Complete response before and after therapy (Cavo et al. 2012), worked out by the R package contingencytables."""
    found = paired_difference(*table(59, 16, 6, 80))
    assert (found.difference, found.low, found.high) == pytest.approx((-0.0621, -0.1186, -0.0046), abs=5e-5)


def test_paired_difference_counts_and_direction():
    found = paired_difference(*table(20, 3, 10, 67))
    assert (found.n, found.only_a, found.only_b) == (100, 3, 10)
    assert found.difference == pytest.approx(0.07)
    assert found.low < 0.07 < found.high
    assert found.p_value == mcnemar_exact(3, 10)
    swapped = paired_difference(*reversed(table(20, 3, 10, 67)))
    assert (swapped.difference, swapped.low, swapped.high) == pytest.approx(
        (-found.difference, -found.high, -found.low)
    )


def test_paired_interval_is_no_point_when_the_models_agree():
    for cells in [(0, 0, 0, 50), (50, 0, 0, 0)]:
        found = paired_difference(*table(*cells))
        assert found.difference == 0 and found.low < -0.05 and found.high > 0.05 and found.p_value == 1
    assert paired_difference([], []).low == -1


def test_paired_interval_covers_the_truth():
    """Exact coverage by enumerating every table of 14 items, in a world where 30 % are discordant."""
    n, chances = 14, np.array([0.3, 0.1, 0.2, 0.4])
    coverage = 0.0
    for both, only_a, only_b in product(range(n + 1), repeat=3):
        neither = n - both - only_a - only_b
        if neither < 0:
            continue
        cells = (both, only_a, only_b, neither)
        ways = math.factorial(n) / math.prod(math.factorial(k) for k in cells)
        found = paired_difference(*table(*cells))
        if found.low <= 0.1 <= found.high:
            coverage += ways * np.prod(chances ** np.array(cells))
    assert 0.94 < coverage < 0.98


def test_unpaired_lists_are_refused():
    with pytest.raises(ValueError, match="paired"):
        paired_difference([True], [True, False])


def test_minimum_detectable_difference_solves_connors_formula():
    for n, share in [(281, 0.2), (1319, 0.05)]:
        difference = minimum_detectable_difference(n, share)
        spread = norm.ppf(0.975) * math.sqrt(share) + norm.ppf(0.8) * math.sqrt(share - difference**2)
        assert spread**2 / difference**2 == pytest.approx(n)


def test_minimum_detectable_difference_has_the_power_it_claims():
    n, share = 281, 0.2
    difference = minimum_detectable_difference(n, share)
    generator = np.random.default_rng(0)
    chances = [(share + difference) / 2, (share - difference) / 2, 1 - share]
    draws, counts = np.unique(generator.multinomial(n, chances, size=4000)[:, :2], axis=0, return_counts=True)
    found = sum(count for (b, c), count in zip(draws, counts, strict=True) if mcnemar_exact(b, c) < 0.05)
    assert 0.7 < found / 4000 < 0.82  # the exact test is a little conservative


def test_minimum_detectable_difference_out_of_reach():
    assert minimum_detectable_difference(100, 0.02) is None
    assert minimum_detectable_difference(2, 0.5) is None


def test_unpaired_interval_of_a_published_example():
    """Newcombe 1998, table II, method 10: 56/70 and 48/80."""
    found = unpaired_difference(48, 80, 56, 70)
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_fishers_p_value_by_hand():
    """The lady tasting tea: 3 of 4 and 1 of 4 right, (16 + 1) / 70 in each tail."""
    assert unpaired_difference(1, 4, 3, 4).p_value == pytest.approx(2 * 17 / 70)
    assert unpaired_difference(3, 4, 3, 4).p_value == 1


def test_holm_equals_the_closed_test_of_bonferroni():
    rng = np.random.default_rng(0)
    for size in range(1, 6):
        for p_values in rng.random((20, size)) ** 3:
            found = holm(p_values.tolist())
            for i in range(size):
                subsets = [s for k in range(1, size + 1) for s in combinations(range(size), k) if i in s]
                expected = max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets)
                assert found[i] == pytest.approx(expected)
    assert holm([]) == []


@pytest.mark.parametrize(("a_total", "b_total"), [(30, 30), (12, 40), (25, None), (3, None)])
def test_a_detectable_difference_of_means_is_found_four_times_in_five(a_total, b_total):
    rng = np.random.default_rng(0)
    difference = detectable_mean_difference(2.0, a_total, b_total)
    a = rng.normal(0, 2, size=(4000, a_total))
    if b_total is None:
        p_values = ttest_rel(a + difference, np.zeros_like(a), axis=1).pvalue
    else:
        p_values = ttest_ind(a, rng.normal(difference, 2, size=(4000, b_total)), axis=1).pvalue
    assert np.mean(p_values < 0.05) == pytest.approx(0.8, abs=0.025)


def test_a_detectable_difference_of_means_needs_two_values():
    assert detectable_mean_difference(1.0, 1) is None
    assert detectable_mean_difference(0.0, 10) == 0


def test_a_detectable_difference_of_accuracies_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    n, accuracy = 1319, 0.3
    difference = detectable_accuracy_difference(accuracy, n, n)
    a, b = (rng.binomial(n, accuracy + half, size=4000) / n for half in (-difference / 2, difference / 2))
    error = np.sqrt((a * (1 - a) + b * (1 - b)) / n)
    assert np.mean(np.abs(b - a) / error > norm.ppf(0.975)) == pytest.approx(0.8, abs=0.025)
