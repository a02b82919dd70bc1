"""For the tests of the SFT stages: eight-wide GPT-2 directories, GSM8K-like items, a config that trains in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from common.files import write_json
from sft.training import LabelledRowsTrainer
from tokenizer.hf_gpt2_with_mul import build_hf_tokenizer
from tokenizer.mul_facts import EOT_ID, VOCAB_SIZE
from tokenizer.vocabulary import Vocabulary

TOY = """
training: {epochs: 2, batch_size: 4, micro_batch_size: 4, max_length: 96, learning_rate: 1.0e-2, dtype: float32}
eval: {fraction: 0.25, interval: 3}
logging: {interval: 1}
checkpoint: {interval: 2}
"""
# Each answer has two products that injection rewrites.
EXAMPLES = [
    {
        "question": f"Sam has {a} bags with {b} lemons ({a}*{b}) in each. How many?",
        "answer": f"There are {a} * {b} = <<{a}*{b}={a * b}>>{a * b} lemons"
        + " in the bags" * (a % 3)
        + f".\n#### {a * b}",
    }
    for a in range(2, 10)
    for b in (3, 7)
]


def write_parent(directory: Path, condition: str, n_positions: int = 96) -> Path:
    """A model directory of `condition`, of random weights that are the same in both."""
    torch.manual_seed(0)
    shape = dict(vocab_size=VOCAB_SIZE, n_positions=n_positions, n_embd=8, n_layer=2, n_head=2)
    dropout = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(GPT2Config(**shape, **dropout, bos_token_id=EOT_ID, eos_token_id=EOT_ID))
    model.generation_config = GenerationConfig(
        bos_token_id=EOT_ID,
        eos_token_id=EOT_ID,
        pad_token_id=EOT_ID,
        suppress_tokens=Vocabulary(condition).suppressed_ids,
    )
    model.save_pretrained(directory)
    build_hf_tokenizer(condition).save_pretrained(directory)
    write_json(directory / "run.json", {"stage": "export", "condition": condition})
    return directory


def stop_in_step(step: int, monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], arguments: list[str]) -> None:
    """Leave a run as a kill would before it logs `step`, with the checkpoints of the steps before."""
    log = LabelledRowsTrainer.log

    def log_until_then(self, logs, start_time=None):
        if self.state.global_step == step:
            raise InterruptedError
        log(self, logs, start_time)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledRowsTrainer, "log", log_until_then)
        patch.setattr("sys.argv", ["script.py", *arguments])
        with pytest.raises(InterruptedError):
            main()
