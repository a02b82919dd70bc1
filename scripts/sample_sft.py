"""Ask a model directory something, and look at what it says, down to its tokens.

    uv run python scripts/sample_sft.py --model-path outputs/sft_gsm8k_mul_tokens --question "What is 7 times 8?"
    uv run python scripts/sample_sft.py --model-path outputs/sft_tulu_baseline --interactive
    uv run python scripts/sample_sft.py --model-path outputs/sft_gsm8k_mul_tokens --question "What is 7 times 8?" \
        --num-samples 3 --temperature 0.7 --transcript

--transcript lists prompt and response token by token, with ids, and marks tags and mul tokens. --interactive asks one
question after the other, each for itself; an empty line ends it.
"""

from dataclasses import dataclass
from typing import Literal

from common.config import parse_config
from common.device import pick_device
from common.errors import UserError, run_script
from eval.answer_formats import FORMATS, FormatName, thinking_tokens
from eval.answers import as_text, first_turn
from eval.benchmark import check_flags, load_for_evaluation
from eval.engine import Completion, generate
from eval.responses import EvaluatedModel
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import EOT_ID, REASONING_TAGS, Condition


@dataclass
class SampleConfig:
    """Ask a model directory something, and look at what it says."""

    model_path: str  # GPT-2 model directory to ask, or a hub id
    question: str | None = None  # what to ask; or give --interactive
    interactive: bool = False  # ask for questions until one is empty
    format: FormatName = "chat"  # how the model was taught to be asked and to answer
    num_samples: int = 1  # responses to each question
    temperature: float = 0.0  # 0: greedy
    top_k: int | None = None  # sample from the so many likeliest tokens
    top_p: float | None = None  # sample from the likeliest tokens that reach this probability
    max_new_tokens: int = 256  # longest response
    transcript: bool = False  # list the tokens of prompt and response with their ids
    condition: Condition | None = None  # default: what the model directory says
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA, then MPS, then the CPU
    seed: int = 0  # of sampling; greedy decoding draws nothing


def main() -> None:
    config = parse_config(SampleConfig)
    check_flags(config)
    if (config.question is None) == (not config.interactive):
        raise UserError("give either --question or --interactive")
    evaluated = load_for_evaluation(config.model_path, config.condition, pick_device(config.device))
    if config.question is not None:
        answer(config.question, config, evaluated)
        return
    print(f"{config.model_path} ({evaluated.tokenizer.condition}); an empty line ends")
    while question := read_question():
        try:
            answer(question, config, evaluated)
        except UserError as error:  # the next question may be a better one
            print(f"error: {error}")


def read_question() -> str:
    """The next question; empty at the end of the input."""
    try:
        return input("\n> ").strip()
    except EOFError:
        return ""


def answer(question: str, config: SampleConfig, evaluated: EvaluatedModel) -> None:
    """Print the responses to one question. Raises UserError for one that is empty or longer than the context."""
    tokenizer, answer_format = evaluated.tokenizer, FORMATS[config.format]
    prompt = tokenizer.encode(answer_format.prompt(question), allow_special=False)
    room = evaluated.model.config.block_size
    if not 0 < len(prompt) < room or not question.strip():
        raise UserError(
            f"the question makes a prompt of {len(prompt)} tokens; the model's context takes 1 to {room - 1}"
        )
    [completions] = generate(
        evaluated.model,
        [prompt],
        max_new_tokens=config.max_new_tokens,
        n=config.num_samples,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        stop_ids=answer_format.stop_ids,
        suppressed_ids=tokenizer.vocabulary.suppressed_below(evaluated.model.config.vocab_size),
        seed=config.seed,
    )
    for number, completion in enumerate(completions, start=1):
        print(f"\n--- {number} of {len(completions)} ---" if len(completions) > 1 else "")
        if config.transcript:
            print(transcript(prompt, completion, tokenizer))
        response = tokenizer.decode([i for i in completion.ids if i != EOT_ID])
        number_read = as_text(answer_format.strict(first_turn(response)))
        thoughts = thinking_tokens(answer_format, completion.ids, tokenizer)
        facts = tokenizer.count_mul_tokens(completion.ids)
        print(response.strip())
        print(
            f"[answer: {number_read or 'none'}; {len(completion.ids)} tokens, {thoughts} of them thoughts, {facts} mul "
            f"tokens; ended by {'a stop token' if completion.finish_reason == 'stop' else 'the limit'}]"
        )


def transcript(prompt: list[int], completion: Completion, tokenizer: GPT2TokenizerWithMulFacts) -> str:
    """One line per token: position, id, text; tags, end-of-text and mul tokens between asterisks."""
    lines = [f"--- prompt ({len(prompt)} tokens) ---", *_lines(prompt, 0, tokenizer)]
    lines += [f"--- generated ({len(completion.ids)} tokens) ---", *_lines(completion.ids, len(prompt), tokenizer)]
    return "\n".join(lines) + "\n"


def _lines(ids: list[int], start: int, tokenizer: GPT2TokenizerWithMulFacts) -> list[str]:
    facts = tokenizer.vocabulary.facts
    lines = []
    for position, token in enumerate(ids, start=start):
        text = tokenizer.decode([token])
        special = token == EOT_ID or token in REASONING_TAGS.values() or token in facts
        lines.append(f"[{position:>4}] id={token:>5}  {f'*** {text} ***' if special else repr(text)}")
    return lines


if __name__ == "__main__":
    run_script(main)
