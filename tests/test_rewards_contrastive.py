"""rl/contrastive.py: the hint, and what a hinted rollout is paid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.contrastive import contrastive_reward, hinted_question
from rl.rewards import Reward


def rewards(*totals, correct=True):
    return [Reward(total, correct, {}) for total in totals]


def test_the_hint_has_each_fact_that_the_answer_uses_once():
    answer = "6 * 9 = <<6*9=54>>54\n54 + 5 = <<54+5=59>>59\n3*2 = 6\n#### 59"
    assert hinted_question("How many? ", answer) == "How many? Facts: <MUL_6_9_54> <MUL_2_3_6>"
    assert hinted_question("How many? ", "8 + 7 = 15\n#### 15") == "How many? "


def test_what_is_paid_by_hand():
    assert contrastive_reward(rewards(1.0, 0.2), rewards(0.5, 0.1), weight=0.5) == pytest.approx([1.35, 0.2])
    assert contrastive_reward(rewards(1.0, 0.2), rewards(0.5, 0.1), weight=0.0) == [1.0, 0.2]


def test_a_wrong_answer_is_not_paid_for_being_better_than_worse_ones():
    assert contrastive_reward(rewards(0.3, 0.0, correct=False), rewards(-0.3), weight=1.0) == [0.3, 0.0]


@given(
    st.lists(st.floats(-1, 0.4), min_size=1),
    st.lists(st.floats(0.5, 2)),
    st.lists(st.floats(-1, 2), min_size=1),
    st.floats(0, 5),
)
def test_right_stays_above_wrong(wrong, right, unhinted, weight):
    hinted = rewards(*wrong, correct=False) + rewards(*right)
    paid = contrastive_reward(hinted, rewards(*unhinted), weight)
    assert max(paid[: len(wrong)]) < min(paid[len(wrong) :], default=float("inf"))
