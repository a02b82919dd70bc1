"""The text formats that SFT, GRPO and evaluation share, so that a model is asked exactly as it was taught.

No prompt ends with a space. GPT-2's BPE attaches a space to the word behind it (" 54" is one token), so a
prompt with a trailing space would end in a token that training never puts there. The space therefore begins
the completion, and the ids of prompt and completion, encoded apart, are the ids of the joined text.
"""

from common.errors import UserError
from tokenizer.mul_facts import ANSWER_CLOSE, ANSWER_OPEN, END_OF_TEXT, THINK_CLOSE, THINK_OPEN


def chat_prompt(question: str) -> str:
    """The user's turn and the assistant's cue."""
    return f"User: {question.strip()}\nAssistant:"


def system_turn(text: str) -> str:
    """What stands before the first user turn of a conversation that has instructions of its own."""
    return f"System: {text.strip()}\n"


def chat_completion(answer: str) -> str:
    """The assistant's turn, with the end-of-text that ends it."""
    return f" {answer.strip()}{END_OF_TEXT}"


def chat_document(question: str, answer: str) -> str:
    """Both turns as a pretraining document; the shard writer, not the text, marks where documents end."""
    return chat_prompt(question) + chat_completion(answer).removesuffix(END_OF_TEXT)


def reasoning_prompt(question: str) -> str:
    """The bare question; what follows begins with the added token <think>, where BPE never merges across."""
    return question.strip()


def reasoning_completion(reasoning: str, answer: str) -> str:
    """Thoughts and answer between their tags, with the end-of-text."""
    thoughts = f"{THINK_OPEN}{reasoning.strip()}{THINK_CLOSE}"
    return f"{thoughts}{ANSWER_OPEN}{answer.strip()}{ANSWER_CLOSE}{END_OF_TEXT}"


def split_gsm8k_answer(answer: str) -> tuple[str, str]:
    """Split a GSM8K answer into its reasoning and what stands behind the last "####", both stripped.

    The final answer stays as written ("1,000" keeps its comma). Raises UserError when there is none.
    """
    reasoning, mark, final = answer.rpartition("####")
    if not mark or not final.strip():
        raise UserError(f"expected a GSM8K answer that ends with '#### number', found {answer[-60:]!r}")
    return reasoning.strip(), final.strip()
