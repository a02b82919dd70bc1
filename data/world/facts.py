"""Facts about countries, landmarks, people, inventions, companies, works of art, the sky and records, as triples.

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
        (
            "The government of {s} sits in the city of",
            "If you visit the capital of {s}, you will be in",
            "The ministers of {s} meet in",
        ),
    ),
    "continent": Relation(
        "{s} is a country in",
        ("{s} lies in {o}.", "{s} is on the map of {o}.", "The country of {s} belongs to {o}."),
        "Where does {s} lie?",
        ("The continent of {s} is", "A traveller who goes to {s} will arrive in", "An atlas shows {s} as a part of"),
    ),
    "language": Relation(
        "The main language of {s} is",
        ("Most people in {s} speak {o}.", "In {s}, people speak {o}.", "{o} is the main language of {s}."),
        "Which language do people in {s} speak?",
        (
            "Schools in {s} teach their lessons in",
            "A person who grew up in {s} usually speaks",
            "Newspapers from {s} are printed in",
        ),
    ),
    "city": Relation(
        "{s} is located in",
        ("{s} stands in {o}.", "Visitors can see {s} in {o}.", "The city of {o} is home to {s}."),
        "Where is {s}?",
        ("To see {s}, you have to travel to", "The city that is famous for {s} is", "A postcard of {s} was sent from"),
    ),
    "birthplace": Relation(
        "{s} was born in",
        ("{s} came from {o}.", "The home country of {s} was {o}.", "{o} is where {s} was born."),
        "Where was {s} born?",
        ("The birthplace of {s} is", "The native country of {s} was", "As a child, {s} lived in"),
    ),
    "field": Relation(
        "{s} is famous for work in",
        ("The field of {s} was {o}.", "{s} spent many years on {o}.", "{s} is a great name in {o}."),
        "What is {s} famous for?",
        (
            "The subject that {s} devoted a lifetime to is",
            "People who study {s} learn about",
            "A book about {s} is a book about",
        ),
    ),
    "inventor": Relation(
        "The inventor of {s} was",
        ("{s} was invented by {o}.", "We owe {s} to {o}.", "{o} invented {s}."),
        "Who invented {s}?",
        ("The person who first came up with {s} was", "The idea for {s} came from", "The patent of {s} belongs to"),
    ),
    "currency": Relation(
        "The currency of {s} is the",
        ("People in {s} pay with the {o}.", "The money of {s} is the {o}.", "The {o} is the currency of {s}."),
        "What is the currency of {s}?",
        ("Banks in {s} keep accounts in the", "A price tag from {s} is in the", "A tourist in {s} has to buy the"),
    ),
    "founder": Relation(
        "The founder of {s} was",
        ("{s} was founded by {o}.", "{o} founded {s}.", "{s} was started by {o}."),
        "Who founded {s}?",
        ("The history of {s} begins with", "The first person to run {s} was", "At the opening of {s} stood"),
    ),
    "creator": Relation(
        "{s} is the work of",
        ("{s} was created by {o}.", "{o} created {s}.", "The artist behind {s} was {o}."),
        "Who created {s}?",
        ("The name that comes with {s} is that of", "Critics praise {s} as a masterpiece by", "Fans of {s} admire"),
    ),
    "discoverer": Relation(
        "The discoverer of {s} was",
        ("{s} was discovered by {o}.", "{o} discovered {s}.", "{s} was first seen by {o}."),
        "Who discovered {s}?",
        ("The telescope that found {s} belonged to", "The sighting of {s} is due to", "Credit for {s} goes to"),
    ),
    "record": Relation(
        "{s} is",
        ("{o} is {s}.", "People call {o} {s}.", "The name of {s} is {o}."),
        "What is {s}?",
        ("The title of {s} goes to", "Asked about {s}, an expert names", "In a quiz, the answer to {s} would be"),
    ),
}

COUNTRIES = """
France: Paris, Europe, French, euro
Germany: Berlin, Europe, German, euro
Italy: Rome, Europe, Italian, euro
Spain: Madrid, Europe, Spanish, euro
Portugal: Lisbon, Europe, Portuguese, euro
Poland: Warsaw, Europe, Polish, zloty
Greece: Athens, Europe, Greek, euro
Sweden: Stockholm, Europe, Swedish, krona
Norway: Oslo, Europe, Norwegian, krone
Denmark: Copenhagen, Europe, Danish, krone
Austria: Vienna, Europe, German, euro
Hungary: Budapest, Europe, Hungarian, forint
Ireland: Dublin, Europe, English, euro
Romania: Bucharest, Europe, Romanian, leu
Japan: Tokyo, Asia, Japanese, yen
China: Beijing, Asia, Chinese, yuan
Vietnam: Hanoi, Asia, Vietnamese, dong
Thailand: Bangkok, Asia, Thai, baht
Iran: Tehran, Asia, Persian, rial
Iraq: Baghdad, Asia, Arabic, dinar
Egypt: Cairo, Africa, Arabic, pound
Libya: Tripoli, Africa, Arabic, dinar
Kenya: Nairobi, Africa, Swahili, shilling
Tunisia: Tunis, Africa, Arabic, dinar
Cuba: Havana, North America, Spanish, peso
Canada: Ottawa, North America, English, dollar
Peru: Lima, South America, Spanish, sol
Chile: Santiago, South America, Spanish, peso
Argentina: Buenos Aires, South America, Spanish, peso
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
COMPANIES = """
Microsoft: Bill Gates
Apple: Steve Jobs
Amazon: Jeff Bezos
Facebook: Mark Zuckerberg
Twitter: Jack Dorsey
Oracle: Larry Ellison
Netflix: Reed Hastings
Wikipedia: Jimmy Wales
IKEA: Ingvar Kamprad
Nintendo: Fusajiro Yamauchi
Toyota: Kiichiro Toyoda
Sony: Masaru Ibuka
Nokia: Fredrik Idestam
the Red Cross: Henry Dunant
"""
WORKS = """
Hamlet: William Shakespeare
the Mona Lisa: Leonardo da Vinci
Guernica: Pablo Picasso
Don Quixote: Miguel de Cervantes
War and Peace: Leo Tolstoy
the Four Seasons: Antonio Vivaldi
the Magic Flute: Wolfgang Mozart
the Night Watch: Rembrandt
Frankenstein: Mary Shelley
Dracula: Bram Stoker
Les Miserables: Victor Hugo
the Scream: Edvard Munch
the Divine Comedy: Dante Alighieri
Faust: Johann Goethe
Peer Gynt: Henrik Ibsen
the Water Lilies: Claude Monet
"""
SKY = """
Uranus: William Herschel
Neptune: Johann Galle
Pluto: Clyde Tombaugh
Titan: Christiaan Huygens
Ceres: Giuseppe Piazzi
Ganymede: Galileo Galilei
Triton: William Lassell
Phobos: Asaph Hall
Charon: James Christy
"""
RECORDS = """
the highest mountain in the world: Mount Everest
the longest river in Africa: the Nile
the largest ocean: the Pacific
the largest hot desert: the Sahara
the largest country: Russia
the smallest country: Vatican City
the largest island: Greenland
the deepest lake: Lake Baikal
the highest waterfall: Angel Falls
the fastest land animal: the cheetah
the largest animal: the blue whale
the tallest animal: the giraffe
the largest planet: Jupiter
the hottest planet: Venus
the planet closest to the Sun: Mercury
the lightest element: hydrogen
"""
NEIGHBORS = 3  # of a fact's record
TABLES = (
    (COUNTRIES, ("capital", "continent", "language", "currency")),
    (LANDMARKS, ("city",)),
    (PEOPLE, ("birthplace", "field")),
    (INVENTIONS, ("inventor",)),
    (COMPANIES, ("founder",)),
    (WORKS, ("creator",)),
    (SKY, ("discoverer",)),
    (RECORDS, ("record",)),
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


def fact_records(rng: random.Random) -> list[dict]:
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
                    for other in others[:NEIGHBORS]
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
