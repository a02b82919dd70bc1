"""Where the subject of a fact stands in its prompt. Found or an error, never guessed."""

import re

from common.errors import UserError
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

ARTICLES = re.compile(r"(the|an|a)\s+", re.IGNORECASE)


def find_subject(prompt: str, subject: str) -> tuple[int, int]:
    """Start and end of `subject` in `prompt`, in characters; only whole words count.

    Looked for as it is written, then ignoring case, then without its article. The first of these that finds it decides.
    Raises UserError, showing the prompt, when none does or when one finds it more than once.
    """
    found = _matches(prompt, subject)
    if not found:
        raise UserError(f"the subject {subject!r} is not in the prompt {prompt!r}; name it as the prompt does")
    if len(found) > 1:
        raise UserError(
            f"the subject {subject!r} stands {len(found)} times in the prompt {prompt!r}; word it so that it stands "
            "there once"
        )
    return found[0].span()


def holds_subject(prompt: str, subject: str) -> bool:
    """Whether `find_subject` would find it, once or more often."""
    return bool(_matches(prompt, subject))


def last_subject_token(tokenizer: GPT2TokenizerWithMulFacts, ids: list[int], text: str, end: int) -> int:
    """Index in `ids`, the tokens of `text`, of the token that holds the character before `end`."""
    # A character may be spread over several tokens: decoded text is whole once the last of them is in.
    return next(k for k in range(len(ids)) if tokenizer.decode(ids[: k + 1]).startswith(text[:end]))


def _matches(prompt: str, subject: str) -> list[re.Match[str]]:
    bare = ARTICLES.sub("", subject, count=1) if ARTICLES.match(subject) else subject
    if bare.casefold() not in prompt.casefold():
        return []  # most pairs of a large batch end here, for a fraction of a search's cost
    for text, flags in ((subject, 0), (subject, re.IGNORECASE), (bare, re.IGNORECASE)):
        # Not \b: a subject may begin or end with a sign that is no part of a word.
        found = list(re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", prompt, flags))
        if found:
            return found
    return []
