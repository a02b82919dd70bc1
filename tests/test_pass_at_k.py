from itertools import combinations

import pytest

from eval.pass_at_k import majority, pass_at_k, sample_counts


def test_pass_at_k_equals_all_subsets():
    for n in range(1, 9):
        for c in range(n + 1):
            right = [i < c for i in range(n)]
            for k in range(1, n + 1):
                subsets = list(combinations(right, k))
                expected = sum(map(any, subsets)) / len(subsets)
                assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses_what_no_samples_give(n, c, k):
    with pytest.raises(ValueError, match="expected"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["3", "4", "4"], "4"),
        (["3", "4", "4", "3"], "3"),  # a tie: the first given
        (["4", "3", "3", "4"], "4"),
        ([None, None, None, "7"], "7"),  # no answer has no vote, however often
        ([None, None], None),
        ([], None),
    ],
)
def test_majority(answers, winner):
    assert majority(answers) == winner


def test_the_k_to_report():
    assert sample_counts(1) == [1]
    assert sample_counts(16) == [1, 2, 4, 8, 16]
    assert sample_counts(12) == [1, 2, 4, 8, 12]
