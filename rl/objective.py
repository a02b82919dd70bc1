"""What GRPO maximises: advantages of a group, the clipped surrogate, KL to a reference, and how tokens are weighed.

Group-relative advantages: DeepSeekMath (Shao et al. 2024, section 4.1). Separate clip bounds, token-level loss,
overlong filtering and the soft overlong penalty: DAPO (Yu et al. 2025, sections 3.1, 3.3, 3.4). Advantages without the
standard deviation and a constant length: Dr. GRPO (Liu et al. 2025, section 3.2). KL estimators: Schulman,
"Approximating KL divergence" (2020).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

STD_EPS = 1e-4  # in the denominator of a group's advantages


@dataclass
class ObjectiveSettings:
    clip_low: float = 0.2  # a ratio below 1 - this earns a token nothing more
    clip_high: float = 0.28  # and above 1 + this; higher than clip_low keeps unlikely tokens alive
    divide_by_std: bool = True  # of the group's rewards; off: Dr. GRPO's advantages
    # What a token weighs: every token of the batch alike, every response alike, or 1 / max_new_tokens (Dr. GRPO).
    normalisation: Literal["token", "sequence", "dr_grpo"] = "token"
    kl_coefficient: float = 0.0  # beta: weight of the KL to the model that the run started from
    # k3 unbiased and never negative; k2 biased, with the KL's own gradient; k1 unbiased, but its gradient is noise of
    # mean 0 while the policy is the sampler: it holds nothing back, and is here for comparison.
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    entropy_start: float = 0.0  # entropy bonus at the first iteration ...
    entropy_end: float = 0.0  # ... and at the last, linear between them
    # Responses cut at max_new_tokens: trained like others, left out of the loss, or their reward lowered softly.
    overlong: Literal["train", "filter", "penalty"] = "train"
    overlong_buffer: int = 16  # tokens before the limit over which the penalty grows from 0 to 1


def group_advantages(rewards: Tensor, divide_by_std: bool) -> Tensor:
    """Advantages (P, G) of rewards (P, G): distance from the group's mean, in units of its (unbiased) deviation."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + STD_EPS) if divide_by_std else centred


def token_weights(lengths: Tensor, counted: Tensor, settings: ObjectiveSettings, max_new_tokens: int) -> Tensor:
    """What each token of response i weighs in the loss, (R,); 0 where a response is not `counted` (R,) bool.

    Over the counted responses' tokens the weights sum to 1, but for dr_grpo.
    """
    counted = counted.float()
    responses = counted.sum().clamp(min=1)
    if settings.normalisation == "token":
        return counted / (counted * lengths).sum().clamp(min=1)
    if settings.normalisation == "sequence":
        return counted / (responses * lengths.clamp(min=1))
    return counted / (responses * max_new_tokens)


def surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """PPO's clipped objective per token, to be maximised; all arguments (N,), `low` and `high` the clip distances."""
    ratio = (logprobs - old_logprobs).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, estimator: str) -> Tensor:
    """Per-token estimate (N,) of KL(policy || reference) from tokens that the policy chose."""
    log_ratio = logprobs - reference_logprobs
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    return torch.expm1(-log_ratio) + log_ratio


def overlong_penalty(length: int, max_new_tokens: int, buffer: int) -> float:
    """0 up to `max_new_tokens` - `buffer` tokens, then linear down to -1 at `max_new_tokens`."""
    return -min(max(length - (max_new_tokens - buffer), 0) / buffer, 1.0)


def entropy_coefficient(settings: ObjectiveSettings, iteration: int, iterations: int) -> float:
    """The bonus at `iteration` (from 0) of `iterations`, linear from start to end."""
    share = iteration / max(iterations - 1, 1)
    return settings.entropy_start + share * (settings.entropy_end - settings.entropy_start)
