"""Contrastive prompting (option C2): does a hint of multiplication facts make a rollout better?

Rollouts of one question are drawn twice, with the facts that it needs behind it and without. A hinted rollout is
rewarded for what it is worth, and for being worth more than the unhinted ones are on average.
"""

from collections.abc import Sequence
from statistics import fmean

from rl.equations import FACT
from rl.rewards import Reward
from tokenizer.inject_mul import MulExpressionInjector


def hinted_question(question: str, answer: str) -> str:
    """`question` with the facts behind it that `answer`, a solution in GSM8K's format, uses; as it is without any.

    The hint is text in the rollout's prompt alone, so the policy learns to use facts that it was shown. Evaluate
    without it.
    """
    facts = dict.fromkeys(FACT.findall(MulExpressionInjector().inject(answer)))
    return f"{question.strip()} Facts: {' '.join(facts)}" if facts else question


def contrastive_reward(with_hint: Sequence[Reward], without_hint: Sequence[Reward], weight: float) -> list[float]:
    """The rewards of the hinted rollouts: each one's total + weight * (total - mean total of the unhinted ones).

    A wrong answer is never paid for being better than others, and a right one never charged for being worse: a wrong
    one scores less than any right one, as before. The contrast is one number for the whole question. To act on the
    policy hinted and unhinted rollouts must form one group, the unhinted ones with their own totals: the mean of a
    group of hinted ones alone would take it out again.
    """
    mean = fmean(reward.total for reward in without_hint)
    contrasts = [weight * (reward.total - mean) for reward in with_hint]
    return [
        reward.total + (max(0.0, contrast) if reward.correct else min(0.0, contrast))
        for reward, contrast in zip(with_hint, contrasts, strict=True)
    ]
