"""What the tests of GRPO share: a tiny model, rows as if sampled, an update around them."""

import contextlib
import math
import os
import socket
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import torch

from common.distributed import World
from common.files import write_json
from pretrain.hf_weights import save_model_dir
from pretrain.model import GPT, GPTConfig
from rl.objective import ObjectiveSettings
from rl.problems import Problem
from rl.rewards import Reward, Rollout
from rl.rollouts import Row, Sampler
from rl.settings import RolloutSettings
from rl.update import Update
from tests.helpers import start_process
from tokenizer.mul_facts import EOT_ID, VOCAB_SIZE

VOCAB = 97
SUPPRESSED = (90, 95, 96)
ALONE = World(0, 1, torch.device("cpu"))


def tiny_policy(seed: int = 0) -> GPT:
    """A random GPT whose distributions differ from token to token."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=48, vocab_size=VOCAB))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def random_rows(count: int = 7, seed: int = 1, truncated: tuple[int, ...] = ()) -> list[Row]:
    """Rows of all lengths, with log-probabilities of a policy that was near this one."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(count):
        prompt, ids = (torch.randint(0, 90, (n,), generator=generator).tolist() for n in (1 + 3 * i, 9 - i))
        old = (-4.5 + 0.3 * torch.randn(len(ids), generator=generator)).tolist()
        rows.append(Row(prompt, ids, old, float(torch.randn((), generator=generator)), i in truncated))
    return rows


def make_update(
    model: GPT,
    objective: ObjectiveSettings | None = None,
    reference: GPT | None = None,
    temperature: float = 1.0,
    micro_batch_tokens: int = 8192,
    world: World = ALONE,
    suppressed: tuple[int, ...] = SUPPRESSED,
) -> Update:
    return Update(
        model,
        reference,
        objective or ObjectiveSettings(),
        temperature,
        torch.tensor(suppressed, dtype=torch.long),
        max_new_tokens=12,
        micro_batch_tokens=micro_batch_tokens,
        autocast=contextlib.nullcontext(),
        world=world,
    )


def gradients_of(update: Update, rows: list[Row], bonus: float = 0.0) -> tuple[dict, list[torch.Tensor]]:
    """The statistics of `rows`, and the gradients that they leave."""
    statistics = update.gradients(rows, bonus)
    return statistics, [parameter.grad.clone() for parameter in update.model.parameters()]


def run_ranks(count: int, function: Callable, *arguments: object) -> None:
    """Run `function` in `count` processes that find each other as torchrun's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start_process(_as_rank, rank, count, port, function, *arguments) for rank in range(count)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def _as_rank(rank: int, count: int, port: int, function: Callable, *arguments: object) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    function(*arguments)


def toy_problems(count: int, length: int = 1) -> list[Problem]:
    """Problem i asks with `length` ids and its number is i."""
    prompts = [[(i + k) % 90 for k in range(length)] for i in range(count)]
    return [Problem(f"problem {i}", Decimal(i), prompt, prompt) for i, prompt in enumerate(prompts)]


def toy_sampler(score: Callable[[Rollout], float], rollout: RolloutSettings, **more: object) -> Sampler:
    """A sampler over ids: nothing stops, and `score` is the reward."""

    def reward(response: Rollout) -> Reward:
        value = score(response)
        return Reward(value, value == 1, {"score": value})

    settings = {"stop_ids": (), "suppressed_ids": (), "objective": ObjectiveSettings(), "seed": 0, "world": ALONE}
    return Sampler(decode=str, rollout=rollout, reward=reward, **settings | more)


def write_policy(directory: Path, condition: str = "baseline", stops: bool = True) -> Path:
    """An eight-wide model directory: random words, of which about every eighth is an end, or none at all."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=64))
    with torch.no_grad():  # the final states all point along one direction, on which end-of-text has its logit
        model.ln_f.bias[0] = 40.0
        model.wte.weight[EOT_ID] = 0.0
        model.wte.weight[EOT_ID, 0] = math.log(VOCAB_SIZE / 7) / 40 if stops else -1.0
    save_model_dir(model, directory, condition)
    write_json(directory / "run.json", {"stage": "export", "condition": condition})
    return directory
