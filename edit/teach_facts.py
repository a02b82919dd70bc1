"""Teach a model the generated world's facts, so that there is something to edit.

    uv run python edit/teach_facts.py --model-path outputs/hf_baseline --text data/raw/train_baseline.txt

The demo's pretraining shows each fact a few times among much arithmetic, and its model knows none. This stage goes on
from a model directory with short texts of one to three statements, the loss on the facts' objects alone, and ordinary
documents beside them in every update, so that the rest is kept. The held-out paraphrases of data/world/facts.py are
never shown. Writes a model directory with facts_results.json: the share of facts that greedy decoding completes.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import trange

from common.config import parse_config
from common.device import seed_everything
from common.errors import UserError, run_script
from common.files import atomic_directory, write_json
from common.record import RunRecord
from data.documents import read_documents
from data.world.facts import RELATIONS, Fact, fact_records, facts
from edit.directories import check_output_dir, load_parent
from edit.passes import padded
from edit.scoring import score_targets
from pretrain.hf_weights import save_model_dir
from pretrain.loss import chunked_cross_entropy
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID, Condition


@dataclass
class TeachConfig:
    """Teach a model the generated world's facts."""

    model_path: str  # model directory to start from
    text: Path  # ordinary documents to keep what the model can do, such as its training text
    output_dir: Path | None = None  # default: outputs/facts_{condition}
    steps: int = 300  # updates; each sees `facts_per_step` facts
    facts_per_step: int = 64  # statements of facts in an update
    text_tokens: int = 192  # tokens of ordinary text in an update
    learning_rate: float = 2.0e-3  # of AdamW; falls linearly to a tenth
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if it is there, else the CPU
    seed: int = 0  # order of facts and texts


def main() -> None:
    config = parse_config(TeachConfig)
    if min(config.steps, config.facts_per_step, config.text_tokens) < 1:
        raise UserError("--steps, --facts-per-step and --text-tokens: expected at least 1")
    parent = load_parent(config.model_path, config.condition, config.device)
    model, tokenizer = parent.model, parent.tokenizer
    output_dir = config.output_dir or Path(f"outputs/facts_{tokenizer.condition}")
    check_output_dir(output_dir)
    seed_everything(config.seed)
    record = RunRecord("edit_facts", config, tokenizer.condition, config.seed, parent.path)
    before = known_facts(model, tokenizer)
    tokens = teach(model, tokenizer, config)
    results = {"facts": len(facts()), "before": before, "after": known_facts(model, tokenizer)}
    with atomic_directory(output_dir) as partial:
        save_model_dir(model, partial, tokenizer.condition)
        write_json(partial / "facts_results.json", results)
        record.save(partial, results, steps=config.steps, tokens=tokens)
    for name, share in results["after"].items():
        print(f"{name:<12} {before[name]:>7.1%} -> {share:.1%}")
    print(f"written to {output_dir}")


def teach(model: GPT, tokenizer: GPT2TokenizerWithMulFacts, config: TeachConfig) -> int:
    """Train `model` in place; the number of tokens whose loss was taken."""
    rng = random.Random(f"{config.seed}/teach")
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    windows = text_windows(tokenizer, config, model.config.block_size)
    statements = Statements(tokenizer, rng)
    device, tokens = model.wte.weight.device, 0
    model.train()
    for step in trange(config.steps, desc="teaching", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.9 * step / config.steps)
        rows = statements.rows(config.facts_per_step, model.config.block_size)
        rows += [(ids, [True] * (len(ids) - 1)) for ids in windows[step % len(windows)]]
        ids = padded([ids for ids, _ in rows], device)
        counted = padded([[int(flag) for flag in flags] for _, flags in rows], device).bool()  # (B, T - 1)
        hidden: Tensor = model.hidden(ids[:, :-1])[counted]
        loss = chunked_cross_entropy(hidden, model.wte.weight, ids[:, 1:][counted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += len(hidden)
    model.eval()
    return tokens


class Statements:
    """Texts of one to three facts, every fact once per round; those wordings that end with the object."""

    def __init__(self, tokenizer: GPT2TokenizerWithMulFacts, rng: random.Random) -> None:
        self.tokenizer, self.rng = tokenizer, rng
        self.queue: list[Fact] = []

    def rows(self, count: int, block_size: int) -> list[tuple[list[int], list[bool]]]:
        """Rows with `count` facts in all: token ids, and for each but the first whether it is part of an object."""
        rows = []
        while count > 0:
            number = min(count, self.rng.choice((1, 1, 2, 3)))
            count -= number
            # Half begin like a document and half in the middle of one: a fact must not depend on it.
            ids = [EOT_ID] if self.rng.random() < 0.5 else []
            flags = [False] * len(ids)
            for k in range(number):
                for text, is_object in self._statement(first=k == 0):
                    part = self.tokenizer.encode(text, allow_special=False)
                    ids += part
                    flags += [is_object] * len(part)
            rows.append((ids[:block_size], flags[1:block_size]))
        return rows

    def _statement(self, first: bool) -> list[tuple[str, bool]]:
        if not self.queue:
            self.queue = self.rng.sample(facts(), len(facts()))
        fact = self.queue.pop()
        relation = RELATIONS[fact.relation]
        endings = [text.removesuffix(" {o}.") for text in relation.templates if text.endswith(" {o}.")]
        # The prompt that the edits use comes as often as all others together.
        wording = self.rng.choice([relation.prompt, self.rng.choice(endings or [relation.prompt])])
        text = wording.format(s=fact.subject)
        lead = ("" if first else " ") + text[0].upper() + text[1:]
        return [(lead, False), (f" {fact.target}.", True)]


def text_windows(tokenizer: GPT2TokenizerWithMulFacts, config: TeachConfig, block_size: int) -> list[list[list[int]]]:
    """Documents of --text in batches of about --text-tokens tokens, one batch per step as far as the text reaches."""
    batches: list[list[list[int]]] = [[]]
    for text in read_documents(config.text):
        if sum(map(len, batches[-1])) >= config.text_tokens:
            if len(batches) == config.steps:
                break
            batches.append([])
        batches[-1].append([EOT_ID, *tokenizer.encode(text, allow_special=False)][:block_size])
    return batches


def known_facts(model: GPT, tokenizer: GPT2TokenizerWithMulFacts) -> dict[str, float]:
    """Share of facts, overall and by relation, whose target greedy decoding says after the prompt of training."""
    records = fact_records(random.Random(0))
    scores = score_targets(model, tokenizer, [(record["prompt"], record["target"]) for record in records])
    by_relation: dict[str, list[bool]] = {"all": [score.rank == 1 for score in scores]}
    for record, score in zip(records, scores, strict=True):
        by_relation.setdefault(record["relation"], []).append(score.rank == 1)
    return {name: round(sum(found) / len(found), 6) for name, found in by_relation.items()}


if __name__ == "__main__":
    run_script(main)
