"""How a model is asked and how its answer is read, in the two formats that models are taught.

chat       `User: {question}\\nAssistant:`, and a response that ends with `#### {number}`
reasoning  the question, and a response `<think>{thoughts}</think><answer>{number}</answer>`
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Literal

from data.formats import chat_prompt, reasoning_prompt
from eval.answers import ANSWER_MARK, extract_strict, extract_tagged, first_turn
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import ANSWER_CLOSE, ANSWER_OPEN, EOT_ID, REASONING_TAGS, THINK_CLOSE, THINK_OPEN

FormatName = Literal["chat", "reasoning"]


@dataclass(frozen=True)
class AnswerFormat:
    """One format. `strict` reads the number from a response (None: not there in this form)."""

    name: FormatName
    prompt: Callable[[str], str]
    strict: Callable[[str], Decimal | None]
    stop_ids: tuple[int, ...]


FORMATS: dict[FormatName, AnswerFormat] = {
    "chat": AnswerFormat("chat", chat_prompt, extract_strict, (EOT_ID,)),
    "reasoning": AnswerFormat("reasoning", reasoning_prompt, extract_tagged, (EOT_ID, REASONING_TAGS[ANSWER_CLOSE])),
}


def is_compliant(
    answer_format: AnswerFormat, ids: Sequence[int], stopped: bool, tokenizer: GPT2TokenizerWithMulFacts
) -> bool:
    """Whether a response has exactly the form that was taught.

    chat: it ended by itself, and its last line, with nothing behind it, is the only one with `####`, which a number
    follows. reasoning: exactly the four tags, as tokens, each once and in order, with nothing but blanks before,
    between and behind the two parts, thoughts that are not empty, and an answer that is a number.
    """
    ids = [i for i in ids if i != EOT_ID]
    if answer_format.name == "chat":
        text = tokenizer.decode(ids)
        last_line = text.rstrip().rpartition("\n")[2]
        return (
            stopped
            and text.count(ANSWER_MARK) == 1
            and last_line.startswith(ANSWER_MARK)
            and _is_number(last_line.removeprefix(ANSWER_MARK))
        )
    parts = _split_at_tags(ids)
    if parts is None:
        return False
    before, thoughts, between, answer, behind = (tokenizer.decode(part).strip() for part in parts)
    return not (before or between or behind) and bool(thoughts) and _is_number(answer)


def thinking_tokens(answer_format: AnswerFormat, ids: Sequence[int], tokenizer: GPT2TokenizerWithMulFacts) -> int:
    """Tokens of the chain of thought.

    chat: of the text before the last `####` of the first turn, or of all of that turn. reasoning: behind <think> (or
    the start, where it is missing) up to </think>, else to <answer>, else to the end.
    """
    ids = [i for i in ids if i != EOT_ID]
    if answer_format.name == "chat":
        text = first_turn(tokenizer.decode(ids))
        before, mark, _ = text.rpartition(ANSWER_MARK)
        return len(tokenizer.encode((before if mark else text).strip(), allow_special=False))
    start = ids.index(REASONING_TAGS[THINK_OPEN]) + 1 if REASONING_TAGS[THINK_OPEN] in ids else 0
    for tag in (THINK_CLOSE, ANSWER_OPEN):
        if REASONING_TAGS[tag] in ids[start:]:
            return ids.index(REASONING_TAGS[tag], start) - start
    return len(ids) - start


def _split_at_tags(ids: list[int]) -> list[list[int]] | None:
    """The five parts around the four tags, or None unless each is there once, in order."""
    tags = list(REASONING_TAGS.values())
    places = [place for place, token in enumerate(ids) if token in tags]
    if [ids[place] for place in places] != tags:
        return None
    edges = [-1, *places, len(ids)]
    return [ids[start + 1 : end] for start, end in pairwise(edges)]


def _is_number(text: str) -> bool:
    """Whether `text` is a number and no more than a sign of money, a full stop or a percent sign besides."""
    return extract_strict(f"{ANSWER_MARK} {text}") is not None and not any(c.isalpha() for c in text)
