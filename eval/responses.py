"""Responses to many prompts: shared out over processes, kept on disk while they come in, taken up after a kill.

The prompts are cut into chunks of fixed size, whatever the number of processes, and a chunk is generated whole by one
of them. The random numbers of a response depend on the seed, its prompt's position and its sample alone, so one process
and many, and a run that was killed and one that was not, give the same responses as long as the rows of a batch are the
same. How many rows that is depends on --batch-size or, without it, on the memory that is free; another number changes
the rounding of the logits, and where two tokens are as good as equally likely, a response may then go on differently.
Finished chunks are appended to {benchmark}_partial_*.jsonl in the output directory, under a name that only the same
evaluation looks for; the files are removed when the results are written.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common.distributed import World
from common.files import sha256_file
from eval.engine import Completion, generate
from pretrain.model import GPT
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID

# Sequences of a chunk: what a kill loses at most, and enough to keep the device busy.
CHUNK_SEQUENCES = {"cpu": 256, "mps": 512, "cuda": 2048}
SKIPPED = "skipped"  # finish_reason of a prompt that does not fit the model's context


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with the tokenizer of its condition, and the directory that it was loaded from."""

    model: GPT
    tokenizer: GPT2TokenizerWithMulFacts
    path: Path

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class Decoding:
    """How to generate. Temperature 0 is greedy."""

    max_new_tokens: int
    num_samples: int = 1
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop_ids: tuple[int, ...] = (EOT_ID,)
    seed: int = 0


def respond(
    evaluated: EvaluatedModel,
    prompts: Sequence[str],
    decoding: Decoding,
    world: World,
    output_dir: Path,
    benchmark: str,
    batch_size: int | None = None,
) -> list[list[Completion]]:
    """`num_samples` completions of each prompt, on every process. Responses of an interrupted call are taken up.

    A prompt that leaves no room in the model's context, or is empty, is not cut and not asked: its completions are
    empty with finish_reason "skipped".
    """
    model, tokenizer = evaluated.model, evaluated.tokenizer
    ids = tokenizer.encode_batch(list(prompts), allow_special=False)
    asked = [i for i in range(len(ids)) if 0 < len(ids[i]) < model.config.block_size]
    per_chunk = max(1, CHUNK_SEQUENCES[evaluated.device.type] // decoding.num_samples)
    chunks = [asked[start : start + per_chunk] for start in range(0, len(asked), per_chunk)]
    partial = PartialResponses(output_dir, benchmark, _fingerprint(evaluated, ids, decoding, per_chunk))
    finished = partial.read()
    world.barrier()  # nobody writes before everybody has read: all have to agree on what is left
    own = [number for number in range(len(chunks)) if number not in finished][world.rank :: world.size]
    made = {}
    with tqdm(
        total=len(asked) * decoding.num_samples,
        initial=sum(len(chunks[number]) for number in finished) * decoding.num_samples,
        desc="responses",
        unit="seq",
        disable=not world.is_main,
    ) as bar:
        for number in own:
            made[number] = generate(
                model,
                [ids[i] for i in chunks[number]],
                max_new_tokens=decoding.max_new_tokens,
                n=decoding.num_samples,
                temperature=decoding.temperature,
                top_k=decoding.top_k,
                top_p=decoding.top_p,
                stop_ids=decoding.stop_ids,
                suppressed_ids=tokenizer.vocabulary.suppressed_below(model.config.vocab_size),
                seed=decoding.seed,
                streams=chunks[number],
                batch_size=batch_size,
            )
            partial.append(world.rank, number, made[number])
            bar.update(len(chunks[number]) * decoding.num_samples * min(world.size, len(own)))
    completions = [[Completion([], [], SKIPPED) for _ in range(decoding.num_samples)] for _ in prompts]
    for number, of_chunk in [*finished.items(), *world.gather(list(made.items()))]:
        for i, samples in zip(chunks[number], of_chunk, strict=True):
            completions[i] = samples
    return completions


class PartialResponses:
    """The chunks of an evaluation that are finished, in one file per process that wrote some."""

    def __init__(self, output_dir: Path, benchmark: str, fingerprint: str) -> None:
        self.output_dir = output_dir
        self.name = f"{benchmark}_partial_{fingerprint[:16]}"

    def read(self) -> dict[int, list[list[Completion]]]:
        """The completions of each finished chunk. A line that a kill cut short is no finished chunk."""
        chunks = {}
        for path in sorted(self.output_dir.glob(f"{self.name}_*.jsonl")):
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # a kill, and then the line of a later call behind it
                chunks[row["chunk"]] = [
                    [Completion(**completion) for completion in samples] for samples in row["completions"]
                ]
        return chunks

    def append(self, rank: int, chunk: int, completions: list[list[Completion]]) -> None:
        """Add a finished chunk to this process's file."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        row = {"chunk": chunk, "completions": [[asdict(completion) for completion in s] for s in completions]}
        with open(self.output_dir / f"{self.name}_{rank:05d}.jsonl", "a", encoding="utf-8") as file:
            # The blank line parts this one from what a kill may have left unfinished.
            file.write("\n" + json.dumps(row) + "\n")


def remove_partial_responses(output_dir: Path, benchmark: str) -> None:
    """Remove every partial file of a benchmark: its results are there, or another evaluation takes its place."""
    for path in output_dir.glob(f"{benchmark}_partial_*.jsonl"):
        path.unlink()


def _fingerprint(evaluated: EvaluatedModel, ids: list[list[int]], decoding: Decoding, per_chunk: int) -> str:
    """Hex sha256 of everything that decides what is said, and of how it is cut into chunks."""
    weights = {path.name: sha256_file(path) for path in sorted(evaluated.path.glob("*.safetensors"))}
    weight = next(evaluated.model.parameters())
    said: dict[str, Any] = {"weights": weights, "condition": evaluated.tokenizer.condition, "prompts": ids}
    said |= {"families": evaluated.tokenizer.vocabulary.families}
    said |= {"decoding": asdict(decoding), "per_chunk": per_chunk, "dtype": str(weight.dtype)}
    said |= {"device": weight.device.type, "torch": torch.__version__}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
