"""The demo's language: nine tasks whose sentences have one right next word at a known place.

Agreement over distractors, indirect objects, later years, pronouns, one- and two-hop facts, list repetition,
opposites and addition. In training, a fifth of the noun pairs is never subject and distractor, a fifth of the name
pairs never meets, and one city of every state never occurs in a two-hop sentence (`held_out=True` draws only those):
what the model generalises can be told from what it has seen. Cost: about 100,000 sentences a second. Knows nothing of
tokens.
"""

from dataclasses import dataclass
from random import Random
from zlib import crc32

from whence.demo import lexicon as lex

AGREEMENT_KINDS = {"simple": 3, "pp": 3, "orc": 3, "src": 2, "tpp": 2, "pporc": 2}
HELD_OUT_CITY = {state: cities[1] for state, cities in lex.STATES.items()}


@dataclass(frozen=True, slots=True)
class Item:
    """One sentence, cut where its answer begins: `prefix + answer + rest`.

    `answer` and `wrong` carry their leading space; the last two digits of a year have none. `kind` is the variety of
    the task.
    """

    prefix: str
    answer: str
    wrong: str = ""
    rest: str = "."
    kind: str = ""

    @property
    def text(self) -> str:
        return self.prefix + self.answer + self.rest


def is_held_out(*words: str) -> bool:
    """Return whether these words belong to the fifth of all combinations that training never shows together."""
    return crc32("|".join(words).encode()) % 5 == 0


def agreement(
    r: Random, kind: str = "", *, number: int | None = None, distractor: int | None = None, held_out: bool = False
) -> Item:
    """Return a subject and its verb with another noun between them; number 0 is singular, 1 plural, None either."""
    kind = kind or r.choices(list(AGREEMENT_KINDS), list(AGREEMENT_KINDS.values()))[0]
    n = r.randint(0, 1) if number is None else number
    m = r.randint(0, 1) if distractor is None else distractor
    pool = lex.THINGS if kind == "tpp" else lex.PEOPLE
    while True:
        subject, other, third = r.sample(pool, 3)
        between = {"simple": (), "pporc": (other, third)}.get(kind, (other,))
        if all(is_held_out("nouns", subject[0], noun[0]) == held_out for noun in between):
            break
    prefix = f"The {subject[n]}{_between(r, kind, n, other[m], m, third)}"
    if kind == "tpp":
        verb, rest = r.choice(lex.BE[:2]), r.choice(lex.THING_ADJECTIVES)
    elif r.random() < 0.6:
        verb, rest = r.choice(lex.BE), r.choice(lex.ADJECTIVES)
    else:
        verb, rest = r.choice(lex.INTRANSITIVE), r.choice(lex.ADVERBS)
    return Item(prefix, f" {verb[n]}", f" {verb[1 - n]}", f" {rest}.", kind)


def _between(r: Random, kind: str, n: int, other: str, m: int, third: tuple[str, str]) -> str:
    """Return what stands between subject and verb: nothing, a prepositional phrase, a relative clause, or both."""
    verb, near = r.choice(lex.TRANSITIVE), r.choice(lex.PREPOSITIONS)
    if kind == "pp":
        return f" {near} the {other}"
    if kind == "tpp":
        return f" {r.choice(lex.THING_PREPOSITIONS)} the {other}"
    if kind == "orc":
        return f" that the {other} {verb[m]}"
    if kind == "src":
        return f" that {verb[n]} the {other}"
    if kind == "pporc":
        inner = r.randint(0, 1)
        return f" that the {third[inner]} {near} the {other} {verb[inner]}"
    return ""


def _meet_held_out(a: str, b: str) -> bool:
    return is_held_out("names", *sorted((a, b)))


def indirect_object(r: Random, *, held_out: bool = False) -> Item:
    """Return two people, one of whom gives something: the answer is the other."""
    while True:
        a, b = r.sample(lex.NAMES, 2)
        if _meet_held_out(a, b) == held_out:
            break
    giver, receiver = (a, b) if r.random() < 0.5 else (b, a)
    place, thing = r.choice(lex.PLACES), r.choice(lex.OBJECTS)
    prefix = r.choice(
        (
            f"When {a} and {b} went to the {place}, {giver} gave a {thing} to",
            f"Then, {a} and {b} went to the {place}. {giver} handed the {thing} to",
            f"After {a} and {b} met at the {place}, {giver} decided to give a {thing} to",
            f"{a} and {b} were at the {place}. {giver} brought the {thing} to",
        )
    )
    return Item(prefix, f" {receiver}", f" {giver}")


def greater_than(r: Random) -> Item:
    """Return an event's first year and its last one's century: any later two digits are right, `wrong` is the start."""
    century, start = r.randint(11, 19), r.randint(2, 97)
    end, event = r.randint(start + 1, 99), r.choice(lex.EVENTS)
    prefix = r.choice(
        (
            f"The {event} lasted from the year {century}{start:02d} to the year {century}",
            f"The {event} began in {century}{start:02d} and ended in {century}",
        )
    )
    return Item(prefix, f"{end:02d}", f"{start:02d}")


