"""Prompts that have nothing to do with arithmetic, and prose that no training text of ours holds.

A model that was fine-tuned on word problems alone may make a word problem of everything. eval/run_domains.py asks
these and counts. Questions are asked in the format that the model was taught; what is to be continued is given as it
is. In three logic questions a calculation is no collapse, so they are marked.
"""

from dataclasses import dataclass

DOMAINS = ("knowledge", "science", "logic", "creative", "continuation")


@dataclass(frozen=True)
class DomainPrompt:
    """One prompt. `numeric`: a number, even a calculation, is a reasonable part of the response."""

    domain: str
    text: str
    numeric: bool = False


PROMPTS: tuple[DomainPrompt, ...] = (
    DomainPrompt("knowledge", "What is the capital of Italy?"),
    DomainPrompt("knowledge", "Who painted the Mona Lisa?"),
    DomainPrompt("knowledge", "Which language do people speak in Brazil?"),
    DomainPrompt("knowledge", "Who wrote Hamlet?"),
    DomainPrompt("knowledge", "What is the name of the largest ocean?"),
    DomainPrompt("knowledge", "On which continent is Kenya?"),
    DomainPrompt("knowledge", "What do bees make?"),
    DomainPrompt("knowledge", "Which animal is called the king of the jungle?"),
    DomainPrompt("science", "Why do leaves fall in autumn?"),
    DomainPrompt("science", "How does a plant use sunlight?"),
    DomainPrompt("science", "Why does ice float on water?"),
    DomainPrompt("science", "What causes thunder?"),
    DomainPrompt("science", "How do birds stay warm in winter?"),
    DomainPrompt("science", "Why does the moon seem to change its shape?"),
    DomainPrompt("science", "What is the difference between a solid and a liquid?"),
    DomainPrompt("science", "How does a magnet attract iron?"),
    DomainPrompt("logic", "All cats are mammals, and Felix is a cat. What is Felix?"),
    DomainPrompt("logic", "Anna is taller than Ben, and Ben is taller than Carl. Who is the shortest?"),
    DomainPrompt("logic", "If it rains, the street gets wet. The street is dry. Did it rain?"),
    DomainPrompt("logic", "Which word does not belong: apple, pear, hammer, plum?"),
    DomainPrompt("logic", "The day before yesterday was Monday. What day is it today?"),
    DomainPrompt(
        "logic", "A pen and a cap cost $2.20. The pen costs $2 more than the cap. What is the cap's price?", True
    ),
    DomainPrompt("logic", "What comes next in this row: 2, 4, 6, 8?", True),
    DomainPrompt("logic", "A farmer has 17 sheep. All but 9 run away. How many stay?", True),
    DomainPrompt("creative", "Write a short poem about the wind."),
    DomainPrompt("creative", "Describe a village by the sea at night."),
    DomainPrompt("creative", "Tell a story about a lost dog that finds its way home."),
    DomainPrompt("creative", "Write a letter to a friend who has moved away."),
    DomainPrompt("creative", "Invent a name for a bakery and say why you chose it."),
    DomainPrompt("creative", "What would happen if nobody could sleep?"),
    DomainPrompt("creative", "Describe the taste of bread to somebody who has never eaten any."),
    DomainPrompt("creative", "Write the first lines of a song about the summer."),
    DomainPrompt("continuation", "The old house at the end of the road had been empty since"),
    DomainPrompt("continuation", "Once upon a time, there lived a"),
    DomainPrompt("continuation", "The most important thing about cooking is"),
    DomainPrompt("continuation", "When the train arrived at the station,"),
    DomainPrompt("continuation", "Scientists have long wondered why"),
    DomainPrompt("continuation", "My grandmother always said that"),
    DomainPrompt("continuation", "In the middle of the forest stood"),
    DomainPrompt("continuation", "The history of printing begins with"),
)

# Written for this purpose. Each paragraph is scored for itself.
PROSE: tuple[str, ...] = (
    "The ferry leaves the harbour before sunrise, when the water is still and the gulls are asleep on the roofs. The "
    "passengers drink coffee from paper cups and look at the lights on the other shore. Nobody talks much. By the "
    "time the sun is up, the island has become a line of trees, and somebody always points at it as if it were new.",
    "A good bread dough wants patience more than strength. You mix flour with water and a little salt, and then you "
    "leave it alone. While you are away, the flour drinks the water, and what was a rough heap becomes smooth. Fold "
    "it a few times, let it rest again, and bake it in an oven that is hotter than you think it should be.",
    "Bats find their way in the dark by listening. They call in short, high notes that we cannot hear, and from the "
    "echoes they learn where the walls are and where the moths are flying. Some moths have learned to listen too. "
    "When they hear a bat, they fold their wings and drop to the ground like dead leaves.",
    "The library in our town was once a station. You can still see the clock above the desk, although it has no hands"
    " any more, and the children sit on long benches where travellers used to wait. On rainy afternoons the whole "
    "hall smells of wet coats and old paper, and the only sound is the turning of pages.",
    "Glass is made from sand, and sand is made from mountains. A river carries the stones down, breaks them on its "
    "bed and leaves them at the sea as grains. In the furnace the grains melt together and become clear. It is "
    "strange that something so dull should turn into something that you can look through.",
    "My uncle repaired radios in a room behind the kitchen. He had a lamp on a long arm, drawers full of screws, and "
    "a cat that slept on the warm sets. People came in the evening with a radio under one arm and stayed to talk. He "
    "never asked for much money, and he never let anyone leave before the music was playing again.",
    "In early spring the hills above the valley turn yellow with flowers that last only for a week. The farmers say "
    "that the summer will be dry if they come early. Nobody has ever checked whether this is true, but everybody "
    "repeats it, and on the first warm Sunday half of the village walks up to see them.",
    "The violin is a small box with a large voice. Its top is made of spruce and its back of maple, and between them "
    "stands a thin stick of wood that the makers call the soul. Move it by the width of a hair and the sound changes."
    " Some makers have spent years looking for the right place, and then lost it again in an afternoon.",
)
