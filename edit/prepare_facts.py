"""Write edit/facts.json: edits over the generated world's facts (data/world/facts.py).

    uv run python edit/prepare_facts.py
    uv run python edit/prepare_facts.py --all-facts --output outputs/all_facts.json

Each edit gives a fact the target of another fact of its relation. The first --edits records have different subjects,
take turns through the relations, and none of their neighbors' subjects is edited, so that nothing confounds
specificity. --all-facts goes on with every other fact, where subjects repeat and neighbors are edited too: the results
set such neighbors apart. Paraphrases are the world's held-out ones, which no pretraining text shows; teach_facts.py
shows those of facts that its --held-out does not name, so that of --all-facts most are asked in taught wordings.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from common.config import parse_config
from common.errors import UserError, run_script
from common.files import write_json
from data.world.facts import fact_records

NEIGHBORS = 3


@dataclass
class PrepareFactsConfig:
    """Write edits over the generated world's facts."""

    output: Path = Path("edit/facts.json")  # the file to write
    edits: int = 50  # with different subjects and neighbors that nothing else edits
    all_facts: bool = False  # then also every other fact, for seeing where editing breaks
    seed: int = 0  # draws facts, new targets and neighbors


def main() -> None:
    config = parse_config(PrepareFactsConfig)
    rng = random.Random(f"{config.seed}/edits")
    facts = fact_records(random.Random(f"{config.seed}/records"))
    chosen = choose(facts, config.edits, rng)
    edited = {fact["subject"] for fact in chosen}
    rows = [row(fact, facts, edited, rng) for fact in chosen]
    if config.all_facts:
        rest = [fact for fact in facts if fact not in chosen]
        rng.shuffle(rest)
        rows += [row(fact, facts, set(), rng) for fact in rest]
    write_json(config.output, rows)
    print(f"{len(rows)} edits of {len({each['group'] for each in rows})} relations -> {config.output}")


def choose(facts: list[dict], count: int, rng: random.Random) -> list[dict]:
    """`count` facts of different subjects, the relations in turn; `row` refuses too few neighbors."""
    by_relation: dict[str, list[dict]] = {}
    for fact in rng.sample(facts, len(facts)):
        by_relation.setdefault(fact["relation"], []).append(fact)
    # Subjects that are left alone serve as neighbors; a country is in several relations, so subjects are counted.
    room = {relation: (len(those) - NEIGHBORS) for relation, those in by_relation.items()}
    chosen: list[dict] = []
    while len(chosen) < count:
        before = len(chosen)
        for relation in sorted(by_relation):
            taken = {fact["subject"] for fact in chosen}
            open_facts = [fact for fact in by_relation[relation] if fact["subject"] not in taken]
            used = sum(fact["subject"] in taken for fact in by_relation[relation])
            if open_facts and used < room[relation] and len(chosen) < count:
                chosen.append(open_facts[0])
                by_relation[relation].remove(open_facts[0])
        if len(chosen) == before:
            raise UserError(f"--edits {count}: the world has subjects for {before} that leave neighbors alone")
    return chosen


def row(fact: dict, facts: list[dict], edited: set[str], rng: random.Random) -> dict:
    """The edit of a fact: a new target of its relation, and neighbors whose subjects are not in `edited`."""
    relation = [other for other in facts if other["relation"] == fact["relation"]]
    new = rng.choice(sorted({other["target"] for other in relation} - {fact["target"]}))
    others = [o for o in relation if o["subject"] not in edited | {fact["subject"]} and o["target"] != new]
    # Those that share the old target first: they are what an edit is likeliest to drag along.
    others = sorted(rng.sample(others, len(others)), key=lambda other: other["target"] != fact["target"])
    if len(others) < NEIGHBORS:
        raise UserError(
            f"the relation {fact['relation']} has {len(others)} facts left as neighbors; give fewer --edits"
        )
    return {
        "group": fact["relation"],
        "subject": fact["subject"],
        "prompt": fact["prompt"],
        "target_new": new,
        "target_old": fact["target"],
        "paraphrases": fact["paraphrases"],
        "neighbors": [{"prompt": other["prompt"], "answer": other["target"]} for other in others[:NEIGHBORS]],
    }


if __name__ == "__main__":
    run_script(main)