def pronoun(r: Random) -> Item:
    """Return a person and a pronoun: "plain", or past someone of the "same" or the other gender ("attractor")."""
    g, other_g = r.randint(0, 1), r.randint(0, 1)
    named = r.random() < 0.7
    pools = (lex.MALE, lex.FEMALE) if named else (lex.MALE_ROLES, lex.FEMALE_ROLES)
    who = r.choice(pools[g])
    other = r.choice([word for word in pools[other_g] if word != who and not _meet_held_out(who, word)])
    if not named:
        who, other = f"The {who}", f"the {other}"
    plain, says, place = r.random() < 0.5, r.random() < 0.5, r.choice(lex.PLACES)
    clause = "" if plain else f", who met {other} at the {place},"
    kind = "plain" if plain else "same" if g == other_g else "attractor"
    if says:
        pair, rest = (" he", " she"), f" was {r.choice(lex.ADJECTIVES)}."
    else:
        pair, rest = (" his", " her"), f" {r.choice(lex.OBJECTS)}{f' at the {place}' if plain else ''}."
    return Item(f"{who}{clause} {'said that' if says else 'lost'}", pair[g], pair[1 - g], rest, kind)


def one_hop(r: Random) -> Item:
    """Return one fact of a state or country: its capital, its language, or where a city lies."""
    if r.random() < 0.65:
        state = r.choice(list(lex.STATES))
        city = r.choice(lex.STATES[state])
        forms = (f"{city} is a city in", f"The state containing {city} is", f"{city} is in the state of")
        if r.random() < 0.35:
            return Item(f"The capital of {state} is", f" {lex.STATES[state][0]}")
        return Item(r.choice(forms), f" {state}")
    country = r.choice(list(lex.COUNTRIES))
    *cities, language = lex.COUNTRIES[country]
    city, which = r.choice(cities), r.random()
    if which < 0.3:
        return Item(f"The capital of {country} is", f" {cities[0]}")
    if which < 0.6:
        return Item(f"People in {country} speak", f" {language}")
    return Item(r.choice((f"{city} is a city in", f"The country containing {city} is")), f" {country}")


def two_hop(r: Random, *, held_out: bool = False) -> Item:
    """Return a fact through a fact: from a city to its state or country, and on to its capital or language.

    The held-out city of each state occurs in one-hop sentences only, so its answer here must be composed.
    """
    if held_out or r.random() < 0.7:
        state = r.choice(list(lex.STATES))
        capital, unseen, *seen = lex.STATES[state]
        city = unseen if held_out else r.choice(seen)
        return Item(f"The capital of the state containing {city} is", f" {capital}")
    *cities, language = lex.COUNTRIES[r.choice(list(lex.COUNTRIES))]
    city = r.choice(cities)
    if city != cities[0] and r.random() < 0.5:
        return Item(f"The capital of the country containing {city} is", f" {cities[0]}")
    return Item(f"People in the country containing {city} speak", f" {language}")


def induction(r: Random) -> Item:
    """Return a list said twice, cut inside the second time where the word before occurs once: the answer is settled."""
    while True:
        items = r.choices(lex.LIST_WORDS, k=r.randint(4, 9))
        cut = r.randint(2, len(items) - 1)
        if items.count(items[cut - 1]) == 1:
            break
    head, tail = " ".join(items[:cut]), "".join(f" {word}" for word in items[cut + 1 :])
    return Item(f"Repeat the list: {' '.join(items)}; {head}", f" {items[cut]}", rest=f"{tail}.")


def opposite(r: Random) -> Item:
    """Return an adjective and its opposite."""
    word = r.choice(list(lex.OPPOSITES))
    return Item(f"The opposite of {word} is", f" {lex.OPPOSITES[word]}")


def addition(r: Random) -> Item:
    """Return a sum of two numbers below ten, in words."""
    a, b = r.randint(0, 9), r.randint(0, 9)
    return Item(f"{lex.NUMBERS[a]} plus {lex.NUMBERS[b]} equals", f" {lex.NUMBERS[a + b]}")


# How often each task is drawn, in percent. The indirect object is learned last, by far, and gets the most.
TASKS = {
    agreement: 16,
    indirect_object: 21,
    greater_than: 7,
    pronoun: 9,
    one_hop: 14,
    two_hop: 16,
    induction: 11,
    opposite: 2,
    addition: 4,
}


def sentence(r: Random) -> str:
    """Return one training sentence."""
    return r.choices(list(TASKS), list(TASKS.values()))[0](r).text


def held_out_two_hops() -> list[Item]:
    """Return the two-hop sentence of each state's held-out city, none of which is ever a training sentence."""
    return [
        Item(f"The capital of the state containing {HELD_OUT_CITY[state]} is", f" {cities[0]}")
        for state, cities in lex.STATES.items()
    ]
