"""Teach a model the generated world's facts, so that there is something to edit.

    uv run python edit/teach_facts.py --model-path outputs/hf_baseline --text data/raw/train_baseline.txt

The demo's pretraining shows each fact a few times among much arithmetic, and its model knows none. This stage goes on
from a model directory with short texts of one to three statements, the loss on the facts' objects alone, and ordinary
documents beside them in every update, so that the rest is kept. The paraphrases of data/world/facts.py are shown of
the facts that --held-out does not name and never of those that it does: a model that has never met a wording cannot be
asked in it, and one that was taught the very sentence would not be asked anything new. Writes a model directory with
facts_results.json: the share of facts that greedy decoding completes, and of held-out facts in the paraphrases; and
text.txt, of what was taught: facts and ordinary documents, half of the tokens each. It is the text for the covariance
of an edit, which holds on to what it stands for: without facts in it, other facts go first.
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
from common.files import atomic_directory, write_json, write_text
from common.record import RunRecord
from data.documents import read_documents
from data.world.facts import RELATIONS, Fact, fact_records, facts
from edit.directories import TAUGHT, check_output_dir, load_parent
from edit.passes import padded
from edit.records import EditRecord, load_edits
from edit.scoring import score_targets
from pretrain.hf_weights import save_model_dir
from pretrain.loss import chunked_cross_entropy
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import END_OF_TEXT, EOT_ID, Condition

TEXT = "text.txt"


@dataclass
class TeachConfig:
    """Teach a model the generated world's facts."""

    model_path: str  # model directory to start from
    text: Path  # ordinary documents to keep what the model can do, such as its training text
    held_out: Path = Path("edit/facts.json")  # edits: their facts are taught, but in no paraphrase
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
    check_output_dir(output_dir, TAUGHT, config.model_path)
    seed_everything(config.seed)
    record = RunRecord(TAUGHT, config, tokenizer.condition, config.seed, parent.path)
    edits = load_edits(config.held_out)
    before = known_facts(model, tokenizer, edits)
    tokens, documents = teach(model, tokenizer, config, {record.prompt for record in edits})
    results = {"facts": len(facts()), "before": before, "after": known_facts(model, tokenizer, edits)}
    with atomic_directory(output_dir) as partial:
        save_model_dir(model, partial, tokenizer.condition, tokenizer.vocabulary.families)
        write_text(partial / TEXT, f"\n{END_OF_TEXT}\n".join(documents) + "\n")
        write_json(partial / "facts_results.json", results)
        record.save(partial, results, steps=config.steps, tokens=tokens)
    for name, share in results["after"].items():
        print(f"{name:<22} {before[name]:>7.1%} -> {share:.1%}")
    print(f"written to {output_dir}")


def teach(
    model: GPT, tokenizer: GPT2TokenizerWithMulFacts, config: TeachConfig, held_out: set[str]
) -> tuple[int, list[str]]:
    """Train `model` in place. The number of tokens whose loss was taken, and texts of both kinds in equal parts."""
    rng = random.Random(f"{config.seed}/teach")
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    windows = text_windows(tokenizer, config, model.config.block_size)
    statements = Statements(tokenizer, rng, held_out)
    device, tokens = model.wte.weight.device, 0
    documents: list[str] = []
    model.train()
    for step in trange(config.steps, desc="teaching", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.9 * step / config.steps)
        rows = statements.rows(config.facts_per_step, model.config.block_size)
        documents += texts_of([ids for ids, _ in rows], windows[step % len(windows)], tokenizer)
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
    return tokens, documents


def texts_of(facts_: list[list[int]], text: list[list[int]], tokenizer: GPT2TokenizerWithMulFacts) -> list[str]:
    """The documents of `text`, and of `facts_` as many as have about as many tokens."""
    room = sum(map(len, text))
    chosen = list(text)
    for ids in facts_:
        room -= len(ids)
        if room < 0:
            break
        chosen.append(ids)
    return [tokenizer.decode([i for i in ids if i != EOT_ID]) for ids in chosen]


class Statements:
    """Texts of one to three facts, every fact once per round; those wordings that end with the object.

    held_out: prompts of the facts that are shown in none of their paraphrases.
    """

    def __init__(self, tokenizer: GPT2TokenizerWithMulFacts, rng: random.Random, held_out: set[str]) -> None:
        self.tokenizer, self.rng, self.held_out = tokenizer, rng, held_out
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
        wordings = [relation.prompt, self.rng.choice(endings or [relation.prompt])]
        if sentence_of(relation.prompt, fact) not in self.held_out:
            wordings.append(self.rng.choice(relation.paraphrases))
        text = sentence_of(self.rng.choice(wordings), fact)
        lead = ("" if first else " ") + text
        return [(lead, False), (f" {fact.target}.", True)]


def sentence_of(wording: str, fact: Fact) -> str:
    """The wording with the fact's subject, beginning with a capital."""
    text = wording.format(s=fact.subject)
    return text[0].upper() + text[1:]


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


def known_facts(model: GPT, tokenizer: GPT2TokenizerWithMulFacts, edits: list[EditRecord]) -> dict[str, float]:
    """Share of facts, overall and by relation, whose target greedy decoding says after the prompt of training.

    `held_out_paraphrases`: the same for the old targets of `edits` after the paraphrases that were never shown of them.
    """
    records = fact_records(random.Random(0))
    scores = score_targets(model, tokenizer, [(record["prompt"], record["target"]) for record in records])
    found: dict[str, list[bool]] = {"all": [score.rank == 1 for score in scores]}
    for record, score in zip(records, scores, strict=True):
        found.setdefault(record["relation"], []).append(score.rank == 1)
    asked = [(text, record.target_old) for record in edits for text in record.paraphrases]
    found["held_out_paraphrases"] = [score.rank == 1 for score in score_targets(model, tokenizer, asked)]
    return {name: round(sum(those) / max(len(those), 1), 6) for name, those in found.items()}


if __name__ == "__main__":
    run_script(main)
