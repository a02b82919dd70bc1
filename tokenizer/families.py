"""The token families of families.yaml: which facts have a token, and which id.

A *choice* of families is written with plus signs, `mul+digits`, and named in the file's order. `mul`, the 45
multiplication facts, is the default; what was made before there were others says nothing of families and is `mul`.
"""

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

from common.errors import UserError
from tokenizer.forms import FORMS

FAMILIES_PATH = Path(__file__).with_name("families.yaml")
DEFAULT_FAMILIES = "mul"
FIRST_FREE_ID = 50261  # behind GPT-2's BPE and the reasoning tags
LAST_ID = 65535  # shards are uint16
KEYS = {"first_id", "token", "rule", "numbers", "forms"}

# Of the numbers that families.yaml ranges over, what a, b and c of a fact are; None: the fact has another name.
RULES: dict[str, Callable[..., tuple[int, int, int] | None]] = {
    "product": lambda a, b: (a, b, a * b) if a <= b else None,  # 6*9 and 9*6 are one fact
    "sum": lambda a, b: (a, b, a + b) if a <= b else None,
    "square": lambda a: (a, a, a * a),
    "quotient": lambda b, c: (b * c, b, c),  # 54/6 and 54/9 are two
    "digit": lambda a, b: (a, b, a * 10**b),
}


@dataclass(frozen=True)
class Fact:
    """One token. Its `value` is the number that it stands for."""

    id: int
    token: str
    operands: tuple[int, int]
    value: int


@dataclass(frozen=True)
class Family:
    """Facts with consecutive ids, and the names of the forms (tokenizer/forms.py) that texts write them in."""

    name: str
    facts: tuple[Fact, ...]
    forms: tuple[str, ...]

    @property
    def prefix(self) -> str:
        """What every token of the family begins with, such as `<MUL_`."""
        return self.facts[0].token.partition("_")[0] + "_"


@functools.cache
def read_families(path: Path = FAMILIES_PATH) -> dict[str, Family]:
    """The families by name, in the order of the file. Raises UserError naming the family and what is wrong with it."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    families: dict[str, Family] = {}
    owner: dict[int | str, str] = {}  # of every id and token
    for name, entry in entries.items():
        if "tokens_of" in entry:
            if entry["tokens_of"] not in families:
                raise UserError(f"{path}: {name}: tokens_of {entry['tokens_of']!r} names no family before it")
            families[name] = Family(name, families[entry["tokens_of"]].facts, _forms(path, name, entry))
            continue
        families[name] = _family(path, name, entry)
        for fact in families[name].facts:
            for owned in (fact.id, fact.token):
                if owned in owner:
                    raise UserError(f"{path}: {name}: {owned} already belongs to {owner[owned]}")
                owner[owned] = name
    return families


def _family(path: Path, name: str, entry: dict) -> Family:
    if set(entry) != KEYS:
        raise UserError(f"{path}: {name}: expected the keys {', '.join(sorted(KEYS))}, found {', '.join(entry)}")
    if entry["rule"] not in RULES:
        raise UserError(f"{path}: {name}: unknown rule {entry['rule']!r}; there are {', '.join(RULES)}")
    numbers = product(*(range(first, last + 1) for first, last in entry["numbers"]))
    facts: list[Fact] = []
    for found in (RULES[entry["rule"]](*chosen) for chosen in numbers):
        if found is not None:
            a, b, c = found
            facts.append(Fact(entry["first_id"] + len(facts), entry["token"].format(a=a, b=b, c=c), (a, b), c))
    if facts[0].id < FIRST_FREE_ID or facts[-1].id > LAST_ID:
        raise UserError(f"{path}: {name}: ids {facts[0].id} to {facts[-1].id}; expected {FIRST_FREE_ID} to {LAST_ID}")
    if not all(re.fullmatch(r"<[A-Z]+_[0-9_]+>", fact.token) for fact in facts):
        raise UserError(f"{path}: {name}: token {entry['token']!r}; expected a form such as <MUL_{{a}}_{{b}}_{{c}}>")
    return Family(name, tuple(facts), _forms(path, name, entry))


def _forms(path: Path, name: str, entry: dict) -> tuple[str, ...]:
    for form in entry["forms"]:
        if form not in FORMS:
            raise UserError(f"{path}: {name}: unknown form {form!r}; there are {', '.join(FORMS)}")
    return tuple(entry["forms"])


def fact_begin() -> str:
    """The pattern of how a token that stands for a number begins, of whatever family: `<(?:MUL|ADD|SQUARE|DIV)_`.

    Digit tokens are none: they are ordinary digits to everything that reads decoded text.
    """
    names = dict.fromkeys(family.prefix[1:-1] for family in read_families().values() if family.forms)
    return f"<(?:{'|'.join(names)})_"


def fact_pattern() -> str:
    """The pattern of a whole token that stands for a number, which is its group `value`."""
    return rf"{fact_begin()}(?:[0-9]{{1,2}}_){{1,2}}(?P<value>[0-9]{{1,3}})>"


@functools.cache
def chosen_families(choice: str) -> tuple[Family, ...]:
    """The families of a choice, in the order of the file. Raises UserError for an unknown one or one given twice."""
    families, names = read_families(), choice.split("+")
    for name in names:
        if name not in families:
            near = difflib.get_close_matches(name, families, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(families)}"
            raise UserError(f"--families {choice}: unknown token family {name!r}; {remedy}")
        if names.count(name) > 1:
            raise UserError(f"--families {choice}: {name} is given twice")
    return tuple(family for name, family in families.items() if name in names)


@functools.cache
def fact_families(choice: str) -> tuple[Family, ...]:
    """The families of a choice whose tokens are facts, by the name that their ids belong to: `mul` for `chinese`.

    Digit tokens are none: they are parts of numbers. Raises UserError as `chosen_families`.
    """
    owner = {family.prefix: family for family in reversed(read_families().values())}
    return tuple(dict.fromkeys(owner[family.prefix] for family in chosen_families(choice) if family.forms))


def families_name(choice: str) -> str:
    """A choice with its families in the order of the file. Raises UserError as `chosen_families`."""
    return "+".join(family.name for family in chosen_families(choice))
