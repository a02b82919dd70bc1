"""What a comparison could have found: the smallest true difference that its test shows with a given power."""

import math

import scipy  # loads scipy.stats, which takes a second, when it is first used


def minimum_detectable_difference(
    n: int, discordant_share: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The smallest true difference in accuracy that McNemar's test on `n` items finds with this power.

    `discordant_share` is the share of items on which the two models disagree: the more they differ item by item, the
    larger a difference must be to stand out. Solves Connor's sample-size formula (Biometrics 43, 1987) for the
    difference. None when even the largest difference possible, the discordant share itself, would go unnoticed.
    """
    z_alpha, z_power = scipy.stats.norm.ppf(1 - alpha / 2), scipy.stats.norm.ppf(power)
    root = n - z_alpha**2 + z_power**2
    if root < 0:
        return None
    found = math.sqrt(discordant_share) * (z_alpha * math.sqrt(n) + z_power * math.sqrt(root)) / (n + z_power**2)
    return float(found) if found <= discordant_share else None


def detectable_mean_difference(
    deviation: float, a_total: int, b_total: int | None = None, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The smallest true difference between two means that a two-sided t-test finds with this power.

    With `b_total` the means are of two independent groups whose values have standard deviation `deviation` each;
    without, of the differences of `a_total` pairs (items, or seeds), which have that deviation. Exact for normal
    values, by the noncentral t distribution. None when a group has too few values for any test.
    """
    freedom = a_total - 1 if b_total is None else a_total + b_total - 2
    if freedom < 1 or a_total < 1 or b_total == 0:
        return None
    error = deviation * math.sqrt(1 / a_total + (1 / b_total if b_total else 0))
    if error == 0:
        return 0.0
    critical = scipy.stats.t.ppf(1 - alpha / 2, freedom)
    # The other tail, a significant difference of the wrong sign, has no weight worth counting at this power.
    shift = scipy.optimize.brentq(lambda shift: scipy.stats.nct.sf(critical, freedom, shift) - power, 0, critical + 40)
    return float(shift * error)


def detectable_accuracy_difference(
    accuracy: float, a_total: int, b_total: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest true difference between accuracies on independent items that is found with this power.

    `accuracy` is that of both together. Normal approximation; of two models on the same items, use
    minimum_detectable_difference.
    """
    deviation = math.sqrt(accuracy * (1 - accuracy))
    return float(
        (scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(power))
        * deviation
        * math.sqrt(1 / a_total + 1 / b_total)
    )
