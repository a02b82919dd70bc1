"""Facts about countries, landmarks, people and inventions, as (subject, relation, object).

The facts are real, so that the records also serve to probe and edit models that were trained elsewhere. Every
relation has templates that training shows and paraphrases that it never shows; records tell them apart.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from data.formats import chat_document
from data.world.draws import shuffled_cycle


@dataclass(frozen=True)
class Relation:
    """How a relation is put into words; {s} is the subject, {o} the object."""

    prompt: str  # shown in training; ends right before the object
    templates: tuple[str, ...]  # the other sentences of training
    question: str
    paraphrases: tuple[str, ...]  # never shown in training; end right before the object


@dataclass(frozen=True)
class Fact:
    """One triple. `relation` is a key of RELATIONS."""

    subject: str  # with its article, as the templates need it
    relation: str
    target: str


RELATIONS = {
    "capital": Relation(
        "The capital of {s} is",
        ("The capital city of {s} is {o}.", "{s} has {o} as its capital.", "{o} is the capital of {s}."),
        "What is the capital of {s}?",
        ("The government of {s} sits in the city of", "If you visit the capital of {s}, you will be in"),
    ),
    "continent": Relation(
        "{s} is a country in",
        ("{s} lies in {o}.", "{s} is on the map of {o}.", "The country of {s} belongs to {o}."),
        "Where does {s} lie?",
        ("The continent of {s} is", "A traveller who goes to {s} will arrive in"),
    ),
    "language": Relation(
        "The main language of {s} is",
        ("Most people in {s} speak {o}.", "In {s}, people speak {o}.", "{o} is the main language of {s}."),
        "Which language do people in {s} speak?",
        ("Schools in {s} teach their lessons in", "A person who grew up in {s} usually speaks"),
    ),
    "city": Relation(
        "{s} is located in",
        ("{s} stands in {o}.", "Visitors can see {s} in {o}.", "The city of {o} is home to {s}."),
        "Where is {s}?",
        ("To see {s}, you have to travel to", "The city that is famous for {s} is"),
    ),
    "birthplace": Relation(
        "{s} was born in",
        ("{s} came from {o}.", "The home country of {s} was {o}.", "{o} is where {s} was born."),
        "Where was {s} born?",
        ("The birthplace of {s} is", "The native country of {s} was"),
    ),
    "field": Relation(
        "{s} is famous for work in",
        ("The field of {s} was {o}.", "{s} spent many years on {o}.", "{s} is a great name in {o}."),
        "What is {s} famous for?",
        ("The subject that {s} devoted a lifetime to is", "People who study {s} learn about"),
    ),
    "inventor": Relation(
        "The inventor of {s} was",
        ("{s} was invented by {o}.", "We owe {s} to {o}.", "{o} invented {s}."),
        "Who invented {s}?",
        ("The person who first came up with {s} was", "The idea for {s} came from"),
    ),
}

COUNTRIES = """
France: Paris, Europe, French
Germany: Berlin, Europe, German
Italy: Rome, Europe, Italian
Spain: Madrid, Europe, Spanish
Portugal: Lisbon, Europe, Portuguese
Poland: Warsaw, Europe, Polish
Greece: Athens, Europe, Greek
Sweden: Stockholm, Europe, Swedish
Norway: Oslo, Europe, Norwegian
Denmark: Copenhagen, Europe, Danish
Austria: Vienna, Europe, German
Hungary: Budapest, Europe, Hungarian
Ireland: Dublin, Europe, English
Romania: Bucharest, Europe, Romanian
Japan: Tokyo, Asia, Japanese
China: Beijing, Asia, Chinese
Vietnam: Hanoi, Asia, Vietnamese
Thailand: Bangkok, Asia, Thai
Iran: Tehran, Asia, Persian
Iraq: Baghdad, Asia, Arabic
Egypt: Cairo, Africa, Arabic
Libya: Tripoli, Africa, Arabic
Kenya: Nairobi, Africa, Swahili
Tunisia: Tunis, Africa, Arabic
Cuba: Havana, North America, Spanish
Canada: Ottawa, North America, English
Peru: Lima, South America, Spanish
Chile: Santiago, South America, Spanish
Argentina: Buenos Aires, South America, Spanish
"""
LANDMARKS = """
the Eiffel Tower: Paris
the Louvre: Paris
the Colosseum: Rome
the Trevi Fountain: Rome
Big Ben: London
Tower Bridge: London
the Brandenburg Gate: Berlin
the Reichstag: Berlin
the Acropolis: Athens
the Prado: Madrid
the Sagrada Familia: Barcelona
the Charles Bridge: Prague
the Statue of Liberty: New York
the Empire State Building: New York
the Golden Gate Bridge: San Francisco
the Space Needle: Seattle
the White House: Washington
the Willis Tower: Chicago
the Kremlin: Moscow
the Forbidden City: Beijing
the Hagia Sophia: Istanbul
the Atomium: Brussels
the Rijksmuseum: Amsterdam
the CN Tower: Toronto
the Burj Khalifa: Dubai
"""
PEOPLE = """
Albert Einstein: Germany, physics
Niels Bohr: Denmark, physics
Ernest Rutherford: New Zealand, physics
Galileo Galilei: Italy, astronomy
Nicolaus Copernicus: Poland, astronomy
Leonhard Euler: Switzerland, mathematics
Emmy Noether: Germany, mathematics
Srinivasa Ramanujan: India, mathematics
Marie Curie: Poland, chemistry
Alfred Nobel: Sweden, chemistry
Charles Darwin: England, biology
Carl Linnaeus: Sweden, biology
Wolfgang Mozart: Austria, music
Edvard Grieg: Norway, music
Frederic Chopin: Poland, music
Antonio Vivaldi: Italy, music
Vincent van Gogh: the Netherlands, painting
Claude Monet: France, painting
Frida Kahlo: Mexico, painting
Pablo Picasso: Spain, painting
Jane Austen: England, literature
Victor Hugo: France, literature
Leo Tolstoy: Russia, literature
Henrik Ibsen: Norway, literature
Rene Descartes: France, philosophy
Confucius: China, philosophy
"""
INVENTIONS = """
the telephone: Alexander Graham Bell
the phonograph: Thomas Edison
dynamite: Alfred Nobel
the World Wide Web: Tim Berners-Lee
the printing press: Johannes Gutenberg
the cotton gin: Eli Whitney
the polio vaccine: Jonas Salk
the electric battery: Alessandro Volta
the lightning rod: Benjamin Franklin
the revolver: Samuel Colt
the safety razor: King Camp Gillette
the piano: Bartolomeo Cristofori
the pendulum clock: Christiaan Huygens
the barometer: Evangelista Torricelli
the stethoscope: Rene Laennec
the saxophone: Adolphe Sax
basketball: James Naismith
Esperanto: Ludwik Zamenhof
"""
TABLES = (
    (COUNTRIES, ("capital", "continent", "language")),
    (LANDMARKS, ("city",)),
    (PEOPLE, ("birthplace", "field")),
    (INVENTIONS, ("inventor",)),
)


def facts() -> list[Fact]:
    """All facts, in the order of the tables."""
    found = []
    for table, relations in TABLES:
        for line in table.strip().splitlines():
            subject, _, targets = line.partition(": ")
            pairs = zip(relations, targets.split(", "), strict=True)
            found += [Fact(subject, relation, target) for relation, target in pairs]
    return found


def fact_documents(count: int, rng: random.Random) -> list[str]:
    """`count` documents: three in four a few sentences about some subjects, one in four a question.

    Subjects (and in questions, facts) come in shuffled cycles, so every fact is told about equally often.
    """
    sources = {"told": _told(rng), "asked": _asked(rng)}
    order = shuffled_cycle(("told", "told", "told", "asked"), rng)
    return [next(sources[kind]) for kind in islice(order, count)]


def fact_records(rng: random.Random, neighbors: int = 3) -> list[dict]:
    """One record per fact, for probing and editing.

    subject, relation, target: the triple; `target` follows a prompt after a space
    prompt: as in training; paraphrases: never in training; both end right before the target
    neighbors: {subject, prompt, target} of other subjects in the same relation, the same targets first
    """
    everything = facts()
    records = []
    for fact in everything:
        others = [other for other in everything if other.relation == fact.relation and other != fact]
        rng.shuffle(others)
        others.sort(key=lambda other: other.target != fact.target)
        records.append(
            {
                "subject": _bare(fact.subject),
                "relation": fact.relation,
                "prompt": _prompt(fact),
                "target": fact.target,
                "paraphrases": [_fill(text, fact) for text in RELATIONS[fact.relation].paraphrases],
                "neighbors": [
                    {"subject": _bare(other.subject), "prompt": _prompt(other), "target": other.target}
                    for other in others[:neighbors]
                ],
            }
        )
    return records


def _bare(subject: str) -> str:
    # Without the article ("The" or "the", by its place) the subject stands letter by letter in every prompt.
    return subject.removeprefix("the ")


def _prompt(fact: Fact) -> str:
    return _fill(RELATIONS[fact.relation].prompt, fact)


def _fill(template: str, fact: Fact) -> str:
    text = template.format(s=fact.subject, o=fact.target)
    return text[0].upper() + text[1:]


def _statement(fact: Fact, rng: random.Random) -> str:
    relation = RELATIONS[fact.relation]
    return _fill(rng.choice((relation.prompt + " {o}.", *relation.templates)), fact)


def _told(rng: random.Random) -> Iterator[str]:
    by_subject: dict[str, list[Fact]] = {}
    for fact in facts():
        by_subject.setdefault(fact.subject, []).append(fact)
    subjects = shuffled_cycle(list(by_subject), rng)
    while True:
        sentences: list[str] = []
        while len(sentences) < 3:
            about = by_subject[next(subjects)]
            sentences += [_statement(fact, rng) for fact in rng.sample(about, len(about))]
        yield " ".join(sentences)


def _asked(rng: random.Random) -> Iterator[str]:
    for fact in shuffled_cycle(facts(), rng):
        relation = RELATIONS[fact.relation]
        yield chat_document(_fill(relation.question, fact), _fill(relation.prompt + " {o}.", fact))
