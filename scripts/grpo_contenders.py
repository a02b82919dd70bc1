"""For GRPO's benchmarks: one task over token ids, as our trainer and stock TRL train it.

TRL takes texts and a tokenizer, so its tokenizer spells id 17 as the word "17"; both see the same ids. It runs as it
is shipped, with Hugging Face's generate. Only what would make it do other work than ours is set: dropout and gradient
checkpointing off, float32, AdamW without weight decay, clip bounds 0.2 and 0.28, no KL.
"""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from transformers import GPT2LMHeadModel

from common.distributed import World
from pretrain.hf_weights import hf_config, to_hf_state
from pretrain.model import GPT
from rl.grpo_train import learn
from rl.objective import ObjectiveSettings
from rl.problems import Problem, ProblemStream
from rl.rewards import Reward, Rollout
from rl.rollouts import RolloutBatch, Sampler
from rl.settings import GRPOConfig, RolloutSettings, TrainingSettings
from rl.update import Update
from sft.training import quiet_libraries


@dataclass(frozen=True)
class Task:
    """Prompts with answers, and what a response's ids (with the id that stopped it) earn given the answer."""

    problems: list[Problem]
    score: Callable[[list[int], int], float]
    eos: int
    stops: bool  # False: `eos` is never chosen, so that every response has `rollout.max_new_tokens`


def toy_problem(prompt: list[int], answer: int) -> Problem:
    """A problem of ids alone, whose text is the ids as words."""
    return Problem(" ".join(map(str, prompt)), Decimal(answer), prompt, prompt)


def toy_config(rollout: RolloutSettings, iterations: int, learning_rate: float) -> GRPOConfig:
    """The config of a toy run: a constant rate in float32, and the defaults of everything else."""
    training = TrainingSettings(
        iterations=iterations, learning_rate=learning_rate, warmup=0, schedule="constant", dtype="float32"
    )
    return GRPOConfig(rollout=rollout, training=training, objective=ObjectiveSettings())


class Ours:
    """Our trainer's iteration: Sampler.collect, then learn."""

    def __init__(self, model: GPT, task: Task, config: GRPOConfig, seed: int):
        device = model.wte.weight.device
        world = World(0, 1, device)

        def reward(response: Rollout) -> Reward:
            value = task.score(response.ids, int(response.gold))
            return Reward(value, value == 1, {"score": value})

        never = () if task.stops else (task.eos,)
        self.model, self.config = model, config
        self.stream = ProblemStream(task.problems, seed)
        self.sampler = Sampler(
            str, (task.eos,) if task.stops else (), never, config.rollout, config.objective, reward, seed, world
        )
        self.update = Update(
            model,
            None,
            config.objective,
            config.rollout.temperature,
            torch.tensor(never, dtype=torch.long, device=device),
            config.rollout.max_new_tokens,
            config.training.micro_batch_tokens,
            contextlib.nullcontext(),
            world,
        )
        rate = config.training.learning_rate
        fused = device.type in ("cpu", "cuda")
        self.optimizer = AdamW(model.parameters(), lr=rate, weight_decay=config.training.weight_decay, fused=fused)
        self.iteration = 0

    def step(self) -> tuple[RolloutBatch, dict[str, Any]]:
        """One iteration: what was sampled, and the log's columns of the update."""
        batch = self.sampler.collect(self.model, self.stream)
        columns = learn(batch, self.update, self.optimizer, self.config, self.iteration)
        self.iteration += 1
        return batch, columns


def trl_trainer(gpt: GPT, task: Task, config: GRPOConfig, seed: int, directory: Path, positions: bool) -> Any:
    """TRL's GRPOTrainer of the same task from the weights of `gpt`; `positions` adds those of left-padded prompts."""
    from datasets import Dataset
    from trl import GRPOConfig as TRLConfig
    from trl import GRPOTrainer

    quiet_libraries()
    device = gpt.wte.weight.device
    model = hf_model(gpt, task.eos).to(device)
    if positions:
        give_positions(model)
    arguments = TRLConfig(
        output_dir=str(directory),
        per_device_train_batch_size=config.rollout.prompts * config.rollout.group_size,
        num_generations=config.rollout.group_size,
        max_completion_length=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        max_steps=config.training.iterations,
        learning_rate=config.training.learning_rate,
        lr_scheduler_type=config.training.schedule,
        max_grad_norm=config.training.grad_clip,
        epsilon=config.objective.clip_low,
        epsilon_high=config.objective.clip_high,
        disable_dropout=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=device.type == "cpu",
        generation_kwargs=None if task.stops else {"suppress_tokens": [task.eos]},
        seed=seed,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )

    def reward(completion_ids: list[list[int]], answer: list[int], **_: Any) -> list[float]:
        return [task.score(list(ids), value) for ids, value in zip(completion_ids, answer, strict=True)]

    rows = [{"prompt": problem.question, "answer": int(problem.gold)} for problem in task.problems]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=id_tokenizer(gpt.config.vocab_size, task.eos),
        )


def hf_model(gpt: GPT, eos: int) -> GPT2LMHeadModel:
    """The same weights in Hugging Face's GPT-2, which ends at `eos`."""
    shape = hf_config(gpt.config)
    shape.bos_token_id = shape.eos_token_id = shape.pad_token_id = eos
    model = GPT2LMHeadModel(shape)
    model.load_state_dict(to_hf_state(gpt.state_dict()), strict=False)
    model.tie_weights()
    return model


def id_tokenizer(vocab_size: int, eos: int) -> Any:
    """A tokenizer whose words are the ids themselves, in digits."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocab_size)}, unk_token=str(eos)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = str(eos)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token=end, eos_token=end, pad_token=end, padding_side="left"
    )


def give_positions(model: GPT2LMHeadModel) -> None:
    """What TRL's training forward leaves out: positions that count from a prompt's first token, not its padding."""

    def add(_: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() == 2 and kwargs.get("position_ids") is None:
            kwargs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return args, kwargs

    model.register_forward_pre_hook(add, with_kwargs=True)


def without_refills(config: GRPOConfig) -> GRPOConfig:
    """The config with groups that teach nothing left out, and none sampled in their place."""
    return replace(config, rollout=replace(config.rollout, refills=0))
