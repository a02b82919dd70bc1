"""Compute a steering vector, save it, and show what a model says with and without it.

    uv run python edit/run_steering.py --model-path outputs/hf_baseline --layer 1 --positive "The capital of" \
        --negative "What is 6 times 9?" --prompts "The" "Tom has" --output outputs/steering.safetensors
    uv run python edit/run_steering.py --model-path outputs/hf_baseline --vector outputs/steering.safetensors --alpha 4
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.config import parse_config
from common.errors import UserError, run_script
from edit.directories import load_parent
from edit.steering import Reduce, load_steering_vector, save_steering_vector, steered, steering_vector
from eval.engine import generate
from tokenizer.mul_facts import Condition


@dataclass
class SteeringConfig:
    """Compute a steering vector or load one, and generate with and without it."""

    model_path: str = ""  # a GPT-2 model directory, or a hub id such as openai-community/gpt2
    positive: list[str] = field(default_factory=list)  # texts to steer towards
    negative: list[str] = field(default_factory=list)  # texts to steer away from
    layer: int = 0  # the vector is added after this block
    reduce: Reduce = "last"  # which state stands for a text: its last token's, or the mean over tokens
    vector: Path | None = None  # load this one instead of computing one
    output: Path | None = None  # where to save the computed one, as .safetensors
    alpha: float = 4.0  # how much of it is added
    prompts: list[str] = field(default_factory=lambda: ["The"])  # what is continued
    new_tokens: int = 30  # of each
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if it is there, else the CPU


def main() -> None:
    config = parse_config(SteeringConfig)
    if not config.prompts or "" in config.prompts:
        raise UserError("--prompts: expected texts to continue, found an empty one or none")
    parent = load_parent(config.model_path, config.condition, config.device)
    model, tokenizer = parent.model, parent.tokenizer
    if config.vector is not None:
        steering = load_steering_vector(config.vector)
        if steering.layer >= model.config.n_layer or len(steering.vector) != model.config.n_embd:
            raise UserError(
                f"{config.vector} is of another model: layer {steering.layer}, width {len(steering.vector)}"
            )
    else:
        steering = steering_vector(model, tokenizer, config.positive, config.negative, config.layer, config.reduce)
    if config.output is not None:
        save_steering_vector(config.output, steering)
        print(f"layer {steering.layer}, norm {float(steering.vector.norm()):.3f} -> {config.output}")

    prompts = tokenizer.encode_batch(config.prompts, allow_special=False)
    never = tokenizer.vocabulary.suppressed_ids
    for alpha in (0.0, config.alpha):
        with steered(model, steering, alpha):
            completions = generate(model, prompts, max_new_tokens=config.new_tokens, suppressed_ids=never)
        for prompt, [completion] in zip(config.prompts, completions, strict=True):
            print(f"alpha {alpha:g}: {prompt}|{tokenizer.decode(completion.ids)!r}")


if __name__ == "__main__":
    run_script(main)
