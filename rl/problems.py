"""The problems that a run draws prompts from, and the order in which it does."""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from common.errors import UserError
from data.gsm8k import load_gsm8k
from eval.answer_formats import FORMATS, FormatName
from eval.run_gsm8k import read_problems
from rl.contrastive import hinted_question
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts


@dataclass(frozen=True)
class Problem:
    """A question, its number, and the prompts that ask it, as ids: plain, and with the facts that its answer uses."""

    question: str
    gold: Decimal
    prompt: list[int]
    hinted: list[int]


def load_problems(
    source: str, format: FormatName, tokenizer: GPT2TokenizerWithMulFacts, longest: int, with_hints: bool
) -> tuple[list[Problem], int]:
    """The train split of `source`, and how many were left out because their prompt has more than `longest` tokens.

    Raises UserError for an answer without a number, and when no problem is left.
    """
    items = load_gsm8k(source, "train")
    prompt = FORMATS[format].prompt
    golds = [problem.gold for problem in read_problems(items, source)]
    plain = tokenizer.encode_batch([prompt(item["question"]) for item in items], allow_special=False)
    texts = [prompt(hinted_question(item["question"], item["answer"])) for item in items]
    hinted = tokenizer.encode_batch(texts, allow_special=False)
    problems = [
        Problem(item["question"], gold, ids, hint)
        for item, gold, ids, hint in zip(items, golds, plain, hinted, strict=True)
        if max(len(ids), len(hint) if with_hints else 0) <= longest  # a fact is several tokens in baseline
    ]
    if not problems:
        raise UserError(
            f"every prompt of {source} has more than {longest} tokens, which is what the model's context leaves beside "
            "rollout.max_new_tokens; lower that, or take a model with a longer context"
        )
    return problems, len(items) - len(problems)


def split_problems(problems: list[Problem], held_out: int, most: int | None, seed: int) -> tuple[list, list]:
    """(train, held out), drawn by seed from problems whose questions differ: nothing held out is trained on."""
    unique = list({problem.question: problem for problem in problems}.values())
    order = np.random.default_rng(seed).permutation(len(unique))
    if held_out >= len(unique):
        raise UserError(f"eval.prompts {held_out}: there are only {len(unique)} different problems; lower it")
    shuffled = [unique[i] for i in order]
    return shuffled[held_out:][:most], shuffled[:held_out]


class ProblemStream:
    """Problems without end: every pass in an order of its own, which the seed decides.

    `position` counts the problems drawn so far. It is the number of the next one's random stream as well, and all that
    a checkpoint needs to keep.
    """

    def __init__(self, problems: list[Problem], seed: int, position: int = 0):
        self.problems, self.seed, self.position = problems, seed, position

    def take(self, count: int) -> list[tuple[int, Problem]]:
        """The next `count` problems with their numbers."""
        taken = []
        for number in range(self.position, self.position + count):
            epoch, place = divmod(number, len(self.problems))
            if not taken or place == 0:
                order = np.random.default_rng((self.seed, epoch)).permutation(len(self.problems))
            taken.append((number, self.problems[order[place]]))
        self.position += count
        return taken
