"""The log of a GRPO run: a row per iteration and per evaluation, the responses, and the alarms that they set off."""

import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common.files import write_jsonl
from pretrain.run_log import whole_rows
from rl.alarms import Alarms
from rl.rollouts import RolloutBatch
from rl.token_use import generated_facts


def rollout_row(batch: RolloutBatch) -> dict[str, Any]:
    """The log's columns about all responses that were sampled in an iteration."""
    rewards = [reward for group in batch.sampled for reward in group.rewards]
    scores = torch.tensor([score for group in batch.sampled for score in group.scores], dtype=torch.float64)
    completions = [c for group in batch.sampled for c in group.completions]
    n, dead = len(completions), [group for group in batch.sampled if not group.varies]
    all_right = sum(all(reward.correct for reward in group.rewards) for group in dead)
    return {
        "reward_mean": scores.mean().item(),
        "reward_std": scores.std().item(),
        "accuracy": sum(reward.correct for reward in rewards) / n,
        "parts": {part: sum(reward.parts[part] for reward in rewards) / n for part in rewards[0].parts},
        "kept_fraction": len(batch.kept) / len(batch.sampled),
        "groups_kept": len(batch.kept),
        "tries": batch.tries,
        "groups_all_right": all_right,
        "groups_all_wrong": sum(not any(reward.correct for reward in group.rewards) for group in dead),
        "response_tokens": sum(len(c.ids) for c in completions) / n,
        "truncated": sum(c.finish_reason == "length" for c in completions) / n,
        "mul_tokens_per_response": sum(generated_facts(c.ids).total() for c in completions) / n,
        "seconds_generate": batch.seconds["generate"],
        "seconds_reward": batch.seconds["reward"],
    }


class RunLog:
    """log.jsonl and completions.jsonl of a run; rows beyond the checkpoint that it goes on from are dropped first."""

    def __init__(self, output_dir: Path, start: int, is_main: bool):
        self.rows, self.responses = output_dir / "log.jsonl", output_dir / "completions.jsonl"
        self.is_main, self.alarms = is_main, Alarms()
        if not is_main:
            return
        for path in (self.rows, self.responses):
            # The evaluation before iteration `start` belongs to what comes now: it is made again.
            write_jsonl(path, [row for row in whole_rows(path) if row["iteration"] < start])
        for row in whole_rows(self.rows):
            if "reward_mean" in row:
                self.alarms.check(row)

    def iteration(self, row: dict[str, Any]) -> None:
        """A row of the log, and what it sets off."""
        if self.is_main:
            self._append(self.rows, row)
            for line in self.alarms.check(row):
                tqdm.write(f"alarm, iteration {row['iteration']}: {line}")

    def evaluation(self, row: dict[str, Any]) -> None:
        """A held-out evaluation."""
        if self.is_main:
            self._append(self.rows, row)
            tqdm.write(f"iteration {row['iteration']}: held-out accuracy {row['eval_accuracy']:.1%}")

    def completions(self, iteration: int, batch: RolloutBatch) -> None:
        """Every response of an iteration."""
        if not self.is_main:
            return
        for group in batch.sampled:
            for text, completion, reward, score in zip(
                group.texts, group.completions, group.rewards, group.scores, strict=True
            ):
                row = {"iteration": iteration, "question": group.problem.question, "gold": str(group.problem.gold)}
                row |= {"response": text, "finish_reason": completion.finish_reason, "score": score}
                self._append(self.responses, row | {"correct": reward.correct, "parts": reward.parts})

    def _append(self, path: Path, row: dict[str, Any]) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
