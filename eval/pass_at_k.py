"""What several samples of each problem say: pass@k and majority@k."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of `k` of `n` samples is right when `c` of the n are: 1 - C(n-c, k) / C(n, k).

    Unbiased (Chen et al. 2021, "Evaluating large language models trained on code", equation 1). Its noise grows as k
    comes near n, where it is no more than whether any sample is right. Raises ValueError unless 1 <= k <= n.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"expected 1 <= k <= n and 0 <= c <= n, found n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority(answers: Sequence[Hashable | None]) -> Hashable | None:
    """The most frequent answer; of equally frequent ones that which was given first. None, no answer, has no vote.

    As lm-evaluation-harness breaks ties. None when nobody answered.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=votes.__getitem__) if votes else None  # max and Counter keep the order of arrival


def sample_counts(n: int) -> list[int]:
    """The k to report of n samples: 1, 2, 4, ... and n itself."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})
