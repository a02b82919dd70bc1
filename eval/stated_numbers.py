"""The numbers that a text states, in digits and in words: what the operands of a fact may come from.

One table for those who look (eval/fact_use.py) and for those who pay (rl/token_use.py). To a reader `a pen` is one
pen and `a dozen` are twelve; these are words of the first only. An article is in every text, so a reward that took it
for a given number would pay 1 + 1 = 2 as work; numbers above nine, which a product has no use for, were not known to
the rewards of any run so far, and what a run is paid for stays as it was.
"""

import re

from tokenizer.families import fact_pattern

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))+|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+"
_STATED = re.compile(rf"{fact_pattern()}|(?P<number>{NUMBER})|\b(?P<word>[a-z]+)\b", re.IGNORECASE)
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
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_READERS_WORDS = _WORDS | dict.fromkeys(("a", "an", "each"), 1.0) | dict.fromkeys(("dozen", "dozens"), 12.0)
_READERS_WORDS |= {word: 10.0 + i for i, word in enumerate((*_TEENS, "twenty"))}


def stated_numbers(text: str, to_a_reader: bool = False) -> list[tuple[int, float]]:
    """Every number that `text` states, with the place where it ends; a fact token states its value.

    Takes time linear in the text's length.
    """
    words = _READERS_WORDS if to_a_reader else _WORDS
    found = []
    for match in _STATED.finditer(text):
        word = match["word"]
        if word is None:
            found.append((match.end(), float(match["value"] or match["number"].replace(",", ""))))
        elif word.lower() in words:
            found.append((match.end(), words[word.lower()]))
    return found
