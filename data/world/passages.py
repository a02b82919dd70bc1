"""Short everyday passages in HellaSwag's format: somebody does something in five steps.

A record stops before one of the steps and offers four endings; the three wrong ones are steps of other
activities. Training tells of the same activities, but never the beginning of a record with its right ending.
"""

import random
from itertools import islice, product
from typing import NamedTuple

from data.world.draws import shuffled_cycle

PEOPLE = (
    *(
        ("A woman", "she"),
        ("A girl", "she"),
        ("The teacher", "she"),
        ("Mary", "she"),
        ("Anna", "she"),
        ("Emma", "she"),
    ),
    *(
        ("A man", "he"),
        ("A boy", "he"),
        ("The old man", "he"),
        ("John", "he"),
        ("Tom", "he"),
        ("Peter", "he"),
    ),
)
CONNECTORS = ("{He} {step}.", "{He} {step}.", "Then {he} {step}.", "After that, {he} {step}.")

# Title, choices for {x}, choices for {y}, five steps.
ACTIVITIES = (
    (
        "Making tea",
        ("green tea", "black tea", "mint tea"),
        ("milk", "honey", "sugar"),
        "fills a kettle with water",
        "puts the kettle on the stove",
        "drops a bag of {x} into a cup",
        "pours the hot water over it",
        "stirs in some {y} and takes a sip",
    ),
    (
        "Planting flowers",
        ("roses", "tulips", "daisies"),
        ("garden", "yard", "park"),
        "digs a small hole in the {y}",
        "takes the {x} out of their pots",
        "sets the {x} into the hole",
        "presses the soil down by hand",
        "waters the {x} with a can",
    ),
    (
        "Washing the car",
        ("red", "white", "blue"),
        ("sponge", "brush", "cloth"),
        "parks the {x} car in front of the house",
        "fills a bucket with soapy water",
        "rubs the doors with a {y}",
        "rinses the soap off with a hose",
        "dries the {x} car with a towel",
    ),
    (
        "Baking bread",
        ("rye", "wheat", "corn"),
        ("butter", "jam", "cheese"),
        "mixes {x} flour with water and yeast",
        "kneads the dough for ten minutes",
        "puts the dough into a hot oven",
        "takes the loaf out when it is brown",
        "eats a warm slice with {y}",
    ),
    (
        "Walking the dog",
        ("small", "brown", "old"),
        ("forest", "park", "village"),
        "puts a leash on the {x} dog",
        "opens the front door",
        "walks with the dog to the {y}",
        "throws a stick for it to fetch",
        "leads the tired dog back home",
    ),
    (
        "Painting a fence",
        ("green", "white", "grey"),
        ("hammer", "spoon", "knife"),
        "cleans the dust off the fence",
        "opens the paint can with a {y}",
        "dips the brush into the {x} paint",
        "covers every board with {x} paint",
        "lets the fence dry in the sun",
    ),
    (
        "Catching a fish",
        ("lake", "river", "sea"),
        ("worm", "fly", "piece of bread"),
        "carries a fishing rod to the {x}",
        "puts a {y} on the hook",
        "throws the line into the {x}",
        "waits until the line begins to pull",
        "reels in a big fish",
    ),
    (
        "Sending a letter",
        ("friend", "cousin", "neighbor"),
        ("blue", "black", "green"),
        "takes a sheet of paper from the drawer",
        "writes to a {x} with a {y} pen",
        "folds the paper and puts it in an envelope",
        "sticks a stamp on the corner",
        "drops the letter into the mailbox",
    ),
    (
        "Fixing a bike",
        ("front", "back", "flat"),
        ("glue", "tape", "a patch"),
        "turns the bike upside down",
        "takes the {x} tire off the wheel",
        "closes the hole with {y}",
        "pumps air into the {x} tire",
        "rides the bike around the block",
    ),
    (
        "Brushing teeth",
        ("red", "yellow", "purple"),
        ("bathroom", "tent", "cabin"),
        "goes to the sink in the {y}",
        "squeezes some paste onto the {x} toothbrush",
        "brushes up and down for two minutes",
        "spits out the foam",
        "rinses the {x} toothbrush and smiles at the mirror",
    ),
    (
        "Making a salad",
        ("lettuce", "cabbage", "spinach"),
        ("tomatoes", "cucumbers", "carrots"),
        "washes the {x} under cold water",
        "chops the {y} on a board",
        "puts the {x} and the {y} into a bowl",
        "pours oil and vinegar over everything",
        "tosses the salad with two forks",
    ),
    (
        "Flying a kite",
        ("orange", "paper", "large"),
        ("beach", "hill", "field"),
        "brings the {x} kite to the {y}",
        "waits for the wind to blow",
        "runs and lets the {x} kite rise",
        "gives it more and more string",
        "winds the string up when the wind stops",
    ),
    (
        "Building a fire",
        ("branches", "logs", "sticks"),
        ("match", "lighter", "torch"),
        "gathers dry {x} in the woods",
        "piles the {x} up inside a ring of stones",
        "lights the pile with a {y}",
        "blows softly on the first flames",
        "warms both hands over the fire",
    ),
    (
        "Doing the laundry",
        ("shirts", "towels", "socks"),
        ("balcony", "lawn", "roof"),
        "sorts the dirty {x} into a pile",
        "loads the {x} into the washing machine",
        "adds soap and presses the button",
        "hangs the wet {x} on a line on the {y}",
        "folds the dry {x} neatly",
    ),
    (
        "Playing the piano",
        ("short", "slow", "happy"),
        ("school", "church", "hotel"),
        "sits down at the piano in the {y}",
        "opens the book of music",
        "places ten fingers on the keys",
        "plays a {x} song",
        "bows when the people clap",
    ),
    (
        "Borrowing a book",
        ("history", "cooking", "mystery"),
        ("desk", "window", "door"),
        "enters the library on a quiet street",
        "looks for the {x} books on the shelves",
        "picks one and reads the first page",
        "shows a card at the {y}",
        "carries the {x} book home",
    ),
)


