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
    """A kind of fact: how its facts are stated, asked for and answered."""

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    facts: tuple[tuple[str, str], ...]

    def answer_with(self, value: str) -> str:
        """The short answer of which `value` is the heart: "A kitten."."""
        return capitalised(with_articles(self.answer.format(value=value)))

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
            answer=table["answer"],
            facts=tuple((subject, value) for subject, value in pairs),
        )
        found += [Fact(relation, subject, value) for subject, value in relation.facts]
    return tuple(found)


@lru_cache(maxsize=1)
def _facts_by_subject() -> dict[str, tuple[Fact, ...]]:
    return {fact.subject: tuple(f for f in facts() if f.subject == fact.subject) for fact in facts()}


def is_held_out(fact: Fact) -> bool:
    """Whether a fact is kept for the evaluation: it is stated in the corpus, but nowhere asked for."""
    return derive_seed("held-out fact", fact.relation.name, fact.subject) % 3 == 0


def ask(fact: Fact, question: str) -> str:
    """One of the relation's questions, about this fact."""
    return capitalised(with_articles(question.format(subject=fact.subject)))


def passage(chance: Chance) -> Iterator[str]:
    """A few sentences of the encyclopedia, piece by piece: facts of one subject, then of another, told or asked."""
    n_facts = 0
    while True:
        subject = chance.pick(tuple(_facts_by_subject()))
        left = list(_facts_by_subject()[subject])
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
        return f"{ask(fact, wording)} {relation.answer_with(fact.value)}"
    return capitalised(with_articles(wording.format(subject=fact.subject, value=fact.value)))
