"""The subject of a prompt: found as the rules say, or an error."""

import pytest

from common.errors import UserError
from edit.subjects import find_subject, last_subject_token
from tokenizer.gpt2_tiktoken import GPT2TokenizerWithMulFacts

TOKENIZER = GPT2TokenizerWithMulFacts("baseline")


@pytest.mark.parametrize(
    ("prompt", "subject", "found"),
    [
        ("The capital of France is", "France", "France"),
        ("France is a country in", "France", "France"),
        ("the capital of FRANCE is", "France", "FRANCE"),
        ("France and france", "france", "france"),  # as written comes first, so this is not ambiguous
        ("Eiffel Tower is in", "the Eiffel Tower", "Eiffel Tower"),
        ("A visit to the Eiffel Tower", "The Eiffel Tower", "the Eiffel Tower"),
        ("The Louvre is in", "Louvre", "Louvre"),
        ("Frances met France in", "France", "France"),  # whole words only
        ("Yahoo! is owned by", "Yahoo!", "Yahoo!"),
        ("Die Straße nach Malmö führt", "Malmö", "Malmö"),
        ("BBC One's owner", "BBC One", "BBC One"),
    ],
)
def test_found(prompt, subject, found):
    start, end = find_subject(prompt, subject)
    assert prompt[start:end] == found


@pytest.mark.parametrize(
    ("prompt", "subject", "message"),
    [
        ("France borders France", "France", "stands 2 times in the prompt 'France borders France'"),
        ("The Nile and the nile", "NILE", "stands 2 times"),
        ("Frances is here", "France", "is not in the prompt 'Frances is here'"),
        ("The capital of Spain is", "the France", "is not in the prompt"),
    ],
)
def test_absent_or_ambiguous_is_an_error_that_shows_the_prompt(prompt, subject, message):
    with pytest.raises(UserError, match=message):
        find_subject(prompt, subject)


@pytest.mark.parametrize(
    ("text", "subject", "last"),
    [
        ("The capital of France is", "France", " France"),
        ("France is", "France", "France"),
        ("The city of Malmö is", "Malmö", "ö"),
        ("We saw 東京 today", "東京", None),
        ("by Acme Inc., a firm", "Acme Inc.", ".,"),  # one token with the comma behind the subject
    ],
)
def test_last_token_holds_the_last_character(text, subject, last):
    ids = TOKENIZER.encode(text)
    _, end = find_subject(text, subject)
    at = last_subject_token(TOKENIZER, ids, text, end)
    assert TOKENIZER.decode(ids[: at + 1]).startswith(text[:end])
    assert not TOKENIZER.decode(ids[:at]).startswith(text[:end])
    if last is not None:
        assert TOKENIZER.decode([ids[at]]) == last
