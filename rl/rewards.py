"""What a rollout is worth: one of three rewards, each a sum of named parts.

binary     a right answer, or nothing
shaped     a right answer, and partial terms: an answer within 10%, work shown, facts of the token families used where
           they belong, brevity; repetition and stray facts cost
composite  a right answer, the format, brevity: the reward for the reasoning format

Whatever the weights, no wrong answer scores as much as any right one: what the partial terms of a wrong answer add up
to is capped at WRONG_SHARE of the least that a right answer can score, all its penalties counted (the part "cap" is
what that took away). A completion that says nothing earns nothing. Time is linear in the completion's length.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Literal

from common.errors import UserError
from eval.answer_formats import FORMATS, FormatName, is_compliant
from eval.answers import first_turn
from eval.repetition import repeated_share
from rl.equations import FACT, Sentence, facts_in, read_sentences
from rl.token_use import TokenUse, generated_facts, known_numbers, token_use
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

WRONG_SHARE = 0.9
SMALLEST_GAP = 1e-6  # between a right answer with all penalties and nothing: less is lost in rounding
NEAR = Decimal("0.1")  # of the right answer


@dataclass(frozen=True)
class Rollout:
    """A completion as a reward reads it."""

    question: str
    gold: Decimal
    ids: list[int]  # generated ids, stop token included
    text: str  # decoded with fact tokens and reasoning tags, end-of-text left out
    finish_reason: str  # "stop" or "length"


@dataclass(frozen=True)
class Reward:
    """`parts` sum to `total`."""

    total: float
    correct: bool  # by the number behind "####" in chat, inside <answer> in the reasoning format
    parts: dict[str, float]


@dataclass
class RewardConfig:
    """Which reward, and the weights of its terms."""

    kind: Literal["binary", "shaped", "composite"] = "binary"  # shaped and composite pay for more than right answers
    correct: float = 1.0  # a right answer
    near: float = 0.3  # shaped: a wrong answer within 10% of the right one
    shows_work: float = 0.1  # shaped: an equation that holds and has a number of the question in it
    mul_tokens: float = 0.2  # shaped: facts, of any family, that lead to the stated answer; stray ones cost as much
    mul_tokens_cap: int = 2  # shaped: so many facts earn all of mul_tokens, one its share; so many stray ones cost it
    short: float = 0.1  # shaped: a short answer that shows work
    repetition: float = -0.3  # shaped: times the share of the text that says again what was said before
    format: float = 0.5  # composite: every part of the format once, in order, and the end
    length: float = 0.1  # composite: a short answer in the format
    short_share: float = 0.6  # of the longest response: up to there an answer is short, from there on ever less


def check_reward(config: RewardConfig) -> None:
    """Raise UserError for weights with which a right answer may score no more than a wrong one, or none at all."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "kind":
            continue
        if not math.isfinite(value) or (value > 0 if field.name == "repetition" else value < 0):
            sign = "at most" if field.name == "repetition" else "at least"
            raise UserError(f"reward.{field.name} {value}: expected a number of {sign} 0")
    if config.mul_tokens_cap < 1:
        raise UserError(f"reward.mul_tokens_cap {config.mul_tokens_cap}: expected at least 1")
    if not 0 < config.short_share <= 1:
        raise UserError(f"reward.short_share {config.short_share}: expected above 0 and at most 1")
    if lowest_right(config) < SMALLEST_GAP:
        raise UserError(
            f"reward.correct {config.correct}: with all penalties a right answer would score "
            f"{lowest_right(config):.3g}, no more than a wrong one; raise it, or lower mul_tokens or repetition"
        )


def lowest_right(config: RewardConfig) -> float:
    """The least that a right answer can score."""
    return config.correct - (config.mul_tokens - config.repetition if config.kind == "shaped" else 0.0)


def build_reward(
    config: RewardConfig, format: FormatName, tokenizer: GPT2TokenizerWithMulFacts, max_new_tokens: int
) -> Callable[[Rollout], Reward]:
    """The reward function of a run. Raises UserError as check_reward."""
    check_reward(config)
    return RewardFunction(config, format, tokenizer, max_new_tokens)


@dataclass(frozen=True)
class RewardFunction:
    """Scores rollouts in the `format` of their prompts, of at most `max_new_tokens` tokens."""

    config: RewardConfig
    format: FormatName
    tokenizer: GPT2TokenizerWithMulFacts
    max_new_tokens: int

    def __call__(self, rollout: Rollout) -> Reward:
        answer = FORMATS[self.format].strict(first_turn(rollout.text))
        correct = answer == rollout.gold
        parts = {"correct": self.config.correct if correct else 0.0}
        if self.config.kind != "binary":
            partial = (self._shaped if self.config.kind == "shaped" else self._composite)(rollout, answer)
            earned = sum(part for part in partial.values() if part > 0)
            most = math.inf if correct else WRONG_SHARE * lowest_right(self.config)
            parts |= partial | {"cap": min(0.0, most - earned)}
        return Reward(sum(parts.values()), correct, parts)

    def _shaped(self, rollout: Rollout, answer: Decimal | None) -> dict[str, float]:
        config = self.config
        solution = first_turn(rollout.text)
        generated = generated_facts(rollout.ids)
        if Counter(facts_in(rollout.text)) != generated:
            solution = FACT.sub("", solution)  # some are spelled out of other tokens: none counts
        sentences = read_sentences(solution)
        use = token_use(rollout.question, sentences, generated, None if answer is None else float(answer))
        shows_work = _shows_work(rollout.question, sentences, use)
        is_near = answer is not None and 0 < abs(answer - rollout.gold) <= NEAR * abs(rollout.gold)
        parts = {
            "near": config.near if is_near else 0.0,
            "shows_work": config.shows_work if shows_work else 0.0,
            "short": config.short * self._shortness(rollout) if shows_work and answer is not None else 0.0,
            "repetition": 0.0 + config.repetition * repeated_share(rollout.text) if config.repetition else 0.0,
        }
        if self.tokenizer.condition == "mul_tokens":
            parts["mul_tokens"] = config.mul_tokens * min(1.0, len(use.used) / config.mul_tokens_cap)
            parts["stray_mul_tokens"] = 0.0 - config.mul_tokens * min(1.0, use.stray / config.mul_tokens_cap)
        return parts

    def _composite(self, rollout: Rollout, _: Decimal | None) -> dict[str, float]:
        stopped = rollout.finish_reason == "stop"
        in_format = is_compliant(FORMATS[self.format], rollout.ids, stopped, self.tokenizer)
        return {
            "format": self.config.format if in_format else 0.0,
            "length": self.config.length * self._shortness(rollout) if in_format else 0.0,
        }

    def _shortness(self, rollout: Rollout) -> float:
        """1 up to `short_share` of the longest response, falling to 0 there; 0 for one that did not end by itself."""
        if rollout.finish_reason != "stop":
            return 0.0
        length, short = len(rollout.ids) / self.max_new_tokens, self.config.short_share
        return 1.0 if length <= short else max(0.0, (1.0 - length) / (1.0 - short))


def _shows_work(question: str, sentences: list[Sentence], use: TokenUse) -> bool:
    """Whether there is a true equation, none that only repeats a number, that takes a number from the question.

    Stating a stray fact is no work.
    """
    known = known_numbers(question)
    return any(
        equation.holds
        and not equation.is_trivial
        and not known.isdisjoint(equation.operands)
        and use.used.union(use.idle).issuperset(equation.lone_facts)
        for sentence in sentences
        for equation in sentence.equations
    )
