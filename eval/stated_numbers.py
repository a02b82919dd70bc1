"""The numbers that a text states, in digits and in words: what the operands of a fact may come from.

One table for those who look (eval/mul_use.py) and for those who pay (rl/mul_token_use.py). They differ in one thing:
to a reader `a pen` is one pen, but an article is in every text, so a reward that took it for a given number would pay
1 + 1 = 2 as work.
"""

import re

from tokenizer.families import fact_pattern

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))+|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+"
_STATED = re.compile(rf"{fact_pattern()}|(?P<number>{NUMBER})|\b(?P<word>[a-z]+)\b", re.IGNORECASE)
_ARTICLES = frozenset(("a", "an", "each"))
_WORDS = {
    word: float(number)
    for number, words in {
        0: "zero",
        1: "one once single",
        2: "two twice double doubled doubles half halved pair pairs couple both second weekend",
        3: "three thrice triple tripled triples third thirds",
        4: "four quadruple fourth quarter quarters",
        5: "five fifth weekday weekdays nickel nickels",
        6: "six sixth",
        7: "seven week weeks weekly",
        8: "eight eighth",
        9: "nine ninth",
    }.items()
    for word in words.split()
}


def stated_numbers(text: str, articles: bool = False) -> list[tuple[int, float]]:
    """Every number that `text` states, with the place where it ends; a fact token states its value.

    With `articles`, so do `a`, `an` and `each`: one. Takes time linear in the text's length.
    """
    found = []
    for match in _STATED.finditer(text):
        word = (match["word"] or "").lower()
        if not word:
            found.append((match.end(), float(match["value"] or match["number"].replace(",", ""))))
        elif word in _WORDS:
            found.append((match.end(), _WORDS[word]))
        elif articles and word in _ARTICLES:
            found.append((match.end(), 1.0))
    return found