class Scene(NamedTuple):
    """One combination: what is done, by whom (a row of PEOPLE), with which details."""

    activity: int
    person: int
    x: str
    y: str


SCENES = [
    Scene(activity, person, x, y)
    for activity, (_, xs, ys, *_) in enumerate(ACTIVITIES)
    for person, x, y in product(range(len(PEOPLE)), xs, ys)
]


def passage_documents(count: int, rng: random.Random, held_out: list[dict]) -> list[str]:
    """`count` whole passages, none of which begins like a record of `held_out` with its right ending."""
    beginnings = tuple(f"{record['ctx']} {record['endings'][record['label']]}" for record in held_out)
    scenes = shuffled_cycle([scene for scene in SCENES if not _plain(scene, 5).startswith(beginnings)], rng)
    return [_passage(scene, rng) for scene in islice(scenes, count)]


def passage_records(count: int, rng: random.Random) -> list[dict]:
    """`count` records {ind, activity_label, ctx, endings, label} with different contexts.

    ctx ends with the pronoun, so that ctx + " " + endings[label] is the passage's next sentence.
    """
    found: dict[str, dict] = {}
    scenes = shuffled_cycle(SCENES, rng)
    while len(found) < count:
        record = _record(next(scenes), rng)
        found.setdefault(record["ctx"], {"ind": len(found)} | record)
    return list(found.values())


def _steps(scene: Scene) -> list[str]:
    return [step.format(x=scene.x, y=scene.y) for step in ACTIVITIES[scene.activity][3:]]


def _opening(scene: Scene) -> str:
    return f"{ACTIVITIES[scene.activity][0]}: {PEOPLE[scene.person][0]} {_steps(scene)[0]}."


def _plain(scene: Scene, shown: int) -> str:
    """The first `shown` steps without words like "then"."""
    he = PEOPLE[scene.person][1].capitalize()
    return " ".join((_opening(scene), *(f"{he} {step}." for step in _steps(scene)[1:shown])))


def _passage(scene: Scene, rng: random.Random) -> str:
    he = PEOPLE[scene.person][1]
    connectors = (*rng.sample(CONNECTORS, 3), rng.choice(("{He} {step}.", "Finally, {he} {step}.")))
    sentences = [
        connector.format(He=he.capitalize(), he=he, step=step)
        for connector, step in zip(connectors, _steps(scene)[1:], strict=True)
    ]
    return " ".join((_opening(scene), *sentences))


def _record(scene: Scene, rng: random.Random) -> dict:
    shown = rng.randint(2, 4)
    endings = [_steps(scene)[shown] + "."]
    others = [activity for activity in range(len(ACTIVITIES)) if activity != scene.activity]
    for activity in rng.sample(others, 3):
        x, y = (rng.choice(choices) for choices in ACTIVITIES[activity][1:3])
        endings.append(rng.choice(_steps(Scene(activity, scene.person, x, y))[1:]) + ".")
    order = rng.sample(range(4), 4)
    return {
        "activity_label": ACTIVITIES[scene.activity][0],
        "ctx": f"{_plain(scene, shown)} {PEOPLE[scene.person][1].capitalize()}",
        "endings": [endings[i] for i in order],
        "label": order.index(0),
    }
