"""A small random model and requests for the tests of edit/."""

import torch

from edit.editing import make_requests
from edit.prompts import EditPrompt, sample_contexts
from edit.records import EditRecord, Neighbor
from edit.settings import ContextSettings
from edit.values import ValueRequest
from pretrain.model import GPT, GPTConfig
from tests.helpers import random_gpt
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

CONFIG = GPTConfig(n_layer=3, n_head=2, n_embd=16, block_size=48)
TOKENIZER = GPT2TokenizerWithMulFacts("baseline")
RECORDS = [
    EditRecord(
        "0",
        "capital",
        "France",
        "The capital of France is",
        "Buenos Aires",
        "Paris",
        ("If you visit the capital of France, you see",),
        (Neighbor("The capital of Spain is", "Madrid"), Neighbor("The capital of Italy is", "Rome")),
    ),
    EditRecord("1", "city", "Louvre", "Louvre is located in", "London", "Paris", ("To see the Louvre, go to",)),
    EditRecord("2", "field", "Marie Curie", "We remember Marie Curie", "music", "chemistry"),  # subject at the end
    EditRecord("3", "capital", "Spain", "The capital of Spain is", "Oslo", "Madrid"),
]


def small_model(seed: int = 0) -> GPT:
    """Three blocks, every parameter random."""
    return random_gpt(CONFIG, seed).eval()


def recorded(model: GPT, prompt: EditPrompt, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """By a whole forward pass with hooks: the key (4C,) and the stream after block `layer` (C,) at the position."""
    seen = {}
    block = model.h[layer]
    hooks = [
        block.mlp.c_proj.register_forward_pre_hook(lambda _module, inputs: seen.update(key=inputs[0])),
        block.register_forward_hook(lambda _module, _inputs, output: seen.update(stream=output)),
    ]
    with torch.no_grad():
        model.hidden(torch.tensor([prompt.ids]))
    for hook in hooks:
        hook.remove()
    return seen["key"][0, prompt.position], seen["stream"][0, prompt.position]


def streams_after(model: GPT, prompts: list[EditPrompt], layer: int) -> torch.Tensor:
    """(B, C), prompt by prompt."""
    return torch.stack([recorded(model, prompt, layer)[1] for prompt in prompts])


def small_requests(model: GPT, contexts: int = 2, records: list[EditRecord] = RECORDS) -> list[ValueRequest]:
    """The records under none and under `contexts` sampled prefixes."""
    prefixes = sample_contexts(model, TOKENIZER, ContextSettings(contexts, 4), seed=0)
    return make_requests(TOKENIZER, records, prefixes)
