"""From a problem's sampled responses to the SFT rows of those that are right, whole and different."""

from collections import Counter

from data.chat_rows import BadRow, question_and_answer
from data.reasoning import question_reasoning_answer
from eval.answer_formats import AnswerFormat, is_compliant
from eval.answers import first_turn
from eval.engine import Completion
from eval.run_gsm8k import Problem
from rl.equations import facts_in, read_sentences
from rl.token_use import generated_facts
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts
from tokenizer.mul_facts import ANSWER_CLOSE, ANSWER_OPEN, EOT_ID, THINK_CLOSE, THINK_OPEN

OUTCOMES = ("kept", "wrong", "not_in_format", "false_equation", "not_trainable", "repeated", "more_than_wanted")

Row = dict[str, str]


def verified_rows(
    problem: Problem,
    completions: list[Completion],
    answer_format: AnswerFormat,
    tokenizer: GPT2TokenizerWithMulFacts,
    most: int,
) -> tuple[list[Row], Counter[str]]:
    """At most `most` rows, what was said most often first, and how many completions had which of the OUTCOMES.

    A right number is no proof of a right text: of "12 pens" and "12 stones" the model says oftener what fits.
    """
    rows: dict[str, Row] = {}  # by what is said
    said: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for completion in completions:
        text = tokenizer.decode([i for i in completion.ids if i != EOT_ID]).strip()
        if answer_format.strict(first_turn(text)) != problem.gold:
            outcomes["wrong"] += 1
        elif completion.finish_reason != "stop" or not is_compliant(answer_format, completion.ids, True, tokenizer):
            outcomes["not_in_format"] += 1
        elif any(not equation.holds for sentence in read_sentences(text) for equation in sentence.equations):
            outcomes["false_equation"] += 1
        elif (row := sft_row(problem.question, text, completion.ids, answer_format)) is None:
            outcomes["not_trainable"] += 1
        else:
            rows[text] = row
            said[text] += 1
    kept = [rows[text] for text, _ in said.most_common(most)]
    outcomes["kept"] = len(kept)
    outcomes["more_than_wanted"] = len(rows) - len(kept)
    outcomes["repeated"] = said.total() - len(rows)
    return kept, outcomes


def sft_row(question: str, text: str, ids: list[int], answer_format: AnswerFormat) -> Row | None:
    """A compliant response as a row for the SFT stage of its format; None when it would be read as something else.

    That is so for a fact that is spelled out of other tokens, and for bytes that are no character.
    """
    if Counter(facts_in(text)) != generated_facts(ids) or "\ufffd" in text:
        return None
    try:
        if answer_format.name == "chat":
            return question_and_answer({"question": question, "answer": text})
        thoughts, _, answer = text.partition(THINK_CLOSE)
        parts = {"reasoning": thoughts.strip().removeprefix(THINK_OPEN).strip()}
        parts["answer"] = answer.strip().removeprefix(ANSWER_OPEN).removesuffix(ANSWER_CLOSE).strip()
        return question_reasoning_answer({"question": question} | parts)
    except BadRow:
        return None
