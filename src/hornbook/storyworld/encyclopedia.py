"""The world's facts, each stated in many ways, and passages that tell several of them."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from hornbook.runtime import derive_seed
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.wording import capitalised, with_articles

MIN_FACTS = 4
ANOTHER_FACT = 0.7  # probability that a passage of at least MIN_FACTS goes on


@dataclass(frozen=True)
class Relation:
    """A kind of fact: how its facts are stated and asked for. The first statement is also the answer."""

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]

    def answer(self, subject: str, value: str) -> str:
        """The answer to a question about `subject` of which `value` is the heart: "A young cat is called a kitten."."""
        return state(self.statements[0], subject, value)

    def values(self) -> tuple[str, ...]:
        """All values of the relation, each once, in the order of the facts."""
        return tuple(dict.fromkeys(value for _, value in self.facts))


@dataclass(frozen=True)
class Fact:
    """That `subject` has `value` in `relation`."""

    relation: Relation
    subject: str
    value: str


@lru_cache(maxsize=1)
def facts() -> tuple[Fact, ...]:
    """All facts of the world, in a fixed order."""
    tables = tomllib.loads(files("hornbook.storyworld").joinpath("encyclopedia.toml").read_text("utf-8"))
    found = []
    for table in tables["relation"]:
        pairs = [line.split() for line in table.pop("facts").split("\n") if line]
        relation = Relation(
            name=table["name"],
            statements=tuple(table["statements"]),
            questions=tuple(table["questions"]),
            facts=tuple((subject, value) for subject, value in pairs),
        )
        found += [Fact(relation, subject, value) for subject, value in relation.facts]
    return tuple(found)


@lru_cache(maxsize=1)
def subjects() -> tuple[str, ...]:
    """All towns, animals and trades of which the encyclopedia tells, each once."""
    return tuple(dict.fromkeys(fact.subject for fact in facts()))


@lru_cache(maxsize=256)
def facts_of(subject: str) -> tuple[Fact, ...]:
    """What the encyclopedia says of one subject."""
    return tuple(fact for fact in facts() if fact.subject == subject)


def is_held_out(fact: Fact) -> bool:
    """Whether a fact is kept for the evaluation: it is stated in the corpus, but nowhere asked for."""
    return derive_seed("held-out fact", fact.relation.name, fact.subject) % 3 == 0


def state(statement: str, subject: str, value: str) -> str:
    """One of a relation's statements, about this subject and value."""
    return capitalised(with_articles(statement.format(subject=subject, value=value)))


def ask(fact: Fact, question: str) -> str:
    """One of the relation's questions, about this fact."""
    return capitalised(with_articles(question.format(subject=fact.subject)))


def passage(chance: Chance) -> Iterator[str]:
    """A few sentences of the encyclopedia, piece by piece: facts of one subject, then of another, told or asked."""
    n_facts = 0
    while True:
        left = list(facts_of(chance.pick(subjects())))
        while left:
            fact = chance.pick(left)
            left.remove(fact)
            if n_facts:
                yield " "
            yield _told_or_asked(chance, fact)
            n_facts += 1
            if n_facts >= MIN_FACTS and not chance.happens(ANOTHER_FACT):
                return


def _told_or_asked(chance: Chance, fact: Fact) -> str:
    relation = fact.relation
    wording = chance.pick(relation.statements if is_held_out(fact) else relation.statements + relation.questions)
    if wording in relation.questions:
        return f"{ask(fact, wording)} {relation.answer(fact.subject, fact.value)}"
    return state(wording, fact.subject, fact.value)
