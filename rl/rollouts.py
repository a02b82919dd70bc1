"""Groups of rewarded responses: sampled, rewarded, and, when a group's rewards do not vary, replaced (DAPO, 3.2)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from common.distributed import World
from common.errors import UserError
from eval.engine import Completion, generate
from pretrain.model import GPT
from rl.contrastive import contrastive_reward
from rl.objective import ObjectiveSettings, group_advantages, overlong_penalty
from rl.problems import Problem, ProblemStream
from rl.rewards import Reward, Rollout
from rl.settings import RolloutSettings
from tokenizer.mul_facts import EOT_ID

SAME = 1e-8  # rewards of a group that differ by no more than this are the same


@dataclass(frozen=True)
class Group:
    """One problem's responses. `prompts[i]` is what `completions[i]` answers; `scores` are what advantages are of."""

    number: int  # the problem's place in the stream
    problem: Problem
    prompts: list[list[int]]
    completions: list[Completion]
    texts: list[str]
    rewards: list[Reward]
    scores: list[float]

    @property
    def varies(self) -> bool:
        """Whether there is anything to learn from it."""
        return max(self.scores) - min(self.scores) > SAME


@dataclass(frozen=True)
class Row:
    """A response to train on."""

    prompt: list[int]
    ids: list[int]
    old_logprobs: list[float]
    advantage: float
    truncated: bool


@dataclass
class RolloutBatch:
    """Kept groups, and all that were sampled, in the order of their numbers."""

    kept: list[Group]
    sampled: list[Group]
    tries: int
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self, divide_by_std: bool) -> list[Row]:
        """The kept groups' responses with their advantages."""
        rows = []
        for group in self.kept:
            advantages = group_advantages(torch.tensor([group.scores], dtype=torch.float64), divide_by_std)[0].tolist()
            for prompt, completion, advantage in zip(group.prompts, group.completions, advantages, strict=True):
                cut = completion.finish_reason == "length"
                rows.append(Row(prompt, completion.ids, completion.logprobs, advantage, cut))
        return rows


@dataclass
class Sampler:
    """Samples groups with a model: everything that stays the same from iteration to iteration."""

    decode: Callable[[list[int]], str]  # of a response without end-of-text
    stop_ids: Sequence[int]
    suppressed_ids: Sequence[int]  # never chosen
    rollout: RolloutSettings
    objective: ObjectiveSettings
    reward: Callable[[Rollout], Reward]
    seed: int
    world: World

    def collect(self, model: GPT, stream: ProblemStream) -> RolloutBatch:
        """`rollout.prompts` groups whose rewards vary, or fewer if `rollout.refills` new draws do not yield them.

        Every process draws the same problems, samples its share, and gets all groups. A batch has no problem twice:
        what the stream repeats at the end of a pass is passed over.
        """
        batch = RolloutBatch([], [], 0, {"generate": 0.0, "reward": 0.0})
        for _ in range(1 + self.rollout.refills):
            missing = self.rollout.prompts - len(batch.kept)
            if not missing:
                break
            seen = {group.problem.question for group in batch.sampled}
            new = {p.question: (number, p) for number, p in stream.take(missing) if p.question not in seen}
            groups = self.world.gather(self._sample(model, list(new.values()), batch.seconds))
            groups.sort(key=lambda group: group.number)
            batch.sampled += groups
            batch.kept += [group for group in groups if group.varies]
            batch.tries += 1
        return batch

    def _sample(self, model: GPT, problems: list[tuple[int, Problem]], seconds: dict[str, float]) -> list[Group]:
        mine = problems[self.world.rank :: self.world.size]
        n = self.rollout.group_size
        started = time.perf_counter()
        if self.rollout.contrast:  # the hinted half first; the two halves have streams of their own
            prompts = [ids for _, problem in mine for ids in (problem.hinted, problem.prompt)]
            streams = [2 * number + half for number, _ in mine for half in (0, 1)]
            halves = self.generate(model, prompts, n // 2, self.rollout.temperature, streams)
            completions = [first + second for first, second in zip(halves[::2], halves[1::2], strict=True)]
        else:
            prompts, streams = [problem.prompt for _, problem in mine], [2 * number for number, _ in mine]
            completions = self.generate(model, prompts, n, self.rollout.temperature, streams)
        generated = time.perf_counter()
        groups = [self._group(*problem, group) for problem, group in zip(mine, completions, strict=True)]
        seconds["generate"] += generated - started
        seconds["reward"] += time.perf_counter() - generated
        return groups

    def generate(
        self, model: GPT, prompts: list[list[int]], n: int, temperature: float, streams: list[int] | None = None
    ) -> list[list[Completion]]:
        """`n` completions of each prompt."""
        return generate(
            model,
            prompts,
            n=n,
            max_new_tokens=self.rollout.max_new_tokens,
            temperature=temperature,
            stop_ids=self.stop_ids,
            suppressed_ids=self.suppressed_ids,
            seed=self.seed,
            streams=streams,
            batch_size=self.rollout.batch_size,
        )

    def _group(self, number: int, problem: Problem, completions: list[Completion]) -> Group:
        texts = [self.decode([i for i in c.ids if i != EOT_ID]) for c in completions]
        rewards = []
        for completion, text in zip(completions, texts, strict=True):
            rollout = Rollout(problem.question, problem.gold, completion.ids, text, completion.finish_reason)
            try:
                rewards.append(self.reward(rollout))
            except Exception as error:
                message = f"the reward failed on the response {text[:80]!r} to {problem.question[:80]!r}: {error!r}"
                raise UserError(message) from error
        scores = [reward.total for reward in rewards]
        half = len(completions) // 2 if self.rollout.contrast else 0
        if half:
            scores[:half] = contrastive_reward(rewards[:half], rewards[half:], self.rollout.contrast)
        if self.objective.overlong == "penalty":
            longest, buffer = self.rollout.max_new_tokens, self.objective.overlong_buffer
            scores = [
                s + overlong_penalty(len(c.ids), longest, buffer) for s, c in zip(scores, completions, strict=True)
            ]
        prompts = [problem.hinted] * half + [problem.prompt] * (len(completions) - half)
        return Group(number, problem, prompts, completions, texts, rewards, scores)

    def accuracy(self, model: GPT, problems: list[Problem]) -> float:
        """The share of `problems` that greedy decoding gets right, by the reward's own reading. The same everywhere."""
        mine = problems[self.world.rank :: self.world.size]
        answers = self.generate(model, [problem.prompt for problem in mine], 1, 0.0)
        groups = [self._group(0, problem, completions) for problem, completions in zip(mine, answers, strict=True)]
        return sum(self.world.gather([group.rewards[0].correct for group in groups])) / len(problems)
